"""The command `export`: a trained generator, or clips as files."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ajbench.cli import one_fold
from ajbench.cli.options import SEEDS, Settings, command, show_plan
from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError

app = typer.Typer()
PANEL = "Clips instead of the generator"
OWN = ("synthetic", "real")


def _of_clips(help: str, name: str, **more: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel=PANEL, **more)


CLIPS = (
    "Export these clips: the folder of a store or, of the recipe, synthetic, real, or the name of a probe."
)
LAYOUT = (
    "folders: CLASS/CLIP; audiofolder: SPLIT/NUMBER/CLIP, as the Hugging Face hub reads it; both with "
    "metadata.csv. table: clips.csv and audio/NUMBER/CLIP. webdataset: tars with a JSON for each clip."
)
Layout = Literal["folders", "audiofolder", "webdataset", "table"]


@app.command()
@command(hide=("results", "device"))
def export(
    settings: Settings,
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new folder.")],
    clips: Annotated[str | None, _of_clips(CLIPS, "--clips", metavar="STORE|NAME")] = None,
    layout: Annotated[Layout, _of_clips(LAYOUT, "--as")] = "folders",
    kind: Annotated[
        Literal["flac", "wav"], _of_clips("Type of the files, 16 bits at 16 kHz.", "--format")
    ] = "flac",
    split: Annotated[
        Literal["train", "val", "eval"] | None, _of_clips("Only the clips of this split.", "--split")
    ] = None,
) -> None:
    """Export the trained generator, or clips, to a folder.

    The folder of a generator has its class tokens and a model card with the measured values;
    `ajbench.AudioJourneyPipeline` opens it. Clips become sound files with their labels, caption or prompt,
    parent, seed, strength, guidance and fidelity; an interrupted export goes on. Of a recipe with several
    folds, data.eval_fold=K says whose generator or clips.

    \b
    Examples:
      ajbench export my-generator --recipe esc10 --data DIR
      ajbench export my-clips --clips synthetic --as webdataset --recipe esc10 --data DIR
    """
    if clips is None:
        _export_generator(settings, out)
        return
    from ajbench.data.clip_export import Export
    from ajbench.data.clip_export import export as write
    from ajbench.data.store import ClipStore

    job = Export(ClipStore.open(_store(settings, clips)), out, layout, f".{kind}", split)
    if settings.dry_run:
        console.emit({"store": job.store.path, "clips": len(job.store), "as": layout, "path": out})
        return
    with console.progress(len(job.store), "export", "clips") as advance:
        done = write(job, advance)
    console.emit(done, text=str(out))


def _store(settings: Settings, clips: str) -> Path:
    """Return the store that --clips names.

    Raises:
        UsageError: it is neither a store nor a set of the recipe.
        MissingError: the recipe's clips are not made yet.
    """
    if (Path(clips) / "store.json").exists():
        return Path(clips)
    if Path(clips).is_dir() and clips not in OWN:
        raise MissingError(f"--clips {clips}: no finished clip store (no store.json)")
    pipeline = one_fold.named(settings, settings.pipeline(settings.load(*SEEDS)))
    if clips not in (*OWN, *pipeline.probes):
        raise UsageError(
            f"--clips {clips}: no such store or set of clips; allowed: {', '.join((*OWN, *pipeline.probes))}"
        )
    probe = "" if clips == "synthetic" else clips
    return (pipeline.prepare if clips == "real" else pipeline.synth(probe)).need()


def _export_generator(settings: Settings, out: Path) -> None:
    from ajbench.pipeline.evaluation_stages import eval_gen_stage
    from ajbench.pipeline.results_folder import rows_of
    from ajbench.reporting import model_card

    pipeline = one_fold.named(settings, settings.pipeline(settings.load(*SEEDS)))
    if settings.dry_run:
        show_plan(settings, [pipeline.train_gen, pipeline.invert])
        return
    generator = pipeline.places.generator or pipeline.train_gen.need()
    measured = eval_gen_stage(pipeline, ("", *pipeline.probes))
    rows = rows_of(measured) if measured.done() else []
    path = model_card.export(pipeline.recipe, generator, pipeline.invert.need(), out, rows, settings.force)
    console.emit({"path": path, "measured": bool(rows)}, text=str(path))
