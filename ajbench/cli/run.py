"""Commands of whole recipes: demo, run, tables, report."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ajbench.cli import one_fold, paper_tables
from ajbench.cli.external_options import AllowLeaks, Synthetic, SyntheticLabels, with_external
from ajbench.cli.options import (
    SEEDS,
    Engine,
    Jobs,
    Settings,
    Tracker,
    command,
    run_stage,
    show_plan,
)
from ajbench.cli.own_data_options import Budget, Group, Label, WriteRecipe
from ajbench.core import console
from ajbench.core.errors import UsageError
from ajbench.core.files import need_writable

if TYPE_CHECKING:
    from ajbench.pipeline.recipe_stages import Pipeline
    from ajbench.pipeline.stage import Stage

app = typer.Typer()
WHOLE = ("tables/t1", "tables/t2", "tables/a2")  # made at once, without cells


@app.command()
@command(hide=("recipe", "data"))
def demo(settings: Settings, jobs: Jobs = None, tracker: Tracker = "csv") -> None:
    """Run all stages on the embedded corpus `mini`.

    No data, no download, minutes on a CPU: generate, mix, train, evaluate, tabulate. Writes a report to
    `<results>/mini/report/index.html`, prints a table laid out like Table A11, and ends with what a
    classifier with few real clips gains from a generator of a larger pool, and from one of the same clips.

    \b
    Examples:
      ajbench demo
      ajbench demo 'evaluate.seeds=[0]' --results DIR
    """
    _run_recipe(settings, settings.pipeline(settings.load(*SEEDS), tracker), jobs)


@app.command()
@command(hide=("recipe",))
def run(
    settings: Settings,
    name: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="Name, YAML file or mix expression; none: made for --data."),
    ] = None,
    jobs: Jobs = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="RECIPE",
            help="For a table of the paper (tables/a11, t1, t2, a2, a8): make it of this recipe.",
        ),
    ] = None,
    cell: Annotated[
        int | None,
        typer.Option("--cell", min=1, help="Train only this classifier of the grid (for a job array)."),
    ] = None,
    engine: Engine = "local",
    budget: Budget = None,
    label: Label = None,
    group: Group = None,
    write_recipe: WriteRecipe = None,
    synthetic: Synthetic = None,
    synthetic_labels: SyntheticLabels = None,
    allow_leaks: AllowLeaks = False,
    tracker: Tracker = "csv",
) -> None:
    """Run every stage of a recipe, from clips to report.

    Without RECIPE, one is made for the clips at --data: a folder of class folders (also in split or fold
    folders) or of files whose names have the class (--label), a table (CSV, TSV, JSON, Parquet), an
    audiofolder, Parquet or tar shards, or ESC-50, FSD50K or AudioSet. It first prints what it found, what it
    will do and how long that takes. Sizes fit --budget.

    With --synthetic, no generator is trained: the clips of another one are searched for copies of real clips
    (of evaluation clips: exit code 4), scored, and mixed in.

    Finished stages are skipped; after a change, only the stages that depend on it run again. A mix expression
    (`esc10+320G`) compares that mix with real clips only, instead of the recipe's grid. `tables/a11 --base
    R` runs what Table A11 of recipe R needs; with --dry-run it lists the classifiers with steps, disk space
    and time; for AudioSet, its lists are enough for that. `tables/t1 --base R` compares generators on the
    captions of the evaluation clips, `tables/a8 --base R` audio-visual models. `tables/a2` compares captions
    from labels with AudioCaps' captions.

    With --engine ray, the shards of prepare and synth and the classifiers of a grid are tasks of Ray; --jobs
    is how many run at a time if there is no cluster.

    \b
    Examples:
      ajbench run --data DIR --budget 20m
      ajbench run tables/a11 --base as20k --data DIR --cell 7
    """
    if cell and name in WHOLE:
        raise UsageError(f"--cell {cell}: {name} is made as a whole; leave the option out")
    if cell and engine == "ray":
        raise UsageError("--engine ray: --cell trains one classifier in this process; leave one of them out")
    settings = with_external(settings, synthetic, synthetic_labels, allow_leaks)
    settings = _of_run(settings, name, base, {"budget": budget, "label": label, "group": group}, write_recipe)
    recipe = settings.load(*SEEDS)
    one_fold.not_idle(settings, recipe)
    if recipe.table == "t1":
        paper_tables.run_table_1(settings, recipe, tracker, engine)
        return
    pipeline = settings.pipeline(recipe, tracker, engine)
    if recipe.table == "t2":
        paper_tables.run_table_2(settings, pipeline)
    elif recipe.table == "a2":
        paper_tables.run_table_a2(settings, pipeline)
    elif recipe.table == "a8":
        paper_tables.run_table_a8(settings, pipeline, jobs, cell)
    elif cell:
        stage = _grid_cell(pipeline, cell)
        if not settings.dry_run:
            settings.keep_run(pipeline.recipe)
        run_stage(settings, stage)
    else:
        _run_recipe(settings, pipeline, jobs)


@app.command()
@command(hide=("generator", "seed", "device", "force"))
def tables(
    settings: Settings,
    synthetic: Synthetic = None,
    synthetic_labels: SyntheticLabels = None,
) -> None:
    """Make the paper's tables from rows.csv.

    Reads `<results>/<recipe>/rows.csv` and the recipe of the last run beside it, and writes CSV, Markdown and
    LaTeX next to them.

    \b
    Examples:
      ajbench tables --recipe esc10 --json
      ajbench tables --data DIR
    """
    from ajbench.pipeline import results_folder
    from ajbench.pipeline.evaluation_stages import ROWS
    from ajbench.pipeline.places import Places

    settings = with_external(settings, synthetic, synthetic_labels, False)
    recipe = settings.load()
    places = Places(settings.data, settings.work, settings.results, synthetic=settings.synthetic)
    out = places.results_of(recipe.name)
    if settings.dry_run:
        rows = out / ROWS
        console.emit({"recipe": recipe.name, "rows": rows, "there": rows.exists(), "results": out})
        return
    written = results_folder.write_tables(recipe, out, settings.overrides)
    console.emit(written, table=(written["table"]["header"], written["table"]["lines"]))


@app.command()
@command(hide=("seed", "force", "device"))
def report(
    settings: Settings,
    synthetic: Synthetic = None,
    synthetic_labels: SyntheticLabels = None,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Render the HTML report of a finished run.

    Dose curves, AP by class, and real and synthetic clips to listen to.

    \b
    Examples:
      ajbench report
      ajbench report --recipe esc10 --data DIR
    """
    from ajbench.pipeline import results_folder

    settings = with_external(settings, synthetic, synthetic_labels, allow_leaks)
    recipe = settings.load(*SEEDS)
    one_fold.not_idle(settings, recipe)
    pipeline = settings.pipeline(recipe)
    stages = pipeline.stages()
    if settings.dry_run:
        show_plan(settings, stages)
        return
    page = results_folder.write_report(pipeline, stages)
    console.emit({"report": page}, text=str(page))


def _of_run(
    settings: Settings,
    name: str | None,
    base: str | None,
    own: dict[str, str | None],
    write_recipe: Path | None,
) -> Settings:
    """Return the settings with the recipe's name, unless it is made for --data.

    Raises:
        UsageError: neither is given, or an option of the one with the other.
    """
    if name and "=" in name and not name.endswith((".yaml", ".yml")):  # the first KEY=VALUE
        settings, name = replace(settings, overrides=(name, *settings.overrides)), None
    if name is None and settings.data is None:
        raise UsageError(
            "run: name a recipe, such as mini (`ajbench ls recipes`), or give your clips with --data"
        )
    if name:
        for option, value in (own | {"write-recipe": write_recipe}).items():
            if value is not None:
                raise UsageError(
                    f"--{option}: recipe {name} has its own keys; leave out the option or the recipe"
                )
        if not name.endswith((".yaml", ".yml")) and Path(name).is_dir() and settings.data is None:
            raise UsageError(f"{name}: a folder, not a recipe; run it with `ajbench run --data {name}`")
    elif base:
        raise UsageError("--base: name a table, such as tables/a11")
    patterns = {option: own[option] for option in ("label", "group")}
    settings = replace(settings, recipe=name, base=base, budget=own["budget"], patterns=patterns)
    if name is None:
        settings = one_fold.instead_of_planned(settings)
    if write_recipe:
        need_writable(write_recipe, "--write-recipe")
    if write_recipe and settings.own:
        written = write_recipe.read_bytes() if write_recipe.exists() else None
        if written not in (None, settings.own.yaml.encode()):
            raise UsageError(
                f"--write-recipe {write_recipe}: exists and differs; run it with `ajbench run "
                f"{write_recipe}`, or choose another name"
            )
        settings.own.write(write_recipe)
        console.say(f"recipe: {write_recipe}")
    return settings


def _run_recipe(settings: Settings, pipeline: "Pipeline", jobs: int | None) -> None:
    from ajbench.pipeline import (
        planned_power,
        pool_stages,
        preflight,
        results_folder,
        tail_clips,
    )
    from ajbench.pipeline.stage import run_stages

    recipe = pipeline.recipe
    if settings.dry_run:
        pipeline.manifest = preflight.labels(recipe, pipeline.places.data)
    pool_stages.check(pipeline)
    settings.claim_results(pipeline.results, keep=False)
    if settings.dry_run and recipe.table:
        _show_grid(pipeline)
        return
    stages = pool_stages.stages(pipeline, jobs)
    if settings.dry_run:
        power, tail = planned_power.planned(pipeline), tail_clips.planned(pipeline)
        more = {"tail": tail} if tail else {}
        more |= {"found": settings.own.found} if settings.own else {}
        show_plan(settings, stages, power=power, more=more)
        return
    if any(not stage.done() for stage in stages) and (power := planned_power.planned(pipeline)):
        console.say(power["sentence"])
    settings.keep_run(recipe)
    ran = run_stages(stages, settings.device, settings.force, jobs, pipeline.places.engine)
    settings.claim_results(pipeline.results)
    done = results_folder.publish(pipeline, pipeline.stages(jobs), again=bool(ran)) | {"ran": ran}
    if not ran:
        console.say(f"nothing to do: every stage of {recipe.name} is finished")
    for line in (done["verdict"]["headline"], *done["table"]["notes"], f"results: {done['results']}"):
        console.say(line)
    for name in done["files"]:
        if name.endswith(".html"):
            console.say(f"report: {done['results'] / name}")
    console.emit(done, table=(done["table"]["header"], done["table"]["lines"]))
    for sentence in done["contrast"]:
        console.say(sentence)


def _grid_cell(pipeline: "Pipeline", number: int) -> "Stage":
    from ajbench.pipeline import fold_stages
    from ajbench.pipeline.classifier_stages import grid_stages

    fold_stages.check(pipeline)
    return paper_tables.numbered(fold_stages.named(pipeline, grid_stages(pipeline)), number)


def _show_grid(pipeline: "Pipeline") -> None:
    from ajbench.pipeline import estimates, fold_stages, planned_power, pool_stages, tail_clips
    from ajbench.pipeline.stage import lacking

    plan = estimates.describe_grid(pipeline)
    sources = fold_stages.named(pipeline, fold_stages.sources(pipeline))
    before = estimates.describe(pipeline.places.work, sources)
    columns = ["cell", "what", "state", "steps", "disk_mb", "seconds"]
    lines = [[line[name] for name in columns] for line in plan["cells"]]
    power = planned_power.planned(pipeline)
    tail = tail_clips.planned(pipeline)
    missing = lacking(pool_stages.stages(pipeline))
    found = {"before": before, "power": power, "tail": tail, "missing": missing}
    if power and power["lacking"]:
        console.say(power["sentence"])
    console.emit(plan | found, table=(columns, lines))
    sizes = ", ".join(f"{name} {plan[name]:,}" for name in ("pool", "real", "eval"))
    console.say(f"clips: {sizes}")
    if tail:
        console.say(tail["sentence"])
    if choices := plan.get("tunings"):
        waiting = [choice for choice in choices if choice["state"] == "todo"]
        console.say(
            f"{len(waiting)} of {console.counted(len(choices), 'choice')} of keys to make (evaluate.tune): "
            f"{console.counted(sum(choice['steps'] for choice in waiting), 'step')}, included below"
        )
    console.say(
        f"{plan['todo']} of {console.counted(len(plan['cells']), 'classifier')} to train: "
        f"{console.counted(plan['steps'], 'step')}, {plan['disk_mb']} MB, about {plan['hours']} h one after "
        f"another; {console.counted(before['todo'], 'earlier stage')} to do"
    )
    if power and not power["lacking"]:
        console.say(power["sentence"])
    for one in missing:
        console.say(f"cannot be run: {one}")
