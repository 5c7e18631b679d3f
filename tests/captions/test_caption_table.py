import json
from multiprocessing import get_context

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import reseal

from ajbench.captions import caption_table as table
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import checksum


def record(clip, kind="audio", fallback=None):
    about = {"clip_id": clip, "kind": kind, "text": f"text of {clip}", "labels": ["Dog"], "backend": "rule"}
    return about | {"fallback": fallback}


def chunks(n=3):
    return [(number, [f"c{number}{i}" for i in range(2)]) for number in range(n)]


def make(clips):
    return [record(clip, kind) for clip in clips for kind in ("audio", "merge")]


def fill(folder, key="key", n=3, make=make):
    if not table.start(folder, key):
        table.fill(folder, lambda: chunks(n), n, make, lambda _: None)
        table.finish(folder, n, {"fingerprint": key, "counts": {"clips": 2 * n}})
    return folder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_table_is_read_back(tmp_path):
    folder = fill(tmp_path / "t")
    found = table.read(folder)
    assert found.schema == table.SCHEMA and found.num_rows == 12
    assert found.slice(1, 1).to_pylist()[0]["kind"] == "merge"
    assert table.texts(folder, "audio") == {f"c{n}{i}": f"text of c{n}{i}" for n in range(3) for i in (0, 1)}
    about = table.info(folder)
    assert about["counts"] == {"clips": 6, "rows": {"audio": 6, "merge": 6}, "fallbacks": {}}
    assert len(set(table.identity(folder))) == 3
    with pytest.raises(UsageError, match="visual"):
        table.texts(folder, "visual")


def test_fall_backs_are_counted_by_reason(tmp_path):
    reasons = iter(["HTTP 500", None, "empty answer", "HTTP 500", None, None])
    fill(tmp_path / "t", make=lambda clips: [record(clip, fallback=next(reasons)) for clip in clips])
    assert table.info(tmp_path / "t")["counts"]["fallbacks"] == {"HTTP 500": 2, "empty answer": 1}


def test_a_finished_table_is_left_alone_and_force_makes_it_anew(tmp_path):
    folder = fill(tmp_path / "t")
    before = content(folder)
    fill(folder, make=None)
    assert content(folder) == before
    with pytest.raises(IntegrityError, match=f"{folder}.*--force"):
        fill(folder, "other")
    assert not table.start(folder, "other", force=True)
    assert not (folder / table.INFO).exists() and not list(folder.glob("part-*"))


def test_an_unfinished_table_continues_only_with_the_same_settings(tmp_path):
    def stop(clips):
        if clips[0].startswith("c1"):
            raise KeyboardInterrupt
        return make(clips)

    folder, made = tmp_path / "t", []
    with pytest.raises(KeyboardInterrupt):
        fill(folder, make=stop)
    with pytest.raises(MissingError, match="_captions"):
        table.read(folder)
    with pytest.raises(IntegrityError, match="other"):
        fill(folder, "other")
    fill(folder, make=lambda clips: made.append(clips) or make(clips))
    assert [clips[0] for clips in made] == ["c10", "c20"]
    assert content(folder) == content(fill(tmp_path / "whole"))


def test_a_chunk_that_changes_before_the_table_is_finished_is_refused(tmp_path):
    table.start(tmp_path, "key")
    table.fill(tmp_path, lambda: chunks(2), 2, make, lambda _: None)
    part = tmp_path / "part-00001.parquet"
    part.write_bytes(bytes([*part.read_bytes()[:8], 0, *part.read_bytes()[9:]]))
    with pytest.raises(IntegrityError, match=r"part-00001\.parquet: damaged since"):
        table.finish(tmp_path, 2, {"fingerprint": "key", "counts": {}})
    part.unlink()
    assert content(fill(tmp_path, n=2)) == content(fill(tmp_path.with_name("whole"), n=2))


def test_chunks_of_an_unknown_job_are_refused(tmp_path):
    (tmp_path / "part-00000.parquet").write_bytes(b"mine")
    with pytest.raises(IntegrityError, match="part-00000"):
        table.start(tmp_path, "key")


@pytest.mark.parametrize("damage", ["flip", "remove", "info", "newer"])
def test_damage_is_found(tmp_path, damage):
    folder = fill(tmp_path / "t")
    part, info = folder / "part-00001.parquet", folder / table.INFO
    if damage == "flip":
        part.write_bytes(part.read_bytes()[:-1] + b"?")
    elif damage == "remove":
        part.unlink()
    elif damage == "info":
        info.write_text("{}")
    else:
        reseal(info, version=99)
    with pytest.raises(IntegrityError, match=r"_captions\.json|part-00001"):
        table.read(folder)


STRANGE = {
    "another folder": {"file": "../part-00000.parquet"},
    "another file": {"file": "/etc/hostname"},
    "no checksum": {"xxh3": None},
    "no number": {"file": 3},
}


@pytest.mark.parametrize("change", STRANGE.values(), ids=STRANGE)
def test_tables_of_strangers_stay_in_their_folder(tmp_path, change):
    folder = fill(tmp_path / "t")
    about = json.loads((folder / table.INFO).read_text())
    about["parts"][0] |= change
    reseal(folder / table.INFO, parts=about["parts"])
    with pytest.raises(IntegrityError):
        table.read(folder)


@pytest.mark.parametrize("columns", [{"text": [1, 2]}, {"kind": [b"\xff", b"\xfe"]}, {"other": [1, 2]}])
def test_chunks_of_strangers_have_our_columns(tmp_path, columns):
    folder = fill(tmp_path / "t")
    pq.write_table(pa.table({"clip_id": ["a", "b"]} | columns), folder / "part-00000.parquet")
    about = json.loads((folder / table.INFO).read_text())
    about["parts"][0]["xxh3"] = checksum(folder / "part-00000.parquet")
    reseal(folder / table.INFO, parts=about["parts"])
    with pytest.raises(IntegrityError, match="part-00000"):
        table.texts(folder, "audio")


def test_a_list_of_clips_that_shrinks_is_refused(tmp_path):
    table.start(tmp_path, "key")
    with pytest.raises(IntegrityError, match="changed"):
        table.fill(tmp_path, lambda: chunks(2), 3, make, lambda _: None)


def fill_noting(folder, notes):
    def noting(clips):
        (notes / clips[0]).touch(exist_ok=False)  # fails if another process has made it
        return make(clips)

    fill(folder, n=20, make=noting)


def test_processes_share_a_table_and_make_no_chunk_twice(tmp_path):
    (tmp_path / "notes").mkdir()
    arguments = tmp_path / "shared", tmp_path / "notes"
    workers = [get_context("fork").Process(target=fill_noting, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(list((tmp_path / "notes").iterdir())) == 20
    assert content(tmp_path / "shared") == content(fill(tmp_path / "whole", n=20))
