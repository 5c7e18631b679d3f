"""Table 2: efficiency, in the paper's layout, with the published figures below."""

from collections.abc import Mapping, Sequence
from typing import Any

from ajbench.core.recipe import Recipe
from ajbench.reporting import formats
from ajbench.reporting.formats import Block, Line, to_csv
from ajbench.reporting.tables import RENDERED, published

NOT_COMPARABLE = (
    "published: AudioSet-2M in clips of 10 s, trained on 8 A100, generated on one; batch sizes are counted "
    "differently in each work, and what the inference time is of is not stated"
)
COLUMNS = ("pipeline", "batch_size", "disk", "z_shape", "train_steps", "inference_time_s")
HEADER = ["Pipeline", "Batch", "Disk", "Z-shape", "Train steps", "Inference time (s)"]


def write(
    measured: Sequence[Mapping[str, Any]], recipe: Recipe, notes: Sequence[str]
) -> tuple[list[Line], dict[str, str], tuple[list[str], list[list[str]]]]:
    """Return the lines, table_2.{csv,md,tex} as text by name, and header and cells of the measured lines.

    Args:
        measured: `pipeline`, `disk_bytes`, `z_shape`, and where they apply `batch_size`, `train_steps` and
            `inference_time_s` per clip.
        recipe: names the corpus.
        notes: below the table.
    """
    note = RENDERED if recipe.data.corpus == "mini" else ""
    ours: list[Line] = [
        dict.fromkeys(COLUMNS)
        | {key: value for key, value in line.items() if key != "disk_bytes"}
        | {
            "disk": size(line["disk_bytes"]),
            "disk_bytes": line["disk_bytes"],
            "source": "measured",
            "note": note,
        }
        for line in measured
    ]
    printed: list[Line] = [
        {**row, "disk_bytes": None, "source": "published", "note": NOT_COMPARABLE}
        for row in published("table_2")
    ]
    below = [*notes, *filter(None, [note])]
    blocks = [
        Block(f"Table 2, {recipe.name} (measured)", HEADER, _cells(ours), below, 1),
        Block("Table 2 of the paper (published)", HEADER, _cells(printed), [NOT_COMPARABLE], 1),
    ]
    texts = {"csv": to_csv(ours + printed), "md": formats.markdown(blocks), "tex": formats.latex(blocks)}
    shown = [[text for text, _ in line] for line in _cells(ours)]
    return ours, {f"table_2.{kind}": text for kind, text in texts.items()}, (HEADER, shown)


def size(n: int | None) -> str:
    """Return a number of bytes with the unit that suits it; "" if unknown."""
    if n is None:
        return ""
    units = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
    unit, factor = next(((name, factor) for name, factor in units if n >= factor), ("B", 1.0))
    return f"{n / factor:.3g} {unit}"


def _cells(lines: Sequence[Line]) -> list[list[tuple[str, str]]]:
    return [[(_text(line[name]), "") for name in COLUMNS] for line in lines]


def _text(value: Any) -> str:
    if value in (None, ""):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
