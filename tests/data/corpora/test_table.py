"""Own tables: CSV and Parquet, label sets, sides, and problems with their lines."""

import pandas
import pytest

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import table
from ajbench.data.corpora.splits import hashed_fold
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Row

TABLE = Data(corpus="table")


@pytest.fixture
def make(tmp_path):
    """make(csv text, *files) -> path of clips.csv with those (empty) files beside it."""

    def files(text, *names, table="clips.csv"):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / table).write_text(text)
        return tmp_path / table

    return files


def test_every_column(make, tmp_path):
    path = make(
        "path,labels,split,fold,start_s,duration_s,caption,clip_id,video,visual_caption,extra\n"
        "a/1.wav,dog; bark ;dog,train,1,,,,,,,x\n"
        'a/1.wav,cat,test,2,2.5,5.04,"a cat, meowing",,v.mp4,a sofa,x\n'
        "2.wav,cat,validation,,0,1,,my id,,,x\n",
        "a/1.wav",
        "2.wav",
    )
    manifest = table.read(TABLE, path)
    first = str(tmp_path / "a/1.wav")
    assert manifest.problems == []
    assert manifest.rows == [
        Row("a/1", first, labels=("dog", "bark"), split="train", fold=1),
        Row(
            "a/1@2.5", first, 2.5, 5.04, ("cat",), "eval", 2, "a cat, meowing", f"{tmp_path}/v.mp4", "a sofa"
        ),
        Row("my id", str(tmp_path / "2.wav"), 0.0, 1.0, ("cat",), "val"),
    ]
    assert manifest.label_set.names == ("bark", "cat", "dog")


def test_problems_are_named_with_their_line_and_left_out(make):
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
    manifest = table.read(TABLE, path)
    assert [row.clip_id for row in manifest.rows] == ["1", "e"]
    folder = path.parent
    assert [(p.line, p.reason, p.split) for p in manifest.problems] == [
        (4, f"none.wav: no such file in {folder}", "eval"),
        (5, "path is empty", "train"),
        (6, "labels is empty", "train"),
        (7, "split 'later' is none of train, val, valid, validation, eval, test", None),
        (8, "start_s 'soon' is not a number of seconds", "train"),
        (9, "start_s -1 is negative", "train"),
        (10, "start_s 'nan' is not a number of seconds", "train"),
        (11, "duration_s 0 is not above 0", "train"),
        (12, "start_s '1e400' is not a number of seconds", "train"),
        (13, "2 cells in the row, 6 in the header", None),
        (14, f"clip id '1' occurs twice; first used by {folder}/1.wav", "train"),
    ]


@pytest.mark.parametrize("separator", [";", ",", "|"])
def test_the_label_separator_is_the_one_declared(make, separator):
    joined = separator.join(["Male speech", "a;b,c|d".replace(separator, "-")])
    path = make(f'path,labels,split\n1.wav,"{joined}",train\n2.wav,dog,eval\n', "1.wav", "2.wav")
    manifest = table.read(Data(corpus="table", label_separator=separator), path)
    assert manifest.rows[0].labels == ("Male speech", "a;b,c|d".replace(separator, "-"))


@pytest.mark.parametrize(
    "name", ["label_set.csv", "labels.csv", "clips.labels.csv", "class_labels_indices.csv"]
)
def test_a_label_set_beside_the_table_rules(make, tmp_path, name):
    (tmp_path / name).write_text("index,mid,display_name\n1,/m/2,dog\n0,/m/1,cat\n2,/m/3,owl\n")
    path = make(
        "path,labels,split\n1.wav,dog,train\n2.wav,/m/1;cat,eval\n3.wav,dogg,train\n",
        "1.wav", "2.wav", "3.wav",
    )  # fmt: skip
    for root in (path, tmp_path):
        manifest = table.read(TABLE, root)
        assert manifest.label_set == LabelSet(("cat", "dog", "owl"), ("/m/1", "/m/2", "/m/3"))
        assert [row.labels for row in manifest.rows] == [("dog",), ("cat",)]
        assert [(p.line, p.reason) for p in manifest.problems] == [
            (4, "label 'dogg' is not in the label set, did you mean 'dog'?")
        ]


def test_sides_from_folds(make):
    text = "path,labels,fold\n" + "".join(f"{i}.wav,dog,{i}\n" for i in range(1, 5))
    path = make(text + "1.wav,dog,zero\n9.wav,dog,2\n", *[f"{i}.wav" for i in range(1, 5)])
    manifest = table.read(Data(corpus="table", eval_fold=2), path)
    assert [row.split for row in manifest.rows] == ["train", "eval", "train", "train"]
    assert [(p.line, p.reason.split(":")[0], p.split) for p in manifest.problems] == [
        (6, "fold 'zero' is not a number from 1 on", None),
        (7, "9.wav", "eval"),
    ]
    assert table.read(TABLE, path).rows[3].split == "eval"
    with pytest.raises(UsageError, match=r"data.eval_fold=7: no such fold; allowed: 1, 2, 3, 4"):
        table.read(Data(corpus="table", eval_fold=7), path)


def test_split_column_unless_a_fold_is_asked_for(make):
    path = make("path,labels,split,fold\n1.wav,a,train,1\n2.wav,a,eval,2\n", "1.wav", "2.wav")
    assert [row.split for row in table.read(TABLE, path).rows] == ["train", "eval"]
    asked = table.read(Data(corpus="table", eval_fold=1), path)
    assert [row.split for row in asked.rows] == ["eval", "train"]


def test_an_eval_fold_without_folds_is_refused(make):
    path = make("path,labels,split\n1.wav,a,train\n2.wav,a,eval\n", "1.wav", "2.wav")
    with pytest.raises(UsageError, match="has a column 'split' and no column 'fold'"):
        table.read(Data(corpus="table", eval_fold=1), path)


def test_neither_split_nor_fold_gives_hashed_folds(make):
    names = [f"{i}.wav" for i in range(20)]
    manifest = table.read(TABLE, make("path,labels\n" + "".join(f"{n},a\n" for n in names), *names))
    assert [row.fold for row in manifest.rows] == [hashed_fold(str(i)) for i in range(20)]
    assert {row.fold for row in manifest.split("eval")} == {5}


def test_parquet_reads_as_csv_does(make, tmp_path):
    make("", "1.wav", "2.wav", "3.wav", table="unused.txt")
    frame = pandas.DataFrame(
        {
            "path": ["1.wav", "2.wav", "3.wav", "4.wav"],
            "labels": [["a;b", "c"], ["c"], None, ["c"]],
            "fold": [1.0, 2.0, 1.0, None],
            "start_s": [0.0, None, 1.0, 1.0],
        }
    )
    frame.to_parquet(tmp_path / "mine.parquet")
    manifest = table.read(TABLE, tmp_path)
    assert [(row.clip_id, row.labels, row.fold, row.start_s, row.split) for row in manifest.rows] == [
        ("1", ("a;b", "c"), 1, 0.0, "train"),
        ("2", ("c",), 2, 0.0, "eval"),
    ]
    assert [(p.line, p.reason) for p in manifest.problems] == [
        (3, "labels is empty"),
        (4, "fold '' is not a number from 1 on"),
    ]


def test_a_written_manifest_is_a_corpus(make, tmp_path):
    path = make("path,labels,split\n1.wav,dog,train\n2.wav,cat;dog,eval\n", "1.wav", "2.wav")
    manifest = table.read(TABLE, path)
    path.unlink()
    for name in ("manifest.csv", "manifest.parquet"):
        manifest.write(tmp_path / name)
        again = table.read(TABLE, tmp_path)
        assert again == Manifest(manifest.rows, manifest.label_set)
        (tmp_path / name).unlink()


def test_the_table_of_a_folder(make, tmp_path):
    with pytest.raises(MissingError, match=r"no table; expected manifest.parquet, manifest.csv, clips.csv"):
        table.find_table(tmp_path)
    (tmp_path / "labels.csv").touch()
    (tmp_path / "b.csv").touch()
    assert table.find_table(tmp_path).name == "b.csv"
    (tmp_path / "a.parquet").touch()
    with pytest.raises(UsageError, match=r"several tables \(a.parquet, b.csv\); name one"):
        table.find_table(tmp_path)
    (tmp_path / "clips.csv").touch()
    assert table.find_table(tmp_path).name == "clips.csv"
    (tmp_path / "manifest.csv").touch()
    with pytest.raises(UsageError, match=r"several tables \(manifest.csv, clips.csv\)"):
        table.find_table(tmp_path)
    (tmp_path / "notes.xlsx").touch()
    with pytest.raises(UsageError, match=r"notes.xlsx: a table is .csv or .parquet"):
        table.find_table(tmp_path / "notes.xlsx")
    with pytest.raises(MissingError, match="no such file or folder"):
        table.find_table(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("file,labels\n", UsageError, "column 'path' is missing; found: file, labels"),
        ("path,label\n", UsageError, "column 'labels' is missing, did you mean 'label'"),
        ("path,labels\n", MissingError, "no usable clip"),
        ("path,labels\nx.wav,a\n", MissingError, "first problem, line 2: x.wav: no such file"),
        ("path,labels,split\n1.wav,a,train\n", MissingError, "no clips in split 'eval'; found: train"),
    ],
)
def test_a_table_that_cannot_be_used(make, text, error, message):
    with pytest.raises(error, match=message):
        table.read(TABLE, make(text, "1.wav"))


def test_a_subset_is_refused(make):
    path = make("path,labels,fold\n1.wav,a,1\n2.wav,a,2\n", "1.wav", "2.wav")
    with pytest.raises(UsageError, match=r"data.subset=esc10: corpus table has no such subset; it has none"):
        table.read(Data(corpus="table", subset="esc10"), path)


def test_no_root_and_no_parquet(tmp_path):
    with pytest.raises(UsageError, match="--data FILE"):
        table.read(TABLE, None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"a.parquet: not readable as Parquet"):
        table.read(TABLE, tmp_path / "a.parquet")
    pandas.DataFrame({"path": ["a"], "label": ["x"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="column 'labels' is missing, did you mean 'label'"):
        table.read(TABLE, tmp_path / "a.parquet")


def test_linked_files_keep_their_names(make, tmp_path, tmp_path_factory):
    annex = tmp_path_factory.mktemp("annex") / "SHA256E-s1234.wav"
    annex.touch()
    path = make("path,labels,split\ndog.wav,dog,train\n2.wav,dog,eval\n", "2.wav")
    (tmp_path / "dog.wav").symlink_to(annex)
    assert table.read(TABLE, path).rows[0].clip_id == "dog"
