"""A codec, a store and a generator small enough to run by the hundred: what tests of the generator share."""

import numpy as np
import torch

from ajbench.codec.whitening import Whitening
from ajbench.core.recipe import Recipe
from ajbench.data import audio, shards, store
from ajbench.generation import checkpoint, unet

FRAMES = 42  # a grid of 2 × 21
SAMPLES = FRAMES * 320
LABELS = ("Dog", "Rain", "Clock tick")
SMALL = {"widths": (32, 64), "attention": (False, True), "layers": 1, "heads": 2, "pooled": True}
TRAIN, EVAL = 12, 3


class FakeCodec:
    """Random residual codebooks and a random linear frame decoder, with the interface of `ajbench.codec`."""

    name, weights_hash = "fake", "fa4e"
    sample_rate, hop, n_codebooks, dim = 16_000, 320, 8, 128

    def __init__(self):
        g = torch.Generator().manual_seed(5)
        scale = 0.6 ** torch.arange(8.0)
        self.books = torch.randn(8, 1024, 128, generator=g) * scale[:, None, None]
        self.frame = torch.randn(128, 320, generator=g) * 0.002

    def latents(self, codes):
        index = torch.as_tensor(np.asarray(codes).astype(np.int64))
        return sum(self.books[k][index[:, k]] for k in range(8)).transpose(1, 2)

    def quantize(self, latents):
        rest = latents.transpose(1, 2).contiguous()
        codes = []
        for book in self.books:
            codes.append(torch.cdist(rest, book.expand(len(rest), -1, -1)).argmin(-1))
            rest = rest - book[codes[-1]]
        return torch.stack(codes, 1).numpy().astype(np.uint16)

    def decode_latents(self, latents):
        return (latents.transpose(1, 2) @ self.frame).flatten(1)

    def decode(self, codes):
        return self.decode_latents(self.latents(codes))

    def encode(self, wav):
        frames = torch.as_tensor(wav).unflatten(1, (-1, 320))
        return self.quantize((frames @ torch.linalg.pinv(self.frame)).transpose(1, 2))


def small_recipe(**sections):
    """The default recipe with short training, few tokens and few steps; keywords change sections."""
    base = {
        "generator": {
            "max_tokens": 12,
            "precision": "fp32",  # tests compare bits and gradients
            "train_steps": 6,
            "batch_size": 4,
            "warmup_steps": 2,
            "checkpoint_every": 2,
        },
        "invert": {"train_steps": 4, "batch_size": 4, "checkpoint_every": 2},
        "synth": {"n": 30, "sampler_steps": 5, "micro_batch": 4, "shard_size": 6, "guidance": 2.0},
    }
    return Recipe.model_validate(
        {"name": "small", **{k: base.get(k, {}) | sections.get(k, {}) for k in base}}
    )


def make_store(path, train=TRAIN, evaluated=EVAL, captions=False, prefix="clip", val=0):
    """A real store of clips of one or two classes, whose codes come from their class' part of the books."""
    rng, codec = np.random.default_rng(3), FakeCodec()
    path.mkdir(parents=True)
    records = []
    splits = ["train"] * train + ["val"] * val + ["eval"] * evaluated
    for i, split in enumerate(splits):
        classes = [i % 3] if i % 4 else [i % 3, (i + 1) % 3]
        codes = (rng.integers(0, 300, (8, FRAMES)) + 300 * classes[0]).astype(np.uint16)
        labels = [LABELS[k] for k in classes]
        records.append(
            {
                "clip_id": f"{prefix}{i:02d}",
                "path": f"{i}.wav",
                "labels": labels,
                "label_ids": classes,
                "split": split,
                "caption": f"{labels[0]} nearby, recording {i}" if captions else None,
                "audio": audio.flac_encode(codec.decode(codes[None])[0].numpy()),
                "codes": codes,
            }
        )
    shards.write_shard(path, 0, records)
    whitening = Whitening.fit([codec.latents(np.stack([r["codes"] for r in records[:train]]))])
    meta = shards.StoreMeta(
        codec=codec.name,
        codec_hash=codec.weights_hash,
        clip_samples=SAMPLES,
        labels=list(LABELS),
        counts={"train": {"kept": train}, "eval": {"kept": evaluated}},
        whitening=whitening.to_json(),
        fingerprint="real",
    )
    shards.finish(path, meta)
    return store.ClipStore.open(path)


def make_generator(path, real, mask=False, text_encoder="minilm", width=384):
    """A generator of random weights that heeds its condition more than a fresh U-Net does."""
    before, unet.PRESETS["tiny"] = unet.PRESETS["tiny"], SMALL
    model = unet.build("tiny", width)
    unet.PRESETS["tiny"] = before
    with torch.no_grad():
        model.encoder_hid_proj.weight *= 20
        model.conv_out.weight *= 5
    train = real.split_indices("train")
    info = checkpoint.GeneratorInfo(
        fingerprint="gen0",
        preset="tiny",
        text_encoder=text_encoder,
        max_tokens=12,
        mask=mask,
        codec="fake",
        codec_hash="fa4e",
        clip_samples=SAMPLES,
        frames=FRAMES,
        labels=LABELS,
        train_ids=tuple(sorted(real.clip_ids[i] for i in train)),
        train_steps=1,
        seed=0,
        precision="fp32",
        parameters=1,
        prompts=1,
        prompts_cut=0,
    )
    checkpoint.save(path, model, unet.noise_schedule(), Whitening.from_json(real.meta.whitening), info)
    return path


def make_tokens(path, generator="gen0", train_ids=()):
    """Class tokens of random vectors."""
    from safetensors.torch import save_file

    path.mkdir()
    tokens = {label: f"<aj-{label.lower().replace(' ', '-')}>" for label in LABELS}
    g = torch.Generator().manual_seed(1)
    save_file({t: torch.randn(1, 384, generator=g) * 0.05 for t in tokens.values()}, path / checkpoint.EMBEDS)
    info = checkpoint.TokensInfo(
        fingerprint="tok0",
        generator=generator,
        text_encoder="minilm",
        tokens=tokens,
        train_ids=train_ids,
        train_steps=1,
        seed=0,
    )
    checkpoint.write_info(path / checkpoint.TOKENS, info, [path / checkpoint.EMBEDS])
    return path
