"""The page of a leak audit: one HTML file with the list of pairs, those at the top to listen to."""

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2

from ajbench.core.files import atomic_write
from ajbench.data import audio
from ajbench.data.clip_set import ClipSet
from ajbench.evaluation.audit_findings import Audit, Finding
from ajbench.evaluation.audit_similarity import wave_of
from ajbench.reporting import figures

PLAYED = 10  # pairs of each relation with players: ESC-10's take 0.3 MB each
LISTED = 500
LONGEST_S = 10.0  # of a clip in a player
TITLES = {
    "leak": "Synthetic clips that repeat eval clips, or may",
    "split": "Train clips that repeat eval clips, or may",
    "memorised": "Synthetic clips that repeat train clips, or may",
}
NOTES = {
    "leak": "A classifier trained on copies has heard its test. "
    "What is near or embedding alone may be chance.",
    "split": "They are there without any synthetic clip; what is generated from copies may repeat eval "
    "clips.",
    "memorised": "No leak into the evaluation. It is expected of clips made from one by image-to-image: "
    "those are marked.",
}


def render(found: Audit, sets: tuple[ClipSet, ClipSet, ClipSet], out: Path) -> Path:
    """Write the page, which needs no other file, and return its path.

    Args:
        found: the audit.
        sets: the synthetic, train and eval clips that it heard.
        out: an HTML file.
    """
    by_name = {
        which: (clips, {name: number for number, name in enumerate(clips.names)})
        for which, clips in zip(("synth", "train", "eval"), sets, strict=True)
    }
    parts = []
    for relation, title in TITLES.items():
        pairs = found.of(relation)
        if pairs:
            parts.append(
                {
                    "title": title,
                    "note": NOTES[relation],
                    "clips": len({one.clip for one in pairs}),
                    "pairs": len(pairs),
                    "played": list(_played(pairs[:PLAYED], by_name)),
                    "rows": [one.row() for one in pairs[:LISTED]],
                }
            )
    charts = [
        {
            "title": f"{yard.view}: nearest {yard.set} clip",
            "row": yard.row(),
            "svg": figures.distribution(
                yard.honest,
                yard.synthetic,
                yard.threshold,
                (f"real clips of the other split ({len(yard.honest)})", f"synthetic ({len(yard.synthetic)})"),
                "how far the nearest clip stands out",
            ),
        }
        for yard in found.yardsticks
    ]
    page = {
        "counts": found.counts(),
        "told": found.told(),
        "paths": {which: str(clips.path) for which, (clips, _) in by_name.items()},
        "parts": parts,
        "charts": charts,
        "troubles": found.troubles[:LISTED],
    }
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, environment.get_template("audit.html.j2").render(page))
    return out


def _played(pairs: Sequence[Finding], by_name: Any) -> Iterator[dict[str, Any]]:
    for one in pairs:
        row = one.row()
        yield row | {
            side: {"name": name, "set": which, **_sound(by_name[which], name)}
            for side, which, name in (
                ("left", row["set"], one.clip),
                ("right", row["match_set"], one.match),
            )
        }


def _sound(one: tuple[ClipSet, dict[str, int]], name: str) -> dict[str, str]:
    clips, places = one
    wave = wave_of(clips, places[name])[: int(LONGEST_S * audio.SAMPLE_RATE)]
    kinds = (
        ("audio", "audio/flac", audio.flac_encode(wave)),
        ("image", "image/png", figures.spectrogram(wave)),
    )
    return {key: f"data:{kind};base64,{base64.b64encode(data).decode()}" for key, kind, data in kinds}
