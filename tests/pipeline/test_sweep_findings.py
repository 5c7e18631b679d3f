"""What a sweep by gain finds: gains and their order, how well metrics predict it, and the best setting."""

import numpy as np
import pytest
from scipy import stats

from ajbench.metrics import bootstrap
from ajbench.pipeline.sweep_findings import REAL, correlation, verdict, with_gains


def trainings(gains, seeds=3, folds=(None,), n=200, noise=0.0):
    """Return trainings on real clips only (mAP 0.5) and with each gain, scattered alike over resamples."""
    rng = np.random.default_rng(0)
    draws = {fold: rng.normal(0, 0.03, 400) for fold in folds}

    def runs(name, value):
        own = [value + noise * np.random.default_rng([len(name), s]).normal() for s in range(seeds)]
        return [bootstrap.Resampled(v, v + draws[fold], n, fold) for fold in folds for v in own]

    return {name: runs(name, 0.5 + gain) for name, gain in {REAL: 0.0, **gains}.items()}


def lines_of(fd, gain, agreement=None):
    values = zip(fd, agreement or [None] * len(fd), gain, strict=True)
    return [{"fd": a, "label_agreement": b, "gain": c} for a, b, c in values]


def test_a_gain_is_paired_and_in_points():
    runs = trainings({"aa": 0.04, "b": -0.01}, folds=(1, 2), noise=1e-4)
    first, second = with_gains([{"set": "aa", "fd": 1.0}, {"set": "b", "fd": 2.0}], runs)
    assert (first["map"], first["gain"], first["fd"]) == (
        pytest.approx(54, abs=0.02),
        pytest.approx(4, abs=0.02),
        1,
    )
    # The scatter over test sets is the same in both and cancels.
    assert 3.9 < first["gain_low"] < first["gain_high"] < 4.1
    assert (second["map"], second["gain"]) == (pytest.approx(49, abs=0.02), pytest.approx(-1, abs=0.02))
    (alike,) = with_gains([{"set": "b", "fd": 2.0}], trainings({"b": 0.0}))
    assert (alike["gain"], alike["gain_low"]) == (0, None), "no clip tells them apart"


@pytest.mark.parametrize(("metric", "sign"), [("fd", -1), ("label_agreement", 1)])
def test_the_correlation_is_scipys_and_1_if_the_better_metric_gains_more(metric, sign):
    values, gains = [0.3, 0.9, 0.5, 0.1, 0.6], [1.0, 2.0, 2.5, -1.0, 0.5]
    lines = lines_of(values, gains) if metric == "fd" else lines_of([1.0] * 5, gains, values)
    found = correlation(lines, metric)
    assert found["rho"] == pytest.approx(sign * stats.spearmanr(values, gains).statistic)
    assert (found["settings"], found["smallest_p"]) == (5, round(2 / 120, 4))
    assert 0 < found["p"] <= 1 and "5 settings" in found["sentence"]
    same = [sign * gain for gain in gains]
    lines = lines_of(same, gains) if metric == "fd" else lines_of([1.0] * 5, gains, same)
    assert correlation(lines, metric)["rho"] == 1


@pytest.mark.parametrize(
    ("lines", "n"),
    [
        (lines_of([1, 2, 3], [1, 2, 3]), 3),
        (lines_of([1, 2, 3, None], [1, 2, 3, 4]), 3),
        (lines_of([2, 2, 2, 2], [1, 2, 3, 4]), 4),
    ],
)
def test_few_or_equal_values_have_no_correlation_but_a_reason(lines, n):
    found = correlation(lines, "fd")
    assert (found["rho"], found["p"], found["settings"]) == (None, None, n)
    assert "no rank correlation" in found["sentence"]


@pytest.mark.parametrize(("gain", "noise", "clear"), [(0.06, 0.001, True), (0.047, 0.01, False)])
def test_the_lead_over_the_next_setting_is_clear_if_its_interval_is_above_zero(gain, noise, clear):
    said = verdict(trainings({"a": 0.0, "b": gain, "cc": 0.04}, noise=noise), 200)
    assert said.startswith("b is best: +") and "over cc" in said
    assert ("not clear" not in said) is clear


@pytest.mark.parametrize(
    ("seeds", "folds", "clips"), [(2, (None,), 200), (3, (None,), 19), (1, (1, 2, 3), 200)]
)
def test_too_few_seeds_or_clips_have_no_clear_lead(seeds, folds, clips):
    said = verdict(trainings({"a": 0.0, "b": 0.3}, seeds, folds), clips)
    assert said.startswith("b is best: +30.0") and "[" not in said
    assert "[" in verdict(trainings({"a": 0.0, "bb": 0.3}, 2, (1, 2), noise=0.001), 20)
    assert "do not show" in verdict(trainings({"a": 0.0, "b": 0.3}, 2, (1, 2)), 20)
