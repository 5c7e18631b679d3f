"""The page of a leak audit: one HTML file with the list of pairs, the surest of them to listen to."""

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ajbench.core.files import atomic_write
from ajbench.data import audio
from ajbench.data.clip_set import ClipSet
from ajbench.evaluation.audit_findings import Audit, Finding
from ajbench.evaluation.audit_similarity import wave_of
from ajbench.reporting import figures
from ajbench.reporting.formats import html
from ajbench.reporting.spectrogram import spectrogram

PLAYED = 10  # pairs with players per relation; a pair of 5-s clips takes 0.3 MB
LISTED = 500
MAX_PLAYED_S = 10.0
VIEWS = {"near": "Spectral detail", "embedding": "Embedding"}
PARTS = {
    "leak": (
        "Synthetic clips that repeat, or may repeat, eval clips",
        "A classifier trained on copies of eval clips has seen its test set. Pairs that are near by spectral "
        "detail or embedding only may be chance.",
    ),
    "split": (
        "Train clips that repeat, or may repeat, eval clips",
        "The real splits share these without any synthetic clip. Clips generated from the train clip may "
        "repeat the eval clip.",
    ),
    "memorised": (
        "Synthetic clips that repeat, or may repeat, train clips",
        "These do not affect the evaluation. An image-to-image clip is expected to resemble its own guide; "
        "such pairs are marked.",
    ),
}


def render(found: Audit, sets: tuple[ClipSet, ClipSet, ClipSet], out: Path) -> Path:
    """Write the page, a single self-contained file, and return its path.

    Args:
        found: the result of the audit.
        sets: the synthetic, train and eval clips.
        out: the HTML file.
    """
    by_name = {
        which: (clips, {name: number for number, name in enumerate(clips.names)})
        for which, clips in zip(("synth", "train", "eval"), sets, strict=True)
    }
    parts = [
        {
            "title": title,
            "note": note,
            "clips": len({one.clip for one in pairs}),
            "pairs": len(pairs),
            "played": list(_played(pairs[:PLAYED], by_name)),
            "rows": [one.row() for one in pairs[:LISTED]],
        }
        for relation, (title, note) in PARTS.items()
        if (pairs := found.of(relation))
    ]
    charts = []
    for one in found.calibrations:
        names = f"real clips of the other split ({len(one.real)})", f"synthetic clips ({len(one.synthetic)})"
        scores = one.real, one.synthetic, one.threshold
        svg = figures.distribution(*scores, names, "standout of the nearest clip")
        charts.append({"title": f"{VIEWS[one.view]}: nearest {one.set} clip", "row": one.row(), "svg": svg})
    page = {
        "counts": found.counts(),
        "sentences": found.sentences(),
        "paths": {which: str(clips.path) for which, (clips, _) in by_name.items()},
        "parts": parts,
        "charts": charts,
        "unusable": found.skipped[:LISTED],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, html("audit", page))
    return out


def _played(pairs: Sequence[Finding], by_name: Any) -> Iterator[dict[str, Any]]:
    for one in pairs:
        row = one.row()
        sides = {"left": (row["set"], one.clip), "right": (row["match_set"], one.match)}
        yield row | {
            side: {"name": name, "set": which, **_sound(by_name[which], name)}
            for side, (which, name) in sides.items()
        }


def _sound(named: tuple[ClipSet, dict[str, int]], name: str) -> dict[str, str]:
    clips, places = named
    wave = wave_of(clips, places[name])[: int(MAX_PLAYED_S * audio.SAMPLE_RATE)]
    sound, image = (base64.b64encode(x).decode() for x in (audio.flac_encode(wave), spectrogram(wave)))
    return {"audio": f"data:audio/flac;base64,{sound}", "image": f"data:image/png;base64,{image}"}
