"""Stand-ins that tests share: small sounds, stores, models and results."""

import contextlib
import io
import itertools
import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import soundfile

from ajbench.core.files import sha256
from ajbench.core.recipe import Classifier, Mix, Recipe, load
from ajbench.core.rows import Context, append_rows, make_row
from ajbench.core.sealed_json import SEAL, write_sealed
from ajbench.core.section import overlay

# Copies for the leak audit to find

PLANT_RATE = 16_000
PLANT_KINDS = ("copy", "codec", "gain", "shift", "noise")


def write_clip(folder, name, wave):
    """Write a wave [n] as a 16-bit WAV file."""
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.wav", np.clip(wave, -1, 1), PLANT_RATE, subtype="PCM_16")


def add_noise(wave, rng, colour="white", snr_db=10.0):
    """Add noise, 10 dB below the clip's own level."""
    made = rng.normal(size=len(wave))
    if colour == "pink":
        spectrum = np.fft.rfft(made)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0
        made = np.fft.irfft(spectrum, len(wave))
    scale = np.sqrt(np.mean(wave.astype(np.float64) ** 2) / np.mean(made**2) / 10 ** (snr_db / 10))
    return (wave + scale * made).astype(np.float32)


def encode_lossy(wave, how):
    """Send a clip through a codec: libsndfile's at low rates, or `tiny`."""
    if how == "tiny":
        import torch

        from ajbench import codec
        from ajbench.data import audio

        tiny = codec.load("tiny")
        with torch.inference_mode():
            whole = audio.fit(wave, -(-len(wave) // 6720) * 6720)[None]
            return np.asarray(tiny.decode(tiny.encode(whole)))[0, : len(wave)].astype(np.float32)
    about = {"format": "OGG", "subtype": how.upper(), "compression_level": 1.0}
    if how == "mp3":
        about = {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": 0.9}
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, PLANT_RATE, **about)
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")[0]


def plant_copy(kind, number, wave, rng):
    """Return a copy of a wave [n] of one of PLANT_KINDS, in the number's variant (name, wave)."""
    if kind == "copy":
        return kind, wave
    if kind == "codec":
        how = ("tiny", "opus", "vorbis", "mp3")[number % 4]
        return how, encode_lossy(wave, how)
    if kind == "gain":
        return ("+6 dB", "-6 dB")[number % 2], wave * np.float32((2, 0.5)[number % 2])
    if kind == "shift":
        late = np.concatenate([np.zeros(PLANT_RATE // 5, np.float32), wave[: -PLANT_RATE // 5]])
        early = np.concatenate([wave[PLANT_RATE // 5 :], np.zeros(PLANT_RATE // 5, np.float32)])
        return ("+0.2 s", "-0.2 s")[number % 2], (late, early)[number % 2]
    colour = ("white", "pink")[number % 2]
    return colour, add_noise(wave, rng, colour)


# Outcomes of a run, for the tests of tables and report

ESC10_LABELS = [
    "chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog",
    "helicopter", "rain", "rooster", "sea_waves", "sneezing",
]  # fmt: skip
ESC10_CONTEXT = Context("evaluation", "esc10", "f0", "c0ffee", "esc10 fold 5", seconds=61.0)
RESULT_DURATION_S = 1.26


def esc10_recipe(**evaluate_keys):
    """The shipped esc10 recipe with two models, two doses and few resamples."""
    models = [{"name": name, "aug": "mx+sp"} for name in ("taltrans-small", "ast-tiny")]
    base = load("esc10", ["data.duration_s=1.26"])
    section = {"models": models, "doses": [160, 320], "bootstrap": 100, **evaluate_keys}
    return Recipe.model_validate(base.model_dump() | {"evaluate": base.evaluate.model_dump() | section})


def grid_predictions(plan, seeds=(0, 1, 2), n=80):
    """Predictions of a grid: skill grows with the dose, synthetic only is worst, classes differ."""
    from ajbench.data.labels import Scores
    from ajbench.evaluation.classification import TableCell, column_name

    n_classes = len(ESC10_LABELS)
    targets = np.eye(n_classes, dtype=np.uint8)[np.arange(n) % n_classes]
    ids = tuple(f"5-{i:03d}" for i in range(n))
    about = (targets, ids, tuple(ESC10_LABELS), ids)
    real = plan.mix.model_copy(update={"dose": 0})
    mixes = [real, Mix(real="none", dose=320), *(Mix(dose=dose) for dose in plan.evaluate.doses)]
    cells = {}
    for (m, model), (k, mix), seed in product(enumerate(plan.evaluate.models), enumerate(mixes), seeds):
        skill = (1.6 - 0.4 * m + 0.15 * k) * np.linspace(0.7, 1.5, n_classes) * (1.0 if mix.has_real else 0.4)
        rng = np.random.default_rng([m, seed])
        noise = rng.standard_normal(targets.shape) + 0.2 * rng.standard_normal(n_classes) * k
        cell = TableCell(model.name, "-", model.aug, column_name(plan.name, mix), seed)
        cells[cell] = Scores((noise + skill * targets).astype(np.float32), *about)
    return cells


def write_result_rows(path, plan, cells):
    """rows.csv as a run would leave it, classifiers and generated clips."""
    from ajbench.evaluation.classification import cell_rows, compare_to_real, measure

    found = {cell: measure(scores, resamples=100) for cell, scores in cells.items()}
    for cell, measured in found.items():
        append_rows(path, cell_rows(cell, measured, ESC10_CONTEXT))
    append_rows(path, compare_to_real(found, plan.name, ESC10_CONTEXT) + generation_rows(plan))
    return path


def generation_rows(plan):
    """Rows of four generated sets and the baselines."""
    rows = []

    def add(table, row, column, metric, value, n=160, split="eval"):
        ends = (0.85 * value, 1.15 * value)
        about = {"n": n, "features": "reference", "split": split}
        rows.append(make_row(ESC10_CONTEXT, table, row, column, metric, value, ends, **about))

    for k, name in enumerate(["img2img", *plan.evaluate.probes]):
        add("1", name, "", "fd", 21.0 + 17 * k)
        add("1", name, "", "is", 5.2 - 0.9 * k)
        if name != "unconditional":
            add("1", name, "", "kl", 0.61 + 0.8 * k, split="train")
        add("generation", name, "", "fd", 15.0 + 16 * k, split="train")
        add("generation", name, "", "fd_class", 34.0 + 15 * k, split="train")
        add("generation", name, "all", "label_agreement", 0.84 / (1 + k), split="train")
        for c, label in enumerate(ESC10_LABELS):
            share = min(0.99, (0.6 + 0.04 * c) / (1 + k))
            add("generation", name, label, "label_agreement", share, n=16, split="train")
    known = {"real, train split": 5.4, "real, two halves": 7.9, "real through the codec": 12.4}
    for row, value in (known | {"shuffled codes": 142.0, "white noise": 210.0}).items():
        add("generation", row, "", "fd", value)
    for row, value in {"real, same class": 18.0, "real, another class": 96.0}.items():
        add("generation", row, "", "fd_class", value, split="train")
    add("generation", "real, eval split", "all", "label_agreement", 0.83, n=80)
    for c, label in enumerate(ESC10_LABELS):
        add("generation", "real, eval split", label, "label_agreement", 0.65 + 0.03 * c, n=8)
    return rows


def write_result_store(folder, source="real", per_class=3, blur=0.0, parents=(), of_next_class=False):
    """A clip store of a few seconds: each class has its own pitch and rhythm; `blur` drowns it in noise.

    `parents`: clips have parents of their class, or of the next one.
    """
    from ajbench.data import audio, shards

    folder.mkdir(parents=True)
    n = audio.clip_samples(RESULT_DURATION_S)
    t = np.arange(n) / audio.SAMPLE_RATE
    real = source == "real"
    made = {"strength": 0.6 + 0.4 * (blur > 0.5), "guidance": 4.0, "seed": 7}
    records = []
    for (c, label), k in product(enumerate(ESC10_LABELS), range(per_class)):
        rng = np.random.default_rng([c, k, real])
        pulse = (np.sin(2 * np.pi * (1.5 + c) * t + k) > 0) * np.exp(-((t * (1.5 + c)) % 1) * 3)
        tone = sum(np.sin(2 * np.pi * 180 * (c + 2) * h * t) / h for h in (1, 2, 3))
        wav = (1 - blur) * 0.25 * tone * pulse + (0.01 + 0.1 * blur) * rng.standard_normal(n)
        record = {
            "clip_id": f"{source}-{label}-{k}", "path": f"audio/{label}-{k}.ogg", "source": source,
            "labels": [label], "label_ids": [c], "duration_s": RESULT_DURATION_S,
            "split": "eval" if real and k % 2 else "train", "fold": k % 2,
            "parent_id": f"real-{ESC10_LABELS[(c + of_next_class) % 10]}-{k}" if parents else None,
            "audio": audio.flac_encode(wav.astype(np.float32)),
            "codes": rng.integers(0, 1024, (8, n // audio.HOP)).astype(np.uint16),
        }  # fmt: skip
        records.append(record if real else record | made)
    shards.write_shard(folder, 0, records)
    shards.write_quarantine(folder, [])
    counts = {"train": {"expected": 21, "found": 21, "decoded": 20, "kept": 20}}
    counts["eval"] = {"expected": 10, "found": 10, "decoded": 10, "kept": 10}
    meta = {"codec": "tiny", "codec_hash": "0" * 12, "clip_samples": n, "labels": ESC10_LABELS}
    meta |= {"counts": counts if real else {}, "fingerprint": "f0", "source": source}
    shards.finish(folder, shards.StoreMeta(**meta))
    return folder


# What corpus readers leave out


def check_problems(problems, *expected):
    """Check problems against (line, clip id, word in the reason, split) each, in order."""
    found = [(problem.line, problem.clip_id, problem.split) for problem in problems]
    assert found == [(line, clip_id, split) for line, clip_id, _, split in expected]
    for problem, (_, _, word, _) in zip(problems, expected, strict=True):
        assert word in problem.reason


def prepared_store(folder, root, data):
    """Prepare the corpus in `root` for the codec that the project ships, and open the store."""
    from ajbench.core import console
    from ajbench.core.recipe import CodecSection
    from ajbench.data.store import ClipStore
    from ajbench.pipeline.prepare import prepare

    console.configure(quiet=True)
    prepare(Recipe(name="test", data=data, codec=CodecSection(name="tiny")), root, folder, fingerprint="abc")
    console.configure()
    return ClipStore.open(folder)


# The library audiomentations


def fake_audiomentations():
    """A module with the transforms that ajbench uses, which draw from the global random state as it does."""
    import random
    import types

    def transform(change):
        def make(p, **ends):
            return lambda wave, rate: (
                change(wave, random.uniform(*ends.values())) if random.random() < p else wave
            )

        return make

    def compose(transforms):
        def apply(wave, rate):
            for one in transforms:
                wave = one(wave, rate)
            return wave

        return apply

    def stretch(wave, rate):
        places = np.arange(len(wave)) * rate
        return np.interp(places, np.arange(len(wave)), wave, right=0.0).astype(np.float32)

    def add_noise(wave, amplitude):
        return wave + np.float32(amplitude) * np.random.randn(len(wave)).astype(np.float32)

    return types.SimpleNamespace(
        __version__="0",
        Compose=compose,
        TimeStretch=transform(stretch),
        PitchShift=transform(lambda wave, semitones: stretch(wave, 2 ** (semitones / 12))),
        Shift=transform(lambda wave, share: np.roll(wave, round(share * len(wave)))),
        AddGaussianNoise=transform(add_noise),
        Gain=transform(lambda wave, db: wave * np.float32(10 ** (db / 20))),
    )


# Pipelines of the corpus mini

MINI = (
    *("data.n_clips=40", "mix.real=all", "synth.n=20", "evaluate.doses=[10, 20]", "evaluate.seeds=[0]"),
    *("evaluate.controls=[]", "evaluate.synthetic_only=true", "evaluate.pools=[]"),
    "evaluate.models=[{name: taltrans-small, aug: none}, {name: taltrans-small, aug: mx+sp}]",
    "evaluate.probes={noise: {strength: 1.0, guidance: 1.0, n: 32}}",
)


def mini_pipeline(*overrides, expression="mini", base=None, **places):
    """Return the stages of a recipe on few clips; none of them is run."""
    from ajbench.pipeline.places import Places
    from ajbench.pipeline.recipe_stages import Pipeline

    return Pipeline(load(expression, [*MINI, *overrides], base), Places(**places))


TINY_HASH = "9a71329efa59f9b4"  # of the weights of the codec tiny


def given_generator(folder, train_ids=("another clip",), codec="tiny", recordings=None, codec_hash=TINY_HASH):
    """Write what checks and fingerprints read of a trained generator; return its folder."""
    folder.mkdir()
    pool = {"train_ids": list(train_ids), "train_recordings": list(recordings or train_ids)}
    (folder / "generator.json").write_text(json.dumps({**pool, "codec": codec, "codec_hash": codec_hash}))
    (folder / "unet.safetensors").write_bytes(b"weights")
    return folder


# Text encoders, with tokenizers of a few words

TEXT_ENCODER_WORDS = ("the", "sound", "of", "dog", "rain", "clock", "tick", "a", "nearby", "cat")
TEXT_ENCODER_DIMS = {"t5-large": 20, "flan-t5": 20, "clip": 24, "clap": 16}  # width of the states


def save_text_encoder(kind, folder, **how):
    """Write a small random model of TEXT_ENCODER_DIMS into `folder`, as transformers saves it on the hub."""
    import torch

    with torch.random.fork_rng([]):
        torch.manual_seed(len(kind))
        model, tokenizer = {"clip": _small_clip, "clap": _small_clap}.get(kind, _small_t5)(kind)
        for parameter in model.parameters():  # biases and norms too, so that each matters
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder, **how)
    tokenizer.save_pretrained(folder)
    return folder


def _small_t5(kind):
    from transformers import T5Config, T5ForConditionalGeneration, T5TokenizerFast

    pieces = [
        "<pad>",
        "</s>",
        "<unk>",
        "▁",
        *(f"▁{w}" for w in TEXT_ENCODER_WORDS),
        ",",
        *"abcdefghijklmnopqrstuvwxyz<>-_",
    ]
    vocab = [(piece, -float(place)) for place, piece in enumerate(pieces)]
    tokenizer = T5TokenizerFast(vocab=vocab, extra_ids=4)
    config = T5Config(
        vocab_size=len(tokenizer) + 3,  # the table on the hub has more rows than there are words
        d_model=20,
        d_kv=5,
        d_ff=32,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu" if kind == "flan-t5" else "relu",
        tie_word_embeddings=kind != "flan-t5",
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config), tokenizer


def save_sentence_encoder(kind, folder, **how):
    """Write a small random sentence encoder (t5, bert) as sentence-transformers saves it, and return it.

    `how`: pooling, activation, lower (case), normalised.
    """
    import torch
    from sentence_transformers import SentenceTransformer, models

    plain = folder.with_name(f"{folder.name}-plain")
    if kind == "t5":
        save_text_encoder("t5", plain)
    else:
        _save_small_bert(plain)
    words = models.Transformer(str(plain), max_seq_length=12)
    width = {"t5": 20, "bert": 16}[kind]
    parts = [words, models.Pooling(width, pooling_mode=how.get("pooling", "mean"))]
    if kind == "t5":
        activation = how.get("activation", torch.nn.Identity)()
        parts.append(models.Dense(width, 8, bias=how.get("bias", False), activation_function=activation))
    if how.get("normalised", True):
        parts.append(models.Normalize())
    model = SentenceTransformer(modules=parts, device="cpu")
    model.save(str(folder))
    return model


def _save_small_bert(folder):
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], *TEXT_ENCODER_WORDS, *letters]
    pieces = list(dict.fromkeys([*pieces, *(f"##{letter}" for letter in letters)]))
    (folder / "vocab.txt").write_text("\n".join(pieces))
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng([]):
        torch.manual_seed(4)
        model = BertModel(BertConfig(vocab_size=len(pieces), max_position_embeddings=32, **layers))
    model.save_pretrained(folder)
    BertTokenizerFast(vocab={piece: n for n, piece in enumerate(pieces)}).save_pretrained(folder)


def _small_clip(kind):
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz,<>-_0123456789"
    pieces, merges = [*letters, *(f"{letter}</w>" for letter in letters)], []
    for word in TEXT_ENCODER_WORDS:
        _add_merges([*word[:-1], f"{word[-1]}</w>"], pieces, merges)
    vocab = {piece: place for place, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizerFast(vocab=vocab, merges=merges)
    layers = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        "vocab_size": len(vocab),
        "hidden_size": TEXT_ENCODER_DIMS[kind],
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **layers,
    }
    vision = {"hidden_size": 16, "image_size": 8, "patch_size": 4, **layers}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)), tokenizer


def _small_clap(kind):
    from transformers import ClapConfig, ClapModel, RobertaTokenizerFast

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces, merges = [*"abcdefghijklmnopqrstuvwxyz,<>-_0123456789TĠ"], []
    for word in TEXT_ENCODER_WORDS:
        _add_merges([*f"Ġ{word}"], pieces, merges)
    vocab = {piece: place for place, piece in enumerate([*specials, *pieces, "<mask>"])}
    tokenizer = RobertaTokenizerFast(vocab=vocab, merges=merges)
    text = {
        "vocab_size": len(vocab),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "projection_dim": 8,
    }
    audio = {
        "spec_size": 32,
        "num_mel_bins": 8,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "window_size": 4,
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "projection_dim": 8,
    }
    return ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=8)), tokenizer


def _add_merges(symbols, pieces, merges):
    """Add the merges that make one piece of a word's symbols, from the left."""
    while len(symbols) > 1:
        pair = (symbols[0], symbols[1])
        if pair not in merges:
            merges.append(pair)
            pieces.append("".join(pair))
        symbols = ["".join(pair), *symbols[2:]]


# Sounds


def noise(seconds, rate, clips=2, seed=0):
    """Return white noise [clips, n], float32; each clip is 0.02 louder than the one before."""
    rng = np.random.default_rng(seed)
    level = 0.02 * np.arange(1, clips + 1)[:, None]
    return (level * rng.normal(size=(clips, int(seconds * rate)))).astype(np.float32)


class Unsafe:
    """What a malicious pickle holds: reading it would create the file `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


def flip_bit(path):
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_in(path, text, bit=1):
    """Change a low bit of the last byte of `text`, which is in the file once, for instance of a digit."""
    content = path.read_bytes()
    assert content.count(text.encode()) == 1
    place = content.index(text.encode()) + len(text.encode()) - 1
    path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])


def reseal(path, **changes):
    """Change keys of a JSON file and seal it again, as a stranger can."""
    tree = json.loads(path.read_text()) | changes
    write_sealed(path, {key: value for key, value in tree.items() if key != SEAL})


# Stores of two classes that a classifier learns in seconds, and trainings on them

HUM_SAMPLES = 21 * 320
HUM_LABELS = ["Hum", "Hiss"]


def hum_record(i, **changes):
    """The record of clip i, a hum if i is even and a hiss if it is odd; every third one is an eval clip."""
    from ajbench.data import audio

    label, rng = i % 2, np.random.default_rng([i, i % 2])
    hum = np.sin(2 * np.pi * rng.uniform(200, 400) * np.arange(HUM_SAMPLES) / 16_000)
    wave = 0.3 * (hum if label == 0 else rng.normal(0, 0.5, HUM_SAMPLES))
    values = {
        "clip_id": f"clip-{i}", "path": f"{i}.wav", "labels": [HUM_LABELS[label]], "label_ids": [label],
        "split": "eval" if i % 3 == 2 else "train", "audio": audio.flac_encode(wave.astype(np.float32)),
        "codes": np.zeros((8, 21), np.uint16),
    }  # fmt: skip
    return values | changes


def hum_store(folder, records, **meta):
    """Write records as a store and open it."""
    from ajbench.data import shards, store

    folder.mkdir()
    shards.write_shard(folder, 0, records)
    values = {"codec": "fake", "codec_hash": "00", "clip_samples": HUM_SAMPLES, "labels": HUM_LABELS}
    shards.finish(folder, shards.StoreMeta(**(values | {"fingerprint": "f"} | meta)))
    return store.ClipStore.open(folder)


def hum_recipe(mix=None, **classifier):
    """A recipe whose training takes twelve steps, in fp32, as tests compare bits."""
    values = {
        "name": "taltrans-small", "train_steps": 12, "batch_size": 8, "warmup_steps": 2, "precision": "fp32",
        "checkpoint_every": 5, "lr": 2e-3, "specaug_time": 4, "specaug_freq": 8,
    }  # fmt: skip
    return Recipe(name="t", mix=mix or Mix(), classifier=Classifier(**overlay(values, classifier)))


def fit_hum(recipe, real, synthetic, out, seed=1, fingerprint="abc", **options):
    """Train a classifier and return its folder."""
    from ajbench.classifiers.train import train_classifier

    return train_classifier(recipe, real, synthetic, out, seed=seed, fingerprint=fingerprint, **options)


def watch_gradients(module, path):
    """Let the optimiser of a training module save the gradients before each step: name → gradient, a list."""
    import torch

    make, seen = module._optimizer, []

    def optimizer(section, model):
        made = make(section, model)

        def save(*_):
            seen.append(
                {
                    name: p.grad.to("cpu", copy=True)
                    for name, p in model.named_parameters()
                    if p.grad is not None
                }
            )
            torch.save(seen, path)

        made.register_step_pre_hook(save)
        return made

    module._optimizer = optimizer


def classifier_weights(folder, file="model.safetensors"):
    from safetensors.torch import load_file

    return load_file(folder / file)


def weight_difference(one, other):
    """Return the largest difference of the weights in two folders: 0 where they have the same bits."""
    a, b = classifier_weights(one), classifier_weights(other)
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def save_classifier(folder, name="taltrans-small", labels=HUM_LABELS, clip_samples=HUM_SAMPLES, **options):
    """Save an untrained classifier as the trainer does, and return it."""
    from ajbench import classifiers

    if name.startswith("ast"):
        options = {"clip_samples": clip_samples} | options
    module = classifiers.build(name, len(labels), **options).eval()
    about = {"name": name, "labels": labels, "clip_samples": clip_samples, "options": options}
    classifiers.save(module, folder, **about, extra={})
    return module


def count_parameters(module):
    return sum(p.numel() for p in module.parameters())


def build_small_ast(init, classes=5, **options):
    """Build an AST of the shape of `random_transformers_ast` on clips of 0.84 s, with weights of `init`."""
    from ajbench import classifiers

    shape = {"dim": 24, "depth": 2, "heads": 2, "clip_samples": 13_440}
    return classifiers.build("ast", classes, init=str(init), **(shape | options))


# EnCodec's network, small and with random weights

ENCODEC_SAMPLES = 21 * 640  # 42 frames at 16 kHz, 63 at 24 kHz


def small_encodec(seed=0, n_q=32):
    """EnCodec's 24 kHz network with 4 instead of 32 filters, and codebooks that shrink by 2 per stage."""
    import warnings

    import torch
    from encodec import EncodecModel
    from encodec.modules import SEANetDecoder, SEANetEncoder
    from encodec.quantization import ResidualVectorQuantizer

    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        how = {"channels": 1, "n_filters": 4, "norm": "weight_norm", "causal": True}
        parts = SEANetEncoder(**how), SEANetDecoder(**how), ResidualVectorQuantizer(128, n_q, 1024)
        model = EncodecModel(*parts, [1.5, 3.0, 6, 12.0, 24.0], 24_000, 1).eval()
        books = [layer._codebook for layer in model.quantizer.vq.layers]
        spread_codebooks(books, model.encoder)
        for book in books:
            book.inited.fill_(1)
    return model


def spread_codebooks(books, encoder):
    """Draw codebooks from the range of the encoder, so that many different entries are used."""
    import torch

    with torch.no_grad():
        spread, mean = torch.std_mean(encoder(encodec_waves(4)[:, None]), (0, 2))
        for stage, book in enumerate(books):
            book.embed.copy_(torch.randn(1024, 128) * spread * 0.5**stage)
        books[0].embed.add_(mean)


def encodec_waves(batch, n=ENCODEC_SAMPLES, seed=0):
    """Return beating tones with noise, float32 [batch, n]."""
    import torch

    rng = np.random.default_rng(seed)
    t = np.arange(n) / 16_000
    pitch, beat = rng.uniform(100, 4000, (batch, 1)), rng.uniform(1, 9, (batch, 1))
    tones = np.sin(2 * np.pi * pitch * t) * np.sin(2 * np.pi * beat * t)
    return torch.from_numpy((0.3 * tones + 0.02 * rng.normal(size=(batch, n))).astype(np.float32))


# Processes launched together, as by torchrun

LAUNCH_PRELOAD = ["ajbench.classifiers.train", "timm", "accelerate", "torch._dynamo"]


def launch(target, arguments, processes=2):
    """Run target(rank, *arguments) in processes that share their imports, which take most of the time."""
    import multiprocessing

    import torch

    multiprocessing.set_forkserver_preload(LAUNCH_PRELOAD)
    torch.multiprocessing.start_processes(target, arguments, processes, start_method="forkserver")


def join_launch(rank, processes, port, cpu=True):
    """Set the environment that torchrun gives to one of its processes."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": str(cpu).lower(),
    }  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Trained weights by others


def random_transformers_ast(folder, classes=5, spread=0.1, **options):
    """Save transformers' AST with random weights everywhere, also in norms and tokens, and return it."""
    import torch
    from transformers import ASTConfig, ASTForAudioClassification

    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    config = ASTConfig(num_labels=classes, **({"max_length": 128} | small | options))
    model = ASTForAudioClassification(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * spread)
    model.save_pretrained(folder)
    return model


def set_config(folder, **keys):
    """Change keys of the config.json in a folder."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


# A codec, a real store and a generator that are small enough to generate many clips

CLIP_FRAMES = 42  # a grid of 2 × 21
CLIP_SAMPLES = CLIP_FRAMES * 320
SMALL_LABELS = ("Dog", "Rain", "Clock tick")
SMALL_UNET = {"widths": (32, 64), "attention": (False, True), "layers": 1, "heads": 2, "pooled": True}
N_TRAIN, N_EVAL = 12, 3


class FakeCodec:
    """Random residual codebooks and a random linear frame decoder, with the interface of `ajbench.codec`."""

    name, weights_hash = "fake", "fa4e"
    sample_rate, hop, n_codebooks, dim = 16_000, 320, 8, 128

    def __init__(self):
        import torch

        g = torch.Generator().manual_seed(5)
        scale = 0.6 ** torch.arange(8.0)
        self.books = torch.randn(8, 1024, 128, generator=g) * scale[:, None, None]
        self.frame = torch.randn(128, 320, generator=g) * 0.002

    def to(self, device):
        self.books, self.frame = self.books.to(device), self.frame.to(device)
        return self

    def latents(self, codes):
        import torch

        index = torch.as_tensor(np.asarray(codes).astype(np.int64))
        return sum(self.books[k][index[:, k]] for k in range(8)).transpose(1, 2)

    def quantize(self, latents):
        import torch

        rest = latents.to(self.books.device).transpose(1, 2).contiguous()
        codes = []
        for book in self.books:
            codes.append(torch.cdist(rest, book.expand(len(rest), -1, -1)).argmin(-1))
            rest = rest - book[codes[-1]]
        return torch.stack(codes, 1).cpu().numpy().astype(np.uint16)

    def decode_latents(self, latents):
        return (latents.to(self.frame.device).transpose(1, 2) @ self.frame).flatten(1)

    def decode(self, codes):
        return self.decode_latents(self.latents(codes))

    def encode(self, wav):
        import torch

        frames = torch.as_tensor(wav).to(self.frame.device).unflatten(1, (-1, 320))
        return self.quantize((frames @ torch.linalg.pinv(self.frame)).transpose(1, 2))


def small_recipe(**sections):
    """Return the default recipe with short trainings, few tokens and few steps; keywords change sections."""
    short = {"batch_size": 4, "checkpoint_every": 2}
    generator = {"max_tokens": 12, "precision": "fp32"}  # tests compare bits and gradients
    # Latents of hardly trained generators are far from all codewords of FakeCodec, and would be clipped.
    synth = {"decode": "codes"}
    base = {
        "generator": generator | short | {"train_steps": 6, "warmup_steps": 2},
        "invert": short | {"train_steps": 4},
        "synth": synth | {"n": 30, "sampler_steps": 5, "micro_batch": 4, "shard_size": 6, "guidance": 2.0},
    }
    tree = sections | {name: base[name] | sections.get(name, {}) for name in base}
    return Recipe.model_validate({"name": "small"} | tree)


def make_store(path, train=N_TRAIN, evaluated=N_EVAL, captions=0, prefix="clip", val=0, recordings=None):
    """Write a real store of clips with one or two classes; codes come from their class' part of the books.

    Clips with even numbers have `captions` captions, others one, if any. `recordings` maps numbers of clips
    to what they were cut from.
    """
    from ajbench.codec.whitening import Whitening
    from ajbench.data import audio, shards
    from ajbench.data.store import ClipStore

    rng, codec = np.random.default_rng(3), FakeCodec()
    path.mkdir(parents=True)
    records = []
    for i, split in enumerate(["train"] * train + ["val"] * val + ["eval"] * evaluated):
        classes = [i % 3] if i % 4 else [i % 3, (i + 1) % 3]
        codes = (rng.integers(0, 300, (8, CLIP_FRAMES)) + 300 * classes[0]).astype(np.uint16)
        labels = [SMALL_LABELS[k] for k in classes]
        caption = f"{labels[0]} nearby, recording {i}" if captions else None
        record = {"clip_id": f"{prefix}{i:02d}", "path": f"{i}.wav", "split": split, "caption": caption}
        record |= {"labels": labels, "label_ids": classes, "codes": codes}
        record["recording"] = (recordings or {}).get(i)
        record["more_captions"] = [f"{caption}, take {k}" for k in range(2, captions + 1) if i % 2 == 0]
        records.append(record | {"audio": audio.flac_encode(codec.decode(codes[None])[0].numpy())})
    shards.write_shard(path, 0, records)
    whitening = Whitening.fit([codec.latents(np.stack([r["codes"] for r in records[:train]]))])
    counts = {"train": {"kept": train}, "eval": {"kept": evaluated}}
    about = {"codec": codec.name, "codec_hash": codec.weights_hash, "clip_samples": CLIP_SAMPLES}
    about |= {"labels": list(SMALL_LABELS), "counts": counts, "whitening": whitening.to_json()}
    shards.finish(path, shards.StoreMeta(**about, fingerprint="real"))
    return ClipStore.open(path)


def build_small_unet(text_dim=384, pooled=True, **how):
    """Build SMALL_UNET with random weights; keywords are those of `unet.build`."""
    import pytest

    from ajbench.generation import unet

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(unet.PRESETS, "tiny", SMALL_UNET | {"pooled": pooled})
        return unet.build("tiny", text_dim, **how)


def make_generator(path, real, mask=False, text_encoder="minilm", width=384):
    """Write a generator with random weights that depends more on its condition than a fresh U-Net does."""
    import torch

    from ajbench.codec.whitening import Whitening
    from ajbench.generation import checkpoint, unet

    model = build_small_unet(width)
    with torch.no_grad():
        model.encoder_hid_proj.weight *= 20
        model.conv_out.weight *= 5
    text = {"text_encoder": text_encoder, "max_tokens": 12, "mask": mask, "prompts": 1, "prompts_cut": 0}
    clips = {"codec": "fake", "codec_hash": "fa4e", "clip_samples": CLIP_SAMPLES, "frames": CLIP_FRAMES}
    training = {"train_steps": 1, "seed": 0, "precision": "fp32", "parameters": 1}
    ids, recordings = checkpoint.named(real, real.split_indices("train"))
    about = {"fingerprint": "gen0", "preset": "tiny", "labels": SMALL_LABELS}
    about |= {"train_ids": ids, "train_recordings": recordings}
    info = checkpoint.GeneratorInfo(**about, **text, **clips, **training)
    checkpoint.save(path, model, unet.noise_schedule(), Whitening.from_json(real.meta.whitening), info)
    return path


def make_tokens(path, generator="gen0", train_ids=("another clip",)):
    """Write class tokens with random vectors."""
    import torch
    from safetensors.torch import save_file

    from ajbench.generation import checkpoint

    path.mkdir()
    tokens = {label: f"<aj-{label.lower().replace(' ', '-')}>" for label in SMALL_LABELS}
    g = torch.Generator().manual_seed(1)
    save_file({t: torch.randn(1, 384, generator=g) * 0.05 for t in tokens.values()}, path / checkpoint.EMBEDS)
    about = {"fingerprint": "tok0", "generator": generator, "text_encoder": "minilm"}
    about |= {"train_ids": train_ids, "train_recordings": train_ids}
    info = checkpoint.TokensInfo(**about, tokens=tokens, train_steps=1, seed=0)
    checkpoint.write_info(path / checkpoint.TOKENS, info, [path / checkpoint.EMBEDS])
    return path


def make_synthesis_inputs(folder):
    """Write what `synthesize_small` needs, and make this process quiet and single-threaded."""
    import torch

    from ajbench.core import console

    torch.set_num_threads(1)
    console.configure(quiet=True)
    make_generator(folder / "generator", make_store(folder / "real"))
    make_tokens(folder / "tokens")


def synthesize_small(folder, name, codec=None, **how):
    """Synthesise 14 clips into a subfolder, and return the digests of its files."""
    from ajbench.data.store import ClipStore
    from ajbench.generation.synthesize import synthesize

    recipe = small_recipe(synth={"n": 14, "sampler_steps": 4})
    paths = folder / "generator", folder / "tokens", folder / name
    codec = codec or FakeCodec()
    synthesize(recipe, ClipStore.open(folder / "real"), *paths, fingerprint="small", codec=codec, **how)
    return store_digests(folder / name)


def run_script(command, **variables):
    """Run a command whose processes can import the tests' modules, and return its finished process."""
    tests = Path(__file__).parent
    paths = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done


def store_digests(folder):
    """Return name → SHA-256 of the files of a finished store, except for the times it took."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and ".claims" not in path.parts)
    return {path.name: sha256(path) for path in files if path.name != "timing.csv"}


# Extractors without weights, and folders of small sounds for them

KINDS = ("bell", "dog", "rain", "siren", "train", "wind")
CHORD_RATE, CHORDS = 16_000, 24
KIND_CLIPS = 24


class BandExtractor:
    """Log levels of ten bands as features, and sums of them as logits of five classes."""

    name, labels, mids, weights_hash = "bands", tuple("abcde"), None, "w1"
    sample_rate, min_samples, max_samples = 16_000, 240, None
    classes, frames, texts, seen = True, False, False, 0
    mix = 0.4 * np.random.default_rng(3).normal(size=(10, 5)).astype(np.float32)

    def __call__(self, wav):
        self.seen += len(wav)
        power = np.abs(np.fft.rfft(np.asarray(wav), axis=1)) ** 2 / wav.shape[1]
        edges = np.geomspace(40, power.shape[1], 11).astype(int)
        bands = np.stack([power[:, a:b].mean(axis=1) for a, b in itertools.pairwise(edges)], axis=1)
        features = np.log10(bands + 1e-5).astype(np.float32)
        return features, features @ self.mix


class FrameExtractor(BandExtractor):
    """The same of four pieces of a clip, without logits."""

    name, labels, classes, frames = "vggish", (), False, True

    def __call__(self, wav):
        pieces = np.split(np.asarray(wav), 4, axis=1)
        features = np.stack([BandExtractor.__call__(self, piece)[0] for piece in pieces], axis=1)
        return features, np.zeros((len(wav), 0), np.float32)


class EnvelopeExtractor:
    """Levels of eight pieces as features, sums of them as logits of KINDS; texts by their letters."""

    name, labels, mids, weights_hash = "envelope", KINDS, None, "w1"
    sample_rate, min_samples, max_samples = 16_000, 240, None
    classes, frames, texts, seen = True, False, True, 0
    mix = np.random.default_rng(3).normal(size=(8, 6)).astype(np.float32)

    def __call__(self, wav):
        self.seen += len(wav)
        pieces = np.stack([part.std(axis=1) for part in np.array_split(np.asarray(wav), 8, axis=1)], axis=1)
        return pieces.astype(np.float32), (np.log(pieces + 1e-3) @ self.mix).astype(np.float32)

    def text(self, texts):
        letters = [[text.count(letter) for letter in "abcdeirt"] for text in texts]
        return np.array(letters, np.float32) + 0.5


class ClasslessExtractor(EnvelopeExtractor):
    """The same without classes and texts."""

    name, labels, classes, texts = "encodec", (), False, False

    def __call__(self, wav):
        features, logits = super().__call__(wav)
        return features, logits[:, :0]


def write_chord(path, seed, seconds=0.5, rate=CHORD_RATE):
    """Write a chord of decaying harmonics with its own pitch and colour."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch, fall = rng.uniform(200, 900), rng.uniform(0.3, 2)
    wave = sum(np.sin(2 * np.pi * pitch * k * t + k) / k**fall for k in range(1, 8))
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * rng.uniform(0.3, 1) * wave * np.exp(-2 * t) + 1e-4 * rng.normal(size=len(t))
    soundfile.write(path, wave, rate, subtype="PCM_16")


def write_chords(folder, n=CHORDS):
    """Write folders gen and ref of chords with the same names."""
    for k in range(n):
        write_chord(folder / "gen" / f"clip-{k:02d}.wav", k)
        write_chord(folder / "ref" / f"clip-{k:02d}.wav", 1000 + k)
    return folder


def write_envelope(path, seed, seconds=0.25, rate=16_000, loudest=0.3):
    """Write noise under a random envelope."""
    rng = np.random.default_rng(seed)
    n = int(seconds * rate)
    envelope = np.interp(np.arange(n), np.linspace(0, n, 9), rng.uniform(0.02, loudest, 9))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, rng.normal(size=n) * envelope * 0.3, rate, subtype="PCM_16")


def write_kinds(folder):
    """Write gen and ref, four clips of each kind in a subfolder of its name, and captions.csv."""
    names = [f"{KINDS[k % 6]}/clip-{k}" for k in range(KIND_CLIPS)]
    for k, name in enumerate(names):
        write_envelope(folder / "gen" / f"{name}.wav", k)
        write_envelope(folder / "ref" / f"{name}.wav", 100 + k, loudest=0.2)
    lines = [f"{name},a {name.split('/')[0]} in the distance" for name in names]
    (folder / "captions.csv").write_text("\n".join(["clip,caption", *lines, "dog/clip-1,barking"]))
    return folder


def pair_of(folder, extractor=None, protocol="ajbench", labels="parent", **more):
    """Pair the clips of the folders gen and ref in a folder, with captions if they are there."""
    from ajbench.data import annotations
    from ajbench.data.clip_set import open_set
    from ajbench.evaluation import protocols
    from ajbench.evaluation.set_pair import SetPair

    gen, ref = open_set(folder / "gen"), open_set(folder / "ref")
    given = {"extractor": extractor or EnvelopeExtractor(), "protocol": protocols.find(protocol)}
    given |= {"cache": folder / "cache", "task": ""}
    if labels:
        given["requests"] = annotations.read_requests(gen, labels)
    if (folder / "captions.csv").exists():
        given["captions"] = annotations.read_captions(gen, folder / "captions.csv")
    return SetPair(**({"gen": gen, "ref": ref} | given | more))


def measured(pair, metrics=None, **more):
    """Return the comparison of a pair."""
    from ajbench.evaluation import compare

    return compare.measure(pair, compare.choose(pair, metrics), **more)


def overall(found):
    """Return metric → value over all clips."""
    return {row["metric"]: row["value"] for row in found.rows if not row["of"]}


def save_untrained_classifier(folder, labels, samples):
    """Save a classifier of random weights and return its folder."""
    from ajbench import classifiers

    about = {"name": "taltrans-small", "labels": list(labels), "clip_samples": samples, "options": {}}
    classifiers.save(classifiers.build("taltrans-small", len(labels)), folder, **about, extra={})
    return folder


# Watching and stopping the code under test


@contextmanager
def stopped_at(owner, name, call, after=False):
    """Let a function raise at its `call`-th call (or `after` it); the block must end by that."""
    import pytest

    plain, calls = getattr(owner, name), itertools.count(1)

    def stopping(*arguments, **options):
        stop = next(calls) == call
        result = None if stop and not after else plain(*arguments, **options)
        if stop:
            raise RuntimeError("stopped by the test")
        return result

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="stopped by the test"):
        patch.setattr(owner, name, stopping)
        yield


@contextmanager
def results_of(owner, name):
    """Yield a list that collects what a function returns within the block."""
    import pytest

    plain, results = getattr(owner, name), []

    def recording(*arguments, **options):
        results.append(plain(*arguments, **options))
        return results[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, recording)
        yield results


def flagged_audit(n, clips=200, kinds=("near",), relation="leak", origins=None):
    """Return an audit in which n clips are flagged; 100 real clips calibrate it."""
    from ajbench.evaluation.audit_findings import Audit, Calibration, Finding

    found = [Finding(relation, f"s{k}", f"e{k}", kinds, False) for k in range(n)]
    calibration = Calibration("near", "eval", np.zeros(100), np.zeros(clips), 1.0, 1)
    origins = origins or {f"s{k}": f"s{k}" for k in range(clips)}
    return Audit(found, [calibration], {"synth": clips, "train": 120, "eval": 50}, [], 0, origins)


def audit_of_standouts(real, synthetic, origins=None, relation="leak"):
    """Return the audit of real and synthetic clips with these standouts, [views, m] and [views, n]."""
    from ajbench.evaluation.audit_findings import SETS, SHARE, Audit, Calibration, Finding
    from ajbench.metrics.standout import threshold

    found, calibrations = [], []
    for view, mine, theirs in zip(("near", "embedding"), real, synthetic, strict=False):
        limit, rank = threshold(mine, SHARE / len(real))
        calibrations.append(Calibration(view, SETS[relation][1], mine, theirs, limit, rank))
        found += [Finding(relation, f"s{k}", "e", (view,), False) for k in np.flatnonzero(theirs > limit)]
    origins = origins or {f"s{k}": f"s{k}" for k in range(synthetic.shape[1])}
    sizes = {"synth": synthetic.shape[1], "train": real.shape[1], "eval": 80}
    return Audit(found, calibrations, sizes, [], 0, origins)


# Stores of hums and hisses with video tokens

VIDEO_SHAPE = (3, 6)  # windows and width


def video_record(i):
    """`hum_record` with a visual caption, and tokens that tell the label; every fifth clip has no video."""
    record = hum_record(i, visual_caption=hum_captions(i), video=f"{i}.mp4" if i % 5 != 4 else None)
    tokens = np.random.default_rng([i, 7]).normal(0, 0.5, VIDEO_SHAPE)
    tokens[:, record["label_ids"][0]] += 3.0
    return record | ({"video_tokens": tokens} if record["video"] else {})


def hum_captions(i):
    """The visual caption of clip i of `hum_record`: of its label, but for every fourth of the other one."""
    seen = (i % 2) ^ (i % 4 == 3)
    return ["a humming machine on a table", "steam that hisses out of a pipe"][seen]


def video_store(folder, records, **meta):
    """Write records with video tokens as a store and open it."""
    from ajbench.data import shards, store

    folder.mkdir(parents=True, exist_ok=True)
    windows, width = VIDEO_SHAPE
    shards.write_shard(folder, 0, records, windows * width)
    counts = {}
    for split in ("train", "eval"):
        there = [record["video"] is not None for record in records if record["split"] == split]
        counts[split] = {"usable": sum(there), "missing": len(there) - sum(there), "undecodable": 0}
    values = {"codec": "fake", "codec_hash": "00", "clip_samples": HUM_SAMPLES, "labels": HUM_LABELS}
    values["extra"] = {"video": {"windows": windows, "width": width, "counts": counts}}
    shards.finish(folder, shards.StoreMeta(**(values | {"fingerprint": "f"} | meta)))
    return store.ClipStore.open(folder)


# Captions tables


class FakeLanguageModel:
    """A caption backend that answers with `answer(prompt)`; an `Answer`, or a text."""

    name, model, model_hash = "fake", "fake-1", "0123456789abcdef"

    def __init__(self, answer=None):
        self.answer, self.prompts, self.options = answer, [], []

    def complete(self, prompts, **options):
        from ajbench.captions.backends import Answer

        self.prompts += prompts
        self.options.append(options)
        # The input is the last line before "Response:".
        made = [self.answer(one) if self.answer else f"I hear {one.splitlines()[-2]}" for one in prompts]
        return [Answer(one, None) if isinstance(one, str) else one for one in made]


def caption_rows(n=12, **more):
    """Return n rows of a manifest with one, two or three labels."""
    from ajbench.data.manifest import Row

    names = "Dog", "Rain", "Church bell"
    return [Row(f"c{i:04d}", "", labels=names[: 1 + i % 3], recording=f"r{i:04d}", **more) for i in range(n)]


def caption_table_of(folder, texts, kind="audio"):
    """Write a captions table of clip id → text."""
    from ajbench.captions import caption_table

    rows = [{"clip_id": clip, "kind": kind, "text": text, "backend": "rule"} for clip, text in texts.items()]
    caption_table.start(folder, "key", force=True)
    caption_table.fill(folder, lambda: [(0, rows)], 1, lambda rows: rows, lambda _: None)
    caption_table.finish(folder, 1, {"fingerprint": "key", "counts": {}})
    return folder


def save_captioner(kind, folder):
    """Write a small random image captioner (blip, blip-2, git) into `folder`, as transformers saves it."""
    import torch
    import transformers as tf

    words = [*(f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")), *"abcdefghijk"]
    tokenizer = tf.BertTokenizerFast(vocab={word: place for place, word in enumerate(words)})
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    layer = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    image = {**layer, "image_size": 16, "patch_size": 8}
    special = {"vocab_size": len(tokenizer), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    size = {"height": 16, "width": 16}
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        if kind == "blip":
            text = {**layer, **special, "encoder_hidden_size": 16, "sep_token_id": 3}
            config = tf.BlipConfig(
                text_config=text, vision_config=image, projection_dim=8, image_text_hidden_size=16
            )
            model = tf.BlipForConditionalGeneration(config)
            processor = tf.BlipProcessor(tf.BlipImageProcessor(size=size), tokenizer)
        elif kind == "git":
            model = tf.GitForCausalLM(
                tf.GitConfig(vision_config=image, max_position_embeddings=64, **layer, **special)
            )
            resize = tf.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size)
            processor = tf.GitProcessor(resize, tokenizer)
        else:
            text = {**special, "model_type": "opt", "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 1}
            text |= {"num_attention_heads": 2, "word_embed_proj_dim": 16, "max_position_embeddings": 64}
            former = {**layer, "vocab_size": len(words), "encoder_hidden_size": 16}
            former["cross_attention_frequency"] = 1
            parts = {"vision_config": image, "qformer_config": former, "text_config": text}
            config = tf.Blip2Config(**parts, num_query_tokens=2, image_token_index=len(words))
            model = tf.Blip2ForConditionalGeneration(config)
            processor = tf.Blip2Processor(tf.BlipImageProcessor(size=size), tokenizer, num_query_tokens=2)
        for parameter in model.parameters():  # so that different images have different captions
            parameter.data += 0.5 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


# Videos made with PyAV


def video_bytes(
    shots, size=(48, 64), container="mp4", sound_s=0.0, rate=16_000, turn=0, codec="libx264", tone=440.0
):
    """A video as bytes: `shots` are (time in s, grey level or RGB image), `sound_s` seconds of a tone.

    `turn`: degrees counter-clockwise by which players turn it, as phones write.
    """
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format={"mkv": "matroska"}.get(container, container)) as file:
        tracks = []
        if shots:
            picture = file.add_stream(codec, rate=25)
            picture.height, picture.width = size
            picture.pix_fmt = "yuv420p"
            if container != "avi":
                picture.codec_context.time_base = Fraction(1, 1000)
            if codec == "libx264":
                picture.options = {"crf": "10", "g": "5", "bf": "2"}
            if turn:
                picture.set_display_rotation(turn)
            tracks.append(
                (picture, _pictures(shots, size, picture.codec_context.time_base or Fraction(1, 25)))
            )
        if sound_s:
            name = {"avi": "pcm_s16le", "webm": "libopus"}.get(container, "aac")
            rate = 48_000 if name == "libopus" else rate
            sound = file.add_stream(name, rate=rate, layout="mono")
            tracks.append((sound, _tone_blocks(round(sound_s * rate), rate, tone)))
        packets = []
        for stream, made in tracks:
            for frame in made:
                packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda one: float((one.dts or 0) * one.time_base)):
            file.mux(packet)
    return buffer.getvalue()


def _pictures(shots, size, base):
    import av

    for time, shot in shots:
        image = np.full((*size, 3), shot, np.uint8) if np.isscalar(shot) else shot
        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        frame.pts, frame.time_base = round(time / base), base
        yield frame


def _tone_blocks(n, rate, tone):
    import av

    wave = (0.3 * np.sin(2 * np.pi * tone * np.arange(n) / rate) * 32767).astype(np.int16)
    for start in range(0, n, 960):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 960], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield frame


def broken_videos(seed=0, n=50):
    """n bad or odd videos: (kind, suffix, bytes, usable pictures, whole sound); None where chance decides."""
    rng = np.random.default_rng(seed)
    made = {}

    def clip(sound=2.0, fps=25, size=(48, 64), seconds=2.0, container="mp4", turn=0):
        key = sound, fps, size, seconds, container, turn
        if key not in made:
            shots = [(k / fps, int(255 * k / fps / seconds)) for k in range(round(fps * seconds))]
            made[key] = video_bytes(shots, size, container, sound, turn=turn)
        return made[key]

    def damaged(whole):
        """Overwrite bytes of the media, not of the index at the end."""
        content, start = bytearray(whole), whole.index(b"mdat") + 4
        span = slice(start + 200, start + (whole.index(b"moov") - start) * 9 // 10)
        content[span] = rng.integers(0, 256, len(content[span]), np.uint8).tobytes()
        return bytes(content)

    kinds = {
        "cut mp4": lambda: (".mp4", clip()[: int(rng.uniform(0.1, 0.9) * len(clip()))], False, False),
        "cut mkv": lambda: (
            ".mkv", clip(container="mkv")[: int(rng.uniform(0.3, 0.6) * len(clip(container="mkv")))],
            None, False,
        ),
        "damaged": lambda: (".mp4", damaged(clip()), None, None),
        "no audio stream": lambda: (".mp4", clip(sound=0.0), True, False),
        "no video stream": lambda: (".mp4", video_bytes([], sound_s=2.0), False, True),
        "zero length": lambda: (".mp4", b"", False, False),
        "renamed text": lambda: (".mp4", b"not a video\n" * int(rng.integers(1, 999)), False, False),
        "1 frame": lambda: (".mp4", video_bytes([(0.0, 90)], sound_s=2.0), True, True),
        "240 fps": lambda: (".mp4", clip(fps=240), True, True),
        "odd size": lambda: (".mp4", clip(size=(46, 34)), True, True),
        "turned": lambda: (".mp4", clip(turn=90), True, True),
        "noise": lambda: (".mp4", rng.integers(0, 256, 5000, np.uint8).tobytes(), False, False),
        "playlist": lambda: (".mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", False, False),
    }  # fmt: skip
    return [(kind, *kinds[kind]()) for _, kind in zip(range(n), itertools.cycle(kinds), strict=False)]


def mp4_frames(content):
    """Decode the content of a video file → uint8 [n, H, W, 3], frames per second."""
    import av

    with av.open(io.BytesIO(content)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames), float(container.streams.video[0].average_rate)


# A server that speaks OpenAI's protocol

FAULTS = {
    "busy": (429, '{"error": {"message": "slow down"}}'),
    "error": (503, "<html>out of order</html>"),
    "malformed": (200, '{"choices": [{"mess'),
    "nonsense": (200, '{"choices": "none today"}'),
    "refuse": (400, '{"error": {"message": "no"}}'),
    "forbid": (401, '{"error": {"message": "bad key sk-secret"}}'),
}


def serve_openai(delay_s=0.0):
    """Serve chat and plain completions until killed; print the port first.

    The answer to a prompt is `answer to <its last line>`, before a `Response:`. A first word of `FAULTS`,
    `slow`, `drip`, `drip-head`, `cut` or `empty` in that line stands for what happens at the first request,
    with `always-` before it at every one. `GET /log` returns the number of requests per line, and the most
    that were open at once.
    """
    import threading
    import time
    from collections import Counter
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    seen, lock, open_now = Counter(), threading.Lock(), Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, status, text):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def drip(self, more):
            """Send a byte at a time, for six seconds: of a line of the head, or with its end of the body."""
            self.close_connection = True
            with contextlib.suppress(OSError):  # nobody waits any more
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nX: " + more + more)
                for _ in range(60):
                    self.wfile.write(b" ")
                    time.sleep(0.1)

        def do_GET(self):
            self.reply(200, json.dumps({"seen": seen, "most": open_now["most"]}))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            chat = "messages" in body
            text = body["messages"][0]["content"] if chat else body["prompt"]
            prompt = text.removesuffix("\nResponse:").splitlines()[-1].removeprefix("Prompt: ")
            with lock:
                seen[prompt] += 1
                first = seen[prompt] == 1
                open_now["now"] += 1
                open_now["most"] = max(open_now["most"], open_now["now"])
            time.sleep(delay_s)
            word = prompt.split()[0]
            fault = word.removeprefix("always-") if first or word.startswith("always-") else ""
            with lock:
                open_now["now"] -= 1
            if fault in FAULTS:
                return self.reply(*FAULTS[fault])
            if fault == "slow":
                time.sleep(3)
            if fault in ("drip", "drip-head"):
                return self.drip(b"" if fault == "drip-head" else b"\r\n")
            if fault == "cut":
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            if fault in ("endless", "deep"):
                return self.reply(200, "[" * (3 << 20 if fault == "endless" else 100_000))
            text = "" if fault == "empty" else f" answer to {prompt}\nand more"
            text, end = (" answer to", "length") if fault == "short" else (text, "stop")
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            with contextlib.suppress(OSError):  # nobody waits any more
                self.reply(200, json.dumps({"choices": [{"index": 0, "finish_reason": end, **said}]}))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    os.write(1, f"{server.server_port}\n".encode())
    server.serve_forever()


@contextmanager
def openai_process(delay_s=0.0):
    """Run `serve_openai` in a process of its own; gives (process, url, log)."""
    from urllib.request import urlopen

    command = [sys.executable, "-c", f"import fakes; fakes.serve_openai({delay_s})"]
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    ) as process:
        try:
            root = f"http://127.0.0.1:{int(process.stdout.readline())}"
            yield process, f"{root}/v1", lambda: json.load(urlopen(f"{root}/log", timeout=30))
        finally:
            process.kill()


def write_external(folder, split, data, seed=0, table=True):
    """Write clips of `mini` of one split as a generator elsewhere would leave them; return the folder.

    With a table, metadata.csv has their labels; without one, each lies in the folder of its first label.
    `seed`: of the rendering: with that of `data` they are the real clips themselves.
    """
    import soundfile

    from ajbench.data.clip_reader import read_clip
    from ajbench.data.corpora.recordings import read_corpus

    manifest = read_corpus(data.model_copy(update={"corpus_seed": seed}), None)
    lines = ["file_name,labels,prompt"]
    for number, row in enumerate(manifest.split(split)):
        name = (
            f"take {number}.wav" if table else f"{row.labels[0].lower().replace(' ', '_')}/take {number}.wav"
        )
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, 0.9 * read_clip(row, data.duration_s).wav, 16_000)
        lines.append(f'{name},"{";".join(row.labels)}",a sound')
    if table:
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder
