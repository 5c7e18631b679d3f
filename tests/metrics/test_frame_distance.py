import tracemalloc

import numpy as np
import pytest

from ajbench.core.errors import NumericError, UsageError
from ajbench.metrics.distribution import frechet_distance
from ajbench.metrics.frame_distance import pooled_distance, pooled_draws


def clips(rng, n, scale=1.0, shift=0.0, d=16):
    return [rng.normal(shift, scale, (k, d)).astype(np.float32) for k in rng.integers(1, 20, n)]


def repeated(frames, counts):
    return np.concatenate([one for one, count in zip(frames, counts, strict=True) for _ in range(count)])


@pytest.mark.parametrize("held", [8_000_000, 600, 16])  # 16: the frames of a clip are in several blocks
def test_it_is_fd_of_the_repeated_frames(held, monkeypatch):
    monkeypatch.setattr("ajbench.metrics.frame_distance._HELD", held)
    rng = np.random.default_rng(0)
    x, y = clips(rng, 9, shift=30.1), clips(rng, 12, 1.3, 30)
    x_counts = np.vstack([np.ones(9, int), rng.multinomial(9, np.ones(9) / 9, 6)])
    y_counts = np.vstack([np.ones(12, int), rng.multinomial(12, np.ones(12) / 12, 6)])
    found = pooled_draws(x, y, x_counts, y_counts)
    for value, mine, theirs in zip(found, x_counts, y_counts, strict=True):
        assert value == pytest.approx(frechet_distance(repeated(x, mine), repeated(y, theirs)), rel=1e-6)
    whole = frechet_distance(np.concatenate(x), np.concatenate(y))
    assert pooled_distance(x, y) == pytest.approx(whole, rel=1e-9)
    assert pooled_distance(x, x) == 0.0


def test_frames_that_vary_in_few_directions_keep_their_distance():
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    x, y = ([one * (np.arange(16) < 5) @ turn for one in clips(rng, 40, scale)] for scale in (1, 2))
    whole = frechet_distance(np.concatenate(x), np.concatenate(y))
    assert pooled_distance(x, y) == pytest.approx(whole, rel=1e-9) and whole > 1


def test_memory_does_not_grow_with_the_number_of_clips(monkeypatch):
    monkeypatch.setattr("ajbench.metrics.frame_distance._HELD", 8_000)
    rng, peaks = np.random.default_rng(2), []
    for n in (50, 800):
        x, counts = [rng.normal(size=(50, 16)).astype(np.float32) for _ in range(n)], np.ones((3, n), int)
        tracemalloc.start()
        pooled_distance(x, x)
        pooled_draws(x, x, counts, counts)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]


def test_bad_frames_are_refused():
    good = [np.ones((3, 4)), np.zeros((2, 4))]
    bad = [good[0], np.array([[0, 1, np.nan, 0]])]
    for function in (
        pooled_distance,
        lambda x, y: pooled_draws(x, y, np.ones((1, 2), int), np.ones((1, 2), int)),
    ):
        with pytest.raises(NumericError, match="generated clip 1"):
            function(bad, good)
        for number, real in enumerate((bad[::-1], bad)):
            with pytest.raises(NumericError, match=f"real clip {number}"):
                function(good, real)
        with pytest.raises(UsageError, match="3, 4 dimensions"):
            function(good, [np.ones((3, 3))])
        with pytest.raises(UsageError, match="0 and 2 clips"):
            function([], good)
    with pytest.raises(UsageError, match="FD of 1 frame"):
        pooled_distance([np.ones((1, 4))], good)
