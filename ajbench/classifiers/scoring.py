"""Logits of many clips, some at a time, by all processes of a launch."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ajbench.core import console, memory
from ajbench.core.run_dir import world

Floats = NDArray[np.float32]


def in_batches(
    logits: Callable[[NDArray[np.int64]], Floats], clips: int, classes: int, batch: int, shared: bool
) -> Floats:
    """Return the logits float32 [clips, classes] of clips, `batch` clips at a time.

    Args:
        logits: places of some clips [k] → their logits [k, classes].
        clips: how many there are.
        classes: how many there are.
        batch: clips at a time.
        shared: every process of a launch calls this and computes its part; all return the whole.

    Raises:
        MissingError: memory is so short that they may be wrong.
    """
    out = np.empty((clips, classes), dtype=np.float32)
    processes, rank = world() if shared else (1, 0)
    starts = range(rank * batch, clips, processes * batch)
    with console.progress(len(starts) * batch, "predict") as advance:
        for start in starts:
            places = np.arange(start, min(start + batch, clips))
            with memory.reserved():
                out[places] = logits(places)
            advance(batch)
    if processes > 1:
        from accelerate.utils import gather_object

        own = [(start, out[start : start + batch]) for start in starts]
        for start, part in gather_object(own):
            out[start : start + batch] = part
    return out
