import numpy as np
import pytest

from ajbench.core.errors import IntegrityError
from ajbench.core.rows import Context
from ajbench.data.labels import Scores
from ajbench.evaluation import audio_visual
from ajbench.metrics import bootstrap

N, C = 60, 3
CONTEXT = Context("run", "r", "f", "", "corpus")
LABELS = np.arange(N) % C


def predictions(right, seed=0, ids=None):
    """Predictions of which the clips in `right` are right, single labels."""
    targets = np.eye(C)[LABELS]
    wrong = np.eye(C)[(LABELS + 1) % C]
    noise = np.random.default_rng(seed).uniform(0, 0.1, (N, C))
    scores = np.where(np.isin(np.arange(N), right)[:, None], targets, wrong) + noise
    ids = ids or tuple(f"c{i}" for i in range(N))
    recordings = tuple(f"r{i // 2}" for i in range(N))
    return Scores(scores.astype(np.float32), targets, ids, ("a", "b", "c"), recordings)


def trained(a, v, av, **more):
    return audio_visual.measure(
        {"A": predictions(a, **more), "V": predictions(v, **more), "A+V": predictions(av, **more)},
        resamples=100,
    )


def value(rows, line, column, metric):
    found = [r for r in rows if (r["row"], r["column"], r["metric"]) == (line, column, metric)]
    assert len(found) == 1
    return found[0]["value"]


def test_mu_is_the_share_of_clips_that_one_modality_gets_right_and_both_get_wrong():
    one = trained(range(40), range(30, 50), range(5, 45))
    # Of 50 clips that audio or video gets right, 0-4 and 45-49 are wrong by both.
    assert one.values["A+V"]["mu"].value == pytest.approx(10 / N)
    assert one.values["A"]["accuracy"].value == pytest.approx(40 / N)
    rows = audio_visual.cell_rows("naive", 0, one, CONTEXT)
    assert value(rows, "naive", "A+V", "mu") == pytest.approx(10 / N)
    assert {row["column"] for row in rows if row["metric"] == "mu"} == {"A+V"}
    assert {row["table"] for row in rows} == {"A8"}


def test_a_share_has_the_resamples_of_map():
    scores = predictions(range(30))
    hits = scores.scores.argmax(axis=1) == LABELS
    found = audio_visual.share(hits, scores.recordings, resamples=300, seed=1)
    groups, rng = bootstrap.groups_of(scores.recordings), np.random.default_rng(1)
    drawn = np.concatenate([bootstrap.counts(groups, n, rng) for n in (256, 44)])
    np.testing.assert_allclose(found.draws, [(row * hits).sum() / row.sum() for row in drawn])


def test_differences_are_paired_and_name_what_they_compare():
    lines = {
        "naive": (range(40), range(20), range(44)),
        "minilm/predicted": (range(40), range(20), range(50)),
        "minilm/true": (range(40), range(20), range(56)),
    }
    cells = {(line, seed): trained(*which, seed=seed) for line, which in lines.items() for seed in (0, 1, 2)}
    del cells["minilm/predicted", 2]
    rows = audio_visual.compare(cells, CONTEXT)
    points = {
        ("minilm/predicted", "A+V", "accuracy_delta"): 6,
        ("minilm/true", "A+V", "accuracy_delta"): 12,
        ("minilm/true", "A+V", "accuracy_leak"): 6,
        ("minilm/true", "A+V", "accuracy_gain"): 16,
        ("naive", "A+V", "accuracy_gain"): 4,
        ("minilm/true", "V", "accuracy_delta"): 0,
    }
    for key, clips in points.items():
        assert value(rows, *key) == pytest.approx(clips / N), key
    leak = next(r for r in rows if r["metric"] == "accuracy_leak" and r["column"] == "A+V")
    assert leak["seed"] == "0;1"
    assert leak["ci_low"] < leak["value"] < leak["ci_high"]
    kinds = {(r["row"], r["metric"]) for r in rows}
    assert ("naive", "map_delta") not in kinds
    assert ("minilm/predicted", "map_leak") not in kinds
    assert not any(metric == "mu_gain" for _, metric in kinds)


def test_trainings_on_other_clips_are_not_compared():
    other = trained([0], [0], [0], ids=tuple(f"d{i}" for i in range(N)))
    with pytest.raises(IntegrityError, match="other clips"):
        audio_visual.compare({("naive", 0): trained([0], [0], [0]), ("minilm/true", 0): other}, CONTEXT)


def test_clips_with_several_labels_have_no_accuracy():
    scores = predictions(range(N))
    targets = scores.targets.copy()
    targets[0] = 1
    several = Scores(scores.scores, targets, scores.clip_ids, scores.labels, scores.recordings)
    one = audio_visual.measure(dict.fromkeys(("A", "V", "A+V"), several), resamples=100)
    assert {*one.values["A"]} == {"map"}
    rows = audio_visual.information_rows("minilm/true", "score", several, CONTEXT, resamples=100)
    assert [row["metric"] for row in rows] == ["map"]


def test_video_that_a_clip_lacks_gets_nothing_right():
    scores = {"A": predictions(range(40)), "V": predictions(range(30, 50)), "A+V": predictions(range(5, 45))}
    seen = np.ones(N, bool)
    every = audio_visual.measure(scores, resamples=50, seen=seen).values["A+V"]["mu"].value
    assert every == audio_visual.measure(scores, resamples=50).values["A+V"]["mu"].value
    seen[45:50] = False  # which video alone got right
    assert audio_visual.measure(scores, resamples=50, seen=seen).values["A+V"]["mu"].value == every - 5 / N
