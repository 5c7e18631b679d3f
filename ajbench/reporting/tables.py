"""rows.csv ⇒ Table A11 and Table 1 in the paper's shape, published figures below measured ones."""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ajbench.core.files import atomic_write
from ajbench.core.recipe import Recipe
from ajbench.core.rows import read_rows
from ajbench.reporting.formats import Block, Line, blocks_1, blocks_a11, console_table, latex, markdown
from ajbench.reporting.verdict import Answer, answers, headline

_PACKAGE = Path(__file__).parents[1]
# A wheel carries the published figures inside the package; a checkout has them under results.
PUBLISHED = (
    _PACKAGE / "published" if (_PACKAGE / "published").is_dir() else _PACKAGE.parent / "results" / "published"
)
COUNTED = ("expected", "found", "decoded", "kept")  # of the clips that the corpus lists
BACKBONES = {"taltrans": "CNN+T", "ast": "DeiT"}
SYNTHETIC_CORPUS = (
    "corpus mini is rendered by ajbench itself: a check of the machinery, not a result about sound"
)
NOT_COMPARABLE_A11 = "published, trained and scored on AudioSet: not comparable with the measured rows"
NOT_COMPARABLE_1 = "published, other features and reference clips: not comparable with the measured rows"
# In the paper's source (Liu et al., 2023) its KL is 2.52, its FAD 7.75.
SLIPS_1 = {"DiffSound": "the 7.76 printed as KL of DiffSound is its FAD"}


@dataclass(frozen=True)
class Written:
    """What `write` made.

    Attributes:
        paths: by name: `table_a11.csv`, `table_a11.md`, `table_a11.tex`, `table_1.csv`, …, `generation.csv`.
        document: the measured lines, for `--json`.
        header: and `lines`: Table A11's measured part for the console.
        lines: see `header`.
        notes: what has to be said beside the figures.
        headline: the answer to the user's question in a few words.
        answers: the answer per classifier; `str(answer)` is a sentence.
    """

    paths: dict[str, Path]
    document: dict[str, Any]
    header: list[str]
    lines: list[list[str]]
    notes: list[str]
    headline: str
    answers: list[Answer]


def write(
    rows_path: Path,
    out_dir: Path,
    recipe: Recipe,
    *,
    counts: Mapping[str, Mapping[str, int]] | None = None,
    fingerprints: Collection[str] | None = None,
) -> Written:
    """Pivot rows.csv into the tables of one recipe.

    Writes `table_a11.{csv,md,tex}`; `table_1.{csv,md,tex}` and `generation.csv` where generated clips were
    measured. Of a measurement that occurs more than once the last counts.

    Args:
        rows_path: rows.csv; rows of other recipes in it are left out. out_dir: made if absent. recipe:
        gives the order of lines and columns, and which published rows stand below. counts: `store.json`'s
        counts of the real store (split → expected, found, decoded, kept). fingerprints: of the stages that
        count; others' rows, of earlier settings, are left out. None takes all.

    Raises:
        MissingError: no rows.csv.
        IntegrityError: rows.csv is damaged.
    """
    rows = select(read_rows(rows_path), recipe, fingerprints)
    out_dir.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    a11, first, generation = (
        a11_lines(rows, recipe, counts),
        table_1_lines(rows, recipe),
        generation_lines(rows),
    )
    a11_blocks = blocks_a11(a11, recipe)
    files |= _formats("table_a11", a11, a11_blocks)
    if any(line["source"] == "measured" for line in first):
        files |= _formats("table_1", first, blocks_1(first, recipe))
    if generation:
        files["generation.csv"] = to_csv(generation)
    for name, text in files.items():
        atomic_write(out_dir / name, text)
    measured = {
        name: [line for line in lines if line.get("source", "measured") == "measured"]
        for name, lines in (("table_a11", a11), ("table_1", first), ("generation", generation))
    }
    header, lines = console_table(a11_blocks[0])
    found = answers(rows, recipe.name)
    return Written(
        paths={name: out_dir / name for name in files},
        document=measured,
        header=header,
        lines=lines,
        notes=a11_blocks[0].notes,
        headline=headline(found),
        answers=found,
    )


def table_1(rows: pd.DataFrame, recipe: Recipe) -> tuple[list[Line], dict[str, str]]:
    """Return Table 1 of given rows: its measured lines, and the content of table_1.{csv,md,tex} by name."""
    lines = table_1_lines(rows, recipe)
    measured = [line for line in lines if line["source"] == "measured"]
    return measured, _formats("table_1", lines, blocks_1(lines, recipe))


def select(rows: pd.DataFrame, recipe: Recipe, fingerprints: Collection[str] | None = None) -> pd.DataFrame:
    """Return the rows of one recipe that count: of wanted fingerprints, each measurement's last."""
    rows = rows[rows["recipe"] == recipe.name]
    if fingerprints is not None:
        rows = rows[rows["fingerprint"].isin(set(fingerprints))]
    # Over seeds, the row that knows more seeds replaces the earlier one.
    seed = rows["seed"].where(~rows["metric"].isin(("map_mean", "map_delta", "map_delta_family")), "all")
    key = ["table", "row", "column", "dataset", "split", "metric", "features", "_seed"]
    return rows.assign(_seed=seed).drop_duplicates(key, keep="last").drop(columns="_seed")


def dose_of(column: str) -> int | None:
    """Return the synthetic clips that a column adds: 160 for `+160G`, 40,000 for `+40kG`, None for others."""
    match = re.fullmatch(r"\+(\d+)(k?)G", column)
    return int(match[1]) * (1000 if match[2] else 1) if match else None


def columns_of(rows: pd.DataFrame, recipe: Recipe) -> list[str]:
    """Return the measured columns of Table A11 in the paper's order: synthetic only, real, doses, others."""
    found = list(dict.fromkeys(rows.loc[rows["table"] == "A11", "column"]))
    ends = [f"{recipe.name}G", recipe.name]
    doses = sorted((c for c in found if dose_of(c) is not None), key=lambda c: dose_of(c) or 0)
    return [c for c in ends if c in found] + doses + [c for c in found if c not in (*ends, *doses)]


def a11_lines(
    rows: pd.DataFrame, recipe: Recipe, counts: Mapping[str, Mapping[str, int]] | None = None
) -> list[Line]:
    """Return Table A11 as mappings, mAP in percent: measured lines, then the published ones.

    For each column: `<column>` (mean over seeds), `<column>_std`, and other than real only `<column>_delta`,
    `<column>_delta_low`, `<column>_delta_high`.
    """
    rows = rows[rows["table"] == "A11"]
    columns = columns_of(rows, recipe)
    order = [(m.name, m.aug) for m in recipe.evaluate.models]
    names = sorted(
        dict.fromkeys(rows["row"]), key=lambda r: _position(order, (r.split("/")[0], r.split("/")[-1]))
    )
    lines = []
    for name in names:
        model, pretraining, augmentation = name.split("/")
        mine = rows[rows["row"] == name]
        line: Line = {
            "model": model,
            "backbone": BACKBONES.get(model.split("-")[0], ""),
            "pretraining": pretraining,
            "augmentation": augmentation,
            "source": "measured",
        }
        seeds: list[str] = []
        for column in columns:
            cell = mine[mine["column"] == column]
            values = cell[cell["metric"] == "map"].set_index("seed")["value"]
            mean = cell[cell["metric"] == "map_mean"]
            if len(mean):
                of_mean = mean["seed"].iloc[0].split(";")
                values = values[values.index.isin(of_mean)]
                seeds = max(seeds, of_mean, key=len)
            line[column] = _percent(mean["value"].iloc[0] if len(mean) else values.mean())
            line[f"{column}_std"] = _percent(values.std(ddof=1)) if len(values) > 1 else None
            delta = cell[cell["metric"] == "map_delta"]
            if column != recipe.name:
                for end, field in (("", "value"), ("_low", "ci_low"), ("_high", "ci_high")):
                    line[f"{column}_delta{end}"] = _percent(delta[field].iloc[0]) if len(delta) else None
        line["seeds"] = len(seeds) or int(mine["seed"].nunique())
        line["eval_clips"] = int(mine["n"].max())
        classes = mine.loc[mine["metric"] == "classes", "value"]
        line["classes"] = int(classes.max()) if len(classes) else None
        for split, numbers in (counts or {}).items():
            line |= {f"{split}_{name}": numbers.get(name) for name in COUNTED}
        line["dataset"] = mine["dataset"].iloc[-1]
        line["note"] = SYNTHETIC_CORPUS if recipe.data.corpus == "mini" else ""
        lines.append(line)
    return lines + (_published_a11() if recipe.evaluate.published == "as20k" else [])


def table_1_lines(rows: pd.DataFrame, recipe: Recipe) -> list[Line]:
    """Return Table 1 as mappings: measured sets of generated clips, then the published models."""
    rows = rows[rows["table"] == "1"]
    lines: list[Line] = []
    for (name, features), mine in rows.groupby(["row", "features"], sort=False):
        line: Line = {"model": name, "datasets": mine["dataset"].iloc[-1]}
        for metric in ("fd", "is", "kl"):
            found = mine[mine["metric"] == metric]
            for end, field in (("", "value"), ("_low", "ci_low"), ("_high", "ci_high")):
                line[f"{metric}{end}"] = _rounded(found[field].iloc[-1], 4) if len(found) else None
        line |= {
            "features": features,
            "reference": " ".join(mine.loc[mine["metric"] == "fd", "split"].tail(1)),
            "n": int(mine["n"].max()),
            "source": "measured",
            "note": SYNTHETIC_CORPUS if recipe.data.corpus == "mini" else "",
        }
        lines.append(line)
    if recipe.evaluate.published == "none":
        return lines
    for row in published("table_1"):
        line = {name: row[name] for name in ("model", "datasets")}
        line |= {name: float(row[name]) if row[name] else None for name in ("fd", "is", "kl")}
        note = "; ".join(filter(None, [NOT_COMPARABLE_1, SLIPS_1.get(row["model"])]))
        lines.append(
            {
                **line,
                "features": "panns16k",
                "reference": "AudioCaps test",
                "source": "published",
                "note": note,
            }
        )
    return lines


def generation_lines(rows: pd.DataFrame) -> list[Line]:
    """Return the measurements of generated clips and yardsticks (FD, label agreement), one a line."""
    rows = rows[rows["table"].isin(("1", "generation"))]
    names = {
        "row": "set",
        "column": "class",
        "metric": "metric",
        "split": "reference",
        "features": "features",
    }
    lines = []
    for row in rows.to_dict("records"):
        line: Line = {new: row[old] for old, new in names.items()}
        line |= {name: _rounded(row[name], 4) for name in ("value", "ci_low", "ci_high")}
        lines.append({**line, "n": int(row["n"])})
    return lines


def published(name: str) -> list[dict[str, str]]:
    """Return a table of the paper as printed, for instance `table_a11`."""
    with (PUBLISHED / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _published_a11() -> list[Line]:
    lines: dict[tuple[str, ...], Line] = {}
    columns = ["AS-20kG", "AS-20k", "+20kG", "+40kG", "+60kG", "+80kG", "AS-2M"]
    for row in published("table_a11"):
        key = tuple(row[name] for name in ("model", "backbone", "pretraining", "augmentation"))
        blank = {f"{c}{end}": None for c in columns for end in ("", "_std")}
        line = lines.setdefault(
            key,
            dict(zip(("model", "backbone", "pretraining", "augmentation"), key, strict=True))
            | {"source": "published", **blank, "dataset": "AudioSet", "note": NOT_COMPARABLE_A11},
        )
        line[row["dataset"]] = float(row["map"])
        line[f"{row['dataset']}_std"] = float(row["map_std"]) if row["map_std"] else None
    return list(lines.values())


def _formats(name: str, lines: list[Line], blocks: list[Block]) -> dict[str, str]:
    return {f"{name}.csv": to_csv(lines), f"{name}.md": markdown(blocks), f"{name}.tex": latex(blocks)}


def to_csv(lines: Sequence[Line]) -> str:
    """Return mappings as CSV, free text (dataset, note) last."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for line in lines for name in line))
    # Free text last: it is long, and the figures are what one looks for.
    names.sort(key=lambda name: name in ("dataset", "note"))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in line.items()} for line in lines)
    return text.getvalue()


def _position(order: Sequence[tuple[str, str]], key: tuple[str, str]) -> int:
    return order.index(key) if key in order else len(order)


def _percent(value: float) -> float | None:
    return _rounded(100 * value, 2)


def _rounded(value: float, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None
