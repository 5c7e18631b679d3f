"""One row of a manifest, read: a wave cut to length and rounded to 16 bits, or the reason it is unusable."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ajbench.core.files import sha256
from ajbench.data import archive, audio, store
from ajbench.data.corpora import mini
from ajbench.data.manifest import Row

_MINI = "mini:"


@dataclass(frozen=True)
class ReadClip:
    """The sound of a row, or the reason why it is left out.

    Attributes:
        wav: float32 [n] at 16 kHz.
        flac: the same in 16 bits, unless the store links to the file.
        rate: sample rate of the source in Hz; None if it is not usable sound.
        found: whether the file exists.
        reason: why the row is left out; None if it is used.
        sha256: hash of a file that is left out.
    """

    wav: NDArray[np.float32] | None = None
    flac: bytes | None = None
    rate: int | None = None
    found: bool = True
    reason: str | None = None
    sha256: str | None = None


def read_clip(row: Row, duration_s: float, first: Row | None = None, link: bool = False) -> ReadClip:
    """Read the sound of one row.

    Args:
        row: names the file, or the clip of `mini` to render.
        duration_s: duration of a clip in seconds.
        first: the row that this one duplicates byte by byte.
        link: return no FLAC, as the store links to the file.
    """
    rendered = row.path.startswith(_MINI)
    rate = None
    try:
        if rendered:
            seed, index = row.path.removeprefix(_MINI).split(":")
            wav, rate = mini.render(int(seed), int(index), duration_s)[0], audio.SAMPLE_RATE
        else:
            n = audio.clip_samples(duration_s)
            with archive.local(row.path) as path:
                wav = store.read_piece(path, row.start_s, row.duration_s, n)
                rate = audio.probe(path)[0]
        reason = None
    except audio.AudioError as error:
        reason = error.reason
    if reason is None and first is not None:
        reason = f"byte-level duplicate of {first.clip_id} (split {first.split})"
    if reason is not None:
        found = rendered or Path(archive.container(row.path)).is_file()
        return ReadClip(rate=rate, found=found, reason=reason, sha256=_digest(row.path))
    if link and not rendered:
        return ReadClip(wav, rate=rate)
    flac = audio.flac_encode(wav)
    return ReadClip(audio.flac_decode(flac), flac, rate)


def _digest(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return sha256(Path(path))
    return None
