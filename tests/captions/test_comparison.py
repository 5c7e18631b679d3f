import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajbench.captions import comparison
from ajbench.core.errors import UsageError


def test_the_score_is_the_mean_over_the_predicted_classes_weighted_by_their_probability():
    p = np.array([[0.1, 0.6, 0.2], [0.0, 0.0, 0.0]])
    classes, weights = comparison.top_classes(p, 2)
    assert classes[0].tolist() == [1, 2]
    np.testing.assert_allclose(weights, [[0.75, 0.25], [0, 0]])
    found = comparison.weighted(weights, np.array([[0.8, 0.4], [0.1, 0.1]]))
    assert found[0] == pytest.approx(0.75 * 0.8 + 0.25 * 0.4)
    assert np.isnan(found[1])


def test_true_labels_count_equally_and_a_class_of_weight_0_does_not_count():
    classes, weights = comparison.top_classes(np.array([[1.0, 0.0, 1.0]]), 3)
    assert classes.tolist() == [[0, 2, 1]]
    assert comparison.weighted(weights, np.array([[0.2, 0.4, np.nan]])) == pytest.approx([0.3])


@pytest.mark.parametrize("odd", [-0.1, np.nan, np.inf])
def test_probabilities_must_be_finite_and_not_negative(odd):
    with pytest.raises(UsageError, match="probabilities"):
        comparison.top_classes(np.array([[0.5, odd]]), 1)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30))
def test_scaled_scores_are_in_0_to_1_and_keep_their_order(raw):
    raw = np.array(raw)
    scale = comparison.scaling(raw)
    scaled = scale(raw)
    assert ((scaled >= 0) & (scaled <= 1)).all()
    assert (np.diff(scaled[np.argsort(raw)]) >= 0).all()


def test_quantiles_of_the_train_split_become_0_and_1():
    scale = comparison.scaling(np.append(np.linspace(0, 1, 101), np.nan))
    np.testing.assert_allclose(scale(np.array([0.05, 0.5, 0.95, 2, np.nan])), [0, 0.5, 1, 1, np.nan])
    with pytest.raises(UsageError, match="visual captions"):
        comparison.scaling(np.array([np.nan]))


def test_controls_keep_the_mean_or_the_distribution_of_each_split():
    scores, splits = np.arange(20) / 20, ["train"] * 12 + ["eval"] * 8
    train = np.array([split == "train" for split in splits])
    np.testing.assert_allclose(comparison.constant(scores, train), scores[train].mean())
    permuted = comparison.shuffled(scores, splits, 0)
    assert (permuted != scores).sum() > 10
    for part in (train, ~train):
        assert sorted(permuted[part]) == sorted(scores[part])
    assert comparison.shuffled(scores, splits, 0).tolist() == permuted.tolist()
    assert comparison.shuffled(scores, splits, 1).tolist() != permuted.tolist()
