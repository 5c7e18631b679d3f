"""Training a classifier on stores: what is used, what is refused, and exact resume."""

import numpy as np
import pytest
import torch
from hum_and_hiss import LABELS, SAMPLES, fit, make, recipe_of, record, same

from ajbench import classifiers
from ajbench.classifiers import dataset, predict
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.recipe import Mix
from ajbench.data import mixing, store

torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "loss"), [("taltrans-small", "bce"), ("ast-tiny", "ce")])
def test_learns_and_predicts_the_evaluation_clips(tmp_path, real, synthetic, name, loss):
    recipe = recipe_of(Mix(dose=10), name=name, loss=loss, train_steps=40, aug="none")
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
    monkeypatch.setattr(dataset, "CACHE_BYTES", 0)
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
    assert not same(without, fit(recipe_of(aug="none"), real, None, tmp_path / "d"))


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
