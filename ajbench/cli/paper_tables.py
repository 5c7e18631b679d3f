"""The tables of the paper that `ajbench run tables/…` makes, except for Table A11."""

from typing import TYPE_CHECKING, Any

from ajbench.cli.options import Settings, run_stage, show_plan
from ajbench.core import console
from ajbench.core.errors import UsageError

if TYPE_CHECKING:
    from ajbench.core.ray_tasks import Engine
    from ajbench.core.recipe import Recipe
    from ajbench.pipeline.recipe_stages import Pipeline
    from ajbench.pipeline.stage import Stage


def run_table_1(settings: Settings, recipe: "Recipe", tracker: str, engine: "Engine") -> None:
    """Compare generators on the captions of the evaluation clips (`tables/t1`)."""
    from ajbench.pipeline import table1

    # The probes of the base are other sets, generated in other ways.
    evaluate = recipe.evaluate.model_copy(update={"probes": {}})
    pipeline = settings.pipeline(recipe.model_copy(update={"evaluate": evaluate}), tracker, engine)
    if settings.dry_run:
        show_plan(settings, table1.stages(pipeline))
        return
    done = table1.run(pipeline, settings.device, settings.force)
    if not done["ran"]:
        console.say("nothing to do: every stage of Table 1 is finished")
    for note in (*done["notes"], f"results: {done['files'][0].parent}"):
        console.say(note)
    header, cells = with_intervals(done["lines"], ["model", "fd", "is", "kl"])
    cells = [[*row, line["n"]] for row, line in zip(cells, done["lines"], strict=True)]
    console.emit(done, table=([*header, "n"], cells))


def run_table_2(settings: Settings, pipeline: "Pipeline") -> None:
    """Compare what clips as codes and as waves take, from the finished stages of a recipe (`tables/t2`)."""
    from ajbench.pipeline import table2

    if settings.dry_run:
        show_plan(settings, table2.stages(pipeline))
        return
    done = table2.run(pipeline, settings.device, settings.force)
    for note in (*done["notes"], f"results: {done['files'][0].parent}"):
        console.say(note)
    console.emit(done, table=(done["header"], done["cells"]))


def run_table_a2(settings: Settings, pipeline: "Pipeline") -> None:
    """Compare captions from labels with captions by people (`tables/a2`)."""
    from ajbench.pipeline import caption_scores

    if settings.dry_run:
        console.emit(caption_scores.plan(pipeline))
        return
    done = caption_scores.run(pipeline, settings.force)
    for note in (*done["notes"], f"results: {done['files'][0].parent}"):
        console.say(note)
    names = ["captions", *caption_scores.METRICS]
    header, cells = with_intervals(done["lines"], names)
    cells = [
        [*row, line["vocabulary_size"], line["n"]] for row, line in zip(cells, done["lines"], strict=True)
    ]
    console.emit(done, table=([*header, "vocabulary", "n"], cells))


def run_table_a8(settings: Settings, pipeline: "Pipeline", jobs: int | None, cell: int | None) -> None:
    """Train and compare audio-visual models, or train the one of a number (`tables/a8`)."""
    from ajbench.pipeline import fusion_stages, fusion_table
    from ajbench.pipeline.stage import run_stages

    fusion_stages.check(pipeline, fusion_stages.conditions(pipeline.recipe))
    cells = fusion_stages.grid_cells(pipeline)
    if cell:
        run_stage(settings, numbered([one.stage for one in cells], cell))
        return
    stages = fusion_stages.table_stages(pipeline)
    if settings.dry_run:
        show_plan(settings, stages)
        return
    ran = run_stages(stages, settings.device, settings.force, jobs, pipeline.places.engine)
    if not ran:
        console.say("nothing to do: every stage of Table A8 is finished")
    done = fusion_table.publish(pipeline, cells, stages[-1]) | {"ran": ran}
    for note in (*done["table"]["notes"], f"results: {done['files'][0].parent}"):
        console.say(note)
    console.emit(done, table=(done["table"]["header"], done["table"]["lines"]))


def numbered(stages: "list[Stage]", number: int) -> "Stage":
    """Return the stage that `--cell` names.

    Raises:
        UsageError: there are fewer.
    """
    if number > len(stages):
        raise UsageError(f"--cell {number}: the grid has cells 1 to {len(stages)}; --dry-run lists them")
    return stages[number - 1]


def with_intervals(lines: list[dict[str, Any]], columns: list[str]) -> tuple[list[str], list[list[Any]]]:
    """Return a table whose first column is a name and whose others are metrics with their intervals."""

    def cell(line: dict[str, Any], metric: str) -> str:
        if line[metric] is None:
            return ""
        value, low, high = (line[f"{metric}{end}"] for end in ("", "_low", "_high"))
        return f"{value:.3g}" if low is None else f"{value:.3g} ({low:.3g} to {high:.3g})"

    name, *metrics = columns
    return columns, [[line[name], *(cell(line, metric) for metric in metrics)] for line in lines]
