"""Table A11 and Table 1 from rows.csv, in the paper's layout, with the published figures below."""

import csv
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ajbench.core.files import atomic_write
from ajbench.core.recipe import Recipe
from ajbench.core.rows import folds_in, read_rows, source_of
from ajbench.reporting import current_rows, formats, gain_by_real, tail_table, verdict
from ajbench.reporting.formats import (
    COUNTED,
    PERCENT_DIGITS,
    VALUE_DIGITS,
    Block,
    Line,
    blocks_1,
    blocks_a11,
    finite,
    percent,
    to_csv,
)

_PACKAGE = Path(__file__).parents[1]
# A wheel has the published figures inside the package, a checkout in results/.
PUBLISHED = (
    _PACKAGE / "published" if (_PACKAGE / "published").is_dir() else _PACKAGE.parent / "results" / "published"
)
BACKBONES = {"taltrans": "CNN+T", "ast": "DeiT"}
A11_KEY = ("model", "backbone", "pretraining", "augmentation")
PUBLISHED_COLUMNS = ("AS-20kG", "AS-20k", "+20kG", "+40kG", "+60kG", "+80kG", "AS-2M")
KINDS = ("csv", "md", "tex")
OPTIONAL = (  # files that not every run has
    *(f"{name}.{kind}" for name in ("table_tail", "table_1") for kind in KINDS),
    "generation.csv",
    "gain_by_real.csv",
)
TUNE = "tune.csv"  # in the results folder: the candidates of `evaluate.tune` and their scores
SIZES = ("pool", "real")  # columns of rows.csv: clips of the generator's pool, and real clips
ENDS = {"": "value", "_low": "ci_low", "_high": "ci_high"}
RENDERED = "the corpus mini is rendered by ajbench: a test of the pipeline, not a result about recorded sound"
NOT_COMPARABLE_A11 = "published, trained and evaluated on AudioSet: not comparable with the measured rows"
NOT_COMPARABLE_1 = (
    "published, with another extractor and other reference clips: not comparable with the measured rows"
)
SAME_CLIPS_1 = "published, for the same reference clips and extractor, with other preprocessing"
# Liu et al. (2023) report a KL of 2.52 and a FAD of 7.75.
CORRECTIONS_1 = {"DiffSound": "the 7.76 printed as the KL of DiffSound is its FAD"}


@dataclass(frozen=True)
class Written:
    """What `write` has written."""

    paths: dict[str, Path]  # by name: `table_a11.csv`, `table_a11.md`, …, `generation.csv`
    document: dict[str, Any]  # the measured lines and the verdict, for `--json`
    table: dict[str, Any]  # header, lines and notes of the measured Table A11, for the terminal


def write(
    rows_path: Path,
    out_dir: Path,
    recipe: Recipe,
    *,
    counts: Mapping[str, Mapping[str, int]] | None = None,
    fingerprints: Collection[str] | None = None,
) -> Written:
    """Write the tables of one recipe from rows.csv.

    These are `table_a11.{csv,md,tex}`, with a tail `table_tail.{csv,md,tex}`, if generated clips were
    evaluated `table_1.{csv,md,tex}` and `generation.csv`, and if rows.csv has runs with several `mix.real`,
    pools or codecs, `gain_by_real.csv` of all of them. If a measurement occurs more than once, the last one
    counts. Runs with other codecs have lines of their own in Table A11, below those of the last run. Files of
    earlier rows that these do not have are removed.

    Args:
        rows_path: rows.csv; rows of other recipes are ignored.
        out_dir: the folder, which is created if missing.
        recipe: gives the order of lines and columns, and which published rows are shown.
        counts: of the real clips by split, from `store.json` (expected, found, decoded, kept).
        fingerprints: of the stages that count; None accepts all.

    Raises:
        MissingError: there is no rows.csv.
        IntegrityError: rows.csv is damaged.
    """
    every = read_rows(rows_path)
    rows = current_rows.select(every, recipe, fingerprints)
    out_dir.mkdir(parents=True, exist_ok=True)
    chosen, generation = chosen_keys(out_dir, recipe), generation_lines(rows)
    a11 = a11_lines(rows, recipe, counts, chosen)
    for other in current_rows.other_codecs(every, recipe, rows):
        a11 = _measured(a11) + a11_lines(other, recipe)
    a11_blocks = blocks_a11(a11, recipe)
    files = _formats("table_a11", a11, a11_blocks, PERCENT_DIGITS)
    if tail := tail_table.lines(rows, recipe, columns_of(rows, recipe)):
        files |= _formats("table_tail", tail, [tail_table.block(tail, recipe)], PERCENT_DIGITS)
    first, first_files = table_1(rows, recipe)
    files |= first_files if first else {}
    if generation:
        files["generation.csv"] = to_csv(generation, VALUE_DIGITS)
    if by_real := gain_by_real.lines(every, recipe, fingerprints or ()):
        files["gain_by_real.csv"] = to_csv(by_real, PERCENT_DIGITS)
    for name, text in files.items():
        atomic_write(out_dir / name, text)
    for former in {*OPTIONAL} - {*files}:
        (out_dir / former).unlink(missing_ok=True)
    header, lines = formats.console_table(a11_blocks[0])
    said = verdict.document(verdict.answers(rows, recipe), verdict.leaking(rows))
    document = {"table_a11": _measured(a11), "table_1": first, "generation": generation, "verdict": said}
    document |= {"contrast": gain_by_real.contrast(by_real, rows, recipe)}
    document |= {"table_tail": tail} if tail else {}
    table = {"header": header, "lines": lines, "notes": a11_blocks[0].notes}
    return Written({name: out_dir / name for name in files}, document, table)


def table_1(rows: pd.DataFrame, recipe: Recipe) -> tuple[list[Line], dict[str, str]]:
    """Return the measured lines of Table 1, and table_1.{csv,md,tex} as text by name."""
    lines = table_1_lines(rows, recipe)
    return _measured(lines), _formats("table_1", lines, blocks_1(lines, recipe), VALUE_DIGITS)


def dose_of(column: str) -> int | None:
    """Return the dose of a column: 160 for `+160G` and `+160X`, 40,000 for `+40kG`, None for others."""
    match = re.fullmatch(r"\+(\d+)(k?)[GX]", column)
    return int(match[1]) * (1000 if match[2] else 1) if match else None


def columns_of(rows: pd.DataFrame, recipe: Recipe) -> list[str]:
    """Return the measured columns of Table A11 in order: synthetic clips only, real only, doses, others."""
    found = list(dict.fromkeys(rows.loc[rows["table"] == "A11", "column"]))
    ends = [f"{recipe.name}G", recipe.name]
    doses = sorted(
        (c for c in found if dose_of(c) is not None), key=lambda c: (source_of(c), dose_of(c) or 0)
    )
    return [c for c in ends if c in found] + doses + [c for c in found if c not in (*ends, *doses)]


def a11_lines(
    rows: pd.DataFrame,
    recipe: Recipe,
    counts: Mapping[str, Mapping[str, int]] | None = None,
    chosen: Mapping[str, str] | None = None,
) -> list[Line]:
    """Return Table A11 with mAP in percent: measured lines, then the published ones.

    `chosen` has a note for each line on what was chosen for it (`chosen_keys`).

    Each column has `<column>` (mean over seeds and folds) and `<column>_std` (over seeds), and all but real
    clips only have `<column>_delta`, `<column>_delta_low` and `<column>_delta_high`; `+160A+160G` has
    `…_delta_a` too. `seeds` counts those of all columns; a column that lacks some has `<column>_seeds`.
    """
    tail, rows = tail_table.classes(rows), rows[rows["table"] == "A11"]
    columns = columns_of(rows, recipe)
    order = [(m.name, m.aug) for m in recipe.evaluate.models]

    def position(name: str) -> int:
        key = (name.split("/")[0], name.split("/")[-1])
        return order.index(key) if key in order else len(order)

    lines = []
    for name in sorted(dict.fromkeys(rows["row"]), key=position):
        model, pretraining, augmentation = name.split("/")
        backbone = BACKBONES.get(model.split("-")[0], "")
        mine = rows[rows["row"] == name]
        line: Line = dict(zip(A11_KEY, (model, backbone, pretraining, augmentation), strict=True))
        line["source"] = "measured"
        trained: dict[str, set[str]] = {}  # column → its seeds
        for column in columns:
            cell = mine[mine["column"] == column]
            values = cell[cell["metric"] == "map"].groupby("seed")["value"].mean()  # over folds
            mean = cell[cell["metric"] == "map_mean"]
            if len(mean):
                values = values[values.index.isin(mean["seed"].iloc[0].split(";"))]
            trained[column] = {*(mean["seed"].iloc[0].split(";") if len(mean) else values.index)}
            line[column] = percent(mean["value"].iloc[0] if len(mean) else values.mean())
            line[f"{column}_std"] = percent(values.std(ddof=1)) if len(values) > 1 else None
            delta = cell[cell["metric"] == "map_delta"]
            if column != recipe.name:
                for end, field in ENDS.items():
                    line[f"{column}_delta{end}"] = percent(delta[field].iloc[0]) if len(delta) else None
            augmented = cell[cell["metric"] == "map_delta_a"]
            for end, field in ENDS.items() if len(augmented) else ():
                line[f"{column}_delta_a{end}"] = percent(augmented[field].iloc[0])
        line |= _sizes(mine, recipe.name)
        line["codec"] = "; ".join(dict.fromkeys(filter(None, mine["codec"])))
        line |= _seeds(trained)
        line["eval_clips"] = int(mine["n"].max())
        classes = mine.loc[mine["metric"] == "classes", "value"]
        line["classes"] = int(classes.max()) if len(classes) else None
        for split, numbers in (counts or {}).items():
            line |= {f"{split}_{name}": numbers.get(name) for name in COUNTED}
        line |= {"tail": tail} if tail else {}
        # A later run of one fold measures the classifiers of that fold again.
        line["dataset"] = max(reversed([*mine["dataset"]]), key=folds_in)
        line["note"] = "; ".join(filter(None, (_note(recipe), (chosen or {}).get(name))))
        lines.append(line)
    return lines + (_published_a11() if recipe.evaluate.published == "as20k" else [])


def chosen_keys(results: Path, recipe: Recipe) -> dict[str, str]:
    """Return a note for each line of Table A11: what `evaluate.tune` has chosen for its arms, over all folds.

    Empty if the recipe does not tune, or the results folder has no tune.csv.
    """
    path = results / TUNE
    if not recipe.evaluate.tune or not path.exists():
        return {}
    lines = pd.read_csv(path, keep_default_na=False, na_values=[""])
    about = ["model", "pretraining", "augmentation", "arm", "tuned_on", "fold", "val_clips"]
    names = [name for name in lines if name not in (*about, "steps", "val_map", "chosen")]
    notes = {}
    for key, mine in lines.groupby(about[:3], sort=False):
        of_arms = []
        for arm, part in mine[mine["chosen"] == 1].groupby("arm", sort=False):
            keys = ", ".join(f"{name} {_span(part[name])}" for name in names if part[name].notna().all())
            of_arms.append(f"{arm} ({keys}, mAP {_span(100 * part['val_map'], '.1f')})")
        clips = f"{_span(mine['val_clips'])} val clips ({TUNE})"
        model, pretraining, augmentation = map(str, key)
        note = f"chosen for {model}, {augmentation} on {clips}: {', '.join(of_arms)}"
        notes[f"{model}/{pretraining}/{augmentation}"] = note
    return notes


def _span(values: pd.Series, form: str = "g") -> str:
    """Return the different values: one, the ends of several numbers, or all others."""
    found = sorted(set(values))
    if not pd.api.types.is_numeric_dtype(values):
        return "–".join(map(str, found))
    return "–".join(dict.fromkeys(format(end, form) for end in (found[0], found[-1])))


def table_1_lines(rows: pd.DataFrame, recipe: Recipe) -> list[Line]:
    """Return Table 1: the measured sets of generated clips, then the published models."""
    rows = rows[rows["table"] == "1"].sort_values("dataset", kind="stable")
    lines: list[Line] = []
    for (name, features, dataset), mine in rows.groupby(["row", "features", "dataset"], sort=False):
        line: Line = {"model": name, "datasets": dataset}
        for metric in ("fd", "is", "kl"):
            found = mine[mine["metric"] == metric]
            for end, field in ENDS.items():
                line[f"{metric}{end}"] = finite(found[field].iloc[-1]) if len(found) else None
        reference = " ".join(mine.loc[mine["metric"] == "fd", "split"].tail(1))
        line |= {"features": features, "reference": reference, "n": int(mine["n"].max()), **_sizes(mine)}
        lines.append({**line, "source": "measured", "note": _note(recipe)})
    if recipe.evaluate.published == "none":
        return lines
    for row in published("table_1"):
        line = {name: row[name] for name in ("model", "datasets")}
        line |= {name: float(row[name]) if row[name] else None for name in ("fd", "is", "kl")}
        line |= {"features": "panns16k", "reference": "AudioCaps test", "source": "published"}
        same = (recipe.data.corpus, recipe.evaluate.features) == ("audiocaps", "panns16k")
        notes = [SAME_CLIPS_1 if same else NOT_COMPARABLE_1, CORRECTIONS_1.get(row["model"])]
        lines.append({**line, "note": "; ".join(filter(None, notes))})
    return lines


def generation_lines(rows: pd.DataFrame) -> list[Line]:
    """Return the measurements of generated clips and baselines (FD, label agreement), one per line."""
    names = {
        "row": "set",
        "column": "class",
        "metric": "metric",
        "split": "reference",
        "features": "features",
    }
    lines, rows = [], rows[rows["table"].isin(("1", "generation"))]
    several = rows["dataset"].nunique() > 1
    for row in rows.to_dict("records"):
        line: Line = {new: row[old] for old, new in names.items()}
        line |= {name: finite(row[name]) for name in ENDS.values()}
        line |= {"dataset": row["dataset"]} if several else {}
        lines.append({**line, "n": int(row["n"]), **{size: row[size] for size in SIZES if row[size]}})
    return lines


def published(name: str) -> list[dict[str, str]]:
    """Return a table of the paper as printed, for example `table_a11`."""
    with (PUBLISHED / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _published_a11() -> list[Line]:
    lines: dict[tuple[str, ...], Line] = {}
    blank = {f"{c}{end}": None for c in PUBLISHED_COLUMNS for end in ("", "_std")}
    for row in published("table_a11"):
        key = {name: row[name] for name in A11_KEY}
        about = {"dataset": "AudioSet", "note": NOT_COMPARABLE_A11}
        line: Line = {**key, "source": "published", **blank, **about}
        line = lines.setdefault(tuple(key.values()), line)
        line[row["dataset"]] = float(row["map"])
        line[f"{row['dataset']}_std"] = float(row["map_std"]) if row["map_std"] else None
    return list(lines.values())


def _formats(name: str, lines: list[Line], blocks: list[Block], digits: int) -> dict[str, str]:
    texts = to_csv(lines, digits), formats.markdown(blocks), formats.latex(blocks)
    return {f"{name}.{kind}": text for kind, text in zip(KINDS, texts, strict=True)}


def _measured(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line["source"] == "measured"]


def _sizes(rows: pd.DataFrame, real_column: str | None = None) -> Line:
    """Return the sizes of pool and real clips in rows, as far as they are known, and that of `all real`."""
    real = rows[rows["column"] == real_column] if real_column else rows
    every = rows[rows["column"] == f"{real_column} (all real)"]
    found = {"pool": rows["pool"], "real": real["real"], "all_real": every["real"]}
    known = {name: [int(value) for value in column if value] for name, column in found.items()}
    return {name: values[-1] for name, values in known.items() if values}


def _seeds(trained: Mapping[str, Collection[str]]) -> Line:
    """Return how many seeds the columns have together, and each that lacks some (a grid not yet finished)."""
    every = len({seed for seeds in trained.values() for seed in seeds})
    fewer = {f"{column}_seeds": len(seeds) for column, seeds in trained.items() if 0 < len(seeds) < every}
    return {**fewer, "seeds": every}


def _note(recipe: Recipe) -> str:
    return RENDERED if recipe.data.corpus == "mini" else ""
