"""The classifiers of a recipe as stages: its own, those of Table A11's grid, and the work that each does."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajbench.core.console import counted
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Mix, Recipe, expression, fingerprint
from ajbench.core.run_dir import world
from ajbench.core.schema import Classifier
from ajbench.data import val_part, wave_chain
from ajbench.evaluation.classification import TableCell, column_name
from ajbench.pipeline import grid
from ajbench.pipeline.arms import augment_stage
from ajbench.pipeline.stage import Stage, weights_identity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ajbench.data.store import ClipStore
    from ajbench.pipeline.recipe_stages import Pipeline

SCORES = "scores.npz"


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
        seed: of the training.
        through_codec: whether real clips are decoded from their codes; None: as the recipe says.
        part: of the corpus (`val_part.planned`): it is trained without its clips and scored on them instead.
        probe: the set of generated clips, one of `evaluate.probes`; empty: the recipe's own.

    Raises:
        UsageError: keys that have no meaning for a head.
    """
    if settings.features:
        _check_head(settings, mix)
    data = pipeline.recipe.data
    if through_codec is not None:
        data = data.model_copy(update={"real_through_codec": through_codec})
    decoded = pipeline.decoded if data.real_through_codec and mix.has_real else None
    needed = mix.mode == "alpha" or mix.dose
    synthetic = pipeline.synth(probe) if needed and "G" in mix.source else None
    augmented = augment_stage(pipeline) if needed and "A" in mix.source else None
    base = None
    if mix.amplify:
        alone = grid.real(pipeline.recipe, real=mix.baseline, amplify=0)
        base = classifier_stage(pipeline, settings, alone, seed, False, part)
    sources = (pipeline.prepare, decoded, synthetic, base)
    inputs: list[Any] = [stage and stage.fingerprint for stage in sources]
    inputs += [augmented.fingerprint] if augmented else []  # the last: other classifiers keep their folders
    wave = settings.aug.startswith("wave")
    inputs += [fingerprint(wave_chain.SETTINGS)] if wave else []
    if settings.init and Path(settings.init).is_dir():  # a hub id or "imagenet" stands for itself
        inputs.append(weights_identity(Path(settings.init)))
    inputs += ["val part", val_part.VERSION, *mix.drawn] if part else []
    key, path = pipeline.place("train-cls", settings, mix, seed, *inputs)
    recipe = synthetic.recipe if synthetic else pipeline.recipe  # with the section synth of the set
    recipe = recipe.model_copy(update={"data": data, "classifier": settings, "mix": mix})
    names = ("real", "decoded", "synthetic", "base", "augmented")
    needs = dict(zip(names, (*sources, augmented), strict=True))
    paths: dict[str, Any] = {name: stage and stage.path for name, stage in needs.items()}
    about: dict[str, Any] = {"seed": seed, "fingerprint": key, "tracker": pipeline.places.tracker}
    about |= {"on_val": part is not None}
    do = partial(train_and_score, recipe, path, **paths, **about)
    clips = len(part.real) if part and mix.has_real else pipeline.real_clips(mix.real)
    amount = counted(settings.steps(mix.epoch_size(clips)), "step")
    how: dict[str, Any] = {"seed": seed, "needs": tuple(filter(None, needs.values()))}
    how |= {"distributed": True, "parallel": True, "precision": settings.precision}
    how["check"] = wave_chain.need if wave else None
    typed = expression(recipe, names_real=pipeline.recipe.mix.baseline != "all")
    what = f"{settings.name} {settings.aug}, {typed}, seed {seed}"
    if settings.features:
        # One after another in this process, so that the features of a clip are computed once.
        about["cache"] = pipeline.places.work / "features"
        do = partial(train_and_score, recipe, path, **paths, **about)
        amount = counted(mix.epoch_size(clips), "clip")
        how |= {"parallel": False, "precision": "fp32", "check": partial(_build_head, settings)}
        what = f"head on {settings.pretraining}, {typed}, seed {seed}"
    what += f", {probe}" if probe and synthetic else ""
    what += ", on val" if part else ""
    return Stage("train-cls", recipe, path, key, amount, do, what, **how)


def own_stage(pipeline: "Pipeline", seed: int) -> Stage:
    """Return the recipe's own classifier on its own mix."""
    return classifier_stage(pipeline, pipeline.recipe.classifier_of(), pipeline.recipe.mix, seed)


def grid_stages(pipeline: "Pipeline") -> list[Stage]:
    """Return the classifiers of Table A11: folds × models × mixes (controls among them) × seeds."""
    return [
        classifier_stage(one, model, column.mix, seed, column.through_codec)
        for one in pipeline.folds
        for model, column, seed in grid.cells(one.recipe)
    ]


def cell_key(cell: Stage, run: Recipe) -> TableCell:
    """Return the place in Table A11 of a classifier that was trained for the recipe `run`."""
    recipe, classifier = cell.recipe, cell.recipe.classifier
    all_real = recipe.mix.has_real and recipe.mix.real != run.mix.baseline
    controls = recipe.data.real_through_codec, recipe.mix.amplify != run.mix.amplify, all_real
    column = column_name(recipe.name, recipe.mix, *controls)
    about = classifier.name, classifier.pretraining, classifier.aug
    fold = recipe.data.eval_fold if len(run.evaluate.folds) > 1 else None
    return TableCell(*about, column, cell.seed or 0, fold)


def reference_stage(pipeline: "Pipeline", real: str) -> Stage:
    """Return the classifier that judges or measures generated clips: the first augmented one.

    Args:
        pipeline: stages of the recipe.
        real: the real clips that it is trained on, as `mix.real`.
    """
    recipe = pipeline.recipe
    models = grid.models(recipe)
    model = next((model for model in models if model.aug == "mx+sp"), models[0])
    return classifier_stage(pipeline, model, grid.real(recipe, real=real), recipe.evaluate.seeds[0], False)


def trained_stages(pipeline: "Pipeline") -> list[Stage]:
    """Return the finished classifiers: those of the grid, and the recipe's own on real clips and on its mix.

    Raises:
        MissingError: there is none, or a fold has none.
    """
    found: dict[str, Stage] = {}
    for one in pipeline.folds:
        own, wanted = one.recipe.classifier_of(), grid_stages(one)
        for seed in one.recipe.evaluate.seeds:
            wanted += [classifier_stage(one, own, grid.real(one.recipe), seed, False), own_stage(one, seed)]
        trained = {stage.fingerprint: stage for stage in wanted if stage.done()}
        if not trained:
            fold = "" if one is pipeline else f" in fold {one.recipe.data.eval_fold}"
            raise MissingError(
                f"{pipeline.home}: no trained classifier of these settings{fold}; first run `ajbench "
                "train-cls`"
            )
        found |= trained
    return list(found.values())


def train_and_score(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    fingerprint: str,
    real: Path,
    decoded: Path | None = None,
    synthetic: Path | None = None,
    augmented: Path | None = None,
    base: Path | None = None,
    tracker: str = "csv",
    cache: Path | None = None,
    on_val: bool = False,
) -> None:
    """Train `recipe.classifier` on `recipe.mix`, then write its scores of the evaluation clips.

    It computes with one thread: small models gain little from two, and its bits then do not depend on how
    many others are trained at the same time.

    Args:
        recipe: sections classifier and mix.
        out: receives the checkpoint and `scores.npz`.
        seed: of initialisation, order and augmentation.
        fingerprint: stored with the checkpoint.
        real: folder of the real clip store.
        decoded: folder of the train clips decoded from their codes, if those are trained on.
        synthetic: folder of the synthetic clip store, if the mix needs one.
        augmented: folder of the store of augmented clips, if the mix needs one.
        base: folder of the classifier whose AP by class `mix.amplify` needs.
        tracker: where loss curves go besides `metrics.csv`.
        cache: folder of cached features, for a head.
        on_val: whether it is trained without the val part and scored on that instead.
    """
    import torch

    from ajbench import classifiers
    from ajbench.classifiers.train import train_classifier
    from ajbench.data.labels import save_scores
    from ajbench.data.store import ClipStore
    from ajbench.metrics.ranking import summary

    torch.set_num_threads(1)
    measure = "accuracy" if recipe.classifier.loss == "ce" else "map"
    store = ClipStore.open(real)
    part = val_part.divide(recipe.mix, store) if on_val else None
    held_out = part.val if part else store.split_indices("eval")
    clips = recipe, store, ClipStore.open(synthetic) if synthetic else None, out
    how: dict[str, Any] = {"seed": seed, "fingerprint": fingerprint}
    how["part"] = part
    how["class_ap"] = class_ap(base, store, recipe.mix, part) if base else None
    how["decoded"] = ClipStore.open(decoded) if decoded else None
    how["augmented"] = ClipStore.open(augmented) if augmented else None
    if cache:
        from ajbench.pipeline.head_training import fit_head

        if world()[1] > 0:  # one process of a launch fits a head
            return
        scores = fit_head(*clips, **how, cache=cache)
    else:
        score = lambda logits, targets: float(summary(logits, targets)[measure])  # noqa: E731
        train_classifier(*clips, **how, score=score, tracker=tracker)
        if world()[1] > 0:  # of the processes of a launch, the first scores
            return
        scores = classifiers.predict(classifiers.load(out), store, held_out)
    ids, recordings = ([names[i] for i in held_out] for names in (store.clip_ids, store.recordings))
    save_scores(out / SCORES, scores, store.targets()[held_out], ids, store.meta.labels, recordings)


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


def _build_head(settings: Classifier) -> None:
    """Build a head, so that unknown options and missing weights are found before any work."""
    from ajbench import classifiers

    classifiers.build(settings.name, 1, **settings.options)


def class_ap(
    classifier: Path, real: "ClipStore", mix: Mix, part: val_part.ValPart | None = None
) -> "NDArray[np.float64]":
    """Return the AP by class [C] of a trained classifier on the val split, or without one on its real clips.

    The evaluation split must have no influence on training, nor has `part` if the training is scored on it.
    """
    from ajbench import classifiers
    from ajbench.data.real_clips import chosen
    from ajbench.metrics.ranking import average_precision

    held_out = real.split_indices("val")
    real_clips = part.real if part else chosen(mix, real, mix.baseline)
    indices = held_out if len(held_out) and not part else real_clips
    scores = classifiers.predict(classifiers.load(classifier), real, indices)
    return average_precision(scores, real.targets()[indices])
