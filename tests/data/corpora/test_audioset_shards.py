"""AudioSet from the hub's Parquet shards alone, without its lists."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import check_problems

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import audioset, audioset_shards

DOG, RAIN = "/m/0bt9lr", "/m/06mb1"
ONE, TWO, THREE, FOUR = "--PJHxphWEs", "_-aE2O5G5WE", "Y-4gqARaEJE", "0123456789a"


def write(path, rows, **names):
    """Write a shard of (video id, labels, name of the sound)."""
    columns = {"id": "video_id", "labels": "labels"} | names
    table = [
        {columns["id"]: video, columns["labels"]: labels, "audio": {"bytes": b"RIFF", "path": sound}}
        for video, labels, sound in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), path)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "data" / "bal_train" / "00.parquet", [(ONE, [DOG, RAIN], f"{ONE}.flac")])
    write(tmp_path / "data" / "bal_train" / "01.parquet", [(TWO, ["Rain"], f"{TWO}_30.000.wav")])
    write(tmp_path / "data" / "eval" / "00.parquet", [(THREE, [DOG], None)])
    return tmp_path


def test_shards_say_the_clips_their_labels_and_their_split(root):
    found = audioset.read(Data(corpus="audioset"), root)
    rows = {row.clip_id: row for row in found.rows}
    assert {name: (row.labels, row.split) for name, row in rows.items()} == {
        ONE: (("Dog", "Rain"), "train"),
        TWO: (("Rain",), "train"),
        THREE: (("Dog",), "eval"),
    }
    assert rows[TWO].path == f"{root / 'data' / 'bal_train' / '01.parquet'}::0" and rows[TWO].start_s == 0
    assert {row.recording for row in found.rows} == {f"youtube:{name}" for name in (ONE, TWO, THREE)}
    assert not found.problems and len(found.label_set) == 527
    planned = audioset.read(Data(corpus="audioset"), root, need_files=False)
    assert [(row.clip_id, row.path) for row in planned.rows] == [(name, "") for name in (ONE, TWO, THREE)]


def test_names_of_files_may_say_the_part_and_full_names_both_train_parts(root):
    write(root / "unbal_train-00000-of-00002.parquet", [(FOUR, [RAIN], f"{FOUR}.flac")])
    found = audioset.read(Data(corpus="audioset", subset="full"), root)
    assert {row.clip_id: row.subset for row in found.rows} == {
        ONE: "balanced",
        TWO: "balanced",
        FOUR: "unbalanced",
        THREE: None,
    }


def test_rows_that_are_no_clips_are_listed_with_their_shard(root):
    odd = ("short", [DOG]), (FOUR, ["/m/unknown"]), (ONE, [DOG]), ("0123456789b", [])
    shard = root / "data" / "bal_train" / "02.parquet"
    write(shard, [(video, labels, None) for video, labels in odd])
    found = audioset.read(Data(corpus="audioset"), root)
    assert [row.clip_id for row in found.rows] == [ONE, TWO, THREE]
    check_problems(
        found.problems,
        (1, "short", "is not 11 letters", "train"),
        (2, FOUR, "mid /m/unknown is neither one of", "train"),
        (3, ONE, "occurs twice; first used in line 1 of 00.parquet", "train"),
        (4, "0123456789b", "labels is empty", "train"),
    )
    assert {problem.path for problem in found.problems} == {str(shard)}


def test_a_number_without_end_in_a_name_is_no_start(root):
    write(root / "data" / "bal_train" / "02.parquet", [(FOUR, [RAIN], f"{FOUR}_{'9' * 400}.wav")])
    found = audioset.read(Data(corpus="audioset"), root)
    assert [row.clip_id for row in found.rows] == [ONE, TWO, THREE]
    check_problems(found.problems, (1, FOUR, "missing: no file is named after this id", "train"))


def test_a_part_without_shards_and_shards_without_ids_are_refused(root):
    with pytest.raises(MissingError, match=r"none of unbalanced; put them into .*unbal_train"):
        audioset.read(Data(corpus="audioset", subset="full"), root)
    write(root / "data" / "eval" / "01.parquet", [(FOUR, [DOG], None)], id="name")
    with pytest.raises(UsageError, match=r"01.parquet: needed: columns video_id and labels; found: name"):
        audioset.read(Data(corpus="audioset"), root)


def test_with_any_list_the_shards_only_hold_the_sounds(root):
    (root / "balanced_train_segments.csv").write_text(f'{ONE}, 0.000, 10.000, "{RAIN}"\n')
    with pytest.raises(MissingError, match=r"eval_segments.csv: missing; get it from"):
        audioset.read(Data(corpus="audioset"), root)
    (root / "eval_segments.csv").write_text(f'{THREE}, 0.000, 10.000, "{RAIN}"\n')
    found = audioset.read(Data(corpus="audioset"), root)
    assert {row.clip_id: row.labels for row in found.rows} == {ONE: ("Rain",), THREE: ("Rain",)}


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("data/bal_train/00.parquet", "balanced"),
        ("balanced_train-00000-of-00004.parquet", "balanced"),
        ("x/unbal_train/bal/00.parquet", "balanced"),  # the nearest folder
        ("unbalanced.parquet", "unbalanced"),
        ("EVAL/7.parquet", "eval"),
        ("evaluations/7.parquet", None),
        ("train/7.parquet", None),
    ],
)
def test_parts_are_the_beginnings_of_names(tmp_path, path, part):
    assert audioset_shards.part_of(tmp_path / path, tmp_path) == part
