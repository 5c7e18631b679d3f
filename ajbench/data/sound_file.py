"""Sound files as libsndfile opens them: unknown lengths, truncation, floats above full scale."""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from ajbench.core import console

UNKNOWN = 0x7FFF_F000  # bytes: from here on, the length in a WAV header means that its writer did not know it
INT16 = 256  # peak of a float file from which its samples must be unscaled integers
BLOCK = 1 << 20  # values, of all channels, that are read at once
MOST_VALUES = 1 << 27  # of a file or a part of it: 46 minutes at 48 kHz, 512 MB
UNKNOWN_FRAMES = 1 << 40  # what libsndfile reports for a stream whose writer did not know its length is above
FLOATS = ("FLOAT", "DOUBLE")


class TooLong(Exception):
    """A file, or a part of it, has more than `MOST_VALUES`."""


def open_file(path: Path) -> soundfile.SoundFile:
    """Open a sound file by handle: by name, libsndfile would prefer an AppleDouble file beside it."""
    return soundfile.SoundFile(os.open(path, os.O_RDONLY), closefd=True)


def has_no_length(file: soundfile.SoundFile) -> bool:
    """Return whether the writer of a file, a stream, did not know its length."""
    return int(file.frames) >= UNKNOWN_FRAMES


def length(file: soundfile.SoundFile) -> int:
    """Return the number of frames; a stream of unknown length is read to its end."""
    return sum(map(len, _blocks(file, file.frames))) if has_no_length(file) else int(file.frames)


def part(file: soundfile.SoundFile, start: int, count: int) -> NDArray[np.float32]:
    """Return up to `count` frames from `start`, float32 [n, channels].

    Codecs that cannot seek, and streams of unknown length, are read from their beginning.

    Raises:
        TooLong: more than `MOST_VALUES`.
    """
    skip = start
    if file.seekable() and not has_no_length(file):
        file.seek(start)
        skip = 0
    kept, size = list[NDArray[np.float32]](), 0
    for block in _blocks(file, skip + count):
        kept.append(block[skip:])
        skip = max(0, skip - len(block))
        size += kept[-1].size
        if size > MOST_VALUES:
            raise TooLong(f"more than {MOST_VALUES // file.channels / file.samplerate:.0f} s at once")
    return kept[0] if len(kept) == 1 else np.concatenate([np.zeros((0, file.channels), np.float32), *kept])


def _blocks(file: soundfile.SoundFile, count: int) -> Iterator[NDArray[np.float32]]:
    """Yield the next `count` frames, or those that there are, in blocks float32 [n, channels].

    A header may declare any length, so nothing of that length is allocated.
    """
    step = max(1, BLOCK // file.channels)
    while count > 0:
        wanted = min(count, step)
        block: NDArray[np.float32] = np.full((wanted, file.channels), np.nan, np.float32)
        try:
            got = len(file.read(out=block))
        except soundfile.LibsndfileError:
            if not has_no_length(file):
                raise
            got = int(np.isfinite(block[:, 0]).sum())  # it fails to seek to the end, after the last samples
        yield block[:got]
        if got < wanted:
            return
        count -= got


def scaled(samples: NDArray[np.float32], file: soundfile.SoundFile, path: Path) -> NDArray[np.float32]:
    """Return samples of a float file within full scale, and count the file if it was not.

    Unscaled 16-bit integers are divided by 32,768, others by the peak of the file, of which the samples may
    be a part: all its parts have one gain (not of streams, which are not read twice). Lossy codecs may
    overshoot and are left alone.
    """
    if file.subtype not in FLOATS or not samples.size:
        return samples
    whole = len(samples) == file.frames or not file.seekable() or has_no_length(file)
    about = None if whole else path.stat()
    peak = _peak(path, about.st_size, about.st_mtime_ns) if about else float(np.abs(samples).max())
    if not 1.0 < peak < np.inf:
        return samples
    if INT16 < peak <= 32_768:
        console.tally("float samples are unscaled 16-bit integers; divided by 32,768", str(path))
        return samples / np.float32(32_768)
    console.tally("float samples above full scale; scaled to it", str(path))
    return samples / np.float32(peak)


@lru_cache(maxsize=4096)
def _peak(path: Path, size: int, changed: int) -> float:
    """Return the highest finite magnitude in a float file of this size and time of change."""
    with open_file(path) as file:
        peaks = (np.abs(block[np.isfinite(block)]).max(initial=0) for block in _blocks(file, file.frames))
        return float(max(peaks, default=0.0))


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
