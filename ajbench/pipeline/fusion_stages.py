"""The stages of audio-visual fusion: audio models and their tokens, entailment scores, models, evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajbench.captions import score_file
from ajbench.captions.score_file import FILE as SCORE_FILE
from ajbench.core.console import counted
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.fusion_section import NAIVE, Fusion
from ajbench.core.recipe import Recipe, fingerprint
from ajbench.data.manifest import Manifest
from ajbench.pipeline import fusion_work, grid
from ajbench.pipeline.classifier_stages import classifier_stage
from ajbench.pipeline.inputs import source_identity, weights_identity
from ajbench.pipeline.stage import Stage, in_order

if TYPE_CHECKING:
    from ajbench.pipeline.recipe_stages import Pipeline

CONTROLS = ("constant", "shuffled", "feature")
FROM_FILE = ("clap", "overlap")  # comparisons that `ajbench entail` alone computes


@dataclass(frozen=True)
class Cell:
    """One audio-visual model: its condition and seed."""

    settings: Fusion
    seed: int
    stage: Stage


def conditions(recipe: Recipe) -> list[Fusion]:
    """Return the fusion section of each line of Table A8: naive, scorers × comparisons, controls."""
    section = recipe.fusion
    lines: list[dict[str, Any]] = [{"scorer": NAIVE, "labels": "predicted"}]
    lines += [{"scorer": s, "labels": labels} for s in section.scorers for labels in section.comparisons]
    lines += [{"scorer": section.scorers[0], "labels": control} for control in section.controls]
    return [section.model_copy(update=line) for line in lines]


def compared(settings: Fusion) -> str:
    """Return the comparison of a condition's scores: `predicted` for controls."""
    return "predicted" if settings.labels in CONTROLS else settings.labels


def check(pipeline: "Pipeline", lines: Sequence[Fusion] = ()) -> None:
    """Check, before any work, that the recipe has video, a classifier with tokens, and known scorers.

    Args:
        pipeline: stages of the recipe.
        lines: conditions to train, whose scores the file `fusion.scores` has to have if there is one.

    Raises:
        AjbenchError: it has not; or as `Pipeline.check`.
    """
    from ajbench.captions.entailment import SCORERS, identity
    from ajbench.core.registry import suggest

    recipe = pipeline.recipe
    if recipe.data.video == "none":
        raise UsageError(
            f"data.video=none: recipe {recipe.name} prepares no video; for a corpus with video set "
            "data.video=tiny_video or r2plus1d"
        )
    if recipe.evaluate.folds:
        raise UsageError("evaluate.folds: audio-visual models have one fold, data.eval_fold; leave it out")
    if recipe.evaluate.redraw:
        raise UsageError("evaluate.redraw: audio-visual models of all seeds share real clips; leave it out")
    if recipe.mix.amplify:
        raise UsageError(
            f"mix.amplify={recipe.mix.amplify}: models that are trained without a part of the clips have no "
            "average precisions; set it to 0"
        )
    if recipe.classifier_of().features:
        raise UsageError("classifier.name=head: has no tokens; choose taltrans-small, taltrans or an ast")
    for settings in (recipe.fusion, *conditions(recipe)):
        if settings.scores or settings.scorer == NAIVE:
            continue
        if settings.labels in FROM_FILE:
            raise UsageError(
                f"fusion.labels={settings.labels}: set fusion.scores=FILE, a file of `ajbench entail`"
            )
        if settings.scorer in SCORERS:
            identity(settings.scorer)
            continue
        near = suggest(settings.scorer, SCORERS)
        raise UsageError(
            f"fusion.scorer={settings.scorer}: unknown{near}; allowed: {', '.join([NAIVE, *SCORERS])}, or "
            "one of the file fusion.scores"
        )
    if recipe.fusion.scores and not Path(recipe.fusion.scores).is_file():
        raise MissingError(
            f"fusion.scores: {recipe.fusion.scores}: no such file; write it with `ajbench entail`"
        )
    for settings in lines:
        if settings.scores and settings.scorer != NAIVE:
            score_file.need(Path(settings.scores), settings.scorer, compared(settings))
    pipeline.check()
    if any(one.scorer != NAIVE and not one.scores for one in lines):
        if recipe.fusion.captions:
            _check_captions(Path(recipe.fusion.captions), pipeline.manifest)
        elif not any(row.visual_caption for row in pipeline.manifest.split("train")):
            raise MissingError(
                f"corpus {recipe.data.corpus}: no train clip has a visual caption, which scores need; make "
                "them with `ajbench caption --kind visual --include-eval --out DIR`, and set "
                "fusion.captions=DIR"
            )
    if not any(row.video for row in pipeline.manifest.split("train")):
        raise UsageError(
            f"corpus {recipe.data.corpus}: no train clip has a video; give the table a column video, or use "
            "a corpus with video"
        )


def _check_captions(folder: Path, manifest: Manifest) -> None:
    """Check that a table has visual captions of train and of evaluation clips.

    Raises:
        IntegrityError: it has not.
        MissingError, UsageError: as `caption_table.texts`.
    """
    from ajbench.captions import caption_table

    known = caption_table.texts(folder, "visual")
    for split in ("train", "eval"):
        if not any(row.clip_id in known for row in manifest.split(split)):
            raise IntegrityError(
                f"fusion.captions={folder}: has no visual caption of a clip of the {split} split; make the "
                "table with `ajbench caption --include-eval` for this corpus"
            )


def audio_stage(pipeline: "Pipeline", seed: int) -> Stage:
    """Return the training of the audio model: the recipe's classifier on real clips."""
    recipe = pipeline.recipe
    return classifier_stage(pipeline, recipe.classifier_of(), grid.real(recipe), seed, False)


def part_stages(pipeline: "Pipeline", seed: int) -> list[Stage]:
    """Return the trainings of the audio model on all parts of the train clips but one, scored on that."""
    whole, parts = audio_stage(pipeline, seed), pipeline.recipe.fusion.cross_fit
    return [_part_stage(pipeline, whole, number, parts, seed) for number in range(parts)]


def _part_stage(pipeline: "Pipeline", whole: Stage, number: int, parts: int, seed: int) -> Stage:
    tuning = tuple(need for need in whole.needs if need.name == "tune")
    tuned = ["tuned"] if tuning else []
    key, path = pipeline.place("train-cls", "out of fold", whole.fingerprint, number, parts, *tuned)
    about: dict[str, Any] = {"seed": seed, "fingerprint": key, "real": pipeline.prepare.path}
    about |= {"part": number, "parts": parts, "tuning": tuning[0].path if tuning else None}
    pcm = pipeline.places.pcm(whole.recipe.data)
    do = partial(fusion_work.train_part, whole.recipe, path, pcm=pcm, **about)
    what = f"{whole.what}, without part {number + 1} of {parts}"
    how: dict[str, Any] = {"seed": seed, "needs": (pipeline.prepare, *tuning), "parallel": True}
    how |= {"distributed": True, "precision": whole.precision, "checks": whole.checks}
    return Stage("train-cls", whole.recipe, path, key, whole.amount, do, what, **how)


def token_stage(pipeline: "Pipeline", audio: Stage, seed: int) -> Stage:
    """Return the computation of the audio tokens of all clips by a trained audio model."""
    prepared = pipeline.prepare
    key, path = pipeline.place("audio-tokens", prepared.fingerprint, audio.fingerprint)
    do = partial(fusion_work.write_tokens, path, real=prepared.path, audio=audio.path)
    about: dict[str, Any] = {"needs": (prepared, audio), "parallel": True, "distributed": True}
    clips = counted(len(pipeline.manifest.rows), "clip")
    return Stage("train-av", pipeline.recipe, path, key, clips, do, f"audio tokens, seed {seed}", **about)


def entail_stage(pipeline: "Pipeline", scorer: str, labels: str, seed: int) -> Stage:
    """Return the scoring of train and evaluation clips by one scorer and comparison.

    With `predicted` and `noisy-or`, evaluation clips are scored by the audio model, train clips by the models
    that were trained without them. With `true`, no model is needed and the seed has no meaning.
    """
    from ajbench.captions.entailment import identity

    recipe, prepared = pipeline.recipe, pipeline.prepare
    section = recipe.fusion
    predicted = labels != "true"
    models = [audio_stage(pipeline, seed), *part_stages(pipeline, seed)] if predicted else []
    captions = Path(section.captions) if section.captions else None
    named = [] if captions is None else [_captions_identity(captions)]
    named += identity(scorer)
    how = [section.top_k] if predicted else grid.real(recipe).drawn
    inputs = [stage.fingerprint for stage in (prepared, *models)]
    if predicted and (loss := recipe.classifier_of().loss) != recipe.classifier.loss:
        named.append(loss)
    key, path = pipeline.place("entail", scorer, labels, how, inputs, *named)
    about: dict[str, Any] = {"real": prepared.path, "models": [stage.path for stage in models]}
    own = recipe.model_copy(update={"mix": grid.real(recipe), "classifier": recipe.classifier_of()})
    do = partial(fusion_work.score_clips, own, path / SCORE_FILE, scorer=scorer, labels=labels, **about)
    what = f"{scorer} {labels}" + (f", seed {seed}" if predicted else "")
    clips = counted(len(pipeline.manifest.rows), "clip")
    needs = (prepared, *models)
    return Stage("entail", recipe, path, key, clips, do, what, needs=needs, parallel=True, distributed=True)


def cell_stage(pipeline: "Pipeline", settings: Fusion, seed: int) -> Stage:
    """Return the training of one audio-visual model, and its scores of the evaluation clips.

    Args:
        pipeline: stages of the recipe.
        settings: the fusion section with its condition.
        seed: of this model and of its audio model.
    """
    recipe, prepared = pipeline.recipe, pipeline.prepare
    held_out = settings.audio_init == "held_out"
    whole = part_stages(pipeline, seed)[0] if held_out else audio_stage(pipeline, seed)
    audio = None if settings.audio_init == "scratch" else whole
    tokens = token_stage(pipeline, whole, seed) if settings.audio_init in ("frozen", "held_out") else None
    scored, file, named = None, None, None
    if settings.scorer != NAIVE:
        labels = compared(settings)
        if settings.scores:
            file = Path(settings.scores)
            named = weights_identity(file)
        else:
            scored = entail_stage(pipeline, settings.scorer, labels, seed)
            file = scored.path / SCORE_FILE
    own = recipe.model_copy(
        update={"fusion": settings, "mix": grid.real(recipe), "classifier": recipe.classifier_of()}
    )
    needs = tuple(filter(None, (prepared, audio, tokens, scored)))
    inputs: list[Any] = [stage.fingerprint for stage in needs]
    if audio is None:
        inputs += source_identity("classifier", own.classifier.name)
    key, path = pipeline.place(
        "train-av", settings, own.classifier, own.mix, seed, inputs, *([named] if named else [])
    )
    about: dict[str, Any] = {"seed": seed, "fingerprint": key, "real": prepared.path, "scores": file}
    about |= {"audio": audio and audio.path, "tokens": tokens and tokens.path}
    about |= {"parts": settings.cross_fit if held_out else None}
    about |= {"tracker": pipeline.places.tracker, "pcm": pipeline.places.pcm(own.data)}
    do = partial(fusion_work.train_and_score, own, path, **about)
    what = f"{settings.scorer} {settings.labels}" if settings.scorer != NAIVE else "naive"
    how: dict[str, Any] = {"seed": seed, "needs": needs, "parallel": True, "distributed": True}
    how["precision"] = settings.precision
    amount = counted(settings.train_steps, "step")
    return Stage("train-av", own, path, key, amount, do, f"{what}, seed {seed}", **how)


def grid_cells(pipeline: "Pipeline") -> list[Cell]:
    """Return the models of Table A8: conditions × seeds."""
    recipe = pipeline.recipe
    return [
        Cell(settings, seed, cell_stage(pipeline, settings, seed))
        for settings in conditions(recipe)
        for seed in recipe.evaluate.seeds
    ]


def own_cells(pipeline: "Pipeline") -> list[Cell]:
    """Return the finished models of Table A8 and of the recipe's own condition.

    Raises:
        MissingError: none is trained.
    """
    recipe = pipeline.recipe
    own = [
        Cell(recipe.fusion, seed, cell_stage(pipeline, recipe.fusion, seed)) for seed in recipe.evaluate.seeds
    ]
    found = {cell.stage.fingerprint: cell for cell in (*grid_cells(pipeline), *own) if cell.stage.done()}
    if not found:
        raise MissingError(
            f"{pipeline.home}: no audio-visual model of these settings; first run `ajbench train-av`"
        )
    return list(found.values())


def score_stage(pipeline: "Pipeline", cells: Sequence[Cell]) -> Stage:
    """Predictions of audio-visual models → rows of Table A8."""
    recipe = pipeline.recipe
    files = _score_files(pipeline, cells)
    scored = [stage for _, stage in files.values()]
    keys = sorted(cell.stage.fingerprint for cell in cells)
    inputs = keys, sorted(stage.fingerprint for stage in scored), recipe.fusion.interval_over
    key, path = pipeline.place("score-av", recipe.evaluate.bootstrap, *inputs)

    def do() -> None:
        from ajbench.pipeline.fusion_evaluate import measure

        measure(pipeline, cells, {name: (seed, stage.path) for name, (seed, stage) in files.items()}, path)

    amount = counted(len(cells), "model")
    needs = (*(cell.stage for cell in cells), *scored)
    return Stage("score-av", recipe, path, key, amount, do, needs=needs, follows=True)


def table_stages(pipeline: "Pipeline") -> list[Stage]:
    """Return the stages of Table A8 in order, stages of one kind together, so that they run in parallel."""
    cells = grid_cells(pipeline)
    seeds = pipeline.recipe.evaluate.seeds
    needed = in_order(cell.stage for cell in cells)
    audio = [audio_stage(pipeline, seed) for seed in seeds]
    parts = [stage for seed in seeds for stage in part_stages(pipeline, seed)]
    used = {stage.fingerprint for stage in needed}
    first = [stage for stage in (pipeline.prepare, *audio, *parts) if stage.fingerprint in used]
    by_kind = [
        s for what in ("audio tokens", "entail") for s in needed if what in (s.name, s.what.split(",")[0])
    ]
    return in_order([*first, *by_kind, *needed, score_stage(pipeline, cells)])


def _score_files(pipeline: "Pipeline", cells: Sequence[Cell]) -> dict[str, tuple[int, Stage]]:
    """Return the scores whose information about the labels is measured: line → seed and stage."""
    from ajbench.evaluation.audio_visual import line_name

    found: dict[str, tuple[int, Stage]] = {}
    for cell in cells:
        s = cell.settings
        if s.scorer != NAIVE and s.labels in ("predicted", "noisy-or", "true") and not s.scores:
            stage = entail_stage(pipeline, s.scorer, s.labels, cell.seed)
            found.setdefault(line_name(s.scorer, s.labels), (cell.seed, stage))
    return found


def _captions_identity(folder: Path) -> str:
    """Hash the visual captions of a captions table.

    Raises:
        MissingError: there is none.
    """
    from ajbench.captions import caption_table

    return fingerprint(caption_table.identity(folder))
