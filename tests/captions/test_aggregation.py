import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajbench.captions import aggregation
from ajbench.core.errors import UsageError


def test_the_score_is_the_mean_over_the_predicted_classes_weighted_by_their_probability():
    p = np.array([[0.1, 0.6, 0.2], [0.0, 0.0, 0.0]])
    classes, weights = aggregation.top_classes(p, 2)
    assert classes[0].tolist() == [1, 2]
    np.testing.assert_allclose(weights, [[0.75, 0.25], [0, 0]])
    found = aggregation.weighted(weights, np.array([[0.8, 0.4], [0.1, 0.1]]))
    assert found[0] == pytest.approx(0.75 * 0.8 + 0.25 * 0.4)
    assert np.isnan(found[1])


def test_true_labels_count_equally_and_a_class_of_weight_0_does_not_count():
    classes, weights = aggregation.top_classes(np.array([[1.0, 0.0, 1.0]]), 3)
    assert classes.tolist() == [[0, 2, 1]]
    assert aggregation.weighted(weights, np.array([[0.2, 0.4, np.nan]])) == pytest.approx([0.3])


def test_noisy_or_is_the_probability_that_some_class_is_audible_and_seen():
    p, e = np.array([[0.5, 0.2], [1.0, 0.0], [0.0, 0.0]]), np.array([[0.8, 0.5], [1.5, np.nan], [1, 1]])
    found = aggregation.noisy_or(p, e)
    assert found[0] == pytest.approx(1 - (1 - 0.4) * (1 - 0.1))
    assert found[1] == 1.0 and np.isnan(found[2])
    assert aggregation.noisy_or(p[:1], np.array([[-0.3, 0.5]])) == pytest.approx([0.1])
    assert np.isnan(aggregation.noisy_or(p[:1], np.array([[np.nan, 0.5]])))[0]


def test_the_overlap_of_predictions_is_1_for_equal_ones_and_0_for_different_classes():
    one, other = np.array([[0.9, 0.1]]), np.array([[0.4, 0.1]])
    assert aggregation.overlap(one, one * 0.5) == pytest.approx([1.0])
    assert aggregation.overlap(one, other) == pytest.approx([np.sqrt(0.9 * 0.8) + np.sqrt(0.1 * 0.2)])
    assert aggregation.overlap(np.array([[1.0, 0]]), np.array([[0, 1.0]])) == pytest.approx([0.0])
    unknown = aggregation.overlap(np.vstack([one, one]), np.array([[np.nan, np.nan], [0, 0]]))
    assert np.isnan(unknown).all()


def test_repeats_without_a_number_are_left_out():
    mean, spread = aggregation.over_repeats(np.array([[0.2, 0.5, np.nan], [0.6, np.nan, np.nan]]))
    np.testing.assert_allclose(mean, [0.4, 0.5, np.nan])
    np.testing.assert_allclose(spread, [np.std([0.2, 0.6], ddof=1), 0.0, np.nan])


@pytest.mark.parametrize("odd", [-0.1, np.nan, np.inf])
def test_probabilities_must_be_finite_and_not_negative(odd):
    with pytest.raises(UsageError, match="probabilities"):
        aggregation.top_classes(np.array([[0.5, odd]]), 1)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30))
def test_scaled_scores_are_in_0_to_1_and_keep_their_order(raw):
    raw = np.array(raw)
    scale = aggregation.scaling(raw)
    scaled = scale(raw)
    assert ((scaled >= 0) & (scaled <= 1)).all()
    assert (np.diff(scaled[np.argsort(raw)]) >= 0).all()


def test_quantiles_of_the_train_split_become_0_and_1():
    scale = aggregation.scaling(np.append(np.linspace(0, 1, 101), np.nan))
    np.testing.assert_allclose(scale(np.array([0.05, 0.5, 0.95, 2, np.nan])), [0, 0.5, 1, 1, np.nan])
    with pytest.raises(UsageError, match="visual captions"):
        aggregation.scaling(np.array([np.nan]))


def test_controls_keep_the_mean_or_the_distribution_of_each_split():
    scores, splits = np.arange(20) / 20, ["train"] * 12 + ["eval"] * 8
    train = np.array([split == "train" for split in splits])
    np.testing.assert_allclose(aggregation.constant(scores, train), scores[train].mean())
    permuted = aggregation.shuffled(scores, splits, 0)
    assert (permuted != scores).sum() > 10
    for part in (train, ~train):
        assert sorted(permuted[part]) == sorted(scores[part])
    assert aggregation.shuffled(scores, splits, 0).tolist() == permuted.tolist()
    assert aggregation.shuffled(scores, splits, 1).tolist() != permuted.tolist()
