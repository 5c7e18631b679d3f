"""Spoken and handwritten digits: recordings of people who say a digit, paired with pictures of a digit.

The sound is the Free Spoken Digit Dataset (Z. Jackson and others, CC BY-SA 4.0,
https://github.com/Jakobovski/free-spoken-digit-dataset), the pictures are the 1,797 of scikit-learn's
`load_digits` (E. Alpaydin and C. Kaynak, 1998), in the way of AV-MNIST. Nothing is stored: the manifest's
videos are `avdigits:<seed>:<picture>:<clip id>:<seconds>`, and `render` makes them.

Layout: `recordings/<digit>_<speaker>_<number>.wav`, or the folder of these files itself.
"""

import functools
import hashlib
import math
import re
from pathlib import Path

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import mp4
from ajbench.data.corpora.splits import corpus_root, need_splits, split_by_fold
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Problem, Row

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FOLDS = 3  # of speakers, in the order of their names
FPS = 8
SIZE = 64  # pixels, height and width
_NAME = re.compile(r"([0-9])_(.+)_[0-9]+")
_PAIR, _PICTURE = range(2)
_WORDINGS = ("a handwritten {}", "the digit {}, written by hand", "the number {} in ink")


def read(data: Data, root: Path | None) -> Manifest:
    """Read the recordings under `root`, and pair them with pictures if `data.video` is not none.

    Speakers are split, in the order of their names, into three folds of equal size; `data.eval_fold` (None:
    the last) is the eval split, the others train. The pictures are split into three folds too (see
    `picture_folds`), so that neither a speaker nor a picture is in two folds. The label is the spoken digit.
    The picture shows the same digit in `data.match` of the clips and another one, drawn uniformly, in the
    others. A pair depends on `data.corpus_seed`, the fold and the name of the recording only.

    Raises:
        UsageError: no root, a subset, or a fold without clips.
        MissingError: no recordings, or all of them in one fold.
    """
    root = corpus_root(data, root, "the folder of recordings/<digit>_<speaker>_<number>.wav", folds=True)
    folder = root / "recordings" if (root / "recordings").is_dir() else root
    if not folder.is_dir():
        raise MissingError(f"{folder}: missing; expected files <digit>_<speaker>_<number>.wav in a folder")
    files = sorted(folder.glob("*.wav"))
    named = {path: match for path in files if (match := _NAME.fullmatch(path.stem))}
    speakers = sorted({match[2] for match in named.values()})
    rows = []
    for path, match in named.items():
        digit, speaker = int(match[1]), match[2]
        fold = speakers.index(speaker) * FOLDS // len(speakers) + 1
        video = caption = None
        if data.video != "none":
            video, caption = _pair(data, path.stem, digit, fold)
        rows.append(
            Row(
                path.stem,
                str(path.resolve()),
                labels=(DIGITS[digit],),
                fold=fold,
                caption=f"A person says the word {DIGITS[digit]}",
                video=video,
                visual_caption=caption,
                recording=f"fsdd:{speaker}",
            )
        )
    reason = "the name is not <digit>_<speaker>_<number>"
    unnamed = [Problem(path.stem, str(path), None, reason) for path in files if path not in named]
    rows, problems = split_by_fold(rows, unnamed, data.eval_fold)
    need_splits(rows, problems, folder, "files <digit>_<speaker>_<number>.wav")
    return Manifest(rows, LabelSet(DIGITS), problems)


def picture_folds() -> NDArray[np.int64]:
    """Return the fold 1 … 3 of each picture [1797]: the first third, the second, the last.

    The pictures come writer after writer, whose names are not known, so that few writers are in two folds.
    """
    n = len(_pictures()[0])
    return np.arange(n) * FOLDS // n + 1


def render(path: str) -> bytes:
    """Render a video as an MP4 file: H.264, 64 × 64 pixels, 8 frames per second, no sound.

    The picture drifts and turns a little, in one colour of ink, under the noise of a camera.

    Raises:
        UsageError: `path` is not one that `read` writes.
    """
    images = _pictures()[0]
    try:
        corpus, seed, picture, rest = path.split(":", 3)
        clip_id, _, duration_s = rest.rpartition(":")
        n = max(1, math.ceil(round(float(duration_s) * FPS, 6)))
        rng, place = _rng(int(seed), _PICTURE, _number(clip_id)), int(picture)
        if corpus != "avdigits" or not 0 <= place < len(images):
            raise ValueError
    except (ValueError, OverflowError):
        raise UsageError(
            f"{path}: expected avdigits:<seed>:<picture 0 … {len(images) - 1}>:<clip id>:<seconds>"
        ) from None
    return mp4.encode(_frames(rng, images[place], n), FPS)


def _frames(rng: Generator, image: NDArray[np.float32], n: int) -> NDArray[np.uint8]:
    """Return the moving picture, uint8 [n, 64, 64, 3]."""
    from scipy.ndimage import map_coordinates

    time = np.arange(n, dtype=np.float32)[:, None, None] / FPS
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    scale = rng.uniform(0.65, 0.9)
    x0, y0, drift_x, drift_y = rng.uniform(-0.15, 0.15, 4)
    angle = rng.uniform(-0.15, 0.15) + 0.08 * np.sin(2 * np.pi * rng.uniform(0.3, 1) * time)
    x, y = (
        (axis[None, None, :] - x0 - drift_x * time) / scale,
        (axis[None, :, None] - y0 - drift_y * time) / scale,
    )
    turned = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    places = [3.5 + 4 * part for part in (turned[1], turned[0])]
    ink = map_coordinates(image, np.broadcast_arrays(*places), order=1, cval=0.0)[..., None]
    paper, pen = rng.uniform(0.0, 0.3, 3), rng.uniform(0.6, 1.0, 3)
    picture = paper + ink * (pen - paper) + rng.uniform(0.01, 0.06) * rng.standard_normal((n, SIZE, SIZE, 1))
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _pair(data: Data, clip_id: str, digit: int, fold: int) -> tuple[str, str]:
    """Return the video and the visual caption of a clip."""
    rng = _rng(data.corpus_seed, _PAIR, _number(clip_id))
    matches = rng.random() < data.match
    other = (digit + int(rng.integers(1, 10))) % 10
    written = digit if matches else other
    images_of_digit = (_pictures()[1] == written) & (picture_folds() == fold)
    picture = int(rng.choice(np.flatnonzero(images_of_digit)))
    text = str(rng.choice(_WORDINGS)).format(DIGITS[written])
    video = f"avdigits:{data.corpus_seed}:{picture}:{clip_id}:{data.duration_s:g}"
    return video, text[0].upper() + text[1:]


@functools.cache
def _pictures() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The pictures, float32 [1797, 8, 8] in 0 … 1, and the digits that they show [1797]."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images / 16).astype(np.float32), found.target


def _number(clip_id: str) -> int:
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:4], "big")


def _rng(seed: int, *key: int) -> Generator:
    return default_rng(SeedSequence(seed, spawn_key=key))
