"""The page of a captions table's checks: shares, lengths, words, and the worst captions to read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ajbench.captions import caption_table
from ajbench.captions.checks import PUBLISHED, TOP_WORDS, KindReport
from ajbench.core.files import atomic_write
from ajbench.reporting.formats import html, to_csv

SHOWN = 25  # captions of each check on the page; the CSV has more
CLASSES = 15
CHECKS = {
    "invented": (
        "Invented sounds",
        "These captions name an AudioSet class that no label implies and no source text names. A label "
        "implies the classes above it in the ontology, so Bark implies Dog and Animal.",
    ),
    "echo": (
        "Echoes of the examples",
        "These captions repeat four words in a row from the examples in the prompts, beyond what their "
        "labels say.",
    ),
}


COLUMNS = ("check", "kind", "clip_id", "text", "labels", "about")
FILES = ("captions.html", "captions.csv")


def write(folder: Path, found: Mapping[str, KindReport], out: Path) -> list[Path]:
    """Write `captions.html`, one self-contained file, and `captions.csv` with the worst captions.

    Args:
        folder: of the captions table.
        found: kind → report.
        out: folder of the two files.

    Returns:
        Their paths.
    """
    about = caption_table.info(folder)
    page = {
        "folder": str(folder),
        "counts": about["counts"],
        "fallbacks": sum(about["counts"].get("fallbacks", {}).values()),
        "kinds": [_part(kind, report) for kind, report in found.items()],
        "published": PUBLISHED,
        "top": TOP_WORDS,
    }
    flagged = [one.row() for report in found.values() for kept in report.worst.values() for one in kept]
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in FILES]
    atomic_write(paths[0], html("captions", page))
    atomic_write(paths[1], to_csv(flagged, columns=COLUMNS))
    return paths


def _part(kind: str, report: KindReport) -> dict[str, Any]:
    worst = [
        {"title": title, "note": note, "captions": report.worst[name][:SHOWN]}
        for name, (title, note) in CHECKS.items()
        if report.worst.get(name)
    ]
    return {
        "kind": kind,
        "summary": report.summary(),
        "words": report.top_words(),
        "invented_classes": report.invented_classes.most_common(CLASSES),
        "repeated": report.repeated,
        "worst": worst,
    }
