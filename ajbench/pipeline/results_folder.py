"""The results folder of a recipe: rows, tables and report, written from finished stages."""

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajbench.core import console, documents
from ajbench.core.errors import IntegrityError
from ajbench.core.files import atomic_write
from ajbench.core.recipe import Recipe, dump, fingerprint, load
from ajbench.core.run_dir import environment
from ajbench.core.sealed_json import read_sealed, unsealed, write_sealed
from ajbench.pipeline import pool_stages, preflight
from ajbench.pipeline.cell_training import SCORES
from ajbench.pipeline.classifier_stages import cell_key, grid_stages
from ajbench.pipeline.evaluation_stages import NOTES, ROWS, dataset_name, eval_gen_stage
from ajbench.pipeline.recipe_stages import Pipeline
from ajbench.pipeline.results_origin import ORIGIN
from ajbench.pipeline.stage import Stage
from ajbench.pipeline.tuning import candidate_lines

if TYPE_CHECKING:
    from ajbench.evaluation.classification import TableCell

RUN = "run.json"
RECIPE = "recipe.yaml"
CLASSES = "table_a11_classes.csv"
# Of the stages' own run.json; some only on GPUs, or where the machine counts energy.
KEPT = (
    "started", "seconds", "cpu_seconds", "gpu_seconds", "peak_memory_mb", "gpu_peak_memory_mb", "disk_mb",
    "energy_j", "device", "git",
)  # fmt: skip
# Never removed, even if a run.json lists them: measurements, and what other commands write.
LASTING = (ROWS, "earlier.csv", RECIPE, RUN, ORIGIN, "sweep_*.csv")
# Raised by one when the form of tables or report changes: they are then written again.
VERSION = 8


def publish(pipeline: Pipeline, stages: Sequence[Stage], again: bool = False) -> dict[str, Any]:
    """Write rows, tables and report of finished stages to the results folder, unless it has them.

    There `run.json` lists the stages that the tables are made from; `recipe.yaml` is the merged recipe.

    Args:
        pipeline: the recipe and its places.
        stages: finished.
        again: write them even if the folder has them.

    Returns:
        `results` (the folder), `files` (names in it), `table` (header, lines and notes of Table A11),
        `verdict` (headline and answers) and `contrast` (sentences on what several pools gained).
    """
    out, table = pipeline.results, pipeline.recipe.table
    wanted = {stage.fingerprint for stage in stages}
    others = pool_stages.evaluations(pipeline)
    key = fingerprint("publish", VERSION, pipeline.recipe, [one.fingerprint for one in (*others, *stages)])
    state = _state(out)
    # A single table is part of a whole run.
    known = state.get("fingerprint") == key or (table and wanted <= {*state.get("fingerprints", ())})
    known = known and "contrast" in state
    if not known or again or not all((out / name).exists() for name in (ROWS, *state["files"])):
        state = _write(pipeline, stages, others, state, key)
    return {"results": out} | {name: state[name] for name in ("files", "table", "verdict", "contrast")}


def _write(
    pipeline: Pipeline, stages: Sequence[Stage], others: Sequence[Stage], before: dict[str, Any], key: str
) -> dict[str, Any]:
    """Write everything and return the content of `run.json`.

    `others`: evaluations of other pools, of which only the rows are written. `before`: the earlier content.
    """
    from ajbench.core.rows import append_rows
    from ajbench.evaluation.classification import per_class
    from ajbench.reporting import formats, tables

    out, recipe = pipeline.results, pipeline.recipe
    for stage in (*others, *stages):
        if stage.name in pool_stages.EVALUATIONS:
            append_rows(out / ROWS, rows_of(stage))
    counts = _counts(pipeline)
    history = [_history(stage) for stage in stages]
    fingerprints = {stage.fingerprint for stage in stages}
    if recipe.table:  # evaluations of generated clips by an earlier run are kept
        same = _evaluations_of_clips(pipeline)
        kept = [line for line in before.get("stages", []) if line["fingerprint"] in same]
        history += kept
        fingerprints |= {line["fingerprint"] for line in kept}
    pinned = sorted(fingerprints)
    with console.progress(2, "tables and report", "parts") as advance:
        if recipe.evaluate.tune:
            atomic_write(out / tables.TUNE, formats.to_csv(candidate_lines(pipeline)))
        written = tables.write(out / ROWS, out, recipe, counts=counts, fingerprints=pinned)
        atomic_write(out / CLASSES, formats.to_csv(per_class(_scores(pipeline), recipe.name)))
        advance(1)
        pages = [] if recipe.table else [render_report(pipeline, stages)]
        advance(1)
    tuned = [out / tables.TUNE] if recipe.evaluate.tune else []
    files = *written.paths.values(), out / CLASSES, *tuned, *pages
    _remove_former(out, [*before.get("files", ()), tables.TUNE], files)
    state = {
        "recipe": recipe.name,
        "fingerprint": key,
        "files": [str(path.relative_to(out)) for path in files],
        "table": {**written.table, "notes": [*written.table["notes"], *_shortcomings(pipeline)]},
        "verdict": written.document["verdict"],
        "contrast": written.document["contrast"],
        "counts": counts,
        "fingerprints": pinned,
        "stages": history,
        **environment(),
    }
    atomic_write(out / RECIPE, dump(recipe))
    _write_state(out, state)
    return state


def _remove_former(out: Path, names: Iterable[str], written: Collection[Path]) -> None:
    """Remove the files of an earlier run that this one has not written, as their numbers are of other keys.

    A name that leads out of the folder, which an edited run.json may have, is passed over.
    """
    folder, kept = out.resolve(), {path.resolve() for path in written}
    for name in names:
        path = (folder / name).resolve()
        lasting = any(fnmatch(path.name, pattern) for pattern in LASTING)
        if path.is_relative_to(folder) and path.is_file() and path not in kept and not lasting:
            (folder / name).unlink()


def _evaluations_of_clips(pipeline: Pipeline) -> set[str]:
    """Return the fingerprints of the evaluations of generated clips in a whole run of the same keys."""
    whole = Pipeline(pipeline.recipe.model_copy(update={"table": None}), pipeline.places)
    whole.manifest = pipeline.manifest
    return {eval_gen_stage(one.draws[0], one.sets).fingerprint for one in whole.folds if one.sets}


def write_report(pipeline: Pipeline, stages: Sequence[Stage]) -> Path:
    """Write the report alone; if the folder's tables are of other keys, say so, and let a run write both."""
    page, out = render_report(pipeline, stages), pipeline.results
    state = _state(out)
    if state and not {stage.fingerprint for stage in stages} <= {*state["fingerprints"]}:
        console.say(f"the tables in {out} are of other keys than this report; `ajbench run` writes both")
        _write_state(out, state | {"fingerprint": ""})
    return page


def render_report(pipeline: Pipeline, stages: Sequence[Stage]) -> Path:
    """Render the HTML report of finished stages, whose rows are in the results folder; return its page.

    Of several folds or draws, it has the generated clips of the first.
    """
    from ajbench.pipeline import planned_power
    from ajbench.pipeline.evaluate import set_name
    from ajbench.reporting import report

    shown = pipeline.folds[0].draws[0]
    data = report.ReportData(
        recipe=pipeline.recipe,
        rows=pipeline.results / ROWS,
        real=shown.prepare.need(),
        synthetic={set_name(pipeline.recipe, name): shown.synthetic_set(name).need() for name in shown.sets},
        counts=_counts(pipeline),
        dataset=dataset_name(shown),
        scores=_scores(pipeline),
        runs=[stage.folder.info() for stage in stages],
        notes=[
            *_shortcomings(pipeline),
            *(note for stage in stages if stage.name == "eval-gen" for note in notes_of(stage)),
        ],
        fingerprints={stage.fingerprint for stage in stages},
        power=planned_power.planned(pipeline).get("sentence", ""),
    )
    return report.render(data, pipeline.results / "report")


def add_rows(pipeline: Pipeline, stage: Stage) -> list[dict[str, Any]]:
    """Add the rows of a finished evaluation to the results folder and return them."""
    from ajbench.core.rows import append_rows, read_rows
    from ajbench.evaluation import classification

    out, rows = pipeline.results, rows_of(stage)
    state = _state(out)
    append_rows(out / ROWS, rows, last=not state)  # without a run.json the order tells which rows count
    if state:  # the tables of an earlier run take these rows too
        kept = {*state["fingerprints"]}
        every = read_rows(out / ROWS)
        of_classifiers = every["table"].isin((classification.TABLE, classification.TAIL))
        if stage.name == "eval-cls":  # all of its classifiers, perhaps by other keys: no others are mixed in
            kept -= {*every.loc[of_classifiers, "fingerprint"]}
        else:  # all of its sets of clips, likewise
            same = every["features"].isin({row["features"] for row in rows})
            same &= every["dataset"].isin({row["dataset"] for row in rows})
            kept -= {*every.loc[same & ~of_classifiers, "fingerprint"]}
        counted = sorted({*kept, stage.fingerprint, *(row["fingerprint"] for row in rows)})
        if counted != state["fingerprints"]:  # the next run writes the tables of its own rows again
            state |= {"fingerprints": counted, "fingerprint": ""}
            _write_state(out, state)
    return rows


def counted_fingerprints(out: Path) -> list[str] | None:
    """Return the fingerprints of the stages whose rows count for tables; None, of all, without a run.json."""
    return _state(out).get("fingerprints")


def write_tables(recipe: Recipe, out: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Write the tables from rows.csv in a results folder, of the same rows and keys as the last run.

    Args:
        recipe: its name is used, and its keys where the folder lacks those of the last run, `recipe.yaml`.
        out: its results folder.
        changes: `key=value` that replace keys of the last run.

    Raises:
        UsageError: recipe.yaml is of another version of ajbench.
    """
    from ajbench.reporting import tables

    state = _state(out)
    if state and (out / RECIPE).exists():
        keys = {key: value for key, value in documents.read_yaml(out / RECIPE).items() if key != "table"}
        recipe = load(str(out / RECIPE), changes, tree=keys)
    pinned = {key: state.get(key) for key in ("counts", "fingerprints")}
    written = tables.write(out / ROWS, out, recipe, **pinned)
    if not state:
        console.say(f"{out / RUN} is missing: of each measurement the last row counts, of any run")
    return {"files": sorted(written.paths.values()), "table": written.table, **written.document}


def rows_of(stage: Stage) -> list[dict[str, Any]]:
    """Return the rows of a finished evaluation."""
    from ajbench.core.rows import read_rows

    rows: Any = read_rows(stage.path / ROWS).to_dict("records")
    return list(rows)


def notes_of(stage: Stage) -> list[str]:
    """Return the notes that belong to the rows of a finished evaluation.

    Raises:
        IntegrityError: they are damaged.
    """
    path = stage.path / NOTES
    try:
        found = documents.read_json(path)
        # A list is of an earlier version.
        return list(found if isinstance(found, list) else unsealed(found)["notes"])
    except FileNotFoundError:
        return []
    except (ValueError, KeyError) as error:
        raise IntegrityError(f"{path}: damaged ({error}); delete its folder and run again") from None


def _shortcomings(pipeline: Pipeline) -> list[str]:
    """Return sentences on what the splits of a fold lack."""
    sentences = (
        preflight.shortcomings(preflight.usable(one.manifest, one.prepare), one.recipe.data.eval_fold)
        for one in pipeline.folds
    )
    return list(dict.fromkeys(chain.from_iterable(sentences)))


def _scores(pipeline: Pipeline) -> "dict[TableCell, Path]":
    return {cell_key(stage, pipeline.recipe): stage.need() / SCORES for stage in grid_stages(pipeline)}


def _counts(pipeline: Pipeline) -> dict[str, dict[str, int]]:
    """Return the counts of the real clips by split; of several folds, the sums of their eval splits."""
    from ajbench.data.store import ClipStore

    counts = [ClipStore.open(one.prepare.need(), verify=False).meta.counts for one in pipeline.folds]
    if len(counts) == 1:
        return counts[0]
    held_out = [one["eval"] for one in counts]
    return {"eval": {name: sum(one.get(name, 0) for one in held_out) for name in held_out[0]}}


def _history(stage: Stage) -> dict[str, Any]:
    info = stage.folder.info()
    about = {"stage": stage.name, "what": stage.what, "fingerprint": stage.fingerprint}
    return about | {name: info[name] for name in KEPT if name in info}


def _state(out: Path) -> dict[str, Any]:
    """Return the content of `run.json`; empty without one."""
    try:
        remedy = "delete it and `ajbench run` again"
        return read_sealed(out / RUN, remedy, documents.IDS_BYTES, keys=("fingerprints",))
    except FileNotFoundError:
        return {}


def _write_state(out: Path, state: dict[str, Any]) -> None:
    write_sealed(out / RUN, state, indent=2)
