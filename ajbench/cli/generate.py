"""Commands of single stages, from clips to classifier: prepare, train-codec, … , train-cls; and export."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ajbench.cli import one_fold
from ajbench.cli.external_options import AllowLeaks, Synthetic, SyntheticLabels, with_external
from ajbench.cli.options import (
    Engine,
    Settings,
    Tracker,
    command,
    run_stage,
)
from ajbench.core import console
from ajbench.core.errors import UsageError

app = typer.Typer()


@app.command()
@command(hide=("generator",))
def prepare(settings: Settings, engine: Engine = "local") -> None:
    """Read a corpus into a clip store.

    The store holds audio, codec codes, labels and splits in Arrow shards. Clips that cannot be used are
    listed in quarantine.csv, each with its reason. With --engine ray, a shard is a task.

    \b
    Examples:
      ajbench prepare --recipe esc10 --data DIR
      ajbench prepare data.n_clips=64
    """
    pipeline = one_fold.own_clips(settings.pipeline(settings.load(), engine=engine))
    pipeline.check()
    run_stage(settings, pipeline.prepare)
    if pipeline.through_codec and not settings.dry_run:
        run_stage(settings, pipeline.decoded)


@app.command()
@command(hide=("recipe", "data", "results", "generator", "overrides"))
def train_codec(
    settings: Settings,
    sounds: Annotated[
        list[Path] | None,
        typer.Option("--sounds", metavar="DIR", help="Folder of sound files; may be repeated."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 3500,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Segments of 1.28 s per step.")] = 16,
    mini_clips: Annotated[int, typer.Option("--mini-clips", min=0, help="Rendered clips to add.")] = 600,
    lr: Annotated[float, typer.Option("--lr", min=0.0, help="Highest learning rate.")] = 1.5e-3,
    start: Annotated[
        str | None,
        typer.Option(
            "--start", metavar="CODEC", help="Codec to continue from: a version of tiny, or a file."
        ),
    ] = None,
    tracker: Tracker = "csv",
) -> None:
    """Train the codec `tiny` on your own sounds.

    It is trained on folders of sounds and on rendered clips, from the beginning or from another tiny codec.
    A recipe uses it with `codec.name=<path of tiny.safetensors>`. For several GPUs, run this command under
    `torchrun --nproc-per-node N --no-python` or `accelerate launch`.

    \b
    Examples:
      ajbench train-codec --sounds DIR
      ajbench train-codec --sounds DIR --start tiny --lr 8e-4
    """
    from ajbench.pipeline.codec_training import codec_stage

    run_stage(
        settings,
        codec_stage(
            settings.work,
            sounds or [],
            steps=steps,
            batch_size=batch_size,
            mini_clips=mini_clips,
            lr=lr,
            start=start,
            seed=settings.seed or 0,
            tracker=tracker,
        ),
    )


@app.command()
@command(hide=("generator",))
def train_gen(
    settings: Settings,
    init: Annotated[
        str | None,
        typer.Option("--init", help="Start from sd14, a folder or a hub id (sets generator.init)."),
    ] = None,
    tracker: Tracker = "csv",
) -> None:
    """Train the generator on the train split.

    It is a latent diffusion U-Net on whitened codec latents, conditioned on text. For several GPUs, run this
    command under `torchrun --nproc-per-node N --no-python` or `accelerate launch`. Later stages find a
    generator trained with --init if they are given the same generator.init, in the recipe or on the command
    line.

    \b
    Examples:
      ajbench train-gen
      ajbench train-gen --recipe as20k --data DIR --init sd14
    """
    more = () if init is None else (f"generator.init={init}",)
    pipeline = one_fold.own_clips(settings.pipeline(settings.load("generator.seed", more=more), tracker))
    pipeline.check()
    run_stage(settings, pipeline.train_gen)


@app.command()
@command()
def invert(settings: Settings, tracker: Tracker = "csv") -> None:
    """Learn class tokens by textual inversion, optionally LoRA.

    Only the vectors of the tokens, or LoRA's weights, are trained; generator and text encoder stay as they
    are. For several GPUs, run this command under `torchrun --nproc-per-node N --no-python` or `accelerate
    launch`.

    \b
    Examples:
      ajbench invert
      ajbench invert --recipe esc10 --data DIR invert.lora_rank=8 invert.tokens=false
    """
    pipeline = one_fold.own_clips(settings.pipeline(settings.load("invert.seed"), tracker))
    pipeline.check()
    run_stage(settings, pipeline.invert)


@app.command()
@command()
def synth(
    settings: Settings,
    classes: Annotated[int | None, typer.Option("--classes", min=1, help="Only the first K classes.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Number of clips.")] = None,
    probe: Annotated[
        str | None, typer.Option("--probe", help="Generate this set of evaluate.probes, not the main set.")
    ] = None,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Processes that share the work.")] = 1,
    allow_inexact: Annotated[
        bool,
        typer.Option("--allow-inexact", help="Resume although threads, device or versions have changed."),
    ] = False,
    engine: Engine = "local",
) -> None:
    """Generate synthetic clips into a clip store.

    If it is killed, the same command resumes and ends with the same bytes. Any number of processes with the
    same --work share the shards. For several GPUs, run this command under `torchrun --nproc-per-node N
    --no-python`. For AudioSet, --dry-run needs only the label table.

    \b
    Examples:
      ajbench synth --classes 16 --n 200
      ajbench synth --recipe as20k --data DIR --classes 527 --n 80000
    """
    own = {"synth.classes": classes, "synth.n": n}
    more = tuple(f"{key}={value}" for key, value in own.items() if value is not None)
    made = settings.pipeline(settings.load("synth.seed", more=more), engine=engine)
    pipeline = one_fold.own_clips(made)
    if probe and probe not in pipeline.probes:
        raise UsageError(f"--probe {probe}: evaluate.probes has {', '.join(pipeline.probes) or 'none'}")
    if settings.dry_run:
        from ajbench.pipeline.synthesis_summary import synthesis_summary

        _show_synthesis(synthesis_summary(pipeline, probe or "", processes))
        return
    pipeline.check()
    run_stage(settings, pipeline.synth(probe or "", processes, allow_inexact))


@app.command()
@command(hide=("generator",))
def augment(settings: Settings) -> None:
    """Augment real clips, as a baseline for generated ones.

    Makes `synth.n` clips with the library audiomentations (extra `aug`): stretched, shifted in pitch and
    time, with background and noise. Mixes such as `mini+60A` add the first of them to the real clips.

    \b
    Examples:
      ajbench augment
      ajbench augment --recipe esc10 --data DIR synth.n=640
    """
    from ajbench.pipeline.arms import augment_stage

    pipeline = one_fold.own_clips(settings.pipeline(settings.load("synth.seed")))
    pipeline.check()
    run_stage(settings, augment_stage(pipeline))


@app.command()
@command()
def train_cls(
    settings: Settings,
    tracker: Tracker = "csv",
    synthetic: Synthetic = None,
    synthetic_labels: SyntheticLabels = None,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Train one classifier on one mix of clips.

    Trains the recipe's `classifier` on its `mix`, then scores the evaluation clips. With `evaluate.tune`, it
    first chooses the keys for all mixes of that source. Of several folds it is that of `data.eval_fold`. For
    several GPUs, run this command under `torchrun --nproc-per-node N --no-python` or `accelerate launch`.

    \b
    Examples:
      ajbench train-cls --recipe mini+60G
      ajbench train-cls --recipe as20k+40kG --data DIR classifier.lr=1e-4
    """
    from ajbench.pipeline.classifier_stages import own_stage
    from ajbench.pipeline.fold_stages import own_fold

    settings = with_external(settings, synthetic, synthetic_labels, allow_leaks)
    pipeline = own_fold(settings.pipeline(settings.load(), tracker))
    evaluate = pipeline.recipe.evaluate
    pipeline.check(evaluate.doses if evaluate.tune else ())
    run_stage(settings, own_stage(pipeline, settings.seed or 0))


def _show_synthesis(plan: dict[str, Any]) -> None:
    """Print what a dry run of a synthesis shows."""
    used, guides = plan["classes"], plan["guides"]
    rows = [
        ["clips", plan["clips"]],
        ["shards", plan["shards"]],
        ["classes used", f"{used['used']} of {used['asked']}"],
        ["labels per clip", ", ".join(f"{k}: {n}" for k, n in plan["labels_a_clip"].items())],
        ["guides with a requested class", f"{guides['holding_an_asked_class']} of {guides['clips']}"],
        ["clips from noise", plan["from_noise"]],
        ["store_mb", plan["store_mb"]],
        ["audio", plan["audio"]],
        *([f"stage {line['stage']}", line["state"]] for line in plan.get("stages", ())),
    ]
    console.emit(plan, table=(["what", "planned"], rows))
    if without := used["unguided"]:
        from ajbench.generation.plan import UNGUIDED, class_list

        console.say(f"{class_list(without)} without a train clip: {UNGUIDED[used['unguided_are']]}")
    time = plan.get("missing") or "time unknown without a generator"
    if seconds := plan["seconds"]:
        time = f"about {seconds:.0f} s, extrapolated from one batch"
    console.say(f"{plan['disk_mb']} MB needed, {plan['disk_free_mb']} MB free; {time}")
