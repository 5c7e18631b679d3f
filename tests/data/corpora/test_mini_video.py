"""The videos of the embedded corpus: what they show, in how many clips, and that classes look different."""

import re
from collections import Counter

import numpy as np
import pytest
from fakes import mp4_frames
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ajbench.core.errors import UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import mini, mini_video
from ajbench.data.corpora.mini_canvas import Canvas
from ajbench.data.corpora.mini_scenes import LOOKS

NAMES = [name for name, _ in mini.CLASSES]


def test_every_class_has_a_scene_and_captions_without_its_name():
    assert list(LOOKS) == NAMES
    wordings = [wording for look in LOOKS.values() for wording in look.wordings]
    assert len(set(wordings)) == len(wordings) >= 2 * len(NAMES)
    for name, look in LOOKS.items():
        words = {part.strip().lower() for part in (*name.split(","), name)}
        for wording in look.wordings:
            assert not any(re.search(rf"\b{re.escape(word)}s?\b", wording) for word in words), wording


@pytest.mark.parametrize("name", NAMES)
def test_a_scene_fills_any_number_of_frames_and_moves(name):
    for n, night in ((1, True), (24, False)):
        canvas = Canvas(np.random.default_rng(n), n, night)
        LOOKS[name].paint(canvas)
        assert np.isfinite(canvas.image).all()
        frames = canvas.frames()
        assert frames.shape == (n, 64, 64, 3) and frames.dtype == np.uint8
    assert np.ptp(canvas.image, axis=0).max() > 0.2  # without the noise


def test_a_video_depends_on_its_path_only_and_is_an_mp4_of_the_clip_s_length():
    path = mini_video.video_path(3, 11, "Siren", 1.26)
    content = mini_video.render(path)
    np.random.seed(0)
    mini_video.render(mini_video.video_path(3, 12, "Siren", 1.26))
    assert mini_video.render(path) == content
    frames, rate = mp4_frames(content)
    assert frames.shape == (11, 64, 64, 3) and rate == 8  # the last frame lasts beyond 1.26 s
    others = [(3, 12, "Siren", 1.26), (4, 11, "Siren", 1.26), (3, 11, "Rain", 1.26)]
    assert content not in [mini_video.render(mini_video.video_path(*other)) for other in others]
    longer = mp4_frames(mini_video.render(mini_video.video_path(3, 11, "Siren", 5.04)))[0]
    assert len(longer) == 41


def test_the_videos_of_seed_0_never_change():
    rows = mini.read(Data(n_clips=5, video="tiny_video")).rows
    assert [(row.video, row.visual_caption) for row in rows[:3]] == [
        ("mini:0:0:1:5.04", "A brown dog opens its snout and wags its tail"),
        ("mini:0:1:0:5.04", "A newborn opens its mouth under a blanket"),
        ("mini:0:2:11:5.04", "A telephone stands on a table and trembles in daylight"),
    ]
    mean = mp4_frames(mini_video.render(rows[0].video))[0].mean(axis=(0, 1, 2))
    assert mean == pytest.approx([160.6, 187.6, 155.8], abs=1)


def test_the_other_columns_are_those_without_video():
    plain, seen = (mini.read(Data(n_clips=30, video=video)).rows for video in ("none", "tiny_video"))
    assert all(row.video is None and row.visual_caption is None for row in plain)
    keys = ("clip_id", "path", "labels", "caption", "split", "fold", "duration_s")
    for a, b in zip(plain, seen, strict=True):
        assert [getattr(a, key) for key in keys] == [getattr(b, key) for key in keys]


def labels_of(index):
    return mini.scene(0, index).labels


@pytest.mark.parametrize("match", [0.0, 0.3, 0.5, 1.0])
def test_the_scene_matches_the_main_event_in_the_asked_share_of_clips(match):
    n = 2000
    found = [mini_video.shown(0, index, labels_of(index), match) for index in range(n)]
    low, high = stats.binom.interval(1 - 1e-6, n, match)
    assert low <= sum(one.matches for one in found) <= high
    for index, one in enumerate(found):
        labels = labels_of(index)
        assert (one.label == labels[0]) if one.matches else (one.label not in labels)


def test_a_scene_that_does_not_match_is_of_any_other_class_alike():
    labels = ("Bark", "Rain")
    counts = Counter(mini_video.shown(1, index, labels, 0).label for index in range(2800))
    assert set(counts) == set(NAMES) - set(labels)
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_clips_that_match_also_match_at_a_higher_share():
    few, many = (
        {index for index in range(500) if mini_video.shown(2, index, ("Wind",), match).matches}
        for match in (0.3, 0.6)
    )
    assert few < many


def test_the_caption_says_what_is_seen_and_whether_it_is_dark():
    dark = {"at night": [], "in daylight": []}
    for index in range(160):
        label = NAMES[index % 16]
        one = mini_video.shown(5, index, (label,), 1)
        stem = re.sub(r" (at night|in daylight)$", "", one.caption)
        assert stem[0].lower() + stem[1:] in LOOKS[label].wordings
        if one.caption != stem and label not in ("Siren", "Waves, surf", "Rain"):  # which fill the picture
            frames, _ = mp4_frames(mini_video.render(mini_video.video_path(5, index, label, 0.2)))
            dark[one.caption.removeprefix(stem).strip()].append(np.median(frames))
    assert min(map(len, dark.values())) > 5
    assert max(dark["at night"]) < min(dark["in daylight"])


@pytest.mark.parametrize(
    "path", ["mini:0:1:16:1", "mini:0:1:2", "mini:-1:0:0:1", "mini:0:x:0:1", "mini:0:0:0:inf", "esc:0:0:0:1"]
)
def test_paths_of_no_video_are_refused(path):
    with pytest.raises(UsageError, match=path):
        mini_video.render(path)


def summary(frames):
    """Average picture and motion on a grid of 8 × 8, and histograms of colour differences and brightness."""
    image = frames.astype(np.float32) / 255
    still, moving = (
        part.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).ravel()
        for part in (image.mean(axis=0), np.abs(np.diff(image, axis=0)).mean(axis=0))
    )
    red, green, blue = (image[..., channel] for channel in range(3))
    contrasts = [
        np.histogram(one, 16, (-1, 1))[0] / one.size for one in (red - green, green - blue, red - blue)
    ]
    return np.concatenate([still, moving, *contrasts, np.histogram(image.mean(-1), 16, (0, 1))[0] / red.size])


@pytest.mark.slow
def test_a_linear_probe_tells_the_classes_apart():
    clips = range(480)
    paths = [mini_video.video_path(7, index, NAMES[index % 16], 0.75) for index in clips]
    x = np.stack([summary(mp4_frames(mini_video.render(path))[0]) for path in paths])
    y = np.array(clips) % 16
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    assert probe.fit(x[:320], y[:320]).score(x[320:], y[320:]) > 0.9
