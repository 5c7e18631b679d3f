"""Train one classifier on a mix of real and synthetic clips for a fixed number of optimiser steps."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ajbench import classifiers, console, loop, mixing
from ajbench.classifiers import frontend
from ajbench.errors import IntegrityError, MissingError, UsageError
from ajbench.recipe import Mix, Recipe
from ajbench.run import seed_for
from ajbench.store import ClipStore, ids_hash

CACHE_BYTES = 512 << 20  # decoded audio kept in memory, 16-bit: 3,300 clips of 5 s


def train_classifier(
    recipe: Recipe,
    real: ClipStore,
    synthetic: ClipStore | None,
    out: Path,
    *,
    seed: int,
    fingerprint: str,
    class_ap: NDArray[np.float64] | None = None,
) -> Path:
    """Train `recipe.classifier` on `recipe.mix` and save it in `out`; a killed call goes on when repeated.

    Only the train split of `real` is used. Order, augmentation, initialisation and dropout are functions of
    `seed`.

    Args:
        recipe: sections classifier and mix.
        real: store of real clips.
        synthetic: store of synthetic clips; None where the mix needs none.
        out: receives `model.safetensors`, `config.json`, `metrics.csv` and, until it is done, checkpoints.
        seed: of this training.
        fingerprint: kept in config.json; a finished classifier with the same one is not trained again.
        class_ap: average precision of each class [C] in an earlier run, for `mix.amplify`.

    Returns:
        `out`.

    Raises:
        UsageError: more synthetic clips asked for than there are, or the mix cannot be formed.
        IntegrityError: the synthetic clips descend from evaluation clips or belong to another store.
        NumericError: the loss is not finite.
    """
    settings, meta = recipe.classifier, real.meta
    if (out / classifiers.CONFIG).exists() and classifiers.read_config(out).get("fingerprint") == fingerprint:
        return out
    train = real.split_indices("train")
    if recipe.mix.real and not len(train):
        raise MissingError(f"{real.path}: its train split is empty")
    synthetic = _used(recipe.mix, synthetic)
    if synthetic:
        check_descent(real, synthetic)
    pool = _Pool(real, train, synthetic)
    ids = [real.clip_ids[i] for i in train]
    owners = synthetic.column("parent_id") if synthetic else []
    plan = mixing.plan(recipe.mix, ids, owners, pool.targets, seed, class_ap)

    options: dict[str, Any] = {"clip_samples": meta.clip_samples} if settings.name.startswith("ast") else {}
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "initialisation"))
        module = classifiers.build(settings.name, len(meta.labels), **options)
    augment = settings.augmentation == "mx+sp"

    def batches(index: int) -> tuple[Tensor, Tensor, int]:
        clips = mixing.batch(plan.order, plan.epoch_size, settings.batch_size, index)
        if not augment:
            return *pool.take(clips), 0
        generator = torch.Generator().manual_seed(seed_for(seed, "mixup", index))
        mixed, keep = frontend.mixup_draws(len(clips), settings.mixup, generator)
        rng = np.random.default_rng(seed_for(seed, "partners", index))
        wav, targets = pool.take(np.concatenate([clips, plan.partners(len(mixed), rng)]))
        wav, targets = frontend.mixup(wav, targets, mixed, keep)
        return wav, targets, seed_for(seed, "specaug", index)

    def step(wrapped: nn.Module, batch: tuple[Tensor, Tensor, int], index: int) -> Tensor:
        wav, targets, mask_seed = batch
        features = module.frontend(wav)  # type: ignore[operator]
        if augment:
            features = frontend.spec_augment(
                features,
                torch.Generator().manual_seed(mask_seed),
                time=settings.specaug_time,
                freq=settings.specaug_freq,
                fill=module.frontend.zero,  # type: ignore[union-attr, arg-type]
            )
        return _loss(settings.loss, wrapped(features), targets)

    console.detail(
        f"{settings.name}: {plan.epoch_size} clips an epoch, {settings.train_steps} steps, seed {seed}"
    )
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=settings.lr,
        betas=(0.9, 0.999),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    loop.fit(
        module,
        step,
        batches,
        steps=settings.train_steps,
        optimizer=optimizer,
        lr_at=loop.cosine(settings.lr, settings.warmup_steps, settings.train_steps),
        folder=out,
        checkpoint_every=settings.checkpoint_every,
        seed=seed,
        average_last=settings.average_last,
        precision=precision(),
        what=f"train-cls {settings.name}",
    )
    classifiers.save(
        module,
        out,
        name=settings.name,
        labels=meta.labels,
        clip_samples=meta.clip_samples,
        options=options,
        extra={"fingerprint": fingerprint, "seed": seed, "train_ids_hash": ids_hash(ids)},
    )
    shutil.rmtree(out / "checkpoints")
    return out


def check_descent(real: ClipStore, synthetic: ClipStore) -> None:
    """Refuse synthetic clips that cannot be mixed with `real`, or must not be.

    Raises:
        IntegrityError: another codec, clip length or label set; a parent outside the train split (the leak
            rule), of which the first is named; a generator trained on other clips than this train split.
    """
    for name in ("codec", "codec_hash", "clip_samples", "labels"):
        ours, theirs = getattr(real.meta, name), getattr(synthetic.meta, name)
        if ours != theirs:
            raise IntegrityError(
                f"{synthetic.path}: {name} {theirs}, but {ours} in {real.path}; make both with one recipe"
            )
    split = dict(zip(real.clip_ids, real.column("split"), strict=True))
    for clip_id, parent in zip(synthetic.clip_ids, synthetic.column("parent_id"), strict=True):
        if parent is not None and split.get(parent) != "train":
            where = f"in the {split[parent]} split" if parent in split else "not a clip"
            raise IntegrityError(
                f"{synthetic.path}: clip {clip_id} was made from {parent}, {where} of {real.path}; "
                "synthetic clips may descend from the train split only"
            )
    made_from = synthetic.meta.train_ids_hash
    if made_from and made_from != ids_hash(i for i, where in split.items() if where == "train"):
        raise IntegrityError(
            f"{synthetic.path}: its generator was trained on other clips than {real.path}'s train split; "
            "train generator and classifier on the same fold"
        )


def precision() -> Any:
    """Return the loop's precision: bf16 where the hardware multiplies it, on a CPU too."""
    return "bf16" if torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() else "fp32"


def _used(mix: Mix, synthetic: ClipStore | None) -> ClipStore | None:
    """Return the synthetic store where the mix draws from it."""
    needed = mix.alpha > 0 if mix.mode == "alpha" else mix.dose > 0
    if needed and synthetic is None:
        asked = f"mix.alpha={mix.alpha}" if mix.mode == "alpha" else f"mix.dose={mix.dose}"
        raise UsageError(f"{asked} needs synthetic clips and there are none; run synth first")
    return synthetic if needed else None


def _loss(kind: str, logits: Tensor, targets: Tensor) -> Tensor:
    if kind == "ce":
        return functional.cross_entropy(logits, targets / targets.sum(dim=1, keepdim=True).clamp_min(1e-6))
    return functional.binary_cross_entropy_with_logits(logits, targets)


class _Pool:
    """Real train clips, then synthetic clips: targets [P, C], and audio kept in memory up to a limit."""

    def __init__(self, real: ClipStore, train: NDArray[np.int64], synthetic: ClipStore | None) -> None:
        self.real, self.train, self.synthetic = real, train, synthetic
        parts = [real.targets()[train], *([synthetic.targets()] if synthetic else [])]
        self.targets = np.concatenate(parts)
        self.samples = real.meta.clip_samples
        kept = len(self.targets) if 2 * len(self.targets) * self.samples <= CACHE_BYTES else 0
        self.cache = np.empty((kept, self.samples), dtype=np.int16)
        self.filled = np.zeros(kept, dtype=bool)

    def take(self, clips: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return waves float32 [k, n] and targets float32 [k, C] of pool indices [k]."""
        targets = torch.from_numpy(self.targets[clips])
        if not len(self.cache):
            return torch.from_numpy(self._decode(clips)), targets
        new = np.unique(clips[~self.filled[clips]])
        if len(new):
            # Exact for a store's own FLAC, which has 16 bits.
            self.cache[new] = np.rint(self._decode(new) * 32768).clip(-32768, 32767).astype(np.int16)
            self.filled[new] = True
        return torch.from_numpy(self.cache[clips].astype(np.float32) / np.float32(32768)), targets

    def _decode(self, clips: NDArray[np.int64]) -> NDArray[np.float32]:
        out = np.empty((len(clips), self.samples), dtype=np.float32)
        is_real = clips < len(self.train)
        if is_real.any():
            out[is_real] = self.real.audio(self.train[clips[is_real]])
        if self.synthetic is not None and not is_real.all():
            out[~is_real] = self.synthetic.audio(clips[~is_real] - len(self.train))
        return out
