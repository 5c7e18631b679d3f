"""One row of a manifest, read: a wave cut to length and rounded to 16 bits, or the reason it is unusable."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ajbench.core import console
from ajbench.core.files import sha256
from ajbench.data import archive, audio
from ajbench.data.clip_audio import read_piece
from ajbench.data.corpora import mini
from ajbench.data.manifest import Row
from ajbench.data.noise import Noise

_MINI = "mini:"


@dataclass(frozen=True)
class ReadClip:
    """The sound of a row, or the reason why it is left out.

    Attributes:
        wav: float32 [n] at 16 kHz.
        flac: the same in 16 bits, unless the store links to the file.
        rate: sample rate of the source in Hz; None if it is not usable sound.
        seconds: that the source lasts from the clip's start.
        found: whether the file exists.
        reason: why the row is left out; None if it is used.
        sha256: hash of a file that is left out.
    """

    wav: NDArray[np.float32] | None = None
    flac: bytes | None = None
    rate: int | None = None
    seconds: float | None = None
    found: bool = True
    reason: str | None = None
    sha256: str | None = None


def read_clip(
    row: Row, duration_s: float, first: Row | None = None, link: bool = False, noise: Noise | None = None
) -> ReadClip:
    """Read the sound of one row.

    Args:
        row: names the file, or the clip of `mini` to render.
        duration_s: duration of a clip in seconds.
        first: the row that this one duplicates byte by byte.
        link: return no FLAC, as the store links to the file; a clip with noise has its FLAC nevertheless.
        noise: added to the sound.
    """
    rendered = row.path.startswith(_MINI)
    rate, seconds = None, duration_s
    try:
        if rendered:
            seed, index = row.path.removeprefix(_MINI).split(":")
            wav, rate = mini.render(int(seed), int(index), duration_s)[0], audio.SAMPLE_RATE
        else:
            n = audio.clip_samples(duration_s)
            with archive.local(row.path) as path:
                wav = read_piece(path, row.start_s, row.duration_s, n)
                rate, _, frames = audio.probe(path)
                seconds = frames / rate - row.start_s
        reason = None
    except audio.AudioError as error:
        reason = error.reason
    if reason is None and first is not None:
        reason = f"byte-level duplicate of {first.clip_id} (split {first.split})"
    if reason is not None:
        found = rendered or Path(archive.container(row.path)).is_file()
        return ReadClip(rate=rate, found=found, reason=reason, sha256=_digest(row.path))
    if noise:
        lasts = min(seconds, row.duration_s or seconds)
        wav = noise.added(wav, round(lasts * audio.SAMPLE_RATE), row.clip_id)
    elif link and not rendered:
        return ReadClip(wav, rate=rate, seconds=seconds)
    flac = audio.flac_encode(wav)
    return ReadClip(audio.flac_decode(flac), flac, rate, seconds)


def tally_length(row: Row, available_s: float, duration_s: float) -> None:
    """Count the file of a clip that is cut, or padded with silence, by more than a twentieth of a clip."""
    if available_s > 1.05 * duration_s and (row.duration_s or np.inf) > 1.05 * duration_s:
        console.tally(f"longer than {duration_s:g} s; the rest is left out", row.path)
    elif min(available_s, row.duration_s or np.inf) < 0.95 * duration_s:
        console.tally(f"shorter than {duration_s:g} s; padded with silence", row.path)


def _digest(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return sha256(Path(path))
    return None
