"""Train one classifier on a mix of real and synthetic clips."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ajbench import classifiers
from ajbench.classifiers import frontend, predict
from ajbench.classifiers.dataset import TrainingClips
from ajbench.core import console
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import seed_for
from ajbench.core.recipe import Classifier, Mix, Recipe
from ajbench.core.run_dir import world
from ajbench.data import mixing, real_clips
from ajbench.data.leak_rule import evaluated
from ajbench.data.shards import ids_hash
from ajbench.data.store import ClipStore
from ajbench.training import loop

LAST = "last.safetensors"
Batch = tuple[Tensor, Tensor, Tensor]
Score = Callable[[NDArray[np.float32], NDArray[np.float32]], float]


class Selected(NamedTuple):
    """What a mix trains on: ids of the real clips, all clips, and how they are drawn."""

    ids: Sequence[str]
    clips: TrainingClips
    plan: mixing.Plan


def train_classifier(
    recipe: Recipe,
    real: ClipStore,
    synthetic: ClipStore | None,
    out: Path,
    *,
    seed: int,
    fingerprint: str,
    class_ap: NDArray[np.float64] | None = None,
    decoded: ClipStore | None = None,
    score: Score | None = None,
    tracker: str = "csv",
) -> Path:
    """Train `recipe.classifier` on `recipe.mix` and save it in `out`; resumes if it was interrupted.

    Only `mix.real` of the train split of `real` is used, and its val split to select the best weights. Order,
    augmentation, initialisation and dropout are functions of `seed`; order and augmentation do not depend on
    the number of processes that share a batch.

    Args:
        recipe: sections classifier and mix.
        real: store of real clips.
        synthetic: store of synthetic clips; None if the mix needs none.
        out: receives `model.safetensors`, `config.json`, `metrics.csv`, with `classifier.select=best` also
            `last.safetensors`, and checkpoints until the training is done.
        seed: of this training.
        fingerprint: written to config.json; a finished classifier with the same one is not trained again.
        class_ap: average precision of each class [C] in an earlier run, for `mix.amplify`.
        decoded: the train clips decoded from their codes, used instead of the originals.
        score: (logits [n, C], targets [n, C]) of the val split → higher is better, for
            `classifier.select=best`.
        tracker: where loss curves go besides `metrics.csv`.

    Returns:
        `out`.

    Raises:
        UsageError: too few synthetic clips, the mix cannot be formed, the processes do not divide the batch,
            or `classifier.select=best` without a val split.
        IntegrityError: the synthetic clips descend from evaluation clips or belong to another store.
        NumericError: the loss is not finite.
    """
    settings, meta = recipe.classifier, real.meta
    if (out / classifiers.CONFIG).exists() and classifiers.read_config(out).get("fingerprint") == fingerprint:
        return out
    ids, clips, plan = select(recipe, real, synthetic, decoded, seed, class_ap)
    validate = _validation(real, score) if settings.select == "best" and score else None

    options = settings.model_options(meta.clip_samples)
    start: dict[str, Any] = {}
    if settings.init:
        start = {"init": settings.init, "new_head": settings.new_head, "labels": meta.labels}
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "initialisation"))
        module = classifiers.build(settings.name, len(meta.labels), **options, **start)

    augment = settings.aug == "mx+sp"
    masking: dict[str, Any] = {"time": settings.specaug_time, "freq": settings.specaug_freq}
    if augment:
        masking["fill"] = module.frontend.zero  # type: ignore[union-attr]
    counted = recipe.mix.epoch_size(len(ids))
    steps = settings.steps(counted)

    def step(wrapped: nn.Module, batch: Batch, index: int) -> Tensor:
        wav, targets, masks = batch
        features = module.frontend(wav)  # type: ignore[operator]
        if augment:
            features = frontend.spec_augment(features, masks, **masking)
        return _loss(settings.loss, wrapped(features), targets)

    console.detail(f"{settings.name}: {plan.epoch_size} clips an epoch, {steps} steps, seed {seed}")
    loop.fit(
        module,
        step,
        _batches(settings, plan, clips, seed),
        steps=steps,
        optimizer=_optimizer(settings, module),
        lr_at=_schedule(settings, counted, steps),
        folder=out,
        checkpoint_every=settings.checkpoint_every,
        seed=seed,
        accumulate=settings.accumulate,
        ema_decay=settings.ema_decay,
        average_after=_averaged(settings, counted, steps),
        validate=validate,
        validate_every=settings.validate_every or settings.steps_in(1, counted),
        clip_grad=settings.clip_grad,
        precision=settings.precision,
        compiled=settings.compile,
        tracker=tracker,
        what=f"train-cls {settings.name}",
    )
    state = PartialState()
    if state.is_main_process:
        if validate:
            (out / "checkpoints" / f"step-{steps:08d}" / "weights.safetensors").replace(out / LAST)
        extra = {"fingerprint": fingerprint, "seed": seed, "started_from": settings.init}
        classifiers.save(
            module,
            out,
            name=settings.name,
            labels=meta.labels,
            clip_samples=meta.clip_samples,
            options=options,
            extra=extra | {"train_ids_hash": ids_hash(ids)},
        )
        shutil.rmtree(out / "checkpoints")
    state.wait_for_everyone()
    return out


def select(
    recipe: Recipe,
    real: ClipStore,
    synthetic: ClipStore | None,
    decoded: ClipStore | None,
    seed: int,
    class_ap: NDArray[np.float64] | None,
) -> Selected:
    """Return the clips of `recipe.mix` and how they are drawn; arguments, errors: see `train_classifier`."""
    train = real.split_indices("train")
    if recipe.mix.has_real and not len(train):
        raise MissingError(f"{real.path}: its train split is empty")
    chosen = real_clips.chosen(recipe.mix, real)
    synthetic = _used(recipe.mix, synthetic)
    if synthetic:
        check_descent(real, synthetic)
    ids = [real.clip_ids[i] for i in chosen]
    if decoded and decoded.clip_ids != [real.clip_ids[i] for i in train]:
        raise IntegrityError(f"{decoded.path}: not the train clips of {real.path}; decode them again")
    used = faithful(recipe.mix, synthetic) if synthetic else np.arange(0)
    clips = TrainingClips(real, chosen, synthetic, decoded, used)
    parents = synthetic.column("parent_id") if synthetic else []
    owners = [parents[i] for i in used]
    return Selected(ids, clips, mixing.plan(recipe.mix, ids, owners, clips.targets, seed, class_ap))


def check_descent(real: ClipStore, synthetic: ClipStore) -> None:
    """Check that synthetic clips may be mixed with `real`.

    What their generator was trained on is compared with the eval split when they are made.

    Raises:
        IntegrityError: another codec, clip length or label set; a parent that is outside the train split or
            of a recording in the eval split (the leak rule); clips made for another train split.
    """
    for name in ("codec", "codec_hash", "clip_samples", "labels"):
        ours, theirs = getattr(real.meta, name), getattr(synthetic.meta, name)
        if ours != theirs:
            raise IntegrityError(
                f"{synthetic.path}: {name} {theirs}, but {ours} in {real.path}; use one recipe for both"
            )
    split = dict(zip(real.clip_ids, real.column("split"), strict=True))
    recording = dict(zip(real.clip_ids, real.recordings, strict=True))
    eval_clips = evaluated(real)
    held_out = set(eval_clips.values())
    for clip_id, parent in zip(synthetic.clip_ids, synthetic.column("parent_id"), strict=True):
        if parent is not None and split.get(parent) != "train":
            where = f"in the {split[parent]} split" if parent in split else "which is not a clip"
            raise IntegrityError(
                f"{synthetic.path}: clip {clip_id} was made from {parent}, {where} of {real.path}; "
                "synthetic clips may descend from the train split only"
            )
        if parent is not None and recording[parent] in held_out:
            raise IntegrityError(
                f"{synthetic.path}: clip {clip_id} was made from {parent}, of a recording in the eval split "
                f"of {real.path} ({recording[parent]}); prepare the corpus again"
            )
    meta, train = synthetic.meta, (i for i, where in split.items() if where == "train")
    # Older stores say only for which train split they were made.
    made_for = meta.eval_ids_hash or meta.train_ids_hash
    if made_for and made_for != ids_hash(eval_clips if meta.eval_ids_hash else train):
        raise IntegrityError(
            f"{synthetic.path}: its generator was compared with another eval split than that of {real.path}; "
            "run synth on this fold"
        )


def _used(mix: Mix, synthetic: ClipStore | None) -> ClipStore | None:
    """Return the synthetic store if the mix draws from it, else None."""
    needed = mix.alpha > 0 if mix.mode == "alpha" else mix.dose > 0
    if needed and synthetic is None:
        setting = f"mix.alpha={mix.alpha}" if mix.mode == "alpha" else f"mix.dose={mix.dose}"
        raise UsageError(f"{setting} needs synthetic clips, but there are none; run synth first")
    return synthetic if needed else None


def faithful(mix: Mix, synthetic: ClipStore) -> NDArray[np.int64]:
    """Return the indices of the synthetic clips whose fidelity is at least `mix.min_fidelity`.

    Raises:
        UsageError: fewer than `mix.dose` such clips, or the clips have no fidelity.
    """
    if not mix.min_fidelity:
        return np.arange(len(synthetic))
    scores = synthetic.column("fidelity")
    if None in scores:
        raise UsageError(
            f"mix.min_fidelity={mix.min_fidelity:g}: the clips of {synthetic.path} have no fidelity; set "
            "synth.judge and run synth again"
        )
    kept = np.flatnonzero(np.array(scores, np.float64) >= mix.min_fidelity)
    if mix.mode == "dose" and mix.dose > len(kept):
        raise UsageError(
            f"mix.dose={mix.dose}: only {len(kept)} of {len(scores)} synthetic clips reach "
            f"mix.min_fidelity={mix.min_fidelity:g}; lower one of these, or raise synth.n or synth.candidates"
        )
    return kept


def _batches(
    settings: Classifier, plan: mixing.Plan, chosen: TrainingClips, seed: int
) -> Callable[[int], Batch]:
    """Return the function index → waves, targets and SpecAugment draws of one part of a step's batch.

    Random numbers are drawn for the whole batch of a step, and each part takes its share: clips are mixed
    and masked in the same way for any number of parts and processes.

    Raises:
        UsageError: the parts do not divide the batch.
    """
    processes, _ = world()
    parts, whole = processes * settings.accumulate, settings.batch_size
    if whole % parts:
        raise UsageError(
            f"classifier.batch_size={whole}: not divisible by {processes} processes × classifier.accumulate="
            f"{settings.accumulate}; choose a multiple of {parts}"
        )
    size = whole // parts

    def batch(index: int) -> Batch:
        clips = mixing.batch(plan.order, plan.epoch_size, size, index)
        if settings.aug == "none":
            return *chosen.take(clips), torch.empty(0)
        step, part = divmod(index, parts)
        mine = slice(part * size, (part + 1) * size)
        rng = np.random.default_rng(seed_for(seed, "augmentation", step))
        mixed = (rng.random(whole) < settings.mixup)[mine]
        keep = rng.beta(settings.mixup_beta, settings.mixup_beta, whole)[mine][mixed].astype(np.float32)
        masks = rng.random((whole, 4), dtype=np.float32)[mine]
        if settings.mixup_partner == "mix":
            partners = plan.partners(whole, rng)[mine]
        else:
            others = mixing.batch(plan.order, plan.epoch_size, whole, step)
            partners = others[rng.permutation(whole)][mine]
        wav, targets = chosen.take(np.concatenate([clips, partners[mixed]]))
        places = torch.from_numpy(np.flatnonzero(mixed))
        wav, targets = frontend.mixup(wav, targets, places, torch.from_numpy(keep))
        return wav, targets, torch.from_numpy(masks)

    return batch


def _optimizer(settings: Classifier, module: nn.Module) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    decay = settings.weight_decay
    return kind(module.parameters(), settings.lr, settings.betas, weight_decay=decay, fused=True)


def _schedule(settings: Classifier, epoch_size: int, steps: int) -> Callable[[int], float]:
    warmup = settings.warmup(epoch_size)
    if settings.schedule == "cosine":
        return loop.cosine(settings.lr, warmup, steps)
    decay = settings.decay_from_epoch, settings.decay_every_epochs, settings.decay_factor
    return loop.steps_down(settings.lr, warmup, epoch_size / settings.batch_size, *decay)


def _averaged(settings: Classifier, epoch_size: int, steps: int) -> Sequence[int]:
    """Return the steps after which weights are averaged."""
    if settings.ema_decay is not None:
        return []
    if settings.average_epochs is None:
        return loop.last_share(steps, settings.average_last)
    first, last = settings.average_epochs
    ends = [settings.steps_in(epoch, epoch_size) for epoch in range(first, last + 1)]
    if ends[-1] > steps:
        raise UsageError(
            f"classifier.average_epochs={[first, last]}: training ends after {steps} steps, in epoch "
            f"{steps * settings.batch_size // epoch_size}; lower the last epoch"
        )
    return sorted(set(ends))


def _validation(real: ClipStore, score: Score) -> Callable[[nn.Module], float]:
    """Return a function: module → score on the val split.

    Raises:
        UsageError: there is no val split.
    """
    held_out = real.split_indices("val")
    if not len(held_out):
        raise UsageError(
            f"classifier.select=best: {real.path} has no val split; use classifier.select=last, which "
            "averages the last weights"
        )
    about = {"labels": real.meta.labels, "clip_samples": real.meta.clip_samples}
    targets = real.targets()[held_out]

    def validate(module: nn.Module) -> float:
        scorer = classifiers.Classifier(module, about, PartialState().device)
        return score(predict(scorer, real, held_out), targets)

    return validate


def _loss(kind: str, logits: Tensor, targets: Tensor) -> Tensor:
    if kind == "ce":
        return functional.cross_entropy(logits, targets / targets.sum(dim=1, keepdim=True).clamp_min(1e-6))
    return functional.binary_cross_entropy_with_logits(logits, targets)
