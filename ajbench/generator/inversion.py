"""Textual inversion: one vector per class token, all classes at once, everything else frozen (App. E)."""

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from diffusers import DDPMScheduler
from safetensors.torch import save_file
from torch import Tensor, nn

from ajbench import codec as codecs
from ajbench import loop
from ajbench.generator import folder as folders
from ajbench.generator.pipeline import AudioJourneyPipeline
from ajbench.generator.text import class_tokens, sound_of, spoken
from ajbench.generator.train import Batch, fast_precision, grid_reader, loss, noisy_batches
from ajbench.recipe import Recipe
from ajbench.store import ClipStore, require_codec


class Inversion(nn.Module):
    """U-Net and text encoder, of which only the class tokens' vectors are trained; forward gives the loss."""

    def __init__(self, made: AudioJourneyPipeline) -> None:
        super().__init__()
        self.unet, self.text, self.masked = made.unet, made.text, made.info.mask
        self.text.rows.requires_grad_(True)

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean squared error of the prediction given prompts of class tokens."""
        states = self.text.states(batch["ids"], batch["mask"])
        return loss(self.unet, batch, states, batch["mask"] if self.masked else None)


def invert(
    recipe: Recipe,
    generator_dir: Path,
    store: ClipStore,
    out: Path,
    *,
    fingerprint: str,
    seed: int | None = None,
    codec: "codecs.Codec | None" = None,
) -> Path:
    """Learn the class tokens of the store's labels on its train split, and write them.

    Each token begins as the mean of the embeddings of its class' name. `learned_embeds.safetensors` maps
    tokens to vectors [1, 384], as diffusers' loaders expect; `tokens.json` maps labels to tokens.

    Args:
        recipe: its `invert` section is used.
        generator_dir: a trained generator.
        store: real clips.
        out: receives the tokens and `metrics.csv`.
        fingerprint: of everything that bears on the result.
        seed: of order and noise; None is the recipe's.
        codec: an instance to use instead of loading the generator's.

    Returns:
        `out`.

    Raises:
        MissingError: there is no finished generator.
        IntegrityError: generator and store are of different codecs, or the generator was trained on clips
            that the store evaluates on.
        NumericError: the loss is not finite.
    """
    section = recipe.invert
    seed = section.seed if seed is None else seed
    if (out / folders.TOKENS).exists() and folders.read_tokens(out)[0].fingerprint == fingerprint:
        return out
    made = AudioJourneyPipeline.from_pretrained(generator_dir, codec=codec)
    require_codec(store, made.codec.name, made.codec.weights_hash)
    folders.refuse_leak(generator_dir, made.info.train_ids, store)
    tokens = class_tokens(store.meta.labels)
    made.text.add_tokens({token: made.text.initial(spoken(label)) for label, token in tokens.items()})
    train = store.split_indices("train")
    if section.train_steps:
        labels = store.column("labels")
        prompts = [sound_of([tokens[name] for name in labels[i]]) for i in train]
        # Tokenised by an encoder of its own: batches are made in another thread.
        ids, mask = (part.cpu() for part in made.text.tokenize(prompts))
        grids = grid_reader(store, train, made.codec, made.whitening)
        process = DDPMScheduler.from_config(made.training)
        noisy = noisy_batches(grids, len(train), process, section.batch_size, seed)

        def batches(index: int) -> Batch:
            batch = noisy(index)
            return {**batch, "ids": ids[batch["picks"]], "mask": mask[batch["picks"]]}

        def step(module: Any, batch: Batch, index: int) -> Tensor:
            result: Tensor = module(batch)
            return result

        module = Inversion(made)
        loop.fit(
            module,
            step,
            batches,
            steps=section.train_steps,
            # No decay: it would pull the tokens towards zero, away from where words are.
            optimizer=torch.optim.AdamW([made.text.rows], lr=section.lr, weight_decay=0.0),
            lr_at=loop.cosine(section.lr, 0, section.train_steps),
            folder=out,
            checkpoint_every=section.checkpoint_every,
            seed=seed,
            precision=fast_precision(),
            what="invert",
        )
    if PartialState().is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        rows = made.text.rows.detach().cpu()
        vectors = {token: rows[i : i + 1].clone() for i, token in enumerate(made.text.tokens)}
        part = out / f".{folders.EMBEDS}.tmp"
        save_file(vectors, part)
        part.replace(out / folders.EMBEDS)
        info = folders.TokensInfo(
            fingerprint=fingerprint,
            generator=made.info.fingerprint,
            text_encoder=made.info.text_encoder,
            tokens=tokens,
            train_ids=tuple(sorted(store.clip_ids[i] for i in train)),
            train_steps=section.train_steps,
            seed=seed,
        )
        folders.write_info(out / folders.TOKENS, info, [out / folders.EMBEDS])
    return out
