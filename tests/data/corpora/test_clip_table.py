"""Tables of one's own clips: CSV and Parquet, label sets, splits and folds, problems with their lines."""

import time

import pandas
import pyarrow as pa
import pytest
from fakes import check_problems

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import clip_table, table_files
from ajbench.data.corpora.splits import hashed_fold
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Row

TABLE = Data(corpus="table")


@pytest.fixture
def make(touch):
    """make(csv text, *files) -> path of clips.csv next to these (empty) files."""

    def build(text, *names):
        path = touch(*names) / "clips.csv"
        path.write_text(text)
        return path

    return build


def test_every_column(make, tmp_path):
    text = (
        "path,labels,split,fold,start_s,duration_s,caption,clip_id,video,visual_caption,extra,recording\n"
        "a/1.wav,dog; bark ;dog,train,1,,,,,,,x,\n"
        'a/1.wav,cat,test,2,2.5,5.04,"a cat, meowing",,v.mp4,a sofa,x,youtube:abcdefghijk\n'
        "2.wav,cat,validation,,0,1,,my id,,,x,\n"
    )
    manifest = clip_table.read(TABLE, make(text, "a/1.wav", "2.wav"))
    first, video = str(tmp_path / "a/1.wav"), str(tmp_path / "v.mp4")
    assert manifest.problems == []
    assert manifest.rows == [
        Row("a/1", first, labels=("dog", "bark"), split="train", fold=1, recording="a/1.wav"),
        Row(
            "a/1@2.5", first, 2.5, 5.04, ("cat",), "eval", 2, "a cat, meowing", video, "a sofa",
            recording="youtube:abcdefghijk",
        ),
        Row("my id", str(tmp_path / "2.wav"), 0.0, 1.0, ("cat",), "val"),
    ]  # fmt: skip
    assert manifest.label_set.names == ("bark", "cat", "dog")


def test_clips_of_one_recording_share_a_drawn_fold(make):
    names = [f"{number}.wav" for number in range(40)]
    lines = [f"{name},a,speaker {k % 4}" for k, name in enumerate(names)]
    rows = clip_table.read(TABLE, make("\n".join(["path,labels,recording", *lines]), *names)).rows
    folds = {(row.recording, row.fold) for row in rows}
    assert len(folds) == 4 and len({fold for _, fold in folds}) > 1


def test_problems_have_their_line_and_are_left_out(make):
    path = make(
        "path,labels,split,start_s,duration_s,clip_id\n"
        "1.wav,dog,train,,,\n"  # line 2
        "1.wav,dog,eval,,,e\n"
        "none.wav,dog,eval,,,n\n"
        ",dog,train,,,\n"
        "1.wav, ; ,train,,,\n"
        "1.wav,dog,later,,,\n"
        "1.wav,dog,train,soon,,\n"
        "1.wav,dog,train,-1,,\n"
        "1.wav,dog,train,nan,,\n"
        "1.wav,dog,train,,0,\n"
        "1.wav,dog,train,1e400,,\n"
        "1.wav,dog\n"
        "./1.wav,dog,train,,,\n",
        "1.wav",
    )
    manifest = clip_table.read(TABLE, path)
    assert [row.clip_id for row in manifest.rows] == ["1", "e"]
    folder = path.parent
    check_problems(
        manifest.problems,
        (4, "n", "no such file (none.wav)", "eval"),
        (5, None, "path", "train"),
        (6, None, "labels", "train"),
        (7, None, "split 'later'", None),
        (8, None, "start_s 'soon'", "train"),
        (9, None, "start_s -1", "train"),
        (10, None, "start_s 'nan'", "train"),
        (11, None, "duration_s 0", "train"),
        (12, None, "start_s '1e400'", "train"),
        (13, None, "cells: 2", None),
        (14, "1", f"occurs twice ('1', first used by {folder}/1.wav)", "train"),
    )


@pytest.mark.parametrize("separator", [";", ",", "|"])
def test_the_label_separator_is_an_option(make, separator):
    joined = separator.join(["Male speech", "a;b,c|d".replace(separator, "-")])
    path = make(f'path,labels,split\n1.wav,"{joined}",train\n2.wav,dog,eval\n', "1.wav", "2.wav")
    manifest = clip_table.read(Data(corpus="table", label_separator=separator), path)
    assert manifest.rows[0].labels == ("Male speech", "a;b,c|d".replace(separator, "-"))


@pytest.mark.parametrize(
    "name", ["label_set.csv", "labels.csv", "clips.labels.csv", "class_labels_indices.csv"]
)
def test_a_label_set_next_to_the_table_is_used(make, tmp_path, name):
    (tmp_path / name).write_text("index,mid,display_name\n1,/m/2,dog\n0,/m/1,cat\n2,/m/3,owl\n")
    path = make(
        "path,labels,split\n1.wav,dog,train\n2.wav,/m/1;cat,eval\n3.wav,dogg,train\n",
        "1.wav", "2.wav", "3.wav",
    )  # fmt: skip
    for root in (path, tmp_path):
        manifest = clip_table.read(TABLE, root)
        assert manifest.label_set == LabelSet(("cat", "dog", "owl"), ("/m/1", "/m/2", "/m/3"))
        assert [row.labels for row in manifest.rows] == [("dog",), ("cat",)]
        check_problems(manifest.problems, (4, None, "'dogg' is not in the label set", "train"))


def test_splits_from_folds(make):
    text = "path,labels,fold\n" + "".join(f"{i}.wav,dog,{i}\n" for i in range(1, 5))
    path = make(text + "1.wav,dog,zero\n9.wav,dog,2\n", *[f"{i}.wav" for i in range(1, 5)])
    manifest = clip_table.read(Data(corpus="table", eval_fold=2), path)
    assert [row.split for row in manifest.rows] == ["train", "eval", "train", "train"]
    check_problems(manifest.problems, (6, None, "fold 'zero'", None), (7, None, "9.wav", "eval"))
    assert clip_table.read(TABLE, path).rows[3].split == "eval"
    with pytest.raises(UsageError, match=r"data\.eval_fold=7.* 1, 2, 3, 4"):
        clip_table.read(Data(corpus="table", eval_fold=7), path)


def test_the_split_column_is_used_unless_a_fold_is_requested(make):
    path = make("path,labels,split,fold\n1.wav,a,train,1\n2.wav,a,eval,2\n", "1.wav", "2.wav")
    assert [row.split for row in clip_table.read(TABLE, path).rows] == ["train", "eval"]
    asked = clip_table.read(Data(corpus="table", eval_fold=1), path)
    assert [row.split for row in asked.rows] == ["eval", "train"]
    without_folds = make("path,labels,split\n1.wav,a,train\n2.wav,a,eval\n")
    with pytest.raises(UsageError, match=r"data\.eval_fold=1"):
        clip_table.read(Data(corpus="table", eval_fold=1), without_folds)


def test_folds_are_hashed_without_split_and_fold(make):
    names = [f"{i}.wav" for i in range(20)]
    manifest = clip_table.read(TABLE, make("path,labels\n" + "".join(f"{n},a\n" for n in names), *names))
    assert [row.fold for row in manifest.rows] == [hashed_fold(str(i)) for i in range(20)]
    assert {row.fold for row in manifest.split("eval")} == {5}


def test_parquet_is_read_like_csv(touch, tmp_path):
    touch("1.wav", "2.wav", "3.wav")
    columns = {
        "path": ["1.wav", "2.wav", "3.wav", "4.wav"],
        "labels": [["a;b", "c"], ["c"], None, ["c"]],
        "fold": [1.0, 2.0, 1.0, None],
        "start_s": [0.0, None, 1.0, 1.0],
    }
    pandas.DataFrame(columns).to_parquet(tmp_path / "mine.parquet")
    manifest = clip_table.read(TABLE, tmp_path)
    assert [(row.clip_id, row.labels, row.fold, row.start_s, row.split) for row in manifest.rows] == [
        ("1", ("a;b", "c"), 1, 0.0, "train"),
        ("2", ("c",), 2, 0.0, "eval"),
    ]
    check_problems(manifest.problems, (3, None, "labels", "train"), (4, None, "fold ''", None))


def test_a_written_manifest_is_a_table(make, tmp_path):
    path = make("path,labels,split\n1.wav,dog,train\n2.wav,cat;dog,eval\n", "1.wav", "2.wav")
    manifest = clip_table.read(TABLE, path)
    path.unlink()
    for name in ("manifest.csv", "manifest.parquet"):
        manifest.write(tmp_path / name)
        again = clip_table.read(TABLE, tmp_path)
        assert again == Manifest(manifest.rows, manifest.label_set)
        (tmp_path / name).unlink()


def test_the_table_of_a_folder(touch, tmp_path):
    with pytest.raises(MissingError, match=r"manifest\.parquet, manifest\.csv, clips\.csv"):
        clip_table.find_table(touch())
    for found, several in (("b.csv", "a.parquet"), ("clips.csv", "manifest.csv")):
        touch("labels.csv", found)
        assert clip_table.find_table(tmp_path).name == found
        touch(several)
        with pytest.raises(UsageError, match=rf"{several}.*--data"):
            clip_table.find_table(tmp_path)
    with pytest.raises(UsageError, match=r"notes\.xlsx"):
        clip_table.find_table(touch("notes.xlsx") / "notes.xlsx")


@pytest.mark.parametrize(
    ("text", "error", "word"),
    [
        ("sound,labels\n", UsageError, "'path'.* sound, labels"),
        ("path,labelz\n", UsageError, "'labels'.* did you mean 'labelz'"),
        ("path,labels\n", MissingError, r"clips\.csv"),
        ("path,labels\nx.wav,a\n", MissingError, r"line 2: .*x\.wav"),
        ("path,labels,split\n1.wav,a,train\ngone.wav,a,test\n", MissingError, "'eval'.* train"),
    ],
)
def test_an_unusable_table_is_refused(make, text, error, word):
    with pytest.raises(error, match=word):
        clip_table.read(TABLE, make(text, "1.wav"))


def test_an_unusable_parquet_file_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"a\.parquet"):
        clip_table.read(TABLE, tmp_path / "a.parquet")
    pandas.DataFrame({"path": [f"{k:0100d}" for k in range(99)], "labels": "x"}).to_parquet(
        tmp_path / "a.parquet"
    )
    damaged = bytearray((tmp_path / "a.parquet").read_bytes())
    damaged[50:150] = b"x" * 100  # the schema at the end is whole
    (tmp_path / "a.parquet").write_bytes(damaged)
    with pytest.raises(UsageError, match=r"a\.parquet"):
        clip_table.read(TABLE, tmp_path / "a.parquet")
    pandas.DataFrame({"path": ["a"], "labelz": ["x"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"'labels'.* did you mean 'labelz'"):
        clip_table.read(TABLE, tmp_path / "a.parquet")


def test_linked_files_keep_their_names(make, tmp_path, tmp_path_factory):
    annex = tmp_path_factory.mktemp("annex") / "SHA256E-s1234.wav"
    annex.touch()
    path = make("path,labels,split\ndog.wav,dog,train\n2.wav,dog,eval\n", "2.wav")
    (tmp_path / "dog.wav").symlink_to(annex)
    assert clip_table.read(TABLE, path).rows[0].clip_id == "dog"


def test_the_time_of_a_table_does_not_grow_with_the_square_of_its_columns(make):
    names = [f"c{number}" for number in range(100_000)]  # with every pair compared: minutes
    rows = [f"{split}.wav,dog,{split}" + ",1" * len(names) for split in ("train", "eval")]
    path = make("\n".join([",".join(["path", "labels", "split", *names]), *rows]), "train.wav", "eval.wav")
    start = time.process_time()
    assert len(clip_table.read(TABLE, path).rows) == 2
    assert time.process_time() - start < 20
    with pytest.raises(UsageError, match="'c7' occurs more than once"):
        clip_table.read(TABLE, make("path,labels,c7,c7\n1.wav,dog,1,1\n"))


def test_of_parquet_only_columns_that_say_something_of_a_clip_are_read():
    sound = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([
        ("path", sound), ("Label", pa.list_(pa.float32())), ("split", pa.string()), ("fold", pa.int64()),
        ("tags", pa.list_(pa.string())), ("start", pa.float64()), ("dog", pa.bool_()),
        ("image", sound), ("thumbnail", pa.binary()), ("embedding", pa.list_(pa.float32())),
        ("frames", pa.list_(pa.struct([("data", pa.large_binary())]))),
        ("nearest", pa.list_(pa.float32(), 4)), ("meta", pa.struct([("title", pa.string())])),
    ])  # fmt: skip
    dropped = {"image", "thumbnail", "embedding", "frames", "nearest"}
    assert table_files.light(schema) == [name for name in schema.names if name not in dropped]
