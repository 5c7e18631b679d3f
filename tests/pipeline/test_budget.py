import pytest

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import load
from ajbench.pipeline import budget, estimates


def about(clips, folds=(1, 2, 3, 4, 5), duration_s=5.04, recordings=None):
    train = clips * 4 // 5
    return {
        "clips": clips, "train": train, "eval": clips - train, "folds": list(folds), "duration_s": duration_s,
        "classes": 4, "recordings": list(recordings or [max(2, clips // 5)] * len(folds)),
    }  # fmt: skip


def total(sizes, of, generate=True):
    return sum(budget._parts(sizes, of, 1.0, generate).values())


@pytest.mark.parametrize("clips", [12, 100, 400, 3000, 20_000])
@pytest.mark.parametrize("minutes", [20, 120, 1200])
def test_what_is_chosen_fits_and_grows_with_the_budget(clips, minutes):
    def spent(seconds):
        sizes = budget.choose(about(clips), seconds, 1.0)
        return sizes, total(sizes, about(clips))

    if clips == 20_000 and minutes == 20:
        with pytest.raises(UsageError, match="--budget"):
            spent(60 * minutes)
        return
    sizes, seconds = spent(60 * minutes)
    assert seconds <= 60 * minutes * budget.USED
    assert sizes.doses == tuple(sorted(set(sizes.doses))) and min(sizes.doses) > 0
    larger, _ = spent(600 * minutes)
    assert larger.generator_steps >= sizes.generator_steps and larger.seeds >= sizes.seeds


def test_few_clips_are_evaluated_in_all_folds_and_many_in_one():
    assert budget.choose(about(60), 7200, 1.0).folds == (1, 2, 3, 4, 5)
    assert budget.choose(about(3000), 7200, 1.0).folds == ()
    assert budget.choose(about(60, folds=()), 7200, 1.0).folds == ()


def test_folds_of_few_recordings_are_all_evaluated_unless_one_has_a_single_one():
    for minutes in (60, 300):
        few = budget.choose(about(3000, recordings=[12] * 5), 60 * minutes, 1.0)
        assert few.folds == (1, 2, 3, 4, 5) and few.seeds >= 3
    for clips in (3000, 400):
        assert budget.choose(about(clips, recordings=[1, 1, 1, 1, 2]), 7200, 1.0).folds == ()


def test_steps_are_no_more_than_the_clips_deserve():
    assert budget.choose(about(60), 10**6, 1.0).generator_steps < 1000


def test_a_slower_machine_gets_a_smaller_run():
    fast, slow = (budget.choose(about(400), 3600, speed) for speed in (0.2, 3.0))
    assert slow.generator_steps < fast.generator_steps


def test_without_a_budget_of_ones_own_large_corpora_take_longer():
    sizes = budget.choose(about(100_000), 1800, 1.0, firm=False)
    assert sizes.seeds == 3
    assert total(sizes, about(100_000)) > 1800


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (720, "12 min"), (7200, "2.0 h")])
def test_times_in_words(seconds, text):
    assert budget.span(seconds) == text


def test_no_more_clips_are_made_than_a_classifier_can_draw():
    found = budget.choose(about(20_000), 7200, 1.0)
    assert found.n <= found.classifier_steps * budget.BATCH / 2
    assert found.generator_steps >= 600 and found.classifier_steps >= 200  # rather than 40 for 4,000 clips


@pytest.mark.parametrize("minutes", [30, 60])
def test_without_a_generator_its_time_goes_to_folds_and_classifiers(minutes):
    own, other = (budget.choose(about(400), 60 * minutes, 1.0, generate=one) for one in (True, False))
    assert other.folds == (1, 2, 3, 4, 5)
    assert other.classifier_steps * other.models * max(1, len(other.folds)) > (
        own.classifier_steps * own.models * max(1, len(own.folds))
    )
    assert total(other, about(400), generate=False) <= 60 * minutes * budget.USED
    assert total(other, about(400)) > 60 * minutes * budget.USED


AST = "evaluate.models=[{name: ast, aug: none}]"


def parts_of(*keys):
    return budget.seconds_of(load("mini", ["evaluate.doses=[64]", *keys]), about(80), 1.0)


def test_the_steps_of_other_classifiers_are_timed(monkeypatch):
    monkeypatch.setattr(estimates, "step_seconds", lambda model, classes, samples: 40.0)
    small, large = (
        parts_of(f"evaluate.models=[{{name: {name}, aug: none}}]") for name in ("taltrans-small", "ast")
    )
    assert large["classifiers"] > 100 * small["classifiers"]
    assert {**large, "classifiers": 0} == {**small, "classifiers": 0}
    epochs = parts_of(AST, "classifier.epochs=100")["classifiers"] / large["classifiers"]
    assert epochs == pytest.approx(100 * 128 / 16 / load("mini").classifier.train_steps, rel=0.1)


def test_what_is_not_measured_is_unknown(monkeypatch):
    def missing(*_):
        raise MissingError("timm")

    monkeypatch.setattr(estimates, "step_seconds", missing)
    unknown = {name for name, seconds in parts_of("generator.preset=full").items() if seconds is None}
    assert unknown == {"generator", "class tokens", "synthesis"}
    assert [name for name, seconds in parts_of(AST).items() if seconds is None] == ["classifiers"]


@pytest.mark.parametrize(
    ("key", "part"), [("synth.n=6400", "synthesis"), ("invert.train_steps=5000", "class tokens")]
)
def test_keys_of_a_part_change_its_time(key, part):
    assert parts_of(key)[part] > 5 * parts_of()[part]
