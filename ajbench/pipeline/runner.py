"""A run from end to end: every stage that is not done, then rows, tables and report in the results folder."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import atomic_write
from ajbench.core.recipe import Recipe, dump, fingerprint
from ajbench.core.run_dir import environment
from ajbench.pipeline.recipe_stages import NOTES, ROWS, Pipeline
from ajbench.pipeline.stage import Stage
from ajbench.pipeline.workers import SCORES, train_all

if TYPE_CHECKING:
    from ajbench.evaluation.classification import TableCell

RUN = "run.json"
RECIPE = "recipe.yaml"
CLASSES = "table_a11_classes.csv"
# Raised by one when tables or report change their form: they are then written again.
VERSION = 1


def describe(work: Path, stages: Sequence[Stage]) -> dict[str, Any]:
    """Return what a dry run tells: each stage with its state, amount and disk, and the disk in all."""
    lines = [
        {
            "stage": stage.name,
            "what": stage.what,
            "state": "done" if stage.done() else "todo",
            "amount": stage.amount,
            "disk_mb": stage.disk_mb,
            "fingerprint": stage.fingerprint,
            "path": stage.path,
        }
        for stage in stages
    ]
    todo = [stage for stage, line in zip(stages, lines, strict=True) if line["state"] == "todo"]
    return {
        "recipe": stages[0].recipe.name,
        "stages": lines,
        "todo": len(todo),
        "disk_mb": round(_needed_mb(todo), 1),
        "disk_free_mb": round(free_mb(work), 1),
    }


def describe_grid(pipeline: Pipeline) -> dict[str, Any]:
    """Return what a dry run tells of the cells of a grid: number, steps, disk and time."""
    from ajbench.data import audio
    from ajbench.pipeline import estimates

    samples = audio.clip_samples(pipeline.recipe.data.duration_s)
    lines = estimates.estimates(pipeline.grid(), len(pipeline.manifest.label_set), samples)
    todo = [line for line in lines if line["state"] == "todo"]
    return {
        "recipe": pipeline.recipe.name,
        "cells": lines,
        "todo": len(todo),
        "steps": sum(line["steps"] for line in todo),
        "disk_mb": round(sum(line["disk_mb"] for line in todo), 1),
        "hours": round(sum(line["seconds"] for line in todo) / 3600, 2),
    }


def grid_cell(pipeline: Pipeline, number: int) -> Stage:
    """Return one cell of the grid as a stage, by its number in the dry run.

    Raises:
        UsageError: there is no such cell.
    """
    cells = pipeline.grid()
    if not 1 <= number <= len(cells):
        raise UsageError(f"--cell {number}: the grid has cells 1 to {len(cells)}; --dry-run lists them")
    return pipeline.with_needs(cells[number - 1])


def estimate(stage: Stage) -> dict[str, Any]:
    """Return what a first batch tells of a stage, such as its seconds; nothing where there is none yet.

    Weights that are not there are named under `missing`: a plan can be told without them.
    """
    if stage.estimate is None or stage.done() or not all(needed.done() for needed in stage.needs):
        return {}
    try:
        return stage.estimate()
    except MissingError as error:
        return {"seconds": None, "missing": str(error)}


def run_one(stage: Stage, device: str, force: bool = False) -> bool:
    """Do one stage unless it is done; returns whether there was anything to do.

    Raises:
        MissingError: the device or weights are not there, or the disk is too small.
    """
    if stage.done() and not force:
        return False
    _check([stage])
    return stage.run(available(device), force)


def run_all(stages: Sequence[Stage], device: str, force: bool = False) -> list[str]:
    """Do, in order, every stage that is not done (with `force`: every stage); return the titles of those.

    Raises:
        MissingError: the device or weights are not there, or the disk is too small; before any work.
    """
    todo = [stage for stage in stages if force or not stage.done()]
    if todo:
        _check(todo)
        device = available(device)
    for stage in todo:
        console.say(f"{title(stage)}: {stage.amount}")
        stage.run(device, force)
    return [title(stage) for stage in todo]


def run(pipeline: Pipeline, device: str, jobs: int | None = None, force: bool = False) -> dict[str, Any]:
    """Do every stage that is not done (with `force`: every stage), then write rows, tables and report.

    Args:
        pipeline: the recipe and its places.
        device: `auto`, `cpu`, `cuda` or `mps`.
        jobs: processes that generate, then that train classifiers; None is one a core on a CPU, else one.
        force: do finished stages again.

    Returns:
        What was done: `ran` (labels of the stages), `results`, and `table` (header and lines of Table A11).

    Raises:
        MissingError: the device or weights are not there, or the disk is too small.
    """
    stages = pipeline.stages()
    todo = [stage for stage in stages if force or not stage.done()]
    if todo:
        _check(todo)
        device = available(device)
    jobs = jobs or (_cores() if device == "cpu" else 1)
    run_all(pipeline.sources(processes=jobs), device, force)
    for cells in (pipeline.bases(), pipeline.grid()):
        if waiting := [cell for cell in cells if force or not cell.stage().done()]:
            console.say(f"train-cls: {len(waiting)} classifiers of {len(cells)}")
            train_all(waiting, jobs, device, force)
    run_all(pipeline.evaluations(), device, force)
    return publish(pipeline, stages, again=bool(todo)) | {"ran": [title(stage) for stage in todo]}


def publish(pipeline: Pipeline, stages: Sequence[Stage], again: bool = False) -> dict[str, Any]:
    """Write rows, tables and report of finished stages to the results folder, unless they are there.

    `run.json` in that folder says which stages the tables are made of; `recipe.yaml` is the merged recipe.

    Args:
        pipeline: the recipe and its places.
        stages: finished.
        again: write them although they are there.
    """
    out, table = pipeline.results, pipeline.recipe.table
    wanted = sorted({stage.fingerprint for stage in stages})
    key = fingerprint("publish", VERSION, pipeline.recipe, [stage.fingerprint for stage in stages])
    state = _state(out)
    # Of a run of everything, a single table is a part.
    known = state.get("fingerprint") == key or (table and {*wanted} <= {*state.get("fingerprints", ())})
    if known and not again and all((out / name).exists() for name in state["files"]):
        return {"results": out, "files": state["files"], "table": state["table"]}

    from ajbench.core.rows import append_rows
    from ajbench.data.store import ClipStore
    from ajbench.evaluation.classification import per_class
    from ajbench.reporting import formats, tables

    for stage in stages:
        if stage.name in ("eval-cls", "eval-gen"):
            append_rows(out / ROWS, rows_of(stage))
    counts = ClipStore.open(pipeline.prepare.need(), verify=False).meta.counts
    history = [_history(stage) for stage in stages]
    if table:  # what was measured of generated clips stays beside it
        history += [line for line in state.get("stages", []) if line["stage"] == "eval-gen"]
        wanted = sorted({*wanted, *(line["fingerprint"] for line in history)})
    with console.progress(2, "tables and report", "parts") as advance:
        written = tables.write(out / ROWS, out, pipeline.recipe, counts=counts, fingerprints=wanted)
        classes = per_class(_scores(pipeline), pipeline.recipe.name)
        atomic_write(out / CLASSES, formats.to_csv(classes))
        advance(1)
        pages = [] if table else [render_report(pipeline, stages)]
        advance(1)
    state = {
        "recipe": pipeline.recipe.name,
        "fingerprint": key,
        "files": [str(path.relative_to(out)) for path in (*written.paths.values(), out / CLASSES, *pages)],
        "table": {"header": written.header, "lines": written.lines, "notes": written.notes},
        "counts": counts,
        "fingerprints": wanted,
        "stages": history,
        **environment(),
    }
    atomic_write(out / RECIPE, dump(pipeline.recipe))
    atomic_write(out / RUN, json.dumps(state, indent=2, ensure_ascii=False) + "\n")
    return {"results": out, "files": state["files"], "table": state["table"]}


def render_report(pipeline: Pipeline, stages: Sequence[Stage]) -> Path:
    """Render the HTML report of finished stages, whose rows are in the results folder; returns its page."""
    from ajbench.pipeline.evaluate import set_name
    from ajbench.reporting import report

    notes = [note for stage in stages if stage.name == "eval-gen" for note in notes_of(stage)]
    data = report.ReportData(
        recipe=pipeline.recipe,
        rows=pipeline.results / ROWS,
        real=pipeline.prepare.need(),
        synthetic={
            set_name(pipeline.recipe, name): pipeline.synth(name).need() for name in ("", *pipeline.probes)
        },
        scores=_scores(pipeline),
        runs=[stage.folder.info() for stage in stages],
        notes=notes,
        fingerprints={stage.fingerprint for stage in stages},
    )
    return report.render(data, pipeline.results / "report")


def share(pipeline: Pipeline, stage: Stage) -> tuple[list[dict[str, Any]], list[str]]:
    """Add the rows of one evaluation to the results folder; returns them, and the notes on them."""
    from ajbench.core.rows import append_rows

    rows = rows_of(stage)
    append_rows(pipeline.results / ROWS, rows)
    state = _state(pipeline.results)
    if state:  # tables that were pinned to a run now also take these rows
        state["fingerprints"] = sorted({*state["fingerprints"], *(row["fingerprint"] for row in rows)})
        atomic_write(pipeline.results / RUN, json.dumps(state, indent=2, ensure_ascii=False) + "\n")
    return rows, notes_of(stage)


def written_from(recipe: Recipe, results: Path) -> dict[str, Any]:
    """Return what tables would be made from, and where they would go."""
    out = results / recipe.name
    return {"recipe": recipe.name, "rows": out / ROWS, "there": (out / ROWS).exists(), "results": out}


def tables_again(recipe: Recipe, results: Path) -> dict[str, Any]:
    """Write the tables from `<results>/<recipe>/rows.csv` alone, as the last run did."""
    from ajbench.reporting import tables

    out = results / recipe.name
    state = _state(out)
    written = tables.write(
        out / ROWS, out, recipe, counts=state.get("counts"), fingerprints=state.get("fingerprints")
    )
    return {
        "files": sorted(written.paths.values()),
        "table": {"header": written.header, "lines": written.lines, "notes": written.notes},
        **written.document,
    }


def codec_training(
    work: Path,
    sounds: Sequence[Path],
    steps: int,
    batch_size: int,
    mini_clips: int,
    seed: int,
    tracker: str = "csv",
) -> Stage:
    """Return the training of the codec `tiny` on folders of sounds as a stage."""
    files = [
        [str(path.relative_to(folder)), path.stat().st_size]
        for folder in sounds
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    key = fingerprint("train-codec", VERSION, files, steps, batch_size, mini_clips, seed)
    path = work / "codec" / f"train-codec-{key}"

    def do() -> None:
        from ajbench.codec.train import train_codec

        how: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "mini_clips": mini_clips}
        train_codec(sounds, path, **how, seed=seed, tracker=tracker)

    made_of = ", ".join(map(str, [*sounds, f"{mini_clips} clips of mini"]))
    recipe = Recipe(name="codec", description=f"the codec `tiny`, trained on {made_of}")
    return Stage("train-codec", recipe, path, key, f"{steps} steps", do, seed=seed, precision="auto")


def available(device: str) -> str:
    """Return the device that `device` means here: itself, or for `auto` the best there is.

    Raises:
        MissingError: it is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, usable in there.items() if usable)
    if not there[device]:
        raise MissingError(
            f"--device {device}: this machine has none, or its driver is missing; use --device cpu"
        )
    return device


def _scores(pipeline: Pipeline) -> "dict[TableCell, Path]":
    from ajbench.pipeline.evaluate import cell_key

    return {cell_key(cell): cell.stage().need() / SCORES for cell in pipeline.grid()}


def title(stage: Stage) -> str:
    """Return what a stage is called on screen."""
    return f"{stage.name} ({stage.what})" if stage.what else stage.name


def rows_of(stage: Stage) -> list[dict[str, Any]]:
    """Return the rows that a finished evaluation measured."""
    from ajbench.core.rows import read_rows

    rows: Any = read_rows(stage.path / ROWS).to_dict("records")
    return list(rows)


def notes_of(stage: Stage) -> list[str]:
    """Return what has to be said beside the rows of a finished evaluation."""
    path = stage.path / NOTES
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def _history(stage: Stage) -> dict[str, Any]:
    info = stage.folder.info()
    kept = ("started", "seconds", "peak_memory_mb", "device", "git")
    about = {"stage": stage.name, "what": stage.what, "fingerprint": stage.fingerprint}
    return about | {name: info[name] for name in kept}


def _state(out: Path) -> dict[str, Any]:
    path = out / RUN
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _needed_mb(stages: Sequence[Stage]) -> float:
    return sum(stage.disk_mb or 0.0 for stage in stages)


def _check(stages: Sequence[Stage]) -> None:
    """Refuse what would fail for want of weights or disk."""
    for stage in stages:
        if stage.check:
            stage.check()
    _check_disk(stages)


def _check_disk(stages: Sequence[Stage]) -> None:
    needed, free = _needed_mb(stages), free_mb(stages[0].path)
    if needed > free:
        raise MissingError(
            f"{stages[0].path.parent}: {needed:.0f} MB needed, {free:.0f} MB free; choose another --work"
        )


def free_mb(folder: Path) -> float:
    """Return the space left on the disk of a folder that need not be there yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free / 1e6


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
