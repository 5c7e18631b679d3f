"""Training the denoiser (section 4): codes ⇒ latents ⇒ whitened grid, conditioned on captions."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import PartialState
from diffusers import DDPMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor

from ajbench import audio, console, loop
from ajbench import codec as codecs
from ajbench.codec.whiten import Whitening
from ajbench.errors import MissingError
from ajbench.generator import folder as folders
from ajbench.generator import hub, unet
from ajbench.generator.text import sound_of, spoken
from ajbench.recipe import Recipe
from ajbench.run import seed_for
from ajbench.store import ClipStore, require_codec

Batch = dict[str, Tensor]

# Appendix B.4's first phase trains these alone (with the paper's projection, which diffusers calls so).
ENDS = ("conv_in.", "conv_out.", "encoder_hid_proj.")


def train_generator(
    recipe: Recipe,
    store: ClipStore,
    out: Path,
    *,
    fingerprint: str,
    seed: int | None = None,
    codec: "codecs.Codec | None" = None,
) -> Path:
    """Train a generator on the train split of `store` and write its folder; goes on where it was stopped.

    Args:
        recipe: its `generator` section is used.
        store: real clips.
        out: receives the generator (see `folder`) and `metrics.csv`.
        fingerprint: of everything that bears on the result.
        seed: of weights, order, noise and dropped conditions; None is the recipe's.
        codec: an instance to use instead of loading the store's.

    Returns:
        `out`.

    Raises:
        MissingError: the store has no whitening statistics, or text encoder or codec weights are not there.
        IntegrityError: the store was encoded by another codec.
        NumericError: the loss is not finite.
    """
    section = recipe.generator
    seed = section.seed if seed is None else seed
    if (out / folders.INFO).exists() and folders.read_info(out).fingerprint == fingerprint:
        return out
    codec = codec or codecs.load(store.meta.codec)
    require_codec(store, codec.name, codec.weights_hash)
    if store.meta.whitening is None:
        raise MissingError(f"{store.path}: no whitening statistics; make the store with `ajbench prepare`")
    whitening = Whitening.from_json(store.meta.whitening)
    text = hub.load(section.text_encoder, section.max_tokens)
    text.to(PartialState().device)
    prediction = section.prediction
    model = unet.build(section.preset, text.dim, seed=seed_for(seed, "weights"), prediction=prediction)
    process = unet.noise_schedule(prediction)
    train = store.split_indices("train")
    prompts = prompts_of(store, train)
    cut = text.count_cut(sorted(set(prompts)))
    if cut:
        console.say(
            f"{cut} of {len(set(prompts))} prompts are longer than generator.max_tokens and lose their end"
        )
    grids = grid_reader(store, train, codec, whitening)
    noisy = noisy_batches(grids, len(prompts), process, section.batch_size, seed)

    def batches(index: int) -> Batch:
        batch = noisy(index)
        chance = torch.rand(section.batch_size, generator=_generator(seed, "dropout", index))
        dropped = (chance < section.condition_dropout).tolist()
        picked = [prompts[i] for i in batch["picks"]]
        states, mask = text.encode(["" if drop else one for drop, one in zip(dropped, picked, strict=True)])
        return {**batch, "states": states, "mask": mask}

    def step(module: Any, batch: Batch, index: int) -> Tensor:
        return loss(module, batch, batch["states"], batch["mask"] if section.mask else None)

    precision = fast_precision()
    lr_at = loop.cosine(section.lr, section.warmup_steps, section.train_steps)
    frozen = min(section.frozen_steps, section.train_steps)
    for first, last, folder, ends in (
        (0, frozen, out / "frozen", True),
        (frozen, section.train_steps, out, False),
    ):
        if first == last:
            continue
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not ends or name.startswith(ENDS))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        loop.fit(
            model,
            step,
            _later(batches, first * PartialState().num_processes),
            steps=last - first,
            optimizer=torch.optim.AdamW(
                trained, lr=section.lr, weight_decay=section.weight_decay, fused=True
            ),
            lr_at=_later(lr_at, first),
            folder=folder,
            checkpoint_every=section.checkpoint_every,
            seed=seed,
            ema_decay=section.ema_decay,
            precision=precision,
            what="train-gen (ends)" if ends else "train-gen",
        )
    if PartialState().is_main_process:
        info = folders.GeneratorInfo(
            fingerprint=fingerprint,
            preset=section.preset,
            text_encoder=text.name,
            text_hash=text.weights_hash(),
            max_tokens=section.max_tokens,
            mask=section.mask,
            codec=codec.name,
            codec_hash=codec.weights_hash,
            clip_samples=store.meta.clip_samples,
            frames=grids([0]).shape[2] * audio.FRAME_MULTIPLE,
            labels=tuple(store.meta.labels),
            train_ids=tuple(sorted(store.clip_ids[i] for i in train)),
            train_steps=section.train_steps,
            seed=seed,
            precision=precision,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            prompts=len(set(prompts)),
            prompts_cut=cut,
        )
        folders.save(out, model.cpu(), process, whitening, info)
        for folder in (out, out / "frozen"):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return out


def prompts_of(store: ClipStore, indices: NDArray[np.int64]) -> list[str]:
    """Return each clip's caption or, without one, "The sound of" its labels."""
    captions, labels = store.column("caption"), store.column("labels")
    return [captions[i] or sound_of([spoken(name) for name in labels[i]]) for i in indices]


def grid_reader(
    store: ClipStore, indices: NDArray[np.int64], codec: "codecs.Codec", whitening: Whitening
) -> Callable[[Any], Tensor]:
    """Return a function from positions in `indices` to whitened grids float32 [B, 128, H, 21]."""
    return lambda picks: whitening.grid(codec.latents(store.codes(indices[picks])))


def noisy_batches(
    grids: Callable[[Any], Tensor], n: int, process: DDPMScheduler, size: int, seed: int
) -> Callable[[int], Batch]:
    """Return batch(index), a pure function: `noisy` grids, `target`, timesteps `t`, clips (`picks`).

    The target is what `process` says that the network predicts: the noise, or the velocity
    √ᾱ · noise − √(1 − ᾱ) · grid.

    Every one of the `n` clips comes once an epoch, in an order drawn for the epoch. Each batch has one
    timestep in every `size`-th part of the range: the loss varies less from step to step, its expectation
    is the same.
    """

    @functools.lru_cache(2)
    def order(epoch: int) -> Tensor:
        return torch.randperm(n, generator=_generator(seed, "epoch", epoch))

    def make(index: int) -> Batch:
        picks = torch.stack(
            [order(place // n)[place % n] for place in range(index * size, (index + 1) * size)]
        )
        draw = _generator(seed, "noise", index)
        grid = grids(picks.tolist()).cpu()
        noise = torch.randn(grid.shape, generator=draw)
        share = (torch.arange(size) + torch.rand(size, generator=draw)) / size
        t = (share * len(process.betas)).long().clamp_max(len(process.betas) - 1)
        noisy = process.add_noise(grid, noise, t)
        velocity = process.config["prediction_type"] == "v_prediction"
        target = process.get_velocity(grid, noise, t) if velocity else noise
        return {"noisy": noisy, "target": target, "t": t, "picks": picks}

    return make


def loss(model: UNet2DConditionModel, batch: Batch, states: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean squared error of the prediction."""
    out = unet.denoise(model, batch["noisy"], batch["t"], states, mask)
    return (out.float() - batch["target"]).square().mean()


def fast_precision() -> Literal["auto", "bf16"]:
    """Return bf16 where the CPU computes in it (1.6 times as fast, measured), else the loop's own choice."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # absent before torch 2.9
    on_cpu = PartialState().device.type == "cpu"
    return "bf16" if on_cpu and any(capabilities.get(k) for k in ("avx512_bf16", "amx_bf16")) else "auto"


def _later(function: Callable[[int], Any], shift: int) -> Callable[[int], Any]:
    return lambda index: function(index + shift)


def _generator(seed: int, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(seed, *names))
