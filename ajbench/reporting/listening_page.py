"""The page of a blind listening test: sounds of the report in a drawn order, and a sheet of the answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ajbench.core.files import atomic_write
from ajbench.core.recipe import Recipe
from ajbench.evaluation.listening_sheets import FORMAT
from ajbench.reporting.formats import html

PAGE = "listen.html"
OPTIONS = 4  # classes to choose from
FACTS = ("audio", "clip_id", "set", "labels", "level_db")  # of each sound


def render(lines: Sequence[Mapping[str, Any]], recipe: Recipe, out: Path) -> Path:
    """Write `listen.html` from the rows of `clip_list.rows` into the folder of the report; return its path.

    Args:
        lines: generated clips with their sounds, which are in the folder.
        recipe: of the run.
        out: the folder of the report.
    """
    sounds: dict[str, dict[str, Any]] = {}
    trials = []
    for line in lines:
        for sound in filter(None, line["sounds"].values()):
            sounds.setdefault(sound["audio"], {name: sound[name] for name in FACTS})
        # A pair: a generated clip and its guide, or a real clip of its class.
        other = line["sounds"]["guide"] or line["sounds"]["real"]
        if other:
            trials.append([line["sounds"]["generated"]["audio"], other["audio"]])
    classes = sorted({line["label"] for line in lines})
    data = {
        "format": FORMAT,
        "recipe": recipe.name,
        "options": OPTIONS,
        "classes": classes,
        "sounds": list(sounds.values()),
        "pairs": trials,
    }
    page = {"recipe": recipe, "data": data, "sets": list(dict.fromkeys(line["set"] for line in lines))}
    atomic_write(out / PAGE, html("listen", page))
    return out / PAGE
