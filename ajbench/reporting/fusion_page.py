"""The page of Table A8: the tables, and evaluation clips to see and hear with what models made of them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ajbench.core.files import atomic_write
from ajbench.data import audio
from ajbench.data.corpora.rendered import video_source
from ajbench.data.labels import Scores
from ajbench.data.store import ClipStore
from ajbench.data.video import VideoDefect, frames
from ajbench.reporting.formats import Block, html
from ajbench.reporting.spectrogram import spectrogram

SHOWN = 4  # clips of each kind
FRAMES_AT = (1 / 3, 1 / 2, 3 / 4)  # of the clip, as for visual captions
HEIGHT = 96  # of pictures, at most, in pixels
KINDS = {
    "lost": "One modality alone is right, both together are wrong (μ)",
    "won": "Only both together are right",
    "video": "Video is right, audio is wrong",
    "right": "Both together are right, like audio alone",
}


@dataclass(frozen=True)
class Example:
    """One evaluation clip."""

    kind: str  # of KINDS
    index: int  # in the store
    predictions: dict[str, str]  # modality → class
    score: float | None  # entailment; None: the clip has none


def choose(
    scores: dict[str, Scores],
    entailed: NDArray[np.float64],
    indices: NDArray[np.int64],
    seen: NDArray[np.bool_],
) -> list[Example]:
    """Return up to SHOWN clips of each kind, in the order of the evaluation clips.

    Args:
        scores: modality → predictions of one model.
        entailed: scores of the evaluation clips [n], NaN where there is none.
        indices: of these clips in the store [n].
        seen: whether they have a video [n]: without one, video is never right, as in the tables.
    """
    best = {modality: found.scores.argmax(axis=1) for modality, found in scores.items()}
    both = scores["A+V"]
    places = np.arange(len(both.scores))
    a, v, av = (both.targets[places, best[modality]] > 0 for modality in ("A", "V", "A+V"))
    v &= seen
    which = {"lost": (a | v) & ~av, "won": av & ~a & ~v, "video": v & ~a, "right": av & a}
    found = []
    for kind, chosen in which.items():
        for n in np.flatnonzero(chosen)[:SHOWN].tolist():
            named = {modality: both.labels[best[modality][n]] for modality in scores}
            score = float(entailed[n]) if seen[n] and np.isfinite(entailed[n]) else None
            found.append(Example(kind, int(indices[n]), named, score))
    return found


def render(
    out: Path, title: str, blocks: Sequence[Block], store: ClipStore, examples: Sequence[Example], model: str
) -> Path:
    """Write the page, a single self-contained file, and return its path.

    Args:
        out: the HTML file.
        title: of the page.
        blocks: the tables.
        store: of the clips.
        examples: the clips to show.
        model: name of the model that predicted them.
    """
    parts = [
        {"title": name, "clips": [_shown(store, one) for one in examples if one.kind == kind]}
        for kind, name in KINDS.items()
    ]
    page = {"title": title, "blocks": blocks, "parts": [p for p in parts if p["clips"]], "model": model}
    atomic_write(out, html("fusion", page))
    return out


def _shown(store: ClipStore, one: Example) -> dict[str, Any]:
    clip = store[one.index]
    wave = clip.audio()
    length = len(wave) / audio.SAMPLE_RATE
    pictures: list[str] = []
    if clip.video is not None:
        try:
            shown = frames(video_source(clip.video), [clip.start_s + share * length for share in FRAMES_AT])
            pictures = [_embedded(_png(image), "image/png") for image in shown]
        except VideoDefect:
            pictures = []
    return {
        "name": clip.clip_id,
        "labels": ", ".join(clip.labels),
        "caption": clip.visual_caption or "",
        "predictions": one.predictions,
        "score": one.score,
        "pictures": pictures,
        "image": _embedded(spectrogram(wave), "image/png"),
        "audio": _embedded(audio.flac_encode(wave), "audio/flac"),
    }


def _png(image: NDArray[np.uint8]) -> bytes:
    picture, content = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((4 * HEIGHT, HEIGHT))
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def _embedded(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
