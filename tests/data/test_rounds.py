import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from ajbench.data.rounds import rounds

CLASSES = st.lists(st.integers(0, 4), min_size=1, max_size=60)


def one_hot(classes):
    return sparse.csr_array(np.eye(5, dtype=np.float32)[classes])


@given(CLASSES, st.integers(0, 99))
def test_every_beginning_has_the_class_proportions_of_the_whole(classes, seed):
    classes = np.array(classes)
    counts = np.bincount(classes, minlength=5)
    order = rounds(one_hot(classes), len(classes), seed)
    assert sorted(order) == list(range(len(classes)))
    found = np.cumsum(np.eye(5)[classes[order]], axis=0)
    share = counts / len(classes)
    wanted = np.arange(1, len(classes) + 1)[:, None] * share
    present = (counts > 0).sum()
    assert (np.abs(found - wanted) <= 1 + present * share + 1e-9).all()


@given(CLASSES, st.integers(0, 150), st.integers(0, 150))
def test_no_clip_comes_again_before_every_other_and_fewer_places_are_the_beginning_of_more(classes, n, more):
    targets = one_hot(classes)
    places = rounds(targets, n, 3)
    times = np.bincount(places, minlength=len(classes))
    assert times.max() - times.min() <= 1 and times.sum() == n
    assert np.array_equal(rounds(targets, n + more, 3)[:n], places)


def test_rounds_differ_from_each_other_and_between_seeds():
    targets = one_hot([0, 1, 2, 3, 4] * 4)
    first, second = rounds(targets, 40, 3).reshape(2, 20)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, rounds(targets, 20, 4))
