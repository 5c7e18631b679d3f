"""Sound files as libsndfile opens them: unknown lengths, truncation, floats above full scale."""

import os
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from ajbench.core import console

UNKNOWN = 0x7FFF_F000  # bytes: from here on, the length in a WAV header means that its writer did not know it
INT16 = 256  # peak of a float file from which its samples must be unscaled integers
FLOATS = ("FLOAT", "DOUBLE")


def open_file(path: Path) -> soundfile.SoundFile:
    """Open a sound file by handle: by name, libsndfile would prefer an AppleDouble file beside it."""
    return soundfile.SoundFile(os.open(path, os.O_RDONLY), closefd=True)


def part(file: soundfile.SoundFile, start: int, count: int) -> NDArray[np.float32]:
    """Return `count` frames from `start`, float32 [n, channels]; codecs that cannot seek are read from 0."""
    if file.seekable():
        file.seek(start)
    else:
        skipped = 0
        while skipped < start and len(block := file.read(min(start - skipped, 1 << 20), always_2d=True)):
            skipped += len(block)
    samples: NDArray[np.float32] = file.read(count, dtype="float32", always_2d=True)
    return samples


def scaled(samples: NDArray[np.float32], file: soundfile.SoundFile, path: Path) -> NDArray[np.float32]:
    """Return the samples of a float file within full scale, and count the file if they were not.

    Unscaled 16-bit integers are divided by 32,768, others by their peak. Lossy codecs may overshoot and are
    left alone.
    """
    if file.subtype not in FLOATS or not samples.size:
        return samples
    peak = float(np.abs(samples).max())
    if not 1.0 < peak < np.inf:
        return samples
    if INT16 < peak <= 32_768:
        console.tally("float samples are unscaled 16-bit integers; divided by 32,768", str(path))
        return samples / np.float32(32_768)
    console.tally("float samples above full scale; scaled to it", str(path))
    return samples / np.float32(peak)


def truncation(path: Path) -> str | None:
    """Return how a WAV or Ogg file is truncated, if it is: libsndfile decodes the rest without an error."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF":
            declared = int.from_bytes(head[4:8], "little")
            # Streaming writers leave 0 or a huge number; some writers count the 8 bytes of this header too.
            if size < declared < UNKNOWN:
                return f"truncated (header declares {declared + 8} bytes, file has {size})"
        if head[:4] == b"OggS":
            file.seek(max(0, size - 65_307))  # the longest Ogg page
            tail = file.read()
            page = tail.rfind(b"OggS")
            header = tail[page : page + 27]
            segments = tail[page + 27 : page + 27 + header[26]] if page >= 0 and len(header) == 27 else b""
            whole = len(header) == 27 and page + 27 + header[26] + sum(segments) <= len(tail)
            if page < 0 or not whole or not header[5] & 4:
                return "truncated (Ogg stream without its last page)"
    return None
