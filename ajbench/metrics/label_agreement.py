"""Does a tagger hear the class that a clip was asked to be?"""

import numpy as np
from numpy.typing import NDArray

from ajbench.core.device import Array, to_numpy
from ajbench.core.errors import UsageError


def asked_ranks(logits: Array, targets: Array) -> NDArray[np.float64]:
    """Return the rank of each asked class of a clip among the classes not asked of it, float64 [N, C].

    1 is the first; NaN where a class was not asked. Classes asked together do not stand in each other's way,
    and an equal logit counts as above: logits that tell nothing earn nothing.

    Args:
        logits: [N, C].
        targets: [N, C], 1 where clip n was asked to have class c.

    Raises:
        UsageError: shapes differ.
    """
    z, asked = to_numpy(logits).astype(np.float64), to_numpy(targets) > 0
    if z.ndim != 2 or z.shape != asked.shape:
        raise UsageError(f"logits {z.shape} and targets {asked.shape} must both be [clips, classes]")
    ranks = np.full(z.shape, np.nan)
    others = np.sort(np.where(asked, -np.inf, z), axis=1)
    for n, row in enumerate(others):
        # Asked classes lie at −∞, below every logit.
        ranks[n, asked[n]] = 1 + len(row) - np.searchsorted(row, z[n, asked[n]], side="left")
    return ranks
