"""Videos of the corpus `mini`: a small moving scene per class, rendered on demand as an MP4 without sound.

The scene belongs to the clip's main event in part of the clips, and to a class that is not in the clip in
the others. Nothing is stored: the manifest's videos are `mini:<seed>:<index>:<class>:<seconds>`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from numpy.random import Generator, SeedSequence, default_rng

from ajbench.core.errors import UsageError
from ajbench.data.corpora import mp4
from ajbench.data.corpora.mini_canvas import FPS, Canvas
from ajbench.data.corpora.mini_scenes import LOOKS

NAMES = tuple(LOOKS)
NIGHT = 0.35  # share of dark backgrounds
_CHOICE, _WORDS, _PICTURE = 3, 4, 5  # the sounds of `mini` use 0 to 2


class Shown(NamedTuple):
    """What the video of a clip shows: the class of its scene, a caption, and whether that is in the clip."""

    label: str
    caption: str
    matches: bool


def shown(seed: int, index: int, labels: Sequence[str], match: float) -> Shown:
    """Draw what the video of clip `index` shows.

    With probability `match` it is the main event, `labels[0]`; otherwise a class drawn uniformly from those
    that are not in the clip. The clips that match with one probability also match with every higher one.

    Args:
        seed: of the corpus.
        index: number of the clip.
        labels: of the clip, the main event first; not all classes.
        match: share of clips whose scene matches, 0 … 1.
    """
    rng = _rng(seed, _CHOICE, index)
    matches = rng.random() < match
    other = rng.choice([name for name in NAMES if name not in labels])
    label = labels[0] if matches else str(other)
    rng = _rng(seed, _WORDS, index)
    caption = str(rng.choice(LOOKS[label].wordings))
    if rng.random() < 0.5:
        caption += " at night" if _at_night(_rng(seed, _PICTURE, index)) else " in daylight"
    return Shown(label, caption[0].upper() + caption[1:], matches)


def video_path(seed: int, index: int, label: str, duration_s: float) -> str:
    """Return the path in the manifest of the video of clip `index` that shows class `label`."""
    return f"mini:{seed}:{index}:{NAMES.index(label)}:{duration_s:g}"


def render(path: str) -> bytes:
    """Render a video as an MP4 file: H.264, 64 × 64 pixels, 8 frames per second, no sound.

    Raises:
        UsageError: `path` is not one that `video_path` returns.
    """
    try:
        corpus, *numbers, duration_s = path.split(":")
        seed, index, label = map(int, numbers)
        n = max(1, math.ceil(round(float(duration_s) * FPS, 6)))
        if corpus != "mini" or min(seed, index) < 0 or not 0 <= label < len(NAMES):
            raise ValueError
    except (ValueError, OverflowError):
        raise UsageError(
            f"{path}: expected mini:<seed>:<index>:<class 0 … {len(NAMES) - 1}>:<seconds>"
        ) from None
    rng = _rng(seed, _PICTURE, index)
    canvas = Canvas(rng, n, _at_night(rng))
    LOOKS[NAMES[label]].paint(canvas)
    return mp4.encode(canvas.frames(), FPS)


def _rng(seed: int, *key: int) -> Generator:
    return default_rng(SeedSequence(seed, spawn_key=key))


def _at_night(rng: Generator) -> bool:
    """The first draw of a picture."""
    return bool(rng.random() < NIGHT)
