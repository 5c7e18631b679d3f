"""Training a classifier on stores: what is used, what is refused, and exact resume."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ajbench import audio, classifiers, mixing, store
from ajbench.classifiers import train
from ajbench.classifiers.predict import predict
from ajbench.classifiers.train import train_classifier
from ajbench.errors import IntegrityError, MissingError, UsageError
from ajbench.recipe import Classifier, Mix, Recipe

torch.set_num_threads(1)
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
    store.write_shard(folder, 0, records)
    values = {
        "codec": "fake",
        "codec_hash": "00",
        "clip_samples": SAMPLES,
        "labels": LABELS,
        "fingerprint": "f",
    }
    store.finish(folder, store.StoreMeta(**(values | meta)))
    return store.ClipStore.open(folder)


@pytest.fixture
def real(tmp_path):
    return make(tmp_path / "real", [record(i) for i in range(30)])


@pytest.fixture
def synthetic(tmp_path, real):
    parents = [real.clip_ids[i] for i in real.split_indices("train")]
    made = [
        record(100 * m + int(p[5:]), clip_id=f"aug-{m}-{p}", split="train", source="synthetic", parent_id=p)
        for m in (1, 2)
        for p in parents
    ]
    return make(tmp_path / "synthetic", made, source="synthetic", train_ids_hash=store.ids_hash(parents))


def recipe_of(mix=None, **classifier):
    values = {
        "name": "taltrans-small", "train_steps": 12, "batch_size": 8, "warmup_steps": 2,
        "checkpoint_every": 5, "lr": 2e-3, "specaug_time": 4, "specaug_freq": 8,
    }  # fmt: skip
    return Recipe(name="t", mix=mix or Mix(), classifier=Classifier(**(values | classifier)))


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(a, b):
    a, b = weights(a), weights(b)
    return all(torch.equal(a[name], b[name]) for name in a)


def fit(recipe, real, synthetic, out, seed=1, fingerprint="abc", **kw):
    return train_classifier(recipe, real, synthetic, out, seed=seed, fingerprint=fingerprint, **kw)


@pytest.mark.parametrize(("name", "loss"), [("taltrans-small", "bce"), ("ast-tiny", "ce")])
def test_learns_and_predicts_the_evaluation_clips(tmp_path, real, synthetic, name, loss):
    recipe = recipe_of(Mix(dose=10), name=name, loss=loss, train_steps=40, augmentation="none")
    out = fit(recipe, real, synthetic, tmp_path / "out")
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "metrics.csv", "model.safetensors"]
    classifier = classifiers.load(out)
    assert classifier.config["fingerprint"] == "abc"
    assert classifier.config["train_ids_hash"] == synthetic.meta.train_ids_hash
    indices = real.split_indices("eval")[::-1]
    scores = predict(classifier, real, indices, batch=3)
    assert scores.dtype == np.float32
    assert scores.shape == (10, 2)
    assert np.mean(scores.argmax(1) == real.targets()[indices].argmax(1)) >= 0.9
    np.testing.assert_allclose(scores, predict(classifier, real, indices), atol=1e-4)


@pytest.mark.parametrize(
    "mix", [Mix(dose=12), Mix(mode="alpha", alpha=0.5, balanced=True)], ids=lambda m: m.mode
)
def test_killed_and_resumed_training_ends_with_the_same_bits(tmp_path, real, synthetic, mix, monkeypatch):
    straight = fit(recipe_of(mix), real, synthetic, tmp_path / "a")
    whole = mixing.batch

    def killed(order, size, batch, index):
        if index == 9:
            raise RuntimeError("killed")
        return whole(order, size, batch, index)

    monkeypatch.setattr(mixing, "batch", killed)
    with pytest.raises(RuntimeError, match="killed"):
        fit(recipe_of(mix), real, synthetic, tmp_path / "b")
    assert [p.name for p in (tmp_path / "b" / "checkpoints").iterdir()] == ["step-00000005"]
    monkeypatch.setattr(mixing, "batch", whole)
    # Without the cache of decoded audio the bits are the same as well.
    monkeypatch.setattr(train, "CACHE_BYTES", 0)
    torch.manual_seed(99)
    resumed = fit(recipe_of(mix), real, synthetic, tmp_path / "b")
    assert same(straight, resumed)
    other = fit(recipe_of(mix), real, synthetic, tmp_path / "c", seed=2)
    assert not same(straight, other)


def test_only_clips_of_the_mix_are_read(tmp_path, real, synthetic, monkeypatch):
    read = {"real": set(), "synthetic": set()}
    audio_of = store.ClipStore.audio

    def spy(self, indices):
        read[self.meta.source] |= {int(i) for i in indices}
        return audio_of(self, indices)

    monkeypatch.setattr(store.ClipStore, "audio", spy)
    fit(recipe_of(Mix(dose=7), mixup=1.0), real, synthetic, tmp_path / "dose")
    assert read["real"] == set(real.split_indices("train").tolist())
    assert read["synthetic"] == set(range(7))
    read["real"].clear()
    fit(recipe_of(Mix(real=False, dose=40)), real, synthetic, tmp_path / "only")
    assert read["real"] == set()


def test_mix_decides_the_result_and_unused_synthetic_clips_do_not(tmp_path, real, synthetic):
    without = fit(recipe_of(), real, None, tmp_path / "a")
    assert same(without, fit(recipe_of(), real, synthetic, tmp_path / "b"))
    assert not same(without, fit(recipe_of(Mix(dose=5)), real, synthetic, tmp_path / "c"))
    assert not same(without, fit(recipe_of(augmentation="none"), real, None, tmp_path / "d"))


def test_finished_classifier_is_not_trained_again(tmp_path, real):
    out = fit(recipe_of(), real, None, tmp_path / "out")
    before = (out / "model.safetensors").stat().st_mtime_ns
    fit(recipe_of(), real, None, out)
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_refusals_before_any_work(tmp_path, real, synthetic):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"dose=41: only 40"):
        fit(recipe_of(Mix(dose=41)), real, synthetic, out)
    with pytest.raises(UsageError, match=r"dose=3 needs synthetic"):
        fit(recipe_of(Mix(dose=3)), real, None, out)
    with pytest.raises(UsageError, match=r"alpha=0\.2 needs synthetic"):
        fit(recipe_of(Mix(mode="alpha", alpha=0.2)), real, None, out)
    bare = make(tmp_path / "bare", [record(i, split="eval") for i in range(4)])
    with pytest.raises(MissingError, match="train split is empty"):
        fit(recipe_of(), bare, None, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "meta", "message"),
    [
        ({"parent_id": "clip-2"}, {}, r"clip aug was made from clip-2, in the eval split"),
        ({"parent_id": "clip-77"}, {}, "clip-77, not a clip"),
        ({}, {"codec_hash": "01"}, "codec_hash 01, but 00"),
        ({}, {"labels": ["Hiss", "Hum"]}, "labels"),
        ({}, {"train_ids_hash": "0" * 16}, "generator was trained on other clips"),
    ],
)
def test_synthetic_clips_of_evaluation_clips_or_of_another_store_are_refused(
    tmp_path, real, change, meta, message
):
    values = {"clip_id": "aug", "split": "train", "source": "synthetic", "parent_id": "clip-0"} | change
    bad = make(tmp_path / "bad", [record(0, **values)], source="synthetic", **meta)
    with pytest.raises(IntegrityError, match=message):
        fit(recipe_of(Mix(dose=1)), real, bad, tmp_path / "out")


def test_predict_refuses_a_store_of_other_labels_or_length(tmp_path, real):
    module = classifiers.build("taltrans-small", 2)
    keep = {"name": "taltrans-small", "options": {}, "extra": {}}
    classifiers.save(module, tmp_path / "a", labels=["Hiss", "Hum"], clip_samples=SAMPLES, **keep)
    with pytest.raises(UsageError, match="labels differ"):
        predict(classifiers.load(tmp_path / "a"), real, [0])
    classifiers.save(module, tmp_path / "b", labels=LABELS, clip_samples=2 * SAMPLES, **keep)
    with pytest.raises(UsageError, match="6720 samples"):
        predict(classifiers.load(tmp_path / "b"), real, [0])
