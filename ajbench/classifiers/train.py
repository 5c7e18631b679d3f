"""Train one classifier on a mix of real and synthetic clips."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ajbench import classifiers
from ajbench.classifiers import frontend, predict
from ajbench.classifiers.selection import TrainingClips, select
from ajbench.core import console
from ajbench.core.device import Precision, device_of
from ajbench.core.errors import UsageError
from ajbench.core.files import replacing, seed_for
from ajbench.core.recipe import Classifier, Recipe
from ajbench.core.run_dir import world
from ajbench.data import mixing
from ajbench.data.leak_rule import write_heard
from ajbench.data.shards import ids_hash
from ajbench.data.store import ClipStore
from ajbench.data.val_part import ValPart
from ajbench.training import loop
from ajbench.training.state import remove_checkpoints

LAST = "last.safetensors"
Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
NONE = torch.empty(0)
Score = Callable[[NDArray[np.float32], NDArray[np.float32]], float]


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
    augmented: ClipStore | None = None,
    part: ValPart | None = None,
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
        out: receives `model.safetensors`, `config.json`, `train_split.npy` (for the leak rule),
            `metrics.csv`, with `classifier.select=best` also `last.safetensors`, and checkpoints until the
            training is done.
        seed: of this training.
        fingerprint: written to config.json; a finished classifier with the same one is not trained again.
        class_ap: average precision of each class [C] in an earlier run, for `mix.amplify`.
        decoded: the train clips decoded from their codes, used instead of the originals.
        augmented: store of augmented clips, for source A of the mix.
        part: clips that are not trained on, nor what was made from their recordings; None: all are.
        score: (logits [n, C], targets [n, C]) of the val split → higher is better, for
            `classifier.select=best`.
        tracker: where loss curves go besides `metrics.csv`.

    Returns:
        `out`.

    Raises:
        UsageError: too few clips to add, the mix cannot be formed, the processes do not divide the batch,
            or `classifier.select=best` without a val split.
        IntegrityError: the synthetic clips descend from evaluation clips or belong to another store.
        NumericError: the loss is not finite.
    """
    settings, meta = recipe.classifier, real.meta
    if (out / classifiers.CONFIG).exists() and classifiers.read_config(out).get("fingerprint") == fingerprint:
        remove_checkpoints(out)  # if it was killed before it had
        return out
    ids, clips, plan = select(recipe, real, synthetic, decoded, augmented, seed, class_ap, part)
    validate = None
    if settings.select == "best" and score:
        validate = _validation(real, score, settings.precision)

    options = settings.model_options(meta.clip_samples)
    start: dict[str, Any] = {}
    if settings.init:
        start = {"init": settings.init, "new_head": settings.new_head, "labels": meta.labels}
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "initialisation"))
        module = classifiers.build(settings.name, len(meta.labels), **options, **start)

    augment = settings.aug.endswith("mx+sp")
    mixes_here = augment and device_of().type == "cuda"
    masking: dict[str, Any] = {"time": settings.specaug_time, "freq": settings.specaug_freq}
    if augment:
        masking["fill"] = module.frontend.zero  # type: ignore[union-attr]
        # A wider mask may cover a short clip: with 48 of 32 frames the training stayed at chance.
        frames = module.frontend.frames(meta.clip_samples)  # type: ignore[operator,union-attr]
        masking["time"] = min(settings.specaug_time, frames // 2)
    counted = recipe.mix.epoch_size(len(ids))
    steps = settings.steps(counted)

    def step(wrapped: nn.Module, batch: Batch, index: int) -> Tensor:
        wav, targets, masks, where, keep = batch
        if mixes_here:  # also where no clip is mixed: all are centred
            wav, targets = frontend.mixup(wav, targets, where, keep)
        features = module.frontend(wav)  # type: ignore[operator]
        if augment:
            features = frontend.spec_augment(features, masks, **masking)
        return loss_of(settings.loss, wrapped(features), targets)

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
            last = out / "checkpoints" / f"step-{steps:08d}" / "weights.safetensors"
            with replacing(out / LAST) as copy:
                shutil.copyfile(last, copy)  # the checkpoint stays whole until the end
        write_heard(out, real, settings.init)
        extra = {"fingerprint": fingerprint, "seed": seed, "started_from": settings.init}
        extra |= {"loss": settings.loss, "precision": settings.precision}
        classifiers.save(
            module,
            out,
            name=settings.name,
            labels=meta.labels,
            clip_samples=meta.clip_samples,
            options=options,
            extra=extra | {"train_ids_hash": ids_hash(ids)},
        )
        remove_checkpoints(out)
    state.wait_for_everyone()
    return out


def _batches(
    settings: Classifier, plan: mixing.Plan, chosen: TrainingClips, seed: int
) -> Callable[[int], Batch]:
    """Return the function index → what one part of a step's batch is computed from.

    That is waves, targets and SpecAugment's draws. For a GPU, waves and targets of the partners in mixup
    follow, then which clips are mixed, and with what weights; elsewhere clips are mixed here.

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
    size, wave = whole // parts, settings.aug.startswith("wave")
    on_gpu = device_of().type == "cuda"  # which mixes faster than this thread could

    def seeds(places: NDArray[np.int64], role: str) -> list[int]:
        """Return the seeds of `aug: wave` at places in the endless sequence of drawn clips."""
        return [seed_for(seed, role, place) for place in places.tolist()] if wave else []

    def batch(index: int) -> Batch:
        clips = mixing.batch(plan.order, plan.epoch_size, size, index)
        places = np.arange(index * size, (index + 1) * size)
        if not settings.aug.endswith("mx+sp"):
            return *chosen.take(clips, seeds(places, "wave")), NONE, NONE, NONE
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
        own = seeds(places, "wave") + seeds(places[mixed], "wave of partner")
        wanted = np.concatenate([clips, partners[mixed]])
        where, weight = torch.from_numpy(np.flatnonzero(mixed)), torch.from_numpy(keep)
        if on_gpu:
            wav, targets = chosen.take(wanted, own)
        else:
            wav, targets = frontend.mixup_rows(*chosen.rows(wanted, own), where, weight)
            where = weight = NONE
        return wav, targets, torch.from_numpy(masks), where, weight

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


def _validation(real: ClipStore, score: Score, precision: Precision) -> Callable[[nn.Module], float]:
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
    about = {"labels": real.meta.labels, "clip_samples": real.meta.clip_samples, "precision": precision}
    targets = real.sparse_targets()[held_out].toarray()

    def validate(module: nn.Module) -> float:
        scorer = classifiers.Classifier(module, about, PartialState().device)
        return score(predict(scorer, real, held_out, shared=True), targets)

    return validate


def loss_of(kind: str, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss (`classifier.loss`: bce or ce) of logits [B, C]; soft targets may be mixed."""
    if kind == "ce":
        return functional.cross_entropy(logits, targets / targets.sum(dim=1, keepdim=True).clamp_min(1e-6))
    return functional.binary_cross_entropy_with_logits(logits, targets)
