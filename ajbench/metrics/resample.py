"""Resamples of clips that belong together, as counts, and the interval that they give a value."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
Groups = Sequence[NDArray[np.int64]]


def groups_of(keys: Sequence[Hashable]) -> list[NDArray[np.int64]]:
    """Return the places of equal keys together."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [np.array(group) for group in places.values()]


def counts(groups: Groups, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return how often each clip occurs in each resample of groups, [R, n]."""
    n = sum(map(len, groups))
    member = np.zeros(n, np.int64)
    for number, group in enumerate(groups):
        member[group] = number
    drawn = rng.integers(0, len(groups), (resamples, len(groups)))
    each = np.stack([np.bincount(row, minlength=len(groups)) for row in drawn]) if resamples else drawn
    return each[:, member]


def means(values: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of values [n] in each resample [R, n]."""
    return np.asarray(drawn @ values / drawn.sum(axis=1).clip(1))


def ends(
    value: float,
    draws: NDArray[np.float64],
    level: float = LEVEL,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float]:
    """Return the ends of the interval of a value, resampled values [R] moved to have it as their mean.

    Repeated clips alone raise FD and lower inception score: plain percentiles can lie beside the value. Ends
    beyond `limits`, of what the value can be, are moved there, or to a value that rounding has put beyond.
    """
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws - draws.mean(), ((1 - level) / 2, (1 + level) / 2)) + value
    least, most = min(limits[0], value), max(limits[1], value)
    return float(np.clip(low, least, most)), float(np.clip(high, least, most))
