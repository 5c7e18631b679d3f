"""Heads on frozen features: equal to scikit-learn, standardised, and the same on waves as on features."""

import numpy as np
import pytest
import soxr
import torch
from fakes import noise
from sklearn.linear_model import LogisticRegression

from ajbench import classifiers
from ajbench.core import registry
from ajbench.core.errors import MissingError, NumericError, UsageError
from ajbench.features.extractor import Extractor, LazyExtractor
from ajbench.features.head import ClipFeatures, Head


class Fast(Extractor):
    """Frames of 80 samples at 8 kHz, and clips of at least 200 and at most 400 samples."""

    sample_rate, min_samples, max_samples = 8_000, 200, 400

    def compute(self, wav):
        return wav.unflatten(1, (-1, 40)), None


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(registry, "FEATURES", dict(registry.FEATURES))
    monkeypatch.setitem(registry.KINDS, "features", registry.FEATURES)
    registry.register("features", "fast", Fast, classes=False, frames=True)


@pytest.fixture(scope="module")
def clouds():
    """Features [240, 12] on very different scales, of three overlapping classes, and weights."""
    rng = np.random.default_rng(3)
    classes = rng.integers(3, size=240)
    x = rng.normal(size=(240, 12)) + 0.8 * np.eye(3, 12)[classes]
    x = x * np.geomspace(1e-3, 1e3, 12) + np.linspace(-5, 5, 12)
    x[:, 7] = 4.0  # a feature without information
    return x.astype(np.float32), classes, rng.uniform(0.2, 3.0, 240)


def fitted(x, targets, weights, loss="ce", seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Head(targets.shape[1], width=x.shape[1], **options)
    head.fit(x, targets, weights, loss)
    return head


def standardised(x, weights):
    mean = np.average(x.astype(np.float64), axis=0, weights=weights)
    scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
    return (x - mean) / np.where(scale > 1e-6, scale, 1)


@pytest.mark.parametrize("c", [0.03, 1.0])
def test_one_layer_is_scikit_learns_multinomial_regression(clouds, c):
    x, classes, weights = clouds
    head = fitted(x, np.eye(3)[classes], weights, c=c)
    assert head.mean.numpy() == pytest.approx(np.average(x, axis=0, weights=weights), rel=1e-5, abs=1e-6)
    found = head.logits(x)
    peer = LogisticRegression(C=c, tol=1e-8, max_iter=10_000)
    expected = peer.fit(standardised(x, weights), classes, weights).decision_function(
        standardised(x, weights)
    )
    centred = found - found.mean(axis=1, keepdims=True)  # a common offset has no meaning
    assert centred == pytest.approx(expected - expected.mean(axis=1, keepdims=True), abs=5e-3)
    assert found.dtype == np.float32 and 0.5 < np.mean(found.argmax(1) == classes) < 1


@pytest.mark.parametrize("c", [10.0, 1000.0])
def test_the_minimum_is_reached_with_a_weak_penalty_too(rng, c):
    classes = rng.integers(5, size=400)
    x = (rng.normal(size=(400, 256)) + 0.35 * rng.normal(size=(5, 256))[classes]).astype(np.float32)
    found = fitted(x, np.eye(5)[classes], np.ones(400), c=c).logits(x)
    z = standardised(x, np.ones(400))
    expected = LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(z, classes).decision_function(z)
    centred = found - found.mean(axis=1, keepdims=True)
    assert centred == pytest.approx(expected - expected.mean(axis=1, keepdims=True), abs=0.1)
    assert np.abs(expected).max() > 10


def test_one_layer_is_one_regression_per_class_for_several_labels(clouds, rng):
    x, classes, weights = clouds
    targets = np.eye(4)[classes]  # no clip has the last class
    targets[:, 1] = np.maximum(targets[:, 1], rng.random(240) < 0.3)
    found = fitted(x, targets, weights, "bce").logits(x)
    z = standardised(x, weights)
    for k in range(3):
        peer = LogisticRegression(tol=1e-8, max_iter=10_000).fit(z, targets[:, k], weights)
        assert found[:, k] == pytest.approx(peer.decision_function(z), abs=5e-3)
    assert found[:, 3].max() < -3


def test_a_hidden_layer_learns_what_one_layer_cannot_and_follows_the_seed(rng):
    x = rng.normal(size=(300, 2)).astype(np.float32)
    classes = (x[:, 0] * x[:, 1] > 0).astype(int)
    hits = {}
    for hidden in (None, 16):
        found = [fitted(x, np.eye(2)[classes], np.ones(300), seed=seed, hidden=hidden) for seed in (0, 0, 1)]
        logits = [head.logits(x) for head in found]
        hits[hidden] = np.mean(logits[0].argmax(1) == classes)
        assert np.array_equal(logits[0], logits[1])
        assert np.array_equal(logits[0], logits[2]) == (hidden is None)
    assert hits[None] < 0.7 and hits[16] > 0.95


def test_a_loss_that_is_not_finite_is_an_error(clouds):
    x, classes, weights = clouds
    broken = x.copy()
    broken[3, 2] = np.nan
    with pytest.raises(NumericError, match="head"):
        fitted(broken, np.eye(3)[classes], weights)


def test_a_clip_has_the_mean_and_deviation_of_its_frames(fast):
    features, wav = ClipFeatures("fast"), noise(0.05, 8_000)
    frames = wav.reshape(2, -1, 40)
    expected = np.concatenate([frames.mean(1), frames.std(1)], axis=1)
    assert features(wav)[0] == pytest.approx(expected, abs=1e-6)
    assert features.weights_hash != LazyExtractor("fast").weights_hash  # cached apart from the frames
    waves = noise(0.1, 16_000)
    at_8k = np.stack([soxr.resample(wave, 16_000, 8_000, quality="HQ") for wave in waves])
    assert features.of_waves(waves) == pytest.approx(features(at_8k[:, :400])[0], abs=1e-6)
    short = np.stack([soxr.resample(wave[:160], 16_000, 8_000, quality="HQ") for wave in waves])
    padded = np.pad(short, ((0, 0), (0, 120)))
    assert features.of_waves(waves[:, :160]) == pytest.approx(features(padded)[0], abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"hidden": 5}])
def test_a_saved_head_scores_waves(fast, options, tmp_path):
    wav = noise(0.1, 16_000, clips=6)
    x = ClipFeatures("fast").of_waves(wav)
    head = fitted(x, np.eye(2)[[0, 1] * 3], np.ones(6), features="fast", **options)
    about = {"name": "head", "labels": ["a", "b"], "clip_samples": wav.shape[1]}
    classifiers.save(head, tmp_path, **about, options=options | {"features": "fast", "width": 80}, extra={})
    loaded = classifiers.load(tmp_path)
    assert loaded.predict(wav).numpy() == pytest.approx(head.logits(x), abs=1e-5)
    assert loaded.embed(wav).shape == (6, options.get("hidden", 80))
    assert not any(name.startswith("extractor") for name in loaded.module.state_dict())


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"depth": 3}, UsageError, "depth"),
        ({"features": "mn4"}, UsageError, "mn04"),
        ({"features": "reference"}, UsageError, "options.features"),
        ({"hidden": 0}, UsageError, "options.hidden"),
        ({"hidden": "wide"}, UsageError, "options.hidden"),
        ({"c": 0}, UsageError, r"options\.c"),
        ({"features": "mn04"}, MissingError, "mn04_as_mAP_432.pt"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(options, error, named, empty_caches):
    with pytest.raises(error, match=named) as found:
        classifiers.build("head", 3, **options)
    assert "\n" not in str(found.value)
