"""Ranks of the requested classes, against definition and loop."""

import numpy as np
import pytest

from ajbench.core.errors import UsageError
from ajbench.metrics.label_agreement import requested_ranks


def test_ranks_are_among_the_classes_that_were_not_requested():
    logits = np.array([[3.0, 2.0, 1.0, 0.0], [0.0, 5.0, 4.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    targets = np.array([[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0]])
    nan = np.nan
    expected = [[nan, 2, nan, nan], [3, nan, 2, nan], [nan, nan, 4, nan]]  # equal logits get the worst rank
    assert np.array_equal(requested_ranks(logits, targets), expected, equal_nan=True)


def test_ranks_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(40, 9)).round(1), rng.random((40, 9)) < 0.3
    for row, ranks, requested in zip(logits, requested_ranks(logits, targets), targets, strict=True):
        for c in range(9):
            above = sum(row[o] >= row[c] for o in range(9) if not requested[o])
            assert ranks[c] == 1 + above if requested[c] else np.isnan(ranks[c])
    with pytest.raises(UsageError, match=r"\(40, 9\).*\(40, 3\)"):
        requested_ranks(logits, targets[:, :3])
