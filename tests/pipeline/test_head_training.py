"""Heads fitted on stores: equal to scikit-learn on the mix, features computed once, scored as classifiers."""

import csv

import numpy as np
import pyarrow as pa
import pytest
import torch
from fakes import HUM_SAMPLES, hum_record, hum_store
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from ajbench import classifiers
from ajbench.cli.app import app
from ajbench.core import console, registry
from ajbench.core.errors import IntegrityError
from ajbench.core.recipe import Classifier, Mix, Recipe
from ajbench.data import audio
from ajbench.data.labels import load_scores
from ajbench.data.leak_rule import HEARD
from ajbench.features.extractor import Extractor
from ajbench.pipeline.head_training import fit_head


class Bands(Extractor):
    """Log energies in twelve bands of the spectrum; counts the clips that it computes."""

    computed = 0

    def compute(self, wav):
        Bands.computed += len(wav)
        energies = torch.fft.rfft(wav).abs()[:, :3360].unflatten(1, (12, -1)).square().mean(2)
        return (energies + 1e-3).log(), None


@pytest.fixture
def bands(monkeypatch):
    monkeypatch.setattr(registry, "FEATURES", dict(registry.FEATURES))
    monkeypatch.setitem(registry.KINDS, "features", registry.FEATURES)
    registry.register("features", "bands", Bands, classes=False)
    monkeypatch.setattr(Bands, "computed", 0)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A real store of 24 train and 12 eval clips, and two synthetic clips of each train clip."""
    home = tmp_path_factory.mktemp("stores")
    real = hum_store(home / "real", [hum_record(i) for i in range(36)])
    train = [i for i in range(36) if i % 3 != 2]
    made = [
        hum_record(i, clip_id=f"syn-{i}-{j}", parent_id=f"clip-{i}", split="train", audio=noisy(i, j))
        for i in train
        for j in range(2)
    ]
    return real, hum_store(home / "synthetic", made)


def noisy(i, j):
    wave = audio.flac_decode(hum_record(i)["audio"])
    noise = np.random.default_rng([i, j]).normal(0, 0.1, len(wave))
    return audio.flac_encode((wave + noise).astype(np.float32))


def recipe_of(mix=None, **options):
    settings = Classifier(name="head", aug="none", options={"features": "bands"} | options)
    return Recipe(name="t", mix=mix or Mix(), classifier=settings)


def fit(stores, tmp_path, mix=None, name="head", **options):
    out = tmp_path / name
    about = {"seed": 1, "fingerprint": "abc", "cache": tmp_path / "features"}
    return out, fit_head(recipe_of(mix, **options), *stores, out, **about)


def bands_of(store, indices):
    return Bands("bands").features(store.audio(indices)).astype(np.float64)


@pytest.mark.parametrize(
    ("mix", "of_real", "of_made"),
    [
        (Mix(), 1.0, []),
        (Mix(dose=10), 1.0, [1.0] * 10),
        (Mix(dose=10, real="none"), 0.0, [1.0] * 10),
        (Mix(mode="alpha", alpha=0.3), 0.7, [0.15] * 48),
    ],
)
def test_a_head_is_scikit_learns_regression_on_the_clips_of_the_mix(
    bands, stores, tmp_path, mix, of_real, of_made
):
    real, made = stores
    _, scores = fit(stores, tmp_path, mix)
    train, held_out = real.split_indices("train"), real.split_indices("eval")
    x = np.concatenate([bands_of(real, train), bands_of(made, np.arange(48))[: len(of_made)]])
    y = np.concatenate([real.targets()[train], made.targets()[: len(of_made)]]).argmax(axis=1)
    weights = np.array([of_real] * len(train) + of_made)
    mean = np.average(x, axis=0, weights=weights)
    scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
    peer = LogisticRegression(tol=1e-8, max_iter=10_000).fit((x - mean) / scale, y, weights)
    expected = peer.decision_function((bands_of(real, held_out) - mean) / scale)
    assert scores[:, 1] == pytest.approx(expected, abs=5e-3) and expected.std() > 0.1
    assert scores[:, 0] == pytest.approx(-expected, abs=5e-3)


def test_features_are_computed_once_for_all_mixes(bands, stores, tmp_path):
    fit(stores, tmp_path, Mix(dose=10))
    assert Bands.computed == 24 + 12 + 10
    for mix in (Mix(), Mix(dose=10, real="none"), Mix(dose=4, balanced=True)):
        fit(stores, tmp_path, mix, hidden=4)
    assert Bands.computed == 46
    fit(stores, tmp_path, Mix(mode="alpha", alpha=0.5))
    assert Bands.computed == 46 + 38


@pytest.mark.parametrize("hidden", [None, 4])
def test_a_saved_head_scores_clips_as_it_did_from_features(bands, stores, tmp_path, hidden):
    out, scores = fit(stores, tmp_path, hidden=hidden)
    found = classifiers.load(out)
    real = stores[0]
    again = classifiers.predict(found, real, real.split_indices("eval"))
    assert again == pytest.approx(scores, abs=1e-4)
    assert found.config["options"] == {"features": "bands", "hidden": hidden, "width": 12}
    assert found.config["fingerprint"] == "abc" and found.config["clip_samples"] == HUM_SAMPLES
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors", HEARD}
    second, scores_again = fit(stores, tmp_path, hidden=hidden, name="again")  # after a kill: the same bits
    assert np.array_equal(scores, scores_again)
    assert (second / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_clip_without_usable_sound_is_named(bands, tmp_path):
    silent = audio.flac_encode(np.zeros(HUM_SAMPLES, np.float32))
    records = [hum_record(i, **({"audio": silent} if i == 4 else {})) for i in range(9)]
    store = hum_store(tmp_path / "silent", records)
    with pytest.raises(IntegrityError, match="clip-4"):
        fit((store, None), tmp_path)


def test_the_command_line_trains_and_evaluates_heads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head = "evaluate.models=[{name: head, aug: none}, {name: head, aug: none, options: {hidden: 8}}]"
    small = ["data.n_clips=40", "data.duration_s=1.26", "evaluate.bootstrap=100", "mix.real=all", head]
    one = ["classifier.name=head", "classifier.aug=none", "--seed", "0"]
    try:
        for command in (["prepare"], ["train-cls", *one], ["train-cls", *one, "classifier.options.hidden=8"]):
            done = CliRunner().invoke(app, [*command, *small])
            assert done.exit_code == 0, done.output
        done = CliRunner().invoke(app, ["eval-cls", *small, "evaluate.seeds=[0]", "--json"])
    finally:
        console.configure()
    assert done.exit_code == 0, done.output
    with next(tmp_path.glob("work/mini/eval-cls-*/rows.csv")).open() as file:
        rows = list(csv.DictReader(file))
    maps = {row["row"]: float(row["value"]) for row in rows if row["metric"] == "map"}
    assert set(maps) == {"head/tiny/none", "head/tiny-8/none"} and min(maps.values()) > 0.2
    scores = load_scores(next(tmp_path.glob("work/mini/train-cls-*/scores.npz")))
    assert scores.scores.shape == (8, 16) and {row["n"] for row in rows if row["metric"] == "map"} == {"8"}
    tiny = list(tmp_path.glob("work/features/tiny-*-mean-std-ajbench/*.arrow"))
    assert sum(len(pa.ipc.open_file(str(part)).read_all()) for part in tiny) == 40
