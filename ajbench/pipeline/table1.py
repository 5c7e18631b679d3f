"""Table 1 of the paper: generators that differ in their text, compared on the evaluation clips' captions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from ajbench.core.files import atomic_write
from ajbench.core.recipe import Generator, Recipe
from ajbench.core.schema import overlay
from ajbench.pipeline import preflight, runner
from ajbench.pipeline.recipe_stages import Pipeline, Places
from ajbench.pipeline.stage import Stage, in_order

FOLDER = "folder"  # the key of `evaluate.generators` that names a trained one
PAPER: Mapping[str, Mapping[str, Any]] = {
    "clap": {"text_encoder": "clap", "mask": False},
    "clap-masked": {"text_encoder": "clap", "mask": True},
    "t5-masked": {"text_encoder": "t5-large", "mask": True},
    "t5": {"text_encoder": "t5-large", "mask": False},
}


def variants(pipeline: Pipeline) -> dict[str, Pipeline]:
    """Return a pipeline for each generator of `evaluate.generators`, with one set of clips of its name.

    Where none are named they are the paper's four. A set has a clip for the caption of each evaluation clip.
    All share the prepared clips.

    Raises:
        UsageError: a generator has a key that the generator section does not take.
    """
    recipe, found = pipeline.recipe, {}
    clips = len(pipeline.manifest.split("eval"))
    for name, changes in (recipe.evaluate.generators or PAPER).items():
        keys = dict(changes)
        folder = keys.pop(FOLDER, None)
        places = pipeline.places
        if folder:
            places = Places(places.data, places.work, places.results, Path(folder))
        evaluate = recipe.evaluate.model_copy(update={"probes": {name: {"n": clips}}})
        mine = {"generator": _section(recipe, name, keys), "evaluate": evaluate}
        found[name] = Pipeline(recipe.model_copy(update=mine), places)
    return found


def stages(pipeline: Pipeline) -> list[Stage]:
    """Return the stages of the whole table, in order, each once."""
    return in_order(mine.eval_gen((name,)) for name, mine in variants(pipeline).items())


def run(pipeline: Pipeline, device: str, force: bool = False) -> dict[str, Any]:
    """Do what is not done (with `force`: everything) and write the table into `<results>/<recipe>/t1/`.

    Returns:
        `files` (table_1.csv, .md, .tex), `ran` (titles of the stages), `lines` (of the CSV), `notes`.
    """
    from ajbench.reporting import tables

    parts = variants(pipeline)
    for mine in parts.values():
        mine.check()
    ran = runner.run_all(stages(pipeline), device, force)
    measured = [mine.eval_gen((name,)) for name, mine in parts.items()]
    rows = pd.DataFrame([row for stage in measured for row in runner.rows_of(stage)])
    # Yardsticks are the same beside every generator.
    rows = rows.drop_duplicates(["table", "row", "column", "metric", "split", "features"], keep="last")
    out = pipeline.results / "t1"
    out.mkdir(parents=True, exist_ok=True)
    lines, files = tables.table_1(rows, pipeline.recipe)
    for name, text in files.items():
        atomic_write(out / name, text)
    notes = list(dict.fromkeys(note for stage in measured for note in runner.notes_of(stage)))
    return {
        "files": [out / name for name in files],
        "ran": ran,
        "lines": lines,
        "notes": notes,
    }


def _section(recipe: Recipe, name: str, keys: Mapping[str, Any]) -> Generator:
    try:
        section = Generator.model_validate(overlay(recipe.generator.model_dump(), keys))
    except ValidationError as error:
        raise preflight.misfit(f"evaluate.generators.{name}", error, Generator) from None
    preflight.check_names(recipe.model_copy(update={"generator": section}))
    return section
