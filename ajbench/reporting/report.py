"""The report: one folder of static HTML that opens from disk, with the verdict and its evidence."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ajbench.core.files import atomic_write
from ajbench.core.recipe import Recipe, dump
from ajbench.core.rows import read_rows
from ajbench.data.shards import read_quarantine
from ajbench.data.store import Clip, ClipStore
from ajbench.evaluation.classification import TableCell, per_class
from ajbench.reporting import (
    clip_list,
    cost,
    current_rows,
    figures,
    gain_by_real,
    listening_page,
    mix_figure,
    report_sounds,
    tables,
    tail_table,
)
from ajbench.reporting.formats import blocks_1, blocks_a11, covered, html, seed_counts, to_csv
from ajbench.reporting.verdict import QUESTION, Answer, answers, headline, leaking, limits

EXAMPLES = 12  # classes with audio examples
SHOWN_CLASSES = 40  # in figures: AudioSet's 527 would not be legible
SHOWN_PROBLEMS = 50


@dataclass(frozen=True)
class ReportData:
    """What a report is made from."""

    recipe: Recipe
    rows: Path  # rows.csv
    real: Path | None  # the real clip store; None: neither sounds nor what was left out
    synthetic: Mapping[str, Path]  # synthetic stores by the name of their rows, the recipe's own first
    scores: Mapping[TableCell, Path]  # `scores.npz` of every trained cell
    runs: Sequence[Mapping[str, Any]] = ()  # `run.json` of every stage
    notes: Sequence[str] = ()  # on the rows of generated clips and baselines
    fingerprints: Collection[str] | None = None  # of the stages whose rows count; None accepts all
    power: str = ""  # what the run could see, as a sentence
    counts: Mapping[str, Mapping[str, int]] | None = None  # by split, of all folds; None: those of `real`
    dataset: str | None = None  # of the rows of `synthetic`; None accepts all


def render(data: ReportData, out: Path) -> Path:
    """Write `index.html`, its sounds and pictures and `per_class.csv` into the folder `out`; return its path.

    With generated clips there are also `clips.html`, a list of them, and `listen.html`, a blind test. The
    folder needs no server and no network. `audio/` and `img/` are replaced; pages of `ajbench audit` in the
    folder are linked.

    Raises:
        MissingError: rows.csv, a store or a scores file is missing.
        IntegrityError: one of them is damaged.
    """
    every = read_rows(data.rows)
    rows = current_rows.select(every, data.recipe, data.fingerprints)
    by_real = gain_by_real.lines(every, data.recipe, data.fingerprints or ())
    real = ClipStore.open(data.real) if data.real else None
    sets = {name: ClipStore.open(path) for name, path in data.synthetic.items()}
    found = answers(rows, data.recipe)
    counts = data.counts or (real.meta.counts if real else {})
    chosen = tables.chosen_keys(data.rows.parent, data.recipe)
    a11 = tables.a11_lines(rows, data.recipe, counts, chosen)
    tail = tail_table.lines(rows, data.recipe, tables.columns_of(rows, data.recipe))
    first = tables.table_1_lines(rows, data.recipe)
    generated = rows[rows["dataset"] == data.dataset] if data.dataset else rows
    out.mkdir(parents=True, exist_ok=True)
    classes = per_class(data.scores, data.recipe.name)
    measured = dict.fromkeys([*sets, *rows.loc[rows["table"] == "1", "row"]])
    palette = dict(zip(measured, itertools.cycle(figures.SERIES), strict=False))
    atomic_write(out / "per_class.csv", to_csv(classes))
    report_sounds.clear(out)
    listed = clip_list.rows(real, sets, out) if real else []
    if listed:
        clip_list.render(listed, sum(map(len, sets.values())), data.recipe, out)
        listening_page.render(listed, data.recipe, out)
    page = {
        "recipe": data.recipe,
        "question": QUESTION,
        "headline": headline(found, leaking(rows), short=True),
        "answers": found,
        "covered": {"answers": covered([a.seeds for a in found]), "means": covered(seed_counts(a11))},
        "comparison": mix_figure.comparison,
        "mix_figure": mix_figure.draw(rows, data.recipe, found),
        "gain_figure": gain_by_real.figure(by_real, data.recipe),
        "contrast": gain_by_real.contrast(by_real, rows, data.recipe),
        "a11": blocks_a11(a11, data.recipe),
        "tail": [tail_table.block(tail, data.recipe)] if tail else [],
        "class_figure": _class_figure(classes, found, data.recipe),
        "table_1": blocks_1(first, data.recipe) if any(n["source"] == "measured" for n in first) else [],
        "baseline_figure": _baseline_figure(generated, palette),
        "agreement_figure": _agreement_figure(generated, palette),
        "agreement": _agreement(generated),
        "sets": list(sets),
        "listed": len(listed),
        "examples": list(_examples(real, sets, out)) if real else [],
        "counts": counts,
        "problems": read_quarantine(data.real) if data.real else [],
        "complete": real is not None,
        "shown_problems": SHOWN_PROBLEMS,
        "notes": list(dict.fromkeys(data.notes)),
        "power": data.power,
        "limits": limits(rows, data.recipe, found),
        "audits": [path.name for path in sorted(out.glob("audit*.html"))],
        "stages": cost.stage_lines(data.runs),
        "costs": cost.sentences(data.runs, rows, found),
        "span": cost.span,
        "environment": data.runs[-1] if data.runs else {},
        "yaml": dump(data.recipe),
        "rendered": tables.RENDERED if data.recipe.data.corpus == "mini" else "",
    }
    atomic_write(out / "index.html", html("report", page))
    return out / "index.html"


def _class_figure(
    classes: Sequence[Mapping[str, Any]], found: Sequence[Answer], recipe: Recipe
) -> dict[str, Any]:
    if not found:
        return {}
    answer = next((a for a in found if a.primary or a.line.endswith("/mx+sp")), found[0])
    mine = [
        line
        for line in classes
        if f"{line['model']}/{line['pretraining']}/{line['augmentation']}" == answer.line
        and None not in (line.get(recipe.name), line.get(answer.column))
    ]
    if not mine:
        return {}
    mine.sort(key=lambda line: line[recipe.name] - line[answer.column])
    shown = mine
    if len(mine) > SHOWN_CLASSES:
        shown = mine[: SHOWN_CLASSES // 2] + mine[-SHOWN_CLASSES // 2 :]
    svg = figures.bars(
        [f"{line['class']} ({line['eval_clips']})" for line in shown],
        [line[recipe.name] for line in shown],
        [line[answer.column] for line in shown],
        (f"{recipe.name} (real only)", answer.column),
    )
    return {"svg": svg, "answer": answer, "classes": len(mine), "shown": len(shown)}


def _baseline_figure(rows: pd.DataFrame, palette: Mapping[str, str]) -> str:
    split = " ".join(rows.loc[(rows["table"] == "1") & (rows["metric"] == "fd"), "split"].tail(1))
    panels = []
    for metric, title, chosen in (
        ("fd", f"FD to real clips of the {split} split", rows["split"] == split),
        ("fd_class", "FD within a class, mean over classes", rows["split"] == "train"),
    ):
        part = rows[(rows["metric"] == metric) & chosen & (rows["value"] > 0)]
        marks = []
        for r in part.to_dict("records"):
            other = figures.REAL if str(r["row"]).startswith("real") else figures.MUTED
            ends = max(r["ci_low"], 0.02 * r["value"]), r["ci_high"]
            marks.append(figures.Mark(r["row"], r["value"], *ends, palette.get(r["row"], other)))
        if marks:
            panels.append((title, marks))
    return figures.baselines(panels) if panels else ""


def _agreement(rows: pd.DataFrame) -> list[dict[str, Any]]:
    part = rows[(rows["metric"] == "label_agreement") & (rows["column"] == "all")]
    return [
        {"name": r["row"], "n": int(r["n"])} | {k: 100 * r[k] for k in ("value", "ci_low", "ci_high")}
        for r in part.to_dict("records")
    ]


def _agreement_figure(rows: pd.DataFrame, palette: Mapping[str, str]) -> str:
    part = rows[(rows["metric"] == "label_agreement") & (rows["column"] != "all")]
    if part.empty:
        return ""
    grid = part.pivot_table(index="column", columns="row", values="value")
    names = [n for n in palette if n in grid] + [n for n in map(str, grid) if n.startswith("real")]
    # The classes with the lowest agreement, in descending order.
    grid = grid.sort_values(names[0], ascending=False).tail(SHOWN_CLASSES)
    shown = [(name, grid[name].tolist(), palette.get(name, figures.REAL)) for name in names]
    return figures.shares([str(c) for c in grid.index], shown)


def _examples(real: ClipStore, sets: Mapping[str, ClipStore], out: Path) -> Iterator[dict[str, Any]]:
    """Yield sounds per class: its first clip in the main set, the guide of that clip, and the other sets."""
    parents = {clip_id: i for i, clip_id in enumerate(real.clip_ids)}
    known = {
        name: list(zip(s.column("label_ids"), s.column("parent_id"), strict=True)) for name, s in sets.items()
    }
    labels = real.meta.labels
    step = max(1, -(-len(labels) // EXAMPLES))
    for c in range(0, len(labels), step):
        chosen: list[tuple[str, Clip]] = []
        parent: str | None = None
        for name, store in sets.items():
            mine = [i for i, (ids, _) in enumerate(known[name]) if c in ids]
            if not mine:
                continue
            # Prefer a clip with the same guide as in the main set.
            index = next((i for i in mine if parent and known[name][i][1] == parent), mine[0])
            if not chosen:
                parent = known[name][index][1]
            chosen.append((name, store[index]))
        if not chosen:
            continue
        if parent in parents:
            chosen.insert(0, ("real", real[parents[parent]]))
        yield {
            "label": labels[c],
            "sounds": {name: report_sounds.write(name, clip, out) for name, clip in chosen},
        }
