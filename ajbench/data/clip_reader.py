"""A row of a manifest, heard: a wave cut to length and rounded to 16 bits, or a reason why there is none."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ajbench.core.files import sha256
from ajbench.data import audio, store
from ajbench.data.corpora import mini
from ajbench.data.manifest import Row

_MINI = "mini:"


@dataclass(frozen=True)
class Heard:
    """What became of a row: a wave and, unless its file is linked to, FLAC; or a reason why not.

    Attributes:
        rate: Hz, of the source; None where it is no usable sound.
        found: whether there is a file at all.
        sha256: of a file that was left out.
    """

    wav: NDArray[np.float32] | None = None
    flac: bytes | None = None
    rate: int | None = None
    found: bool = True
    reason: str | None = None
    sha256: str | None = None


def hear(row: Row, duration_s: float, first: Row | None = None, link: bool = False) -> Heard:
    """Read one row's piece of sound.

    Args:
        row: names the file, or the clip of `mini` to render.
        duration_s: of a clip.
        first: the row that this one is a byte-level duplicate of.
        link: keep no FLAC.
    """
    rendered = row.path.startswith(_MINI)
    rate = None
    try:
        if rendered:
            wav, rate = _render(row.path, duration_s), audio.SAMPLE_RATE
        else:
            n = audio.clip_samples(duration_s)
            wav = store.read_piece(row.path, row.start_s, row.duration_s, n)
            rate = audio.probe(row.path)[0]
        reason = None
    except audio.AudioError as error:
        reason = error.reason
    if reason is None and first is not None:
        reason = f"byte-level duplicate of {first.clip_id} (split {first.split})"
    if reason is not None:
        found = rendered or Path(row.path).is_file()
        return Heard(rate=rate, found=found, reason=reason, sha256=_digest(row.path))
    if link and not rendered:
        return Heard(wav, rate=rate)
    flac = audio.flac_encode(wav)
    return Heard(audio.flac_decode(flac), flac, rate)


def _render(path: str, duration_s: float) -> NDArray[np.float32]:
    seed, index = path.removeprefix(_MINI).split(":")
    return mini.render(int(seed), int(index), duration_s)[0]


def _digest(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return sha256(Path(path))
    return None
