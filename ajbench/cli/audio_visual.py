"""Commands of audio-visual models: train-av, score-av."""

import typer

from ajbench.cli.options import Settings, Tracker, command, run_stage, show_plan
from ajbench.core import console

app = typer.Typer()


@app.command()
@command(hide=("generator",))
def train_av(settings: Settings, tracker: Tracker = "csv") -> None:
    """Train one audio-visual classifier.

    Audio and video tokens are pooled by attention; the entailment score of a clip (`fusion.scorer`,
    `fusion.labels`) discounts its video. The audio model, its tokens and the scores are made first, unless
    they are finished.

    \b
    Examples:
      ajbench train-av --recipe mini-av
      ajbench train-av --recipe mini-av fusion.scorer=none --seed 1
    """
    from ajbench.pipeline import fusion_stages
    from ajbench.pipeline.stage import in_order, run_stages

    pipeline = settings.pipeline(settings.load(), tracker)
    fusion_stages.check(pipeline)
    stage = fusion_stages.cell_stage(pipeline, pipeline.recipe.fusion, settings.seed or 0)
    if settings.dry_run:
        show_plan(settings, in_order([stage]))
        return
    pipeline.prepare.need()
    earlier = [one for one in in_order([stage])[:-1] if one.name != "prepare"]
    run_stages(earlier, settings.device)
    run_stage(settings, stage)


@app.command()
@command(hide=("seed", "generator"))
def score_av(settings: Settings) -> None:
    """Evaluate the trained audio-visual classifiers.

    mAP and accuracy by audio, video and both, differences to naive fusion, and the share of clips that one
    modality alone gets right and both together get wrong.

    \b
    Examples:
      ajbench score-av --recipe mini-av
      ajbench score-av --recipe mini-av --json
    """
    from ajbench.pipeline import fusion_stages, fusion_table
    from ajbench.pipeline.stage import run_stages

    pipeline = settings.pipeline(settings.load())
    fusion_stages.check(pipeline)
    cells = (fusion_stages.grid_cells if settings.dry_run else fusion_stages.own_cells)(pipeline)
    stage = fusion_stages.score_stage(pipeline, cells)
    if settings.dry_run:
        show_plan(settings, [*stage.needs, stage])
        return
    ran = bool(run_stages([stage], settings.device, settings.force))
    done = fusion_table.publish(pipeline, cells, stage) | {"ran": ran}
    for note in (*done["table"]["notes"], f"results: {done['files'][0].parent}"):
        console.say(note)
    console.emit(done, table=(done["table"]["header"], done["table"]["lines"]))
