"""What the commands do once their options are read: call, and print."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajbench.cli.options import Settings
from ajbench.core import console
from ajbench.core.errors import UsageError

if TYPE_CHECKING:
    from ajbench.core.recipe import Recipe
    from ajbench.pipeline.recipe_stages import Pipeline
    from ajbench.pipeline.stage import Stage

SEEDS = ("generator.seed", "invert.seed", "synth.seed")


def pipeline_of(settings: Settings, loaded: "Recipe", tracker: str = "csv") -> "Pipeline":
    """Return the stages of a recipe at the places that the options name."""
    from ajbench.pipeline.recipe_stages import Pipeline, Places

    places = Places(settings.data, settings.work, settings.results, settings.generator, tracker)
    return Pipeline(loaded, places)


def do_run(settings: Settings, jobs: int | None, cell: int | None = None, tracker: str = "csv") -> None:
    """Do every stage of a recipe (or one cell of its grid), or tell what would be done."""
    from ajbench.pipeline import runner

    loaded = settings.load(*SEEDS)
    if loaded.table == "t1":
        do_table_1(settings, loaded, tracker)
        return
    pipeline = pipeline_of(settings, loaded, tracker)
    pipeline.check(pipeline.recipe.evaluate.doses)
    if cell:
        do_stage(settings, None, runner.grid_cell(pipeline, cell))
        return
    if settings.dry_run and pipeline.recipe.table:
        show_grid(runner.describe_grid(pipeline), runner.describe(settings.work, pipeline.sources()))
        return
    if settings.dry_run:
        show_plan(runner.describe(pipeline.places.work, pipeline.stages()))
        return
    done = runner.run(pipeline, settings.device, jobs, settings.force)
    if not done["ran"]:
        console.say(f"nothing to do: every stage of {pipeline.recipe.name} is done")
    for line in (*done["table"]["notes"], f"results: {done['results']}"):
        console.say(line)
    console.emit(done, table=(done["table"]["header"], done["table"]["lines"]))


def do_table_1(settings: Settings, loaded: "Recipe", tracker: str) -> None:
    """Train or take the generators of Table 1 and compare them, or tell what would be done."""
    from ajbench.pipeline import runner, table1

    # The base's own probes are other sets, made in other ways.
    evaluate = loaded.evaluate.model_copy(update={"probes": {}})
    pipeline = pipeline_of(settings, loaded.model_copy(update={"evaluate": evaluate}), tracker)
    if settings.dry_run:
        show_plan(runner.describe(settings.work, table1.stages(pipeline)))
        return
    done = table1.run(pipeline, settings.device, settings.force)
    if not done["ran"]:
        console.say("nothing to do: every stage of Table 1 is done")
    for note in (*done["notes"], f"results: {done['files'][0].parent}"):
        console.say(note)
    header = ["model", "fd", "is", "kl", "n"]
    cells = [
        [line["model"], *(_with_interval(line, m) for m in header[1:4]), line["n"]] for line in done["lines"]
    ]
    console.emit(done, table=(header, cells))


def do_stage(settings: Settings, pipeline: "Pipeline | None", stage: "Stage") -> None:
    """Do one stage, or tell what would be done; `pipeline` checks the recipe first."""
    from ajbench.pipeline import runner

    if pipeline:
        pipeline.check()
    if settings.dry_run:
        show_plan(runner.describe(settings.work, [*stage.needs, stage]) | runner.estimate(stage))
        return
    ran = runner.run_one(stage, settings.device, settings.force)
    if not ran:
        console.say(f"nothing to do: {stage.name} is done")
    info = stage.folder.info()
    document = {"stage": stage.name, "path": stage.path, "fingerprint": stage.fingerprint, "ran": ran}
    console.emit(document | {"seconds": info["seconds"]}, text=str(stage.path))


def do_synth(settings: Settings, pipeline: "Pipeline", probe: str, **how: Any) -> None:
    """Do a synthesis (`how`: as in `Pipeline.synth`), or tell what it would make."""
    if settings.dry_run:
        from ajbench.pipeline import synthesis_summary

        show_synthesis(synthesis_summary.synthesis(pipeline, probe, how["processes"]))
        return
    do_stage(settings, pipeline, pipeline.synth(probe, **how))


def do_evaluation(settings: Settings, pipeline: "Pipeline", stage: "Stage", columns: list[str]) -> None:
    """Do an evaluation and print its rows."""
    from ajbench.pipeline import runner

    if settings.dry_run:
        show_plan(runner.describe(settings.work, [*stage.needs, stage]))
        return
    runner.run_one(stage, settings.device, settings.force)
    rows, notes = runner.share(pipeline, stage)
    for note in notes:
        console.say(note)
    console.emit(rows, table=(columns, [[row[name] for name in columns] for row in rows]))


def do_sweep(settings: Settings, key: str, values: str, n: int | None, tracker: str) -> None:
    """Make and measure a synthetic set for each value of a key, and print a line for each."""
    from ajbench.pipeline import runner, sweep

    pipeline = pipeline_of(settings, sweep.swept(settings.load(*SEEDS), key, values, n), tracker)
    pipeline.check()
    if settings.dry_run:
        show_plan(runner.describe(settings.work, sweep.stages(pipeline)))
        return
    done = sweep.run(pipeline, key, settings.device, settings.force)
    for note in (*done["notes"], f"results: {done['path']}"):
        console.say(note)
    header = ["set", *sweep.METRICS]
    cells = [
        [line["set"], *(_with_interval(line, metric) for metric in sweep.METRICS)] for line in done["lines"]
    ]
    console.emit(done, table=(header, cells))


def _with_interval(line: dict[str, Any], metric: str) -> str:
    if line[metric] is None:
        return ""
    return f"{line[metric]:.3g} ({line[f'{metric}_low']:.3g} to {line[f'{metric}_high']:.3g})"


def do_export(settings: Settings, out: Path) -> None:
    """Put a trained generator, its tokens and a model card into one folder."""
    from ajbench.pipeline import runner
    from ajbench.reporting import model_card

    pipeline = pipeline_of(settings, settings.load(*SEEDS))
    needed = [pipeline.train_gen, pipeline.invert]
    if settings.dry_run:
        show_plan(runner.describe(settings.work, needed))
        return
    generator = pipeline.places.generator or pipeline.train_gen.need()
    measured = pipeline.eval_gen(("", *pipeline.probes))
    rows = runner.rows_of(measured) if measured.done() else []
    made = model_card.export(pipeline.recipe, generator, pipeline.invert.need(), out, rows, settings.force)
    console.emit({"path": made, "measured": bool(rows)}, text=str(made))


def show_grid(plan: dict[str, Any], before: dict[str, Any]) -> None:
    """Print what a dry run of a grid tells."""
    columns = ["cell", "what", "state", "steps", "disk_mb", "seconds"]
    lines = [[line[name] for name in columns] for line in plan["cells"]]
    console.emit(plan | {"before": before}, table=(columns, lines))
    console.say(
        f"{plan['todo']} of {len(plan['cells'])} cells to do: {plan['steps']} steps, {plan['disk_mb']} MB; "
        f"one after another about {plan['hours']} h; before them {before['todo']} stages to do"
    )


def show_plan(plan: dict[str, Any]) -> None:
    """Print what a dry run of stages tells."""
    columns = ["stage", "what", "state", "amount", "disk_mb"]
    console.emit(plan, table=(columns, [[line[name] for name in columns] for line in plan["stages"]]))
    console.say(
        f"{plan['todo']} of {len(plan['stages'])} stages to do; {plan['disk_mb']} MB needed, "
        f"{plan['disk_free_mb']} MB free"
    )
    if seconds := plan.get("seconds"):
        console.say(f"about {seconds:.0f} s, as a first batch goes")
    if missing := plan.get("missing"):
        console.say(f"no time can be told, nor can it be run: {missing}")


def show_synthesis(plan: dict[str, Any]) -> None:
    """Print what a dry run of a synthesis tells."""
    used, guides = plan["classes"], plan["guides"]
    labels = ", ".join(f"{k}: {n}" for k, n in plan["labels_a_clip"].items())
    rows = [
        ["clips", plan["clips"]],
        ["shards", plan["shards"]],
        ["classes used", f"{used['used']} of {used['asked']}"],
        ["labels a clip", labels],
        ["guides that hold an asked class", f"{guides['holding_an_asked_class']} of {guides['clips']}"],
        ["clips from noise", plan["from_noise"]],
        ["store_mb", plan["store_mb"]],
        ["audio", plan["audio"]],
    ]
    if stages := plan.get("stages"):
        rows += [[f"stage {line['stage']}", line["state"]] for line in stages]
    console.emit(plan, table=(["what", "planned"], rows))
    if without := used["unguided"]:
        from ajbench.generation.plan import UNGUIDED, class_list

        console.say(f"{class_list(without)} without a train clip: {UNGUIDED[used['unguided_are']]}")
    seconds = plan["seconds"]
    unknown = plan.get("missing") or "no time known without a generator"
    time = f"about {seconds:.0f} s, as a first batch goes" if seconds else unknown
    console.say(f"{plan['disk_mb']} MB needed, {plan['disk_free_mb']} MB free; {time}")


def do_download(names: Sequence[str]) -> list[dict[str, Any]]:
    """Download published weights into `$AJBENCH_WEIGHTS`; return name, path and "pinned" of each file."""
    from ajbench.core import weights
    from ajbench.core.download import fetch

    files = [file for name in names for file in weights.files_of(name)]
    home = weights.folder()
    if home is None:
        raise UsageError(
            f"--download {','.join(names)}: {weights.VARIABLE} is not set; set it to the folder for weights"
        )
    done = []
    for file in files:
        with console.progress(file.bytes or 0, f"{file.name} {file.file}", "bytes") as advance:
            done.append({"name": file.name, "path": fetch(file, home, advance), "pinned": bool(file.sha256)})
    for one in done:
        if not one["pinned"]:
            console.say(f"{one['path']}: not pinned, so there was no hash to compare it with")
    return done
