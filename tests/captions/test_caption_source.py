import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import caption_rows, make_store

from ajbench.captions.caption_source import Clips, of_store, of_table
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Row


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def clips(rows, **how):
    return Clips(lambda: rows, "test", **how)


def test_a_store_and_its_manifest_have_the_same_clips(tmp_path):
    store = make_store(tmp_path / "store", train=5, evaluated=3)
    found = [(row.clip_id, list(row.labels), row.split) for row in of_store(tmp_path / "store")()]
    assert found == [(clip.clip_id, clip.labels, clip.split) for clip in store]
    rows = [Row(*one[:1], "", labels=tuple(one[1]), split=one[2]) for one in found]
    Manifest(rows, LabelSet(tuple(store.meta.labels))).write(tmp_path / "m.parquet")
    assert list(of_table(tmp_path / "m.parquet")()) == rows
    assert clips(rows).count == Clips(of_store(tmp_path / "store"), "store").count


def test_a_table_is_read_with_what_it_has(tmp_path):
    text = "clip_id,labels,split,visual_caption,start_s\na,Dog; Rain,test,a dog,1.5\nb,,,,\n"
    read = of_table(write(tmp_path / "t.csv", text))
    first = Row("a", "", 1.5, labels=("Dog", "Rain"), split="eval", visual_caption="a dog")
    assert list(read()) == list(read()) == [first, Row("b", "")]
    for labels in (["Dog", "Rain"], "Dog; Rain"):
        cells = {"clip_id": [7], "labels": [labels], "split": ["Test"], "video": [""]}
        pq.write_table(pa.table(cells), tmp_path / "t.parquet")
        assert list(of_table(tmp_path / "t.parquet")()) == [
            Row("7", "", labels=("Dog", "Rain"), split="eval")
        ]


CELLS = {
    "json": ['"[""Dog"", ""Rain""]"', "Dog", "Rain"],
    "python": ["\"['Dog', 'Rain']\"", "['Dog']", "['Rain']"],
    "bar": ["Dog|Rain", "Dog", "Rain"],
    "comma": ['"Dog, Rain"', "Dog", "Rain"],
}


@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
def test_labels_are_written_as_in_other_tables(tmp_path, cells):
    path = write(
        tmp_path / "t.csv", "\n".join(["clip_id,labels", *(f"{k},{cells[k % 3]}" for k in range(9))])
    )
    found = [row.labels for row in of_table(path)()]
    assert found == [("Dog", "Rain"), ("Dog",), ("Rain",)] * 3
    texts = [next(csv.reader([cell]))[0] for cell in cells]
    pq.write_table(pa.table({"clip_id": [*"abc"], "labels": texts}), tmp_path / "t.parquet")
    assert [row.labels for row in of_table(tmp_path / "t.parquet")()] == found[:3]


@pytest.mark.parametrize(("name", "split"), [("balanced_train_segments", "train"), ("eval_segments", "eval")])
def test_segment_lists_are_read(tmp_path, name, split):
    path = write(tmp_path / f"{name}.csv", '# YTID\n--PJHxphWEs,30,40,"/m/09x0r,/t/dd00088"\n')
    row = next(of_table(path)())
    assert (row.clip_id, row.start_s, row.duration_s) == ("--PJHxphWEs", 30.0, 10.0)
    assert (row.labels, row.split, row.recording) == (("Speech", "Gush"), split, "youtube:--PJHxphWEs")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("clip,labels\na,Dog\n", "clip_id"),
        ("clip_id,labels\na,Dog,more\n", ":2"),
        ("clip_id,labels,split\na,Dog,middle\n", "middle"),
        ("clip_id,labels,start_s\na,Dog,soon\n", "soon"),
        ("clip_id,labels,start_s\na,Dog,nan\n", "nan"),
        ("clip_id,labels,duration_s\na,Dog,-3\n", "-3"),
        ("clip_id,labels\n,Dog\n", "clip_id"),
        ('short,0,10,"/m/09x0r"\n', "short"),
        ('--PJHxphWEs,0,10,"/m/none"\n', "/m/none"),
        ("", "no clip"),
    ],
)
def test_bad_tables_are_refused_with_the_line(tmp_path, text, where):
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(UsageError, match=where):
        Clips(of_table(path), str(path)).count  # noqa: B018


@pytest.mark.parametrize(
    "cells", [{"split": "middle"}, {"clip_id": None}, {"start_s": float("nan")}, {"labels": 3}]
)
def test_bad_rows_of_parquet_are_refused_with_their_number(tmp_path, cells):
    columns = {"clip_id": "a", "labels": ["Dog"]} | cells
    pq.write_table(pa.table({name: [cell] for name, cell in columns.items()}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"t\.parquet, row 1: "):
        list(of_table(tmp_path / "t.parquet")())


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(MissingError, match="none"):
        of_table(tmp_path / "none.csv")
    with pytest.raises(IntegrityError, match="bad"):
        list(of_table(write(tmp_path / "bad.parquet", "PAR1"))())
    pq.write_table(pa.table({"clip_id": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="labels"):
        list(of_table(tmp_path / "t.parquet")())


def test_evaluation_clips_and_their_recordings_are_left_out_and_counted():
    held = [Row("e1", "", labels=("Dog",), split="eval", recording="r1"), Row("v", "", split="val")]
    rows = [Row("t1", "", labels=("Dog",)), Row("t2", "", labels=("Dog",), recording="r1"), *held]
    rows += [Row("r1", "", labels=("Dog",)), Row("t3", "")]
    assert [row.clip_id for row in clips(rows)] == ["t1"]
    count = clips(rows).count
    assert count.clips == count.single == 1 and count.unlabelled == 1
    assert sum(count.excluded.values()) == 4
    assert [row.clip_id for row in clips(rows, evaluation=True)] == ["t1", "t2", "e1", "r1"]


@pytest.mark.parametrize("content", ["c0001\nr0004\n", "clip_id,x\nc0001,1\nc0004,2\n"])
def test_listed_clips_and_recordings_are_left_out(tmp_path, content):
    path = write(tmp_path / "list.csv", content)
    rows = [*caption_rows(6), Row("other", "", labels=("Dog",), recording="r0001")]
    left = [row.clip_id for row in clips(rows, exclude=path)]
    assert left == ["c0000", "c0002", "c0003", "c0005"]


def test_ids_are_unique_and_some_clip_is_left():
    with pytest.raises(UsageError, match="c0002"):
        clips([*caption_rows(4), caption_rows(4)[2]]).count  # noqa: B018
    with pytest.raises(UsageError, match="include-eval"):
        clips(caption_rows(3, split="eval")).count  # noqa: B018


def test_the_digest_depends_on_what_captions_are_made_of():
    plain = clips(caption_rows(5)).count.digest
    assert plain == clips(caption_rows(5)).count.digest
    others = [caption_rows(4), caption_rows(5, visual_caption="a dog"), caption_rows(5, start_s=2.0)]
    assert len({plain, *(clips(rows).count.digest for rows in others)}) == 4


def test_the_content_of_videos_counts_where_captions_are_made_of_them(tmp_path):
    path, digests = tmp_path / "v.mp4", set()
    for content in (b"one", b"two"):
        path.write_bytes(content)
        rows = caption_rows(3, video=str(path))
        digests.add(Clips(lambda rows=rows: rows, "test", videos=True).count.digest)
        plain = Clips(lambda rows=rows: rows, "test").count.digest
        assert plain == Clips(lambda rows=rows: rows, "test").count.digest
    assert len({*digests, plain}) == 3


def test_chunks_are_consecutive():
    chunks = list(clips(caption_rows(10)).chunks(4))
    assert [(number, len(rows)) for number, rows in chunks] == [(0, 4), (1, 4), (2, 2)]
    assert [row for _, rows in chunks for row in rows] == caption_rows(10)
