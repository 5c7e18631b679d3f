"""Index arithmetic of mixes: laws that hold for any size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from ajbench.core.errors import UsageError
from ajbench.core.recipe import Mix
from ajbench.data import mixing
from ajbench.data.manifest import csv_rows

SIZE = 1_000_000


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_share_of_synthetic_clips_is_alpha(alpha):
    is_synthetic, _, _ = mixing.alpha_indices(50, 4, alpha, SIZE, np.random.default_rng(1))
    sigma = np.sqrt(alpha * (1 - alpha) / SIZE)
    assert abs(is_synthetic.mean() - alpha) <= 3 * sigma  # equality at 0 and 1: all real, all synthetic


def test_i_and_j_are_uniform_and_independent_of_the_source():
    is_synthetic, i, j = mixing.alpha_indices(20, 5, 0.3, SIZE, np.random.default_rng(2))
    assert stats.chisquare(np.bincount(i, minlength=20)).pvalue > 0.01
    cells = np.bincount(i[is_synthetic] * 5 + j[is_synthetic], minlength=100)
    assert stats.chisquare(cells).pvalue > 0.01
    table = np.stack([np.bincount(i[is_synthetic == s], minlength=20) for s in (False, True)])
    assert stats.chi2_contingency(table).pvalue > 0.01


def test_alpha_with_weights_follows_them_and_keeps_the_share():
    weights = np.array([1.0, 3.0, 0.0, 6.0])
    is_synthetic, i, _ = mixing.alpha_indices(4, 2, 0.5, SIZE, np.random.default_rng(3), weights)
    counts = np.bincount(i, minlength=4)
    assert counts[2] == 0
    assert stats.chisquare(counts[[0, 1, 3]], SIZE * np.array([0.1, 0.3, 0.6])).pvalue > 0.01
    assert abs(is_synthetic.mean() - 0.5) < 0.0015


@given(st.integers(0, 300), st.integers(0, 300), st.data())
def test_doses_are_nested_and_have_the_requested_size(n_real, n_synthetic, data):
    small = data.draw(st.integers(0, n_synthetic))
    large = data.draw(st.integers(small, n_synthetic))
    mixes = [mixing.dose_indices(n_real, n_synthetic, dose) for dose in (small, large)]
    assert [len(m) for m in mixes] == [n_real + small, n_real + large]
    assert np.array_equal(mixes[1][: len(mixes[0])], mixes[0])
    assert np.array_equal(mixes[1], np.arange(n_real + large))
    if large:
        only = mixing.dose_indices(n_real, n_synthetic, large, real=False)
        assert np.array_equal(only, np.arange(n_real, n_real + large))


def test_parents_need_equal_numbers_of_children():
    owners = ["b", None, "a", "gone", "b", "a"]
    assert mixing.parents(["a", "b"], owners).tolist() == [[2, 5], [0, 4]]
    assert mixing.parents(["a"], []).shape == (1, 0)


def test_balanced_weights_by_hand_and_by_ast_formula():
    targets = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0]], dtype=np.float32)
    weights = mixing.balanced_weights(targets)
    assert weights == pytest.approx([1000 / 3.01, 1000 / 3.01 + 1000 / 1.01, 1000 / 3.01])
    rng = np.random.default_rng(5)
    targets = (rng.random((200, 12)) < 0.2).astype(np.float32)
    by_loop = [sum(1000 / (targets[:, c].sum() + 0.01) for c in range(12) if row[c]) for row in targets]
    assert mixing.balanced_weights(targets) == pytest.approx(by_loop)


def test_balanced_sampling_equalises_single_labels():
    targets = np.repeat(np.eye(3, dtype=np.float32), [900, 90, 10], axis=0)
    drawn = mixing.draw(mixing.balanced_weights(targets), 300_000, np.random.default_rng(6))
    shares = targets[drawn].mean(0)
    assert shares == pytest.approx([1 / 3] * 3, abs=0.004)


def test_balanced_weights_equalise_audiosets_labels(audioset_dir):
    segments = [row[3].split(",") for _, row in csv_rows(audioset_dir / "balanced_train_segments.csv")]
    assert len(segments) == 22_160
    mids = {mid: k for k, mid in enumerate(sorted({mid for labels in segments for mid in labels}))}
    assert len(mids) == 527
    single = np.array([mids[labels[0]] for labels in segments if len(labels) == 1])
    places = (np.arange(len(single)), single)
    targets = sparse.csr_array((np.ones(len(single)), places), shape=(len(single), 527))
    weights = mixing.balanced_weights(targets)
    expected = np.bincount(single, weights / weights.sum(), minlength=527)
    there = np.bincount(single, minlength=527) > 0
    assert np.abs(expected[there] * there.sum() - 1).max() < 0.05
    drawn = mixing.draw(weights, 200 * there.sum(), np.random.default_rng(0))
    counts = np.bincount(single[drawn], minlength=527)[there]
    assert stats.chisquare(counts).pvalue > 0.001
    # Of several labels: w = Σ 1000 / (count + 0.01), against a plain loop over the whole table.
    dense = np.zeros((len(segments), 527), np.float32)
    for row, labels in enumerate(segments):
        dense[row, [mids[mid] for mid in labels]] = 1
    count = dense.sum(axis=0, dtype=np.float64)
    by_hand = [sum(1000 / (count[mids[mid]] + 0.01) for mid in labels) for labels in segments]
    np.testing.assert_allclose(mixing.balanced_weights(dense), by_hand, rtol=1e-12)
    np.testing.assert_allclose(mixing.balanced_weights(sparse.csr_array(dense)), by_hand, rtol=1e-12)


def test_processes_share_one_weighted_draw():
    weights = np.random.default_rng(0).random(50)
    plan = mixing.plan(Mix(balanced=True), [str(i) for i in range(50)], [], np.diag(weights), seed=3)
    whole = np.concatenate([mixing.batch(plan.order, 50, 8, i) for i in range(25)])
    for processes in (2, 4):
        parts = [
            [mixing.batch(plan.order, 50, 8 // processes, i) for i in range(rank, 25 * processes, processes)]
            for rank in range(processes)
        ]
        together = np.concatenate([np.concatenate(step) for step in zip(*parts, strict=True)])
        np.testing.assert_array_equal(together, whole)


def test_amplify_adds_to_the_k_lowest_labels_only():
    ap = np.array([0.5, 0.1, np.nan, 0.2])
    assert mixing.amplify(np.ones(4), ap, 2) == pytest.approx([1, 1 + 0.4 / 0.1, 1, 1 + 0.4 / 0.2])
    assert np.array_equal(mixing.amplify(np.ones(4), ap, 0), np.ones(4))


@given(st.integers(1, 40), st.integers(1, 25), st.integers(0, 2**63), st.integers(0, 30))
@settings(max_examples=60)
def test_batches_are_pure_and_cover_every_epoch_exactly_once(size, batch_size, seed, index):
    def order(epoch):
        return mixing.draw(None, size, mixing.epoch_rng(seed, epoch))

    stream = np.concatenate([mixing.batch(order, size, batch_size, b) for b in range(index + 1)])
    assert np.array_equal(mixing.batch(order, size, batch_size, index), stream[index * batch_size :])
    for epoch in range(len(stream) // size):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_epochs_and_seeds_give_different_orders():
    orders = {tuple(mixing.draw(None, 30, mixing.epoch_rng(s, e))) for s in range(5) for e in range(5)}
    assert len(orders) == 25


REAL = ["a", "b", "c"]
OWNERS = ["b", "a", "c", "c", "a", "b"]
TARGETS = np.eye(3, dtype=np.float32)[[0, 1, 2, 1, 0, 2, 2, 0, 1]]


def test_dose_plan_orders_each_clip_once_an_epoch():
    plan = mixing.plan(Mix(dose=4), REAL, OWNERS, TARGETS, seed=1)
    assert plan.epoch_size == 7
    assert sorted(plan.order(0)) == list(range(7)) == sorted(plan.order(1))
    assert plan.order(0).tolist() != plan.order(1).tolist()
    assert set(plan.partners(500, np.random.default_rng(0))) == set(range(7))
    only = mixing.plan(Mix(real=False, dose=4), REAL, OWNERS, TARGETS, seed=1)
    assert sorted(only.order(0)) == [3, 4, 5, 6]


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_alpha_plan_keeps_the_epoch_length_and_uses_children_of_the_drawn_clip(alpha):
    plan = mixing.plan(Mix(mode="alpha", alpha=alpha), REAL, OWNERS, TARGETS, seed=1)
    assert plan.epoch_size == len(REAL)
    seen = np.concatenate([*map(plan.order, range(3000)), plan.partners(9000, np.random.default_rng(0))])
    assert np.mean(seen >= 3) == pytest.approx(alpha, abs=0.015)
    owner = np.array([*REAL, *OWNERS])[seen]
    assert all(np.mean(owner == clip) == pytest.approx(1 / 3, abs=0.015) for clip in REAL)


def test_repeated_clips_come_in_turn_and_doses_are_nested():
    targets = np.eye(3)[[0, 1, 2, 0, 1]]
    ids = list("abcde")
    times = []
    for dose in (3, 5, 12):
        plan = mixing.plan(Mix(dose=dose, source="R"), ids, [], targets, seed=4)
        order = plan.order(0)
        assert plan.epoch_size == len(order) == 5 + dose and set(order) <= set(range(5))
        times.append(np.bincount(order, minlength=5))
        assert times[-1].max() - times[-1].min() <= 1
        assert set(plan.partners(100, np.random.default_rng(0))) <= set(range(5))
    assert (times[0] <= times[1]).all() and (times[1] <= times[2]).all()
    assert times[1].tolist() == [2] * 5


def test_two_sources_are_both_in_every_epoch():
    plan = mixing.plan(Mix(dose=2, source="A+G"), list("abc"), list("abab"), np.ones((7, 1)), seed=4)
    assert sorted(plan.order(3)) == list(range(7))


def test_alpha_zero_needs_no_synthetic_clips():
    is_synthetic, i, _ = mixing.alpha_indices(3, 0, 0.0, 100, np.random.default_rng(0))
    assert not is_synthetic.any() and set(i) == {0, 1, 2}
    plan = mixing.plan(Mix(mode="alpha", alpha=0.0), REAL, [], TARGETS[:3], seed=1)
    assert set(plan.order(0)) <= {0, 1, 2}


def test_balanced_and_amplified_plans():
    targets = np.repeat(np.eye(2, dtype=np.float32), [90, 10], axis=0)
    ids = [str(i) for i in range(100)]

    def share(mix, ap=None):
        plan = mixing.plan(mix, ids, [], targets, 3, ap)
        return np.mean(np.concatenate([plan.order(e) for e in range(300)]) >= 90)

    ap = np.array([0.9, 0.004])
    assert share(Mix()) == pytest.approx(0.1)
    assert share(Mix(balanced=True)) == pytest.approx(0.5, abs=0.01)
    rare = 10 * (1000 / 10.01 + 0.4 / 0.004)
    expected = rare / (rare + 90 * 1000 / 90.01)
    assert share(Mix(balanced=True, amplify=1), ap) == pytest.approx(expected, abs=0.01)


HALF = Mix(mode="alpha", alpha=0.5)


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: mixing.dose_indices(10, 80, 81), r"mix\.dose=81.* 80"),
        (lambda: mixing.dose_indices(10, 80, 0, real=False), r"mix\.real=none"),
        (lambda: mixing.alpha_indices(10, 1, 1.2, 5, rng()), r"mix\.alpha=1\.2"),
        (lambda: mixing.alpha_indices(10, 0, 0.5, 5, rng()), r"mix\.mode=alpha"),
        (lambda: mixing.draw(np.zeros(3), 5, rng()), "weights"),
        (lambda: mixing.amplify(np.ones(3), np.array([0.1, np.nan, 0.2]), 3), r"mix\.amplify=3.* 2 labels"),
        (lambda: mixing.parents(["a", "b", "c"], ["b", "a", "b", "a"]), r"mix\.mode=alpha.* 0 \(of c\) to 2"),
        (lambda: mixing.plan(HALF, ["a"], [None, "b"], np.ones((3, 1)), 0), "alpha.* 2 "),
        (lambda: mixing.plan(Mix(), [], [], np.zeros((0, 3)), 0), r"mix\.dose=0"),
        (lambda: mixing.plan(Mix(balanced=True, amplify=1), REAL, [], TARGETS[:3], 0), r"mix\.amplify=1"),
        (lambda: mixing.plan(Mix(amplify=1), REAL, [], TARGETS[:3], 0, np.ones(3)), r"mix\.balanced=true"),
    ],
)
def test_impossible_mixes_are_refused(call, word):
    with pytest.raises(UsageError, match=word):
        call()


@pytest.mark.parametrize(
    "mix",
    [
        Mix(),
        Mix(dose=5),
        Mix(dose=5, real="none"),
        Mix(dose=6, balanced=True),
        Mix(mode="alpha", alpha=0.3),
        Mix(mode="alpha", alpha=0.3, balanced=True),
        Mix(mode="alpha", alpha=0.0),
    ],
)
def test_shares_are_the_expected_frequencies_of_the_epochs(mix):
    targets = np.eye(3)[[0, 0, 1, 2, 0, 0, 1, 2, 0, 0, 1, 2]]
    ids = list("abcd")
    plan = mixing.plan(mix, ids, [*ids, *ids], targets, seed=0)
    shares, epochs = plan.shares(), 4000
    drawn = np.bincount(np.concatenate([plan.order(e) for e in range(epochs)]), minlength=12)
    assert shares.shape == (12,) and shares.sum() == pytest.approx(1)
    assert np.array_equal(shares > 0, drawn > 0)
    assert drawn / drawn.sum() == pytest.approx(shares, abs=0.01)


def test_shares_of_alpha_mixing_are_those_of_eq_1():
    plan = mixing.plan(
        Mix(mode="alpha", alpha=0.3), ["a", "b"], ["b", "a", "a", "b"], np.ones((6, 1)), seed=0
    )
    assert plan.shares() == pytest.approx([0.7 / 2] * 2 + [0.3 / 4] * 4)
