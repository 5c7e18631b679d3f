"""Small stores of two classes that a classifier learns in seconds, and trainings on them."""

import numpy as np
import torch
from safetensors.torch import load_file

from ajbench.classifiers.train import train_classifier
from ajbench.core.recipe import Mix, Recipe
from ajbench.core.schema import Classifier, overlay
from ajbench.data import audio, shards, store

SAMPLES = 21 * 320
LABELS = ["Hum", "Hiss"]


def wave(i, label):
    rng = np.random.default_rng([i, label])
    t = np.arange(SAMPLES) / 16_000
    hum = np.sin(2 * np.pi * rng.uniform(200, 400) * t)
    return (0.3 * (hum if label == 0 else rng.normal(0, 0.5, SAMPLES))).astype(np.float32)


def record(i, **changes):
    label = i % 2
    values = {
        "clip_id": f"clip-{i}", "path": f"{i}.wav", "labels": [LABELS[label]], "label_ids": [label],
        "split": "eval" if i % 3 == 2 else "train", "audio": audio.flac_encode(wave(i, label)),
        "codes": np.zeros((8, 21), np.uint16),
    }  # fmt: skip
    return values | changes


def make(folder, records, **meta):
    folder.mkdir()
    shards.write_shard(folder, 0, records)
    values = {
        "codec": "fake",
        "codec_hash": "00",
        "clip_samples": SAMPLES,
        "labels": LABELS,
        "fingerprint": "f",
    }
    shards.finish(folder, shards.StoreMeta(**(values | meta)))
    return store.ClipStore.open(folder)


def recipe_of(mix=None, **classifier):
    values = {
        "name": "taltrans-small", "train_steps": 12, "batch_size": 8, "warmup_steps": 2,
        "checkpoint_every": 5, "precision": "fp32", "lr": 2e-3, "specaug_time": 4, "specaug_freq": 8,
    }  # fmt: skip
    return Recipe(name="t", mix=mix or Mix(), classifier=Classifier(**overlay(values, classifier)))


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(a, b):
    a, b = weights(a), weights(b)
    return all(torch.equal(a[name], b[name]) for name in a)


def fit(recipe, real, synthetic, out, seed=1, fingerprint="abc", **kw):
    return train_classifier(recipe, real, synthetic, out, seed=seed, fingerprint=fingerprint, **kw)
