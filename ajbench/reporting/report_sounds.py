"""The sounds of a report: each clip once, as FLAC and as a spectrogram, in two folders beside the pages."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ajbench.core.files import atomic_write
from ajbench.data import audio
from ajbench.data.store import Clip
from ajbench.reporting.spectrogram import spectrogram

FOLDERS = ("audio", "img")
QUIETEST_DB = -100.0  # level of digital silence


def clear(out: Path) -> None:
    """Empty the folders of sounds and spectrograms of the report in `out`."""
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)


def write(name: str, clip: Clip, out: Path) -> dict[str, Any]:
    """Write a clip and its spectrogram and return what a page shows of it.

    Args:
        name: of the clip's set.
        clip: of a store.
        out: the folder of the report.

    Returns:
        `audio` and `image` (links relative to `out`), `brief` and `detail` (texts), `clip_id`, `set`,
        `labels`, and `level_db`, the RMS level relative to full scale.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{name}-{clip.index}-{clip.clip_id}")[:80]
    sound, image = out / "audio" / f"{stem}.flac", out / "img" / f"{stem}.png"
    wav = clip.audio()
    if not sound.exists():  # else another page shows it
        audio.write(sound, wav)
        atomic_write(image, spectrogram(wav))
    drawn = f"strength {clip.strength:g}, guidance {clip.guidance:g}" if clip.strength is not None else ""
    facts = dict.fromkeys(filter(None, [clip.clip_id, ", ".join(clip.labels), drawn]))
    power = float(np.mean(np.square(wav, dtype=np.float64)))
    return {
        "audio": f"audio/{sound.name}",
        "image": f"img/{image.name}",
        "brief": drawn or clip.clip_id,
        "detail": " · ".join(facts),
        "clip_id": clip.clip_id,
        "set": name,
        "labels": clip.labels,
        "level_db": round(max(QUIETEST_DB, 10 * np.log10(max(power, 1e-30))), 1),
    }
