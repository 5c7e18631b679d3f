"""Does a tagger predict the requested class of a generated clip?"""

import numpy as np
from numpy.typing import NDArray

from ajbench.core.device import Array, to_numpy
from ajbench.core.errors import UsageError


def requested_ranks(logits: Array, targets: Array) -> NDArray[np.float64]:
    """Return the rank of each requested class among the classes that were not requested, float64 [N, C].

    The best rank is 1; NaN for classes that were not requested. Classes requested together do not compete,
    and an equal logit counts as higher, so that constant logits get the worst rank.

    Args:
        logits: [N, C].
        targets: [N, C], 1 where class c was requested of clip n.

    Raises:
        UsageError: shapes differ.
    """
    z, requested = to_numpy(logits).astype(np.float64), to_numpy(targets) > 0
    if z.ndim != 2 or z.shape != requested.shape:
        raise UsageError(f"logits {z.shape} and targets {requested.shape} must both be [clips, classes]")
    ranks = np.full(z.shape, np.nan)
    others = np.sort(np.where(requested, -np.inf, z), axis=1)
    for n, row in enumerate(others):
        # Requested classes are at −∞, below every logit.
        ranks[n, requested[n]] = 1 + len(row) - np.searchsorted(row, z[n, requested[n]], side="left")
    return ranks
