"""Textual inversion: one or more vectors per class token, all classes at once, the rest frozen (App. E).

LoRA on the U-Net's attention can be trained together with the tokens or, with plain class names as in
DreamBooth, instead of them.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from diffusers import DDPMScheduler
from safetensors.torch import save_file
from torch import Tensor, nn

from ajbench import codec as codecs
from ajbench.core import console
from ajbench.core.errors import UsageError
from ajbench.core.files import replacing, seed_for
from ajbench.core.recipe import Invert, Recipe
from ajbench.data import real_clips
from ajbench.data.store import ClipStore, require_codec
from ajbench.generation import checkpoint as folders
from ajbench.generation import lora, unet
from ajbench.generation.batches import on_gpu
from ajbench.generation.class_curve import ClassCurve
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.prompts import chosen_classes, class_tokens, sound_of, spoken, truncated
from ajbench.generation.train import Batch, grid_reader, noisy_batches
from ajbench.training import loop
from ajbench.training.state import remove_checkpoints


class Inversion(nn.Module):
    """U-Net and text encoder, of which only class token vectors or LoRA are trained, and the class losses."""

    def __init__(self, made: AudioJourneyPipeline, classes: int) -> None:
        super().__init__()
        self.unet, self.text, self.masked = made.unet, made.text, made.info.mask
        # Part of the module, so that checkpoints contain the sums of an incomplete window.
        self.curve = ClassCurve(classes)

    def forward(self, batch: Batch) -> Tensor:
        """Return the squared errors of the prediction, [B, 128, H, 21]."""
        states = self.text.states(batch["ids"], batch["mask"])
        mask = batch["mask"] if self.masked else None
        out = unet.denoise(self.unet, batch["noisy"], batch["t"], states, mask)
        return (out.float() - batch["target"]).square()


def invert(
    recipe: Recipe,
    generator_dir: Path,
    store: ClipStore,
    out: Path,
    *,
    fingerprint: str,
    seed: int | None = None,
    codec: "codecs.Codec | None" = None,
    tracker: str = "csv",
) -> Path:
    """Learn class tokens for the store's labels, or LoRA, or both, and write them.

    They are trained on the pool, the whole train split; with `generator.pool=real`, or where the pool is
    another store, on the clips of `mix.real`.

    Each vector of a token is initialised with the mean embedding of the class name, or of a word
    (`invert.init`). With `invert.classes`, only clips of these classes are used; their other classes appear
    in prompts by name. `learned_embeds.safetensors` maps tokens to vectors [k, dim], `tokens.json` labels to
    tokens. With `invert.lora_rank`, `pytorch_lora_weights.safetensors` has the adapters; with
    `invert.tokens=false` only they are trained, and all classes appear by name. diffusers can load both
    safetensors files.

    With several processes (torchrun), each computes its part of every batch.

    Args:
        recipe: its `invert` section is used, and what its generator's pool is.
        generator_dir: a trained generator; tokens and LoRA exported with it are ignored.
        store: real clips.
        out: receives tokens and LoRA, `metrics.csv` and, by class, `metrics_classes.csv`.
        fingerprint: of everything that affects the result.
        seed: of order, noise and LoRA's initial weights; None is the recipe's.
        codec: an instance to use instead of loading the generator's.
        tracker: receives the loss curves in addition to metrics.csv.

    Returns:
        `out`.

    Raises:
        UsageError: `invert.classes` has an unknown class, its classes have no train clip, or the number of
            processes does not divide the batch.
        MissingError: there is no finished generator.
        IntegrityError: generator and store use different codecs, or the generator was trained on recordings
            of evaluation clips of the store.
        NumericError: the loss is not finite.
    """
    section = recipe.invert
    seed = section.seed if seed is None else seed
    if (out / folders.TOKENS).exists() and folders.read_tokens(out)[0].fingerprint == fingerprint:
        remove_checkpoints(out)  # if it was killed before it had
        return out
    processes = PartialState().num_processes
    if section.batch_size % processes:
        raise UsageError(f"invert.batch_size={section.batch_size}: not divisible by {processes} processes")
    chosen = chosen_classes(section.classes, store.meta.labels)
    made = AudioJourneyPipeline.from_pretrained(generator_dir, codec=codec, bare=True)
    require_codec(store, made.codec.name, made.codec.weights_hash)
    folders.refuse_leak(generator_dir, made.info, store)
    every = class_tokens(store.meta.labels)  # of all labels: a class always has the same token
    tokens = {label: every[label] for label in chosen if section.tokens}
    words = {every[label]: spoken(label) if section.init == "name" else section.init for label in tokens}
    made.text.add_tokens(
        {t: made.text.initial(word).expand(section.vectors, -1) for t, word in words.items()}
    )
    train, labels = store.split_indices("train"), store.column("labels")
    if recipe.adapts_to_real:
        train = real_clips.chosen(recipe.mix.with_real, store)
    if section.classes is not None:
        train = train[[any(name in chosen for name in labels[i]) for i in train]]
        if not len(train):
            raise UsageError(f"invert.classes: no train clip of {store.path} has any of them")
    prompts = [sound_of([tokens.get(name) or spoken(name) for name in labels[i]]) for i in train]
    distinct = sorted(set(prompts))
    if cut := made.text.count_cut(distinct):
        console.say(truncated(cut, len(distinct), made.text.max_tokens))
    trained = _trained(made, section, seed)
    if section.train_steps:
        # Tokenised here, because batches are made in another thread.
        ids, mask = (part.cpu() for part in made.text.tokenize(distinct))
        of_prompt = {prompt: place for place, prompt in enumerate(distinct)}
        prompt_of = torch.tensor([of_prompt[prompt] for prompt in prompts])
        grids = grid_reader(store, train, on_gpu(made.codec), made.whitening)
        process = DDPMScheduler.from_config(made.training)
        noisy = noisy_batches(grids, len(train), process, section.batch_size, seed, processes)
        places = {name: place for place, name in enumerate(chosen)}

        def batches(index: int) -> Batch:
            batch = noisy(index)
            classes = torch.zeros(len(batch["picks"]), len(chosen))
            for row, pick in enumerate(batch["picks"].tolist()):
                classes[row, [places[name] for name in labels[train[pick]] if name in places]] = 1
            said = prompt_of[batch["picks"]]
            return {**batch, "ids": ids[said], "mask": mask[said], "classes": classes}

        def step(module: Any, batch: Batch, index: int) -> Tensor:
            errors: Tensor = module(batch)
            inversion.curve.add(errors, batch["classes"])
            done, window = index + 1, section.log_every
            if done % window == 0 or done == section.train_steps:
                inversion.curve.write(out / folders.CURVE, index // window * window + 1, done, chosen)
            return errors.mean()

        inversion, peak = Inversion(made, len(chosen)), section.lr if section.tokens else section.lora_lr
        loop.fit(
            inversion,
            step,
            batches,
            steps=section.train_steps,
            # No weight decay: it would pull the tokens towards zero, away from other words.
            optimizer=torch.optim.AdamW(trained, lr=peak, weight_decay=0.0),
            lr_at=loop.cosine(peak, 0, section.train_steps),
            folder=out,
            checkpoint_every=section.checkpoint_every,
            seed=seed,
            tracker=tracker,
            what="invert",
        )
    if PartialState().is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        files = []
        if section.tokens:
            with replacing(out / folders.EMBEDS) as part:
                save_file(made.text.learned(), part)
            files.append(out / folders.EMBEDS)
        if section.lora_rank:
            lora.save(made.unet, out / lora.FILE)
            files.append(out / lora.FILE)
        train_ids, recordings = folders.named(store, train)
        info = folders.TokensInfo(
            fingerprint=fingerprint,
            generator=made.info.fingerprint,
            text_encoder=made.info.text_encoder,
            tokens=tokens,
            vectors=section.vectors,
            init=section.init,
            lora_rank=section.lora_rank,
            train_ids=train_ids,
            train_recordings=recordings,
            train_steps=section.train_steps,
            seed=seed,
            prompts_cut=cut,
        )
        folders.write_info(out / folders.TOKENS, info, files)
        remove_checkpoints(out)
    return out


def _trained(made: AudioJourneyPipeline, section: Invert, seed: int) -> list[dict[str, Any]]:
    """Return the optimiser's parameter groups: token vectors, and adapters, which are added to the U-Net."""
    groups: list[dict[str, Any]] = []
    if section.tokens:
        groups.append({"params": [made.text.rows.requires_grad_(True)]})
    if section.lora_rank:
        adapters = lora.add(made.unet, section.lora_rank, seed_for(seed, "lora"))
        ratio = section.lora_lr / section.lr if section.tokens else 1.0
        groups.append({"params": adapters, "lr_ratio": ratio})
    return groups
