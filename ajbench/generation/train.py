"""Training of the denoiser (section 4): codes ⇒ latents ⇒ whitened grid, conditioned on captions."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ajbench import codec as codecs
from ajbench.codec.whitening import Whitening, fit_to_clips
from ajbench.core import console
from ajbench.core.device import resolve_precision
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import seed_for
from ajbench.core.recipe import Generator, Recipe
from ajbench.data import audio, real_clips
from ajbench.data.store import ClipStore, require_codec
from ajbench.generation import checkpoint as folders
from ajbench.generation import hub_encoders, pretrained, unet, validation
from ajbench.generation.batches import (
    Batch,
    generator,
    grid_reader,
    min_snr_weights,
    noisy_batches,
    on_gpu,
    prompts_of,
)
from ajbench.generation.prompts import truncated
from ajbench.generation.unet import ENDS
from ajbench.training import loop
from ajbench.training.state import remove_checkpoints


def train_generator(
    recipe: Recipe,
    store: ClipStore,
    out: Path,
    *,
    fingerprint: str,
    seed: int | None = None,
    codec: "codecs.Codec | None" = None,
    tracker: str = "csv",
    captions: Mapping[str, str] | None = None,
) -> Path:
    """Train a generator on its pool and write its folder; an interrupted run resumes.

    The pool is the train split of `store`, of which `generator.pool=real` takes the clips of `mix.real`. The
    whitening is fitted on the pool too.

    With several processes (torchrun), each computes its part of every batch.

    Args:
        recipe: its `generator` section is used, and `mix.real` for that pool.
        store: real clips.
        out: receives the generator (see `checkpoint`), `metrics.csv` and, with `validate_every`,
            `validation.csv` (see `validation`).
        fingerprint: of everything that affects the result.
        seed: of weights, order, noise and condition dropout; None is the recipe's.
        codec: an instance to use instead of loading the store's.
        tracker: receives the loss curves in addition to metrics.csv.
        captions: clip id → prompt, for every clip of the pool; None: the captions in the store.

    Returns:
        `out`.

    Raises:
        UsageError: a clip of the pool has no prompt in `captions`, the number of processes does not divide
            the batch, 8-bit AdamW is requested without CUDA, or validation without validation clips.
        MissingError: the store has no whitening statistics; weights of text encoder, codec or
            `generator.init` are missing; or bitsandbytes is not installed.
        IntegrityError: the store was encoded by another codec, or the weights of `generator.init` do not fit.
        NumericError: the loss is not finite.
    """
    section = recipe.generator
    seed = section.seed if seed is None else seed
    if (out / folders.INFO).exists() and folders.read_info(out).fingerprint == fingerprint:
        _clear(out)  # if it was killed before it had
        return out
    parts = _parts(section)
    codec = on_gpu(codec or codecs.load(store.meta.codec, weights_hash=store.meta.codec_hash))
    require_codec(store, codec.name, codec.weights_hash)
    if store.meta.whitening is None:
        raise MissingError(f"{store.path}: no whitening statistics; make the store with `ajbench prepare`")
    whitening, pool = Whitening.from_json(store.meta.whitening), store.split_indices("train")
    if section.pool == "real":
        every, pool = len(pool), real_clips.chosen(recipe.mix.with_real, store)
        if len(pool) < every:
            whitening = fit_to_clips(store, pool, codec, recipe.codec.whitening)
    if captions is not None:
        _check_captions(section, [store.clip_ids[i] for i in pool], captions)
    train, unseen = validation.divide(store, pool, section.val_share)
    if not len(train):
        raise UsageError(
            f"generator.val_share={section.val_share:g}: all clips of the pool are of one recording, and "
            "none is left to train on; set it to 0"
        )
    if section.validate_every and not len(unseen):
        raise UsageError(
            f"generator.validate_every={section.validate_every}: {store.path} has no val split; set "
            "generator.val_share, such as 0.05, or validate_every=null"
        )
    text = hub_encoders.load(section.text_encoder, section.max_tokens, section.encoder_mask)
    text.to(PartialState().device)
    process = unet.noise_schedule(section.prediction)
    model, start = _model(section, text.dim, seed_for(seed, "weights"))
    prompts = prompts_of(store, train, captions)
    distinct = sorted(set(prompts))
    text.keep(len(distinct))
    if cut := text.count_cut(distinct):
        console.say(truncated(cut, len(distinct), section.max_tokens))
    grids = grid_reader(store, train, codec, whitening)
    noisy = noisy_batches(grids, len(prompts), process, section.batch_size, seed, parts)
    weights = None if section.min_snr_gamma is None else min_snr_weights(process, section.min_snr_gamma)

    def batches(index: int) -> Batch:
        batch = noisy(index)
        step, part = divmod(index, parts)
        size = len(batch["picks"])
        chance = torch.rand(section.batch_size, generator=generator(seed, "dropout", step))
        dropped = (chance < section.condition_dropout)[part * size : (part + 1) * size].tolist()
        picked = [prompts[i] for i in batch["picks"]]
        states, mask = text.encode(["" if drop else one for drop, one in zip(dropped, picked, strict=True)])
        if section.channels_last:
            batch["noisy"] = batch["noisy"].contiguous(memory_format=torch.channels_last)
        if weights is not None:
            batch["weight"] = weights.to(batch["t"].device)[batch["t"]]
        return {**batch, "states": states, "mask": mask}

    def step(module: Any, batch: Batch, index: int) -> Tensor:
        return loss(module, batch, batch["states"], batch["mask"] if section.mask else None)

    watch = None
    if section.validate_every:
        watched = validation.watched(store, unseen)
        # Encoded before training, during which another thread uses the text encoder.
        states, mask = (part.cpu() for part in text.encode(prompts_of(store, watched, captions)))
        watch = validation.watch(
            section.validate_every,
            [store.clip_ids[i] for i in watched],
            grid_reader(store, watched, codec, whitening),
            states,
            mask if section.mask else None,
            process,
            section.batch_size // parts,
        )
    precision = resolve_precision(section.precision, PartialState().device.type)
    lr_at = loop.cosine(section.lr, section.warmup_steps, section.train_steps)
    frozen = min(section.frozen_steps, section.train_steps)
    phases = (0, frozen, out / "frozen", True), (frozen, section.train_steps, out, False)
    for first, last, folder, ends in phases:
        if first == last:
            continue
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not ends or name.startswith(ENDS))
        loop.fit(
            model,
            step,
            _later(batches, first * parts),
            steps=last - first,
            optimizer=_optimizer(section, model),
            lr_at=_later(lr_at, first),
            folder=folder,
            checkpoint_every=section.checkpoint_every,
            seed=seed,
            accumulate=section.accumulate,
            ema_decay=section.ema_decay,
            watch=watch,
            clip_grad=section.clip_grad,
            precision=precision,
            compiled=section.compile,
            tracker=tracker,
            what="train-gen (ends)" if ends else "train-gen",
        )
    if PartialState().is_main_process:
        before = pretrained.trained_by_ajbench(section.init) if section.init else None
        ids, recordings = folders.named(store, pool, folders.read_info(before.parent) if before else None)
        info = folders.GeneratorInfo(
            fingerprint=fingerprint,
            preset=section.preset,
            text_encoder=text.name,
            text_hash=text.weights_hash(),
            text_setup=text.setup_hash(),
            max_tokens=section.max_tokens,
            mask=section.mask,
            encoder_mask=section.encoder_mask,
            codec=codec.name,
            codec_hash=codec.weights_hash,
            clip_samples=store.meta.clip_samples,
            frames=grids([0]).shape[2] * audio.FRAME_MULTIPLE,
            labels=tuple(store.meta.labels),
            train_ids=ids,
            train_recordings=recordings,
            held_out=tuple(sorted(store.clip_ids[i] for i in unseen)) if section.val_share else (),
            start=start,
            train_steps=section.train_steps,
            seed=seed,
            precision=precision,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            prompts=len(distinct),
            prompts_cut=cut,
        )
        folders.save(out, model.cpu(), process, whitening, info)
        _clear(out)
    return out


def _clear(out: Path) -> None:
    for folder in (out, out / "frozen"):
        remove_checkpoints(folder)


def loss(model: UNet2DConditionModel, batch: Batch, states: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean squared error of the prediction, with the clips' `weight` if there is one."""
    out = unet.denoise(model, batch["noisy"], batch["t"], states, mask)
    error = (out.float() - batch["target"]).square()
    return (error.mean((1, 2, 3)) * batch["weight"]).mean() if "weight" in batch else error.mean()


def _check_captions(section: Generator, ids: Sequence[str], captions: Mapping[str, str]) -> None:
    absent = [clip for clip in ids if clip not in captions]
    if absent:
        raise UsageError(
            f"generator.captions={section.captions}: no {section.caption_kind} caption for {len(absent)} of "
            f"the {console.counted(len(ids), 'clip')} to train on (such as {absent[0]}); make the table from "
            "these clips with `ajbench caption`"
        )


def _parts(section: Generator) -> int:
    """Return the number of parts of a batch: processes × accumulation steps."""
    processes = PartialState().num_processes
    parts = processes * section.accumulate
    if section.batch_size % parts:
        raise UsageError(
            f"generator.batch_size={section.batch_size}: not divisible by {processes} processes × "
            f"generator.accumulate={section.accumulate}; choose a multiple of {parts}"
        )
    return parts


def _model(
    section: Generator, text_dim: int, seed: int
) -> tuple[UNet2DConditionModel, "folders.Start | None"]:
    """Return the initial U-Net, and which weights were loaded into it."""
    model, start = unet.build(section.preset, text_dim, seed=seed, prediction=section.prediction), None
    if section.init:
        start = pretrained.start_from(model, section.init)
        left_out = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in start.left_out))
        console.say(
            f"generator.init={section.init}: loaded {start.tensors} tensors, {start.parameters / 1e6:.1f} M "
            f"parameters; left out: {left_out}"
        )
    if section.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    if section.channels_last:
        model.to(memory_format=torch.channels_last)
    return model, start


def _optimizer(section: Generator, model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW for the trainable parameters."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    settings: dict[str, Any] = {"lr": section.lr, "weight_decay": section.weight_decay}
    if section.optimizer == "adamw":
        return torch.optim.AdamW(trained, **settings, fused=True)
    if PartialState().device.type != "cuda":
        raise UsageError(
            "generator.optimizer=adamw8bit needs CUDA, this is "
            f"{PartialState().device.type}; set generator.optimizer=adamw"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingError(
            "generator.optimizer=adamw8bit: bitsandbytes is not installed; pip install bitsandbytes, or set "
            "generator.optimizer=adamw"
        )
    import bitsandbytes

    made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(trained, **settings)
    return made


def _later(function: Callable[[int], Any], shift: int) -> Callable[[int], Any]:
    return lambda index: function(index + shift)
