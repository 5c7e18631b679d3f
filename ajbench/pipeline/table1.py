"""Table 1 of the paper: generators with different text encoders, compared on captions of evaluation clips."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from ajbench.core import registry
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import atomic_write
from ajbench.core.recipe import Generator, Recipe, misfit
from ajbench.core.section import overlay
from ajbench.pipeline import results_folder
from ajbench.pipeline.evaluation_stages import eval_gen_stage
from ajbench.pipeline.recipe_stages import Pipeline
from ajbench.pipeline.stage import Stage, in_order, run_stages

# Keys in `evaluate.generators` for a generator that is already trained: its folder, or the recipe it is of.
FOLDER, RECIPE = "folder", "recipe"
PAPER: Mapping[str, Mapping[str, Any]] = {
    "clap": {"text_encoder": "clap", "mask": False},
    "clap-masked": {"text_encoder": "clap", "mask": True},
    "t5-masked": {"text_encoder": "t5-large", "mask": True},
    "t5": {"text_encoder": "t5-large", "mask": False},
}


def variants(pipeline: Pipeline) -> dict[str, Pipeline]:
    """Return a pipeline for each generator of `evaluate.generators`, by default the paper's four.

    Each generates one set, named after its generator, with a clip for each caption of the evaluation clips
    (for the labels of a clip without one). All share the prepared clips.

    Raises:
        UsageError: a generator has a key that the generator section does not have, or names a recipe of which
            several are trained.
        MissingError: none of that recipe is.
    """
    recipe, found = pipeline.recipe, {}
    clips = sum(1 + len(row.more_captions) for row in pipeline.manifest.split("eval"))
    for name, changes in (recipe.evaluate.generators or PAPER).items():
        keys = dict(changes)
        folder, other = keys.pop(FOLDER, None), keys.pop(RECIPE, None)
        if other and not folder:
            folder = _trained(pipeline.places.work, name, other)
        places = replace(pipeline.places, generator=Path(folder)) if folder else pipeline.places
        evaluate = recipe.evaluate.model_copy(update={"probes": {name: {"n": clips}}})
        mine = {"generator": _section(recipe, name, keys), "evaluate": evaluate}
        found[name] = Pipeline(recipe.model_copy(update=mine), places)
    return found


def stages(pipeline: Pipeline) -> list[Stage]:
    """Return the stages of the whole table in order, each once."""
    return in_order(eval_gen_stage(mine, (name,)) for name, mine in variants(pipeline).items())


def run(pipeline: Pipeline, device: str, force: bool = False) -> dict[str, Any]:
    """Run the stages and write the table to `<results>/<recipe>/t1/`.

    Returns:
        `files` (table_1.csv, .md, .tex), `ran` (titles of the stages), `lines` (of the CSV), `notes`.
    """
    from ajbench.reporting import tables

    parts = variants(pipeline)
    for mine in parts.values():
        mine.check()
    ran = run_stages(stages(pipeline), device, force)
    measured = [eval_gen_stage(mine, (name,)) for name, mine in parts.items()]
    rows = pd.DataFrame([row for stage in measured for row in results_folder.rows_of(stage)])
    # Every generator is compared with the same baselines.
    rows = rows.drop_duplicates(["table", "row", "column", "metric", "split", "features"], keep="last")
    out = pipeline.results / "t1"
    out.mkdir(parents=True, exist_ok=True)
    lines, files = tables.table_1(rows, pipeline.recipe)
    for name, text in files.items():
        atomic_write(out / name, text)
    notes = list(dict.fromkeys(note for stage in measured for note in results_folder.notes_of(stage)))
    return {"files": [out / name for name in files], "ran": ran, "lines": lines, "notes": notes}


def _trained(work: Path, name: str, recipe: str) -> Path:
    """Return the folder of the only generator of another recipe that is trained in `work`."""
    found = sorted(path.parent for path in (work / recipe).glob("train-gen-*/generator.json"))
    if not found:
        raise MissingError(
            f"evaluate.generators.{name}: no trained generator in {work / recipe}; run `ajbench train-gen "
            f"--recipe {recipe} --data DIR data.leave_out=FILE` with a list of the evaluation clips, or set "
            f"evaluate.generators.{name}.folder"
        )
    if len(found) > 1:
        folders = ", ".join(path.name for path in found)
        raise UsageError(
            f"evaluate.generators.{name}: several trained generators in {work / recipe} ({folders}); set "
            f"evaluate.generators.{name}.folder to one of them"
        )
    return found[0]


def _section(recipe: Recipe, name: str, keys: Mapping[str, Any]) -> Generator:
    try:
        section = Generator.model_validate(overlay(recipe.generator.model_dump(), keys))
    except ValidationError as error:
        raise misfit(f"evaluate.generators.{name}", error, Generator) from None
    registry.check_names(recipe.model_copy(update={"generator": section}))
    return section
