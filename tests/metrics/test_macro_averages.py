"""Macro-F1 and recall against scikit-learn, on all clips and on resamples."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score

from ajbench.metrics import bootstrap, macro_averages

CLASSES, TAIL = 6, [1, 4]


def clips(kind, n=60, seed=0):
    """Logits and targets: `one` label each, or `several` (or none); class 3 has no positive."""
    rng = np.random.default_rng(seed)
    targets = np.eye(CLASSES, dtype=int)[rng.choice([0, 1, 2, 4, 5], n)]
    if kind == "several":
        targets = (rng.random((n, CLASSES)) < 0.25).astype(int)
        targets[:, 3] = 0
    return rng.normal(size=(n, CLASSES)) + 1.5 * targets, targets


def expected(scores, targets, kind):
    if kind == "one":
        true, predicted = targets.argmax(axis=1), scores.argmax(axis=1)
    else:
        true, predicted = targets, (1 / (1 + np.exp(-scores)) > 0.5).astype(int)
        single = targets.sum(axis=1) == 1
        predicted[single] = np.eye(CLASSES, dtype=int)[scores[single].argmax(axis=1)]
    used = np.flatnonzero(targets.any(axis=0))
    how = {"average": "macro", "zero_division": 0}
    tail = [c for c in TAIL if c in used]
    recall = recall_score(true, predicted, labels=tail, **how) if tail else np.nan
    return [f1_score(true, predicted, labels=used, **how), recall]


@pytest.mark.parametrize("kind", ["one", "several"])
def test_values_are_those_of_scikit_learn(kind):
    scores, targets = clips(kind)
    found = macro_averages.f1_and_recall(macro_averages.outcome(scores, targets), TAIL)
    assert found[:, 0] == pytest.approx(expected(scores, targets, kind), abs=1e-12)


@pytest.mark.parametrize("kind", ["one", "several"])
def test_on_resamples_they_are_those_of_the_resampled_clips(kind):
    scores, targets = clips(kind, n=12)
    counts = bootstrap.counts(np.arange(12)[:, None], 60, np.random.default_rng(1)).T
    outcome = macro_averages.outcome(scores, targets)
    found = macro_averages.f1_and_recall(outcome, TAIL, counts.astype(np.float32))
    lacking = 0
    for r in range(60):
        drawn = np.repeat(np.arange(12), counts[:, r])
        lacking += not targets[drawn][:, TAIL].any(axis=0).all()
        values = expected(scores[drawn], targets[drawn], kind)
        assert found[:, r] == pytest.approx(values, abs=1e-12, nan_ok=True)
    assert lacking, "in some resample a class of the tail has no clip"


def test_a_clip_with_two_labels_leaves_the_others_as_they_are():
    scores, targets = clips("one")
    lower = scores - 20  # as in short trainings: right, but no probability above 0.5
    before = macro_averages.f1_and_recall(macro_averages.outcome(lower, targets), TAIL)
    targets[0, :2] = 1
    after = macro_averages.f1_and_recall(macro_averages.outcome(lower, targets), TAIL)
    assert before.min() > 0.5 and np.abs(after - before).max() < 0.1


def test_without_classes_there_is_no_recall():
    found = macro_averages.f1_and_recall(macro_averages.outcome(*clips("one")), [])
    assert np.isfinite(found[0]) and np.isnan(found[1])
