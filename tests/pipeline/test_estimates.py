"""Estimates that a dry run shows."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from fakes import mini_pipeline

from ajbench.core.errors import MissingError
from ajbench.core.schema import Classifier
from ajbench.pipeline import estimates
from ajbench.pipeline.stage import run_stages


def test_a_plan_is_shown_without_the_weights_that_its_estimate_needs(tmp_path, monkeypatch):
    for variable in ("AJBENCH_WEIGHTS", "TORCH_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(variable, str(tmp_path))
    made = mini_pipeline("codec.name=encodec_24khz@16k", "data.duration_s=1.68", work=tmp_path / "work")
    found = estimates.estimate(made.prepare)
    assert found["seconds"] is None and "encodec_24khz" in found["missing"]
    with pytest.raises(MissingError, match="encodec_24khz"):
        run_stages([made.prepare], "cpu")


def test_disk_and_states_of_stages(tmp_path):
    made = mini_pipeline(work=tmp_path)
    plan = estimates.describe(tmp_path, made.sources())
    assert [line["state"] for line in plan["stages"]] == ["todo"] * plan["todo"]
    known = [line["disk_mb"] for line in plan["stages"] if line["disk_mb"]]
    assert plan["disk_mb"] == pytest.approx(sum(known), abs=0.1) and len(known) == 3  # prepare, two syntheses
    # No batch can run yet.
    assert estimates.estimate(made.train_gen) == estimates.estimate(made.synth()) == {}


def test_a_step_is_timed_for_the_whole_batch():
    settings = Classifier(name="taltrans-small", batch_size=64)
    assert 0 < estimates.step_seconds(settings, classes=3, clip_samples=8000) < 60


def test_the_first_calls_on_a_gpu_are_not_counted(monkeypatch):
    """They load and choose kernels; meta stands for a GPU."""
    clock = iter([0.0, 100.0, 100.0, 150.0, 150.0, 151.0, 152.0, 153.0])
    monkeypatch.setattr("ajbench.core.device.device_of", lambda: torch.device("meta"))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know meta
    monkeypatch.setattr(estimates, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    settings = Classifier(name="ast-tiny", batch_size=64, options={"patchout": 0.0})
    assert estimates.step_seconds(settings, classes=3, clip_samples=13_440) == 64 / 32


def test_the_one_step_of_a_head_is_its_fit():
    settings = Classifier(name="head", aug="none")
    assert settings.steps(10_000) == 1 and 0 < estimates.step_seconds(settings, 3, 8000) < 60
