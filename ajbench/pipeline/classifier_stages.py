"""The classifiers of a recipe as stages: its own, those of Table A11's grid, and the choice of their keys."""

import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajbench.core.console import counted
from ajbench.core.errors import AjbenchError, UnfinishedError, UsageError
from ajbench.core.recipe import Mix, Recipe, expression, fingerprint
from ajbench.core.schema import Classifier
from ajbench.data import val_part, wave_chain
from ajbench.evaluation.classification import TableCell, column_name
from ajbench.pipeline import grid, recipe_parts
from ajbench.pipeline.arms import augment_stage
from ajbench.pipeline.cell_training import Candidate, Inputs, settings_of, train_and_score, tune_arm
from ajbench.pipeline.external_store import audited
from ajbench.pipeline.inputs import extractor_identity, source_identity, weights_identity
from ajbench.pipeline.stage import Stage, store_mb

if TYPE_CHECKING:
    from ajbench.pipeline.recipe_stages import Pipeline


UNUSED = {name: Mix.model_fields[name].default for name in ("alpha", "min_fidelity")}  # without added clips


def classifier_stage(
    pipeline: "Pipeline",
    settings: Classifier,
    mix: Mix,
    seed: int,
    through_codec: bool | None = None,
    part: val_part.ValPart | None = None,
    probe: str = "",
) -> Stage:
    """Return the training of a classifier on a mix, and its scores of the evaluation clips.

    Args:
        pipeline: stages of the recipe, whose clip stores are used.
        settings: of the classifier.
        mix: what it is trained on.
        seed: of the training, to which the pipeline's `offset` is added.
        through_codec: whether real clips are decoded from their codes; None: as the recipe says.
        part: of the corpus (`val_part.planned`): it is trained without its clips and scored on them instead,
            with the recipe's own keys.
        probe: the set of generated clips, one of `evaluate.probes`; empty: the recipe's own.

    Raises:
        UsageError: keys that have no meaning for a head.
    """
    stage, inputs = _training(pipeline, settings, mix, seed, through_codec, part, probe)
    if part or not pipeline.recipe.evaluate.tune:
        return stage
    tuning = tune_stage(pipeline, settings, mix, through_codec)
    key, path = pipeline.place("train-cls", stage.fingerprint, tuning.fingerprint)
    size = mix.epoch_size(pipeline.real_clips(mix))
    prefix = ""
    if tuning.done():
        settings = settings_of(tuning.path, settings)
    else:  # the longest training that it may be
        shortest, *_, settings = sorted(pipeline.recipe.candidates_of(settings), key=lambda x: x.steps(size))
        prefix = "up to " if shortest.steps(size) < settings.steps(size) else ""
    recipe = stage.recipe.model_copy(update={"classifier": settings})
    do = partial(train_and_score, recipe, inputs, out=path, fingerprint=key, tuning=tuning.path)
    amount = stage.amount if settings.features else prefix + counted(settings.steps(size), "step")
    changes: dict[str, Any] = {"recipe": recipe, "path": path, "fingerprint": key, "do": do}
    return replace(stage, **changes, amount=amount, needs=(*stage.needs, tuning))


def tune_stage(
    pipeline: "Pipeline", settings: Classifier, mix: Mix, through_codec: bool | None = None
) -> Stage:
    """Return the choice of keys (`evaluate.tune`) for the arm that a mix belongs to: for all doses and seeds.

    Every candidate is trained once, with the first seed of the recipe, on the arm's `grid.tuning_mix`
    without the val part, and scored on that. Arguments and errors as for `classifier_stage`.
    """
    recipe, seed = pipeline.recipe, pipeline.recipe.evaluate.seeds[0]
    tune, mix = recipe.evaluate.tune, grid.tuning_mix(recipe, mix)
    assert tune
    stage, inputs = _training(pipeline, settings, mix, seed, through_codec)
    size = mix.epoch_size(pipeline.real_clips(mix))
    settings_of_each = recipe.candidates_of(settings)
    keys = tune.candidates(settings.features is not None)
    candidates = [Candidate(k, one, one.steps(size)) for k, one in zip(keys, settings_of_each, strict=True)]
    started = {one.init for one in settings_of_each if one.init != settings.init}
    weights = [weights_identity(Path(init)) for init in sorted(filter(None, started)) if Path(init).is_dir()]
    key, path = pipeline.place("tune", stage.fingerprint, keys, val_part.VERSION, *recipe.mix.drawn, *weights)
    do = partial(tune_arm, stage.recipe, inputs, candidates, recipe.mix, out=path, fingerprint=key)
    amount = counted(len(candidates), "candidate")
    if not settings.features:
        amount += f", {counted(sum(one.steps for one in candidates), 'step')}"
    what = stage.what.rpartition(", seed")[0]
    # Cells of an arm share it: of a job array, one chooses and the others wait.
    about: dict[str, Any] = {"path": path, "fingerprint": key, "amount": amount, "what": what, "waits": True}
    return replace(stage, name="tune", do=do, **about)


def _training(
    pipeline: "Pipeline",
    settings: Classifier,
    mix: Mix,
    seed: int,
    through_codec: bool | None,
    part: val_part.ValPart | None = None,
    probe: str = "",
) -> tuple[Stage, Inputs]:
    """Return the training of a classifier with exactly these settings, and what it reads."""
    if settings.features:
        _check_head(settings, mix)
    data = pipeline.recipe.data
    if through_codec is not None:
        data = data.model_copy(update={"real_through_codec": through_codec})
    decoded = pipeline.decoded if data.real_through_codec and mix.has_real else None
    synthetic = pipeline.synth(probe) if mix.adds("G") else None
    synthetic = pipeline.external_store if mix.adds("X") else synthetic
    augmented = augment_stage(pipeline) if mix.adds("A") else None
    base = None
    if mix.amplify:
        alone = grid.real(pipeline.recipe, real=mix.baseline, tail=mix.tail, amplify=0)
        base = classifier_stage(pipeline, settings, alone, seed, False, part)
    sources = (pipeline.prepare, decoded, synthetic, base)
    read: list[Any] = [stage and stage.fingerprint for stage in sources]
    read += [augmented.fingerprint] if augmented else []  # the last: other classifiers keep their folders
    wave = settings.aug.startswith("wave")
    read += [fingerprint(wave_chain.SETTINGS)] if wave else []
    if settings.init and Path(settings.init).is_dir():  # a hub id or "imagenet" stands for itself
        read.append(weights_identity(Path(settings.init)))
    read += source_identity("classifier", settings.name)
    read += ["val part", val_part.VERSION, *mix.drawn] if part else []
    read += extractor_identity(str(settings.features)) if settings.features else ()
    # Keys of clips that are not added change nothing: real clips only are trained once.
    named = mix if mix.dose or mix.mode == "alpha" else mix.model_copy(update=UNUSED)
    own = seed + pipeline.offset
    key, path = pipeline.place("train-cls", settings, named, own, *read)
    recipe = synthetic.recipe if synthetic else pipeline.recipe  # with the section synth of the set
    recipe = recipe.model_copy(update={"data": data, "classifier": settings, "mix": mix})
    names = {"decoded": decoded, "synthetic": synthetic, "augmented": augmented, "base": base}
    stores: dict[str, Any] = {name: stage and stage.path for name, stage in names.items()}
    # Features of a clip are computed once for all heads, which are fitted one after another in this process.
    cache = pipeline.places.work / "features" if settings.features else None
    pcm = pipeline.places.pcm(data) if not settings.features else None
    inputs = Inputs(pipeline.prepare.path, own, pipeline.places.tracker, cache, **stores, pcm=pcm)
    do = partial(train_and_score, recipe, inputs, out=path, fingerprint=key, on_val=part is not None)
    size = mix.epoch_size(len(part.real) if part and mix.has_real else pipeline.real_clips(mix))
    typed = expression(recipe, pipeline.recipe.mix)
    how: dict[str, Any] = {"seed": own, "needs": tuple(filter(None, (*sources, augmented)))}
    if settings.features:
        amount, what = counted(size, "clip"), f"head on {settings.pretraining}, {typed}, seed {seed}"
        how["checks"] = (partial(_build_head, settings),)
    else:
        amount = counted(settings.steps(size), "step")
        what = f"{settings.name} {settings.aug}, {typed}, seed {seed}"
        how |= {"parallel": True, "precision": settings.precision}
        how["checks"] = (partial(_check_network, settings, data.duration_s),)
    what += f", {probe}" if probe and synthetic else ""
    what += ", on val" if part else ""
    return Stage("train-cls", recipe, path, key, amount, do, what, **how, distributed=True), inputs


def decode_stage(pipeline: "Pipeline") -> Stage:
    """Real train clips → the same, decoded from their codes; of a fixed subset, only the clips in it."""
    prepared, mix = pipeline.prepare, pipeline.recipe.mix.with_real
    subset = mix.limited and not mix.by_chance
    key, path = pipeline.place("decode", prepared.fingerprint, *(mix.drawn if subset else ()))

    def do() -> None:
        from ajbench.data import real_clips
        from ajbench.data.store import ClipStore
        from ajbench.pipeline.codec_roundtrip import decode_clips

        store = ClipStore.open(prepared.path)
        chosen = real_clips.chosen(mix, store) if subset else store.split_indices("train")
        decode_clips(store, chosen, path, fingerprint=key)

    clips = pipeline.real_clips(mix) if subset else len(pipeline.manifest.split("train"))
    about: dict[str, Any] = {"what": "through codec", "disk_mb": store_mb(pipeline.recipe, clips)}
    about |= {"needs": (prepared,), "shared": True}
    return Stage("prepare", pipeline.recipe, path, key, counted(clips, "clip"), do, **about)


def own_stage(pipeline: "Pipeline", seed: int) -> Stage:
    """Return the recipe's own classifier on its own mix."""
    pipeline = pipeline.drawn(seed)
    return classifier_stage(pipeline, pipeline.recipe.classifier_of(), pipeline.recipe.mix, seed)


def grid_stages(pipeline: "Pipeline") -> list[Stage]:
    """Return the classifiers of Table A11: folds × models × mixes (controls among them) × seeds."""
    return [
        _drawn_stage(one, model, column.mix, seed, column.through_codec)
        for one in pipeline.folds
        for model, column, seed in grid.cells(one.recipe)
    ]


def _drawn_stage(
    pipeline: "Pipeline", settings: Classifier, mix: Mix, seed: int, through_codec: bool
) -> Stage:
    """Return `classifier_stage` with the real clips of its seed."""
    drawn = pipeline.drawn(seed)
    mix = mix.model_copy(update={"draw": drawn.recipe.mix.draw})
    return classifier_stage(drawn, settings, mix, seed, through_codec)


def cell_key(cell: Stage, run: Recipe) -> TableCell:
    """Return the place in Table A11 of a classifier that was trained for the recipe `run`."""
    recipe, classifier = cell.recipe, cell.recipe.classifier
    all_real = recipe.mix.has_real and recipe.mix.limits != run.mix.limits
    controls = recipe.data.real_through_codec, recipe.mix.amplify != run.mix.amplify, all_real
    found = audited(cell) if recipe.mix.adds("X") else None
    leaks = found is not None and found["leaks"] != 0
    longest = grid.matched(run) if recipe.mix.match_steps != run.mix.match_steps else None
    column = column_name(recipe.name, recipe.mix, *controls, leaks, longest)
    about = classifier.name, classifier.pretraining, classifier.aug
    fold = recipe.data.eval_fold if len(run.evaluate.folds) > 1 else None
    seed = (cell.seed or 0) - (0 if fold is None else recipe_parts.offset(fold))
    return TableCell(*about, column, seed, fold)


def reference_stage(pipeline: "Pipeline", all_real: bool) -> Stage:
    """Return the classifier that judges or measures generated clips: the first augmented one.

    Args:
        pipeline: stages of the recipe.
        all_real: it is trained on all train clips rather than on the recipe's real clips.
    """
    recipe = pipeline.recipe
    models = grid.models(recipe)
    model = next((model for model in models if model.aug == "mx+sp"), models[0])
    mix = grid.real(recipe, **(grid.ALL_REAL if all_real else {}))
    return classifier_stage(pipeline, model, mix, recipe.evaluate.seeds[0], False)


def trained_stages(pipeline: "Pipeline") -> list[Stage]:
    """Return the finished classifiers: those of the grid, and the recipe's own on real clips and on its mix.

    Where the grid has trained the recipe's own model with other keys, only those of the grid count: two
    trainings that differ in more than their mix are not compared.

    Raises:
        UnfinishedError: there is none, or a fold has none.
    """
    found: dict[str, Stage] = {}
    for one in pipeline.folds:
        own, of_grid, seeds = one.recipe.classifier_of(), grid_stages(one), one.recipe.evaluate.seeds
        real = [_drawn_stage(one, own, grid.real(one.recipe), seed, False) for seed in seeds]
        known = {stage.fingerprint for stage in of_grid}
        trained = {stage.fingerprint: stage for stage in of_grid if stage.done()}
        alike = any(stage.recipe.classifier.line == own.line for stage in trained.values())
        if not alike or known.issuperset(stage.fingerprint for stage in real):
            more = (*real, *(own_stage(one, seed) for seed in seeds))
            trained |= {stage.fingerprint: stage for stage in more if stage.done()}
        if not trained:
            fold = "" if one is pipeline else f" in fold {one.recipe.data.eval_fold}"
            problem = f"{pipeline.home}: no trained classifier of these settings{fold}"
            raise UnfinishedError(pipeline.home, problem, "train-cls")
        found |= trained
    return list(found.values())


def _check_head(settings: Classifier, mix: Mix) -> None:
    """Refuse keys that have no meaning for a head, which is fitted to frozen features.

    Raises:
        UsageError: they are set.
    """
    if mix.match_steps:
        raise UsageError(f"mix.match_steps={mix.match_steps}: a head is fitted without steps; leave it out")
    if "width" in settings.options:
        raise UsageError("classifier.options.width: the training finds it; leave it out")
    for key, value in {"aug": "none", "init": None, "new_head": False, "select": "last"}.items():
        if (found := getattr(settings, key)) != value:
            wanted = "null" if value is None else str(value).lower()
            raise UsageError(f"classifier.{key}={found}: a head is fitted to frozen features; set {wanted}")


def _check_network(settings: Classifier, duration_s: float) -> None:
    """Find unknown options, missing weights and a missing library before any work."""
    if settings.aug.startswith("wave"):
        wave_chain.need()
    if settings.init or settings.options:
        from ajbench.data.audio import clip_samples

        options = json.dumps(settings.model_options(clip_samples(duration_s)), sort_keys=True)
        if fault := _fault(settings.name, settings.init, options):
            raise fault


@cache
def _fault(name: str, init: str | None, options: str) -> AjbenchError | None:
    """Return why a classifier cannot be built; asked once for all cells of a grid."""
    from ajbench import classifiers

    try:
        classifiers.check(name, init, **json.loads(options))
    except AjbenchError as error:
        return error
    return None


def _build_head(settings: Classifier) -> None:
    """Build a head, so that unknown options and missing weights are found before any work."""
    from ajbench import classifiers

    classifiers.build(settings.name, 1, **settings.options)
