"""Spoken and handwritten digits: pairs, the two splits, captions and rendered videos."""

import numpy as np
import pytest
from fakes import mp4_frames
from scipy import stats
from sklearn.linear_model import LogisticRegression

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import avdigits

SPEAKERS = ("anna", "bert", "carl", "dora", "emil", "fay")


def names(speakers=SPEAKERS, takes=3):
    return [
        f"recordings/{d}_{who}_{take}.wav" for d in range(10) for who in speakers for take in range(takes)
    ]


def data(**keys):
    return Data(corpus="avdigits", duration_s=0.84, **{"video": "tiny_video"} | keys)


def picture(row):
    return int(row.video.split(":")[2])


def written(row):
    return int(avdigits._pictures()[1][picture(row)])


def test_the_label_is_the_spoken_digit_and_the_recording_the_speaker(touch):
    manifest = avdigits.read(data(), touch(*names()))
    assert len(manifest.rows) == 180 and manifest.problems == []
    assert manifest.label_set.names[3] == "three" and len(manifest.label_set) == 10
    row = next(row for row in manifest.rows if row.clip_id == "3_bert_2")
    assert (row.labels, row.recording, row.split) == (("three",), "fsdd:bert", "train")
    assert row.path.endswith("recordings/3_bert_2.wav")
    flat = avdigits.read(data(), touch() / "recordings")
    assert flat == manifest


@pytest.mark.parametrize(
    ("fold", "evaluated"), [(None, {"emil", "fay"}), (1, {"anna", "bert"}), (2, {"carl", "dora"})]
)
def test_no_speaker_and_no_picture_is_trained_on_and_evaluated(touch, fold, evaluated):
    rows = avdigits.read(data(eval_fold=fold), touch(*names(takes=20))).rows
    speakers, pictures = (
        [{of(row) for row in rows if row.split == split} for split in ("train", "eval")]
        for of in (lambda row: row.recording, picture)
    )
    assert speakers[1] == {f"fsdd:{name}" for name in evaluated}
    assert speakers[0] == {f"fsdd:{name}" for name in set(SPEAKERS) - evaluated}
    assert not pictures[0] & pictures[1] and len(pictures[1]) > 100


@pytest.mark.parametrize("match", [0.0, 0.5, 1.0])
def test_digit_and_picture_agree_in_the_asked_share(touch, match):
    rows = avdigits.read(data(match=match), touch(*names(takes=20))).rows
    agree = [avdigits.DIGITS[written(row)] == row.labels[0] for row in rows]
    low, high = stats.binom.interval(1 - 1e-6, len(rows), match)
    assert low <= sum(agree) <= high
    if match == 0:
        distance = np.array([(written(row) - avdigits.DIGITS.index(row.labels[0])) % 10 for row in rows])
        assert stats.chisquare(np.bincount(distance, minlength=10)[1:]).pvalue > 1e-4


def test_the_visual_caption_names_the_written_digit(touch):
    rows = avdigits.read(data(), touch(*names())).rows
    for row in rows:
        found = [word for word in avdigits.DIGITS if word in row.visual_caption.lower()]
        assert found == [avdigits.DIGITS[written(row)]], row.visual_caption
    assert len({row.visual_caption for row in rows}) > 20


def test_pairs_depend_on_seed_and_clip_only(touch):
    root = touch(*names(takes=2))
    pairs = {row.clip_id: row.video for row in avdigits.read(data(), root).rows}
    more = {row.clip_id: row.video for row in avdigits.read(data(), touch(*names(takes=4))).rows}
    assert pairs.items() < more.items()
    other = avdigits.read(data(corpus_seed=1), root).rows
    assert all(row.video != pairs.get(row.clip_id) for row in other)


def test_without_video_there_are_no_pictures(touch):
    rows = avdigits.read(data(video="none"), touch(*names())).rows
    assert all(row.video is None and row.visual_caption is None for row in rows)


def test_a_video_shows_its_picture(touch):
    rows = avdigits.read(data(), touch(*names(takes=5))).rows
    content = avdigits.render(rows[0].video)
    assert avdigits.render(rows[0].video) == content != avdigits.render(rows[1].video)
    frames, rate = mp4_frames(content)
    assert frames.shape == (7, 64, 64, 3) and rate == 8
    assert 0 < np.abs(np.diff(frames.astype(int), axis=0)).mean() < 40  # it moves slightly

    videos = [row.video.replace(":0.84", ":0.25") for row in rows]
    images = [mp4_frames(avdigits.render(path))[0].mean(axis=(0, 3)) for path in videos]
    small = np.stack([image.reshape(16, 4, 16, 4).mean(axis=(1, 3)).ravel() for image in images])
    small = (small - small.mean(axis=1, keepdims=True)) / small.std(axis=1, keepdims=True)
    train = np.array([row.split == "train" for row in rows])
    digits = np.array([written(row) for row in rows])
    probe = LogisticRegression(C=0.1, max_iter=300).fit(small[train], digits[train])
    assert probe.score(small[~train], digits[~train]) > 0.6


def test_files_of_other_names_are_problems(touch):
    manifest = avdigits.read(data(), touch(*names(takes=1), "recordings/notes.wav", "recordings/12_x_0.wav"))
    assert {problem.clip_id for problem in manifest.problems} == {"notes", "12_x_0"}


@pytest.mark.parametrize(
    ("files", "keys", "error", "word"),
    [
        (["recordings/0_anna_0.mp3"], {}, MissingError, "recordings"),
        (names(("anna",)), {}, MissingError, "fold"),
        (names(), {"eval_fold": 4}, UsageError, r"data\.eval_fold=4"),
        (names(), {"subset": "esc10"}, UsageError, r"data\.subset=esc10"),
    ],
)
def test_impossible_requests_are_refused(touch, files, keys, error, word):
    with pytest.raises(error, match=word):
        avdigits.read(data(**keys), touch(*files))


@pytest.mark.parametrize(
    "path", ["avdigits:0:1797:a:1", "avdigits:0:1", "avdigits:0:1:a:x", "avdigits:-1:1:a:1", "mini:0:1:a:1"]
)
def test_paths_of_no_video_are_refused(path):
    with pytest.raises(UsageError, match=path):
        avdigits.render(path)
