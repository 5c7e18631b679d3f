"""FD against the number of generated clips."""

from typing import Any

import numpy as np

from ajbench.evaluation.set_pair import SetPair
from ajbench.metrics import fd_infinity
from ajbench.metrics.intervals import LEVEL

DRAWS = 10

Line = dict[str, Any]


def lines(m: SetPair) -> list[Line]:
    """Return a mapping per number of clips: mean FD of ten subsets and their 95 % range; the last is FD∞.

    Sizes double from 50 to all clips. `fit` is the line of FD∞ at this size; where FD departs from it, FD∞ is
    not reliable. All clips are a single subset, without a range, and FD∞ has no interval.
    """
    line, curve = m.line, m.curve(fd_infinity.doubling_sizes(m.n), DRAWS)
    name, found = m.extractor.name, list[Line]()
    for size, values in zip(curve.sizes.tolist(), curve.values, strict=True):
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(values, (tail, 1 - tail)).tolist() if size < m.n else (None, None)
        mean, fit = float(values.mean()), line.limit + line.slope / size
        found.append(
            {"features": name, "n": size, "draws": DRAWS if size < m.n else 1}
            | {"fd": mean, "low": low, "high": high, "fit": fit}
        )
    last = {"features": name, "n": "inf", "draws": line.values.shape[1]}
    return [*found, last | {"fd": line.limit, "low": None, "high": None, "fit": line.limit}]
