"""The samples of clips: 16-bit integers and floats, pieces of files, many clips read by several threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ajbench.core.device import readers
from ajbench.data import archive, audio

Samples = NDArray[np.int16] | NDArray[np.float32]  # of a clip [n]; floats have full scale 1
STEP = np.float32(1 / 32768)  # of 16-bit samples; a power of 2, so that nothing is rounded


def read_piece(path: str, start_s: float, duration_s: float | None, n: int) -> NDArray[np.float32]:
    """Read the first `n` samples at 16 kHz of a segment of a file, zero-padded if it is shorter.

    Raises:
        AudioError: the segment is not usable.
    """
    longest = n / audio.SAMPLE_RATE
    with archive.local(path) as file:
        wav = audio.read(file, start_s=start_s, duration_s=min(longest, duration_s or longest))
    return audio.fit(wav, n)


def write_float(samples: Samples, out: NDArray[np.float32]) -> None:
    """Write the samples of a clip into `out`, float32 [n]."""
    if samples.dtype == np.int16:
        np.multiply(samples, STEP, out=out, dtype=np.float32)
    else:
        out[:] = samples


def write_int16(samples: Samples, out: NDArray[np.int16]) -> None:
    """Write the samples of a clip into `out`, int16 [n], rounded and clipped."""
    if samples.dtype == np.int16:
        out[:] = samples
    else:
        out[:] = np.rint(samples / STEP).clip(-32768, 32767)


def as_float(rows: Sequence[Samples], n: int) -> NDArray[np.float32]:
    """Return the samples of clips, float32 [k, n]."""
    out = np.empty((len(rows), n), np.float32)
    for samples, row in zip(rows, out, strict=True):
        write_float(samples, row)
    return out


def read_into(
    out: NDArray[Any],
    indices: NDArray[np.int64],
    read: Callable[[int], Samples],
    write: Callable[[Samples, Any], None],
) -> None:
    """Fill the rows of `out` [k, n] with clips; each is read once, however often it is asked for.

    Args:
        out: the rows.
        indices: of the clips [k].
        read: index of a clip → its samples; called by several threads (`device.readers`).
        write: writes samples into a row.
    """
    _, first, same = np.unique(indices, return_index=True, return_inverse=True)

    def fill(place: int) -> None:
        write(read(int(indices[place])), out[place])

    if len(first) == 1:
        fill(int(first[0]))
    else:
        # One pool per call: threads that outlive the call would not survive the fork of a data loader.
        with ThreadPoolExecutor(readers()) as pool:
            list(pool.map(fill, first.tolist()))
    for place, source in enumerate(first[same].tolist()):
        if place != source:
            out[place] = out[source]
