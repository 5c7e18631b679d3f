"""Measurements of classifiers: kept, made again only if something changed, and the same from workers."""

import numpy as np
import pytest

from ajbench.core.errors import IntegrityError
from ajbench.data.labels import load_scores, save_scores
from ajbench.evaluation.classification import measure
from ajbench.pipeline import cell_measures
from ajbench.pipeline.cell_measures import How, measure_all

HOW = How((1, 2), 60)


@pytest.fixture
def write(tmp_path):
    """write(name, seed, several labels) -> the path of predictions for 24 clips of 12 recordings."""

    def make(name, seed, several=False):
        rng = np.random.default_rng(seed)
        targets = np.eye(3, dtype=np.uint8)[np.arange(24) % 3]
        if several:
            targets[0, :2] = 1
        ids, recordings = [f"c{i}" for i in range(24)], [f"r{i // 2}" for i in range(24)]
        scores = (rng.normal(size=(24, 3)) + targets).astype(np.float32)
        return save_scores(tmp_path / f"{name}.npz", scores, targets, ids, list("abc"), recordings)

    return make


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "measured"


def same(one, other):
    """Compare all of a measurement, NaN with NaN."""
    assert one.clips == other.clips and one.fold is other.fold is None
    for name in ("values", "intervals"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert list(mine) == list(theirs)
        for key in mine:
            np.testing.assert_array_equal(mine[key], theirs[key])
    assert list(one.resampled) == list(other.resampled)
    for name, found in one.resampled.items():
        for mine, theirs in zip(found, other.resampled[name], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def nothing(*_):
    raise AssertionError("measured again")


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several labels"])
def test_kept_measurements_are_those_of_measure(write, cache, several, monkeypatch):
    files, steps = [write("a", 0, several), write("b", 1, several)], []
    for _ in range(2):
        found = measure_all(files, HOW, cache, steps.append)
        for file, one in zip(files, found, strict=True):
            same(one, measure(load_scores(file), tail=HOW.tail, resamples=HOW.resamples))
        assert found[0].clips is found[1].clips
        monkeypatch.setattr(cell_measures, "_measure", nothing)
    assert steps == [0, 1, 1, 2]


def test_workers_find_the_same(write, cache, monkeypatch):
    files, steps = [write(name, seed) for seed, name in enumerate("abc")], []
    alone = measure_all(files, HOW, cache / "alone", steps.append)
    with monkeypatch.context() as patch:
        patch.setattr(cell_measures, "WORTH", 0)
        patch.setattr(cell_measures, "_measure", abs)  # a worker is given another function
        with pytest.raises(RuntimeError, match=r"(?s)eval-cls .*TypeError"):
            measure_all(files, HOW, cache / "failed", steps.append, workers=2)
    monkeypatch.setattr(cell_measures, "WORTH", 0)
    for one, other in zip(
        measure_all(files, HOW, cache / "shared", steps.append, workers=2), alone, strict=True
    ):
        same(one, other)


def test_what_was_measured_before_an_interruption_is_kept(write, cache, monkeypatch):
    files, done = [write(name, seed) for seed, name in enumerate("abc")], []
    real = cell_measures._measure

    def two(file, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(file)
        real(file, *rest)

    monkeypatch.setattr(cell_measures, "_measure", two)
    with pytest.raises(KeyboardInterrupt):
        measure_all(files, HOW, cache, lambda n: None)
    done.clear()
    measure_all(files, HOW, cache, lambda n: None)
    assert done == files[2:]


@pytest.mark.parametrize("change", ["scores", "tail", "resamples"])
def test_other_scores_or_settings_are_measured_again(write, cache, change):
    before = measure_all([write("a", 0)], HOW, cache, lambda n: None)[0]
    how = {"scores": HOW, "tail": How((0,), 60), "resamples": How(HOW.tail, 61)}[change]
    file = write("a", 1 if change == "scores" else 0)  # the same name, as after a training with --force
    after = measure_all([file], how, cache, lambda n: None)[0]
    same(after, measure(load_scores(file), tail=how.tail, resamples=how.resamples))
    assert len(list(cache.iterdir())) == 2
    assert before.values == after.values or change == "scores"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"], ids=["empty", "cut"])
def test_a_damaged_file_is_named(write, cache, content):
    files = [write("a", 0)]
    measure_all(files, HOW, cache, lambda n: None)
    (kept,) = cache.iterdir()
    kept.write_bytes(content)
    with pytest.raises(IntegrityError, match=rf"{kept.name}: not readable .*; delete it and run again"):
        measure_all(files, HOW, cache, lambda n: None)
