"""The page that lists generated clips beside their guides and real clips."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from ajbench.core.files import atomic_write
from ajbench.core.recipe import Recipe
from ajbench.data.store import ClipStore
from ajbench.reporting import report_sounds
from ajbench.reporting.formats import html

PAGE = "clips.html"
CLIPS = 96  # generated clips of all sets together
SECONDS = 900.0  # of all sounds, which take about 20 MB
NUMBERS = ("fidelity", "strength", "guidance")  # of generated clips; a column for those that differ


def rows(real: ClipStore, sets: Mapping[str, ClipStore], out: Path) -> list[dict[str, Any]]:
    """Write the sounds of generated clips, their guides and real clips; return one row per generated clip.

    Each set has the same number of clips: the first of each class (by its first label), then the second, and
    so on. The real clips are of the eval split and of the same class, which may have none. A clip whose
    guide is not in the store of real clips has none either.

    Args:
        real: the real clips.
        sets: generated clips by the name of their set.
        out: the folder of the report.
    """
    guides = {clip_id: i for i, clip_id in enumerate(real.clip_ids)}
    seconds = 3 * real.meta.clip_samples / real.meta.sample_rate
    most = max(1, min(CLIPS, int(SECONDS / seconds)) // max(1, len(sets)))
    held_out = set(real.split_indices("eval").tolist())
    by_class = {label: [i for i in mine if i in held_out] for label, mine in _by_class(real).items()}
    found = []
    for name, store in sets.items():
        for label, turn, index in _first(store, most):
            clip = store[index]
            among = by_class.get(label, [])
            guide = guides.get(clip.parent_id or "")
            other = among[turn % len(among)] if among else None
            sounds = {
                "generated": report_sounds.write(name, clip, out),
                "guide": None if guide is None else report_sounds.write("real", real[guide], out),
                "real": None if other is None else report_sounds.write("real", real[other], out),
            }
            about = {number: getattr(clip, number) for number in NUMBERS}
            found.append({"label": label, "set": name, "clip_id": clip.clip_id, "sounds": sounds} | about)
    return found


def render(lines: Sequence[Mapping[str, Any]], total: int, recipe: Recipe, out: Path) -> Path:
    """Write `clips.html` from rows of `rows` into the folder of the report and return its path.

    Args:
        lines: the rows.
        total: generated clips of all sets, of which the rows are some.
        recipe: of the run.
        out: the folder of the report.
    """
    page = {
        "recipe": recipe,
        "rows": lines,
        "total": total,
        "sets": list(dict.fromkeys(line["set"] for line in lines)),
        "classes": sorted({line["label"] for line in lines}),
        "numbers": [name for name in NUMBERS if len({line[name] for line in lines}) > 1],
    }
    atomic_write(out / PAGE, html("clips", page))
    return out / PAGE


def _by_class(store: ClipStore) -> dict[str, list[int]]:
    """Return the clips of each class by their first label, in the order of the store."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, labels in enumerate(store.column("labels")):
        if labels:
            found[labels[0]].append(index)
    return found


def _first(store: ClipStore, most: int) -> Iterator[tuple[str, int, int]]:
    """Yield (class, turn, clip) of the first clips: one of each class per turn, sorted by class."""
    by_class = sorted(_by_class(store).items())
    columns = ([(c, turn, index) for turn, index in enumerate(mine)] for c, mine in by_class)
    turns = chain.from_iterable(zip_longest(*columns))
    yield from sorted([one for one in turns if one is not None][:most])
