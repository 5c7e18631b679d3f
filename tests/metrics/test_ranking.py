import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from ajbench.core.errors import NumericError, UsageError
from ajbench.metrics import ranking


def scored(rng, n, c, kind):
    scores = {
        "float32": rng.normal(size=(n, c)).astype(np.float32),
        "heavy ties": np.round(rng.random((n, c)) * 4) / 4,
        "float64": rng.normal(size=(n, c)) + 1000,
        "probabilities": 1 / (1 + np.exp(8 - 3 * rng.normal(size=(n, c)))),
        "float16": rng.normal(size=(n, c)).astype(np.float16),
        "all equal": np.full((n, c), 0.3),
    }[kind]
    return scores, rng.random((n, c)) < 0.15


@pytest.mark.parametrize(
    "kind", ["float32", "float64", "probabilities", "heavy ties", "float16", "all equal"]
)
def test_ap_and_auc_equal_scikit_learn(kind):
    scores, targets = scored(np.random.default_rng(3), 200, 12, kind)
    targets[:, 4], targets[:, 7] = False, True
    ap, auc = ranking.average_precision(scores, targets), ranking.roc_auc(scores, targets)
    assert ap.dtype == np.float64
    assert np.isnan(ap[4]) and np.isnan(auc[4]) and ap[7] == 1.0 and np.isnan(auc[7])
    scores, targets, ap, auc = (np.delete(values, [4, 7], axis=-1) for values in (scores, targets, ap, auc))
    assert ap == pytest.approx(average_precision_score(targets, scores, average=None), abs=1e-12)
    assert auc == pytest.approx(roc_auc_score(targets, scores, average=None), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=40))
def test_any_ties_equal_scikit_learn(pairs):
    scores, targets = (np.array(v)[:, None] for v in zip(*pairs, strict=True))
    expected = average_precision_score(targets[:, 0], scores[:, 0]) if targets.any() else np.nan
    found = ranking.average_precision(scores, targets)[0]
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


SCORES = st.floats(allow_nan=False, width=32) | st.sampled_from(
    [0.0, -0.0, 1e-45, -1e-45, 1e-8, -1e-8, 65504.0, 65520.0, 1e38, np.inf, -np.inf, 1.0, 1.0 + 2**-23]
)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(SCORES, st.booleans()), min_size=2, max_size=40), st.booleans())
def test_only_the_order_of_scores_matters_at_any_magnitude(pairs, double):
    scores, targets = (np.array(v)[:, None] for v in zip(*pairs, strict=True))
    scores = scores.astype(np.float64 if double else np.float32)
    order = rankdata(scores, "dense", axis=0)
    assert ranking.summary(scores, targets) == pytest.approx(ranking.summary(order, targets), nan_ok=True)


def test_many_clips_with_close_and_tied_scores_equal_scikit_learn():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(3000, 4)).astype(np.float32) * np.array([1, 1e-4, 1, 1], np.float32)
    scores[:, 2] += 1000
    scores[:, 3] = scores[:, 3].round(1)
    targets = rng.random((3000, 4)) < np.array([0.01, 0.02, 0.01, 0.5])
    for ours, theirs in (
        (ranking.average_precision, average_precision_score),
        (ranking.roc_auc, roc_auc_score),
    ):
        expected = theirs(targets, scores, average=None)
        np.testing.assert_allclose(ours(scores, targets), expected, atol=1e-12, rtol=0)


def test_a_monotone_link_and_the_order_of_clips_change_nothing():
    rng = np.random.default_rng(0)
    scores, targets = scored(rng, 60, 5, "float32")
    order = rng.permutation(60)
    linked = torch.sigmoid(torch.tensor(scores, dtype=torch.float64))
    expected = pytest.approx(ranking.summary(scores, targets), abs=1e-12, nan_ok=True)
    assert ranking.summary(linked, torch.tensor(targets)) == expected
    assert ranking.summary(scores[order], targets[order]) == expected


def test_summary_leaves_out_and_counts_classes_without_positives():
    scores = np.array([[0.9, 0.2, 0.1], [0.1, 0.8, 0.3], [0.6, 0.5, 0.2]])
    targets = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    result = ranking.summary(scores, targets)
    assert result["map"] == 1.0 and result["classes_used"] == 2 and result["n"] == 3
    assert result["accuracy"] == pytest.approx(2 / 3) and np.isfinite(result["dprime"])
    assert np.isnan(ranking.accuracy(scores, np.ones((3, 3))))


def test_d_prime():
    assert ranking.d_prime(0.973) == pytest.approx(np.sqrt(2) * norm.ppf(0.973), abs=1e-12)
    assert ranking.d_prime(0.5) == 0.0 and ranking.d_prime(1.0) == np.inf


def test_d_prime_is_finite_with_a_number_of_pairs():
    targets = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 1, 1]])
    assert ranking.pairs_of(targets) == 4 + 3
    highest = np.sqrt(2) * norm.ppf(1 - 1 / 14)
    assert ranking.d_prime(1.0, 7) == pytest.approx(highest) == -ranking.d_prime(0.0, 7)
    assert ranking.d_prime(0.9, 7) == ranking.d_prime(0.9)
    assert ranking.summary(targets, targets)["dprime"] == pytest.approx(highest)
    assert np.isnan(ranking.summary(targets[:, 2:], targets[:, 2:])["dprime"])


@pytest.mark.parametrize(
    ("scores", "targets", "error", "match"),
    [
        (np.zeros((3, 2)), np.zeros((2, 3)), UsageError, r"scores \(3, 2\)"),
        (np.zeros((2, 2)), np.full((2, 2), 0.5), UsageError, "0 or 1"),
        (np.array([[0.1, 0.2], [0.3, np.nan]]), np.eye(2), NumericError, "clip 1, class 1"),
    ],
)
def test_bad_input_is_refused(scores, targets, error, match):
    with pytest.raises(error, match=match):
        ranking.average_precision(scores, targets)
