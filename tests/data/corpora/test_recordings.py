"""Recordings in names of files, lists of recordings to leave out, and recordings on both sides of a split."""

from collections import Counter

import pytest
from fakes import check_problems
from pydantic import ValidationError

from ajbench.core.errors import MissingError
from ajbench.core.recipe import Data
from ajbench.data.corpora import recordings
from ajbench.data.corpora.recordings import read_corpus

SPEAKERS = r"_(\w+)_"
FSDD = [
    f"{digit}_{who}_{k}.wav" for digit in range(3) for who in ("jackson", "nicolas", "theo") for k in range(4)
]


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        (None, "7_jackson_3", None),
        (SPEAKERS, "7_jackson_3", "jackson"),
        ("youtube", "YabcdefghijK_30.000", "youtube:abcdefghijK"),
    ],
)
def test_the_recipe_says_how_a_name_gives_the_recording(pattern, name, found):
    assert recordings.in_name(Data(corpus="folder", recording_from=pattern), name) == found


@pytest.mark.parametrize("pattern", ["(", "_jackson_", "(a)(b)"])
def test_a_pattern_needs_one_group(pattern):
    with pytest.raises(ValidationError, match="recording_from"):
        Data(corpus="folder", recording_from=pattern)


def test_a_pattern_is_refused_where_no_name_is_asked():
    with pytest.raises(ValidationError, match=r"recording_from.*esc50"):
        Data(corpus="esc50", recording_from=SPEAKERS)


@pytest.mark.parametrize("corpus", ["folder", "table"])
def test_speakers_share_a_fold_and_other_names_are_problems(touch, corpus):
    if corpus == "folder":
        root = touch(*(f"{name[0]}/{name}" for name in FSDD), "0/odd.wav")
    else:
        lines = ["path,labels", *(f"{name},{name[0]}" for name in [*FSDD, "odd.wav"])]
        root = touch(*FSDD, "odd.wav", tables={"clips.csv": lines})
    manifest = read_corpus(Data(corpus=corpus, recording_from=SPEAKERS), root)
    assert Counter(row.recording for row in manifest.rows) == {"jackson": 12, "nicolas": 12, "theo": 12}
    folds = {(row.recording, row.fold) for row in manifest.rows}
    assert len(folds) == 3 and len({fold for _, fold in folds}) > 1
    assert ["data.recording_from" in problem.reason for problem in manifest.problems] == [True]


@pytest.fixture
def table(touch):
    """table(*lines, **options) -> what is read of a table of these lines: path, split, recording."""

    def make(*lines, **options):
        written = [line.split(",") for line in lines]
        rows = [f"{path},dog,{split},{recording}" for path, split, recording in written]
        names = [path for path, _, _ in written]
        root = touch(*names, tables={"clips.csv": ["path,labels,split,recording", *rows]})
        return read_corpus(Data(corpus="table", **options), root)

    return make


def test_clips_of_recordings_in_the_eval_split_are_left_out(table):
    lines = "1.wav,train,a", "2.wav,train,b", "3.wav,val,b", "4.wav,eval,b", "5.wav,train,c", "6.wav,eval,"
    manifest = table(*lines)
    assert [row.clip_id for row in manifest.rows] == ["1", "4", "5", "6"]
    check_problems(manifest.problems, (None, "2", "(b, clip 4)", "train"), (None, "3", "(b, clip 4)", "val"))
    assert recordings.left_out(manifest.problems) == {recordings.HELD_OUT: manifest.problems}
    with pytest.raises(MissingError, match="clip 2"):
        table("1.wav,train,a", "2.wav,eval,a")


@pytest.mark.parametrize(
    "text",
    [
        "-abcdefgh_3\nabcdefghijk\nabcdefghij1\n",
        "Y-abcdefgh_3.wav\nabcdefghijk_90.000.flac\nabcdefghij1_10_20.mp4\n",
        "youtube:-abcdefgh_3\nyoutube:abcdefghijk\nyoutube:abcdefghij1\n",
        "# YTID, start, end, labels\n-abcdefgh_3, 1, 11, x\nabcdefghijk, 0, 10, x\nabcdefghij1, 0, 10, x",
        'audiocap_id,youtube_id,start_time\n1,-abcdefgh_3,1\n"2",abcdefghijk,1\n\n3,abcdefghij1,1\n',
        "clip_id,labels\n-abcdefgh_3,x\nYabcdefghijk_30,x\nabcdefghij1_30.000,x\n",
    ],
)
def test_a_list_leaves_out_recordings_in_any_form(tmp_path, table, text):
    path = tmp_path / "out.list"  # not .csv, or it would be another table of the corpus
    path.write_text(text)
    lines = [
        "1.wav,train,youtube:-abcdefgh_3", "2.wav,val,youtube:abcdefghijk", "3.wav,train,youtube:abcdefghij1",
        "4.wav,train,youtube:abcdefghij2", "5.wav,eval,youtube:-abcdefgh_4",
    ]  # fmt: skip
    manifest = table(*lines, leave_out=str(path))
    assert [row.clip_id for row in manifest.rows] == ["4", "5"]
    found = recordings.left_out(manifest.problems)
    assert [problem.clip_id for problem in found[recordings.LISTED]] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("filename,fold,target,category,esc10,src_file,take\n1-1-A-0.ogg,1,0,dog,True,12,A\n", "2"),
        ("fname,labels,mids\n12,Bark,/m/1\n", "2"),
        ("12\n", "123"),  # says nothing of Freesound
        ("path,labels\n2.wav,dog\n", "13"),
        ("2.FLAC\n", "13"),
        ("recording,clip_id\n,1\nfreesound:12,3\n", "2"),
        ("clip_id,recording\n1,freesound:12\n2,\n", ""),
        ("clip_id,recording\n2,\n", "13"),
    ],
)
def test_tables_of_sounds_on_freesound_and_file_names(tmp_path, table, text, left):
    path = tmp_path / "out.list"
    path.write_text(text)
    lines = "1.wav,train,freesound:12", "2.wav,train,freesound:13", "3.wav,train,freesound:12", "4.wav,eval,"
    if left:
        kept = [row.clip_id for row in table(*lines, leave_out=str(path)).split("train")]
        assert "".join(kept) == left
    else:
        with pytest.raises(MissingError, match="no train clip remains"):
            table(*lines, leave_out=str(path))


def test_a_listed_clip_takes_the_rest_of_its_recording_along(tmp_path, table):
    (tmp_path / "out.txt").write_text("1\n")
    lines = "1.wav,train,a", "2.wav,train,a", "3.wav,train,b", "4.wav,eval,c"
    manifest = table(*lines, leave_out=str(tmp_path / "out.txt"))
    assert [row.clip_id for row in manifest.rows] == ["3", "4"]
    with pytest.raises(MissingError, match="none"):
        table(*lines, leave_out=str(tmp_path / "none.txt"))
