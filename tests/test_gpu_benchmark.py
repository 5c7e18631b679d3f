"""benchmarks/gpu.py on a CPU: its parts, their limits and errors, and the hours that follow."""

import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ajbench.core.recipe import load

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("gpu")


def test_a_part_is_measured_and_one_over_its_limit_is_stopped(script, monkeypatch):
    monkeypatch.setattr(script, "PRELOAD", [])
    rows = script.run(["peak"], True, 120)
    assert [row["precision"] for row in rows] == ["bf16", "tf32", "fp32"]
    script.shares_of_peak(rows)
    assert {row["of_peak"] for row in rows} == {"1.000"}
    (late,) = script.run(["training"], True, 0.1)
    assert late == {"part": "training", "error": "stopped after 0 s"}


def test_a_part_that_fails_leaves_its_rows_and_its_error(script, monkeypatch, tmp_path):
    def breaks(tiny, report):
        report({"work": "first", "seconds": "1"})
        raise ValueError("no\nsuch  kernel")

    monkeypatch.setattr(script, "peak", breaks)
    script.run_part("peak", True, tmp_path / "rows")
    first, error = map(json.loads, (tmp_path / "rows").read_text().splitlines())
    assert first == {"part": "peak", "work": "first", "seconds": "1"}
    assert error == {"part": "peak", "error": "ValueError: no such kernel"}


def test_hours_are_clips_over_the_best_rate(script):
    hours = importlib.import_module("gpu_hours").hours
    step = {"work": "training step", "precision": "bf16"}
    rows = [
        *(
            step | {"model": name, "clips_per_second": rate}
            for name in ("generator", "ast")
            for rate in ("1", "2")
        ),
        step | {"model": "ast", "batch": 256, "error": "out of memory"},
        step | {"model": "ast", "precision": "fp32", "clips_per_second": "9"},
        {"work": "synthesis, pndm 45, strength 0.6", "precision": "bf16", "clips_per_second": "4"},
    ]
    found = {row["work"]: row for row in hours(rows)}
    section = load("as20k").generator
    assert float(found["train-gen"]["value"]) == pytest.approx(
        section.train_steps * section.batch_size / 2 / 3600, rel=1e-2
    )
    assert float(found["synth --n 80000"]["value"]) == pytest.approx(80_000 / 4 / 3600, rel=1e-2)
    for missing in ("Table 1", "Table A11", "Table A11, taltrans"):
        assert "not measured" in found[missing]["error"] and "value" not in found[missing]
    rows += [
        step | {"model": "taltrans", "clips_per_second": "100"},
        {"work": "synthesis, pndm 45, strength 1", "precision": "bf16", "clips_per_second": "3"},
        {"work": "eval-gen", "precision": "fp32", "clips_per_second": "50"},
    ]
    values = {row["work"]: float(row["value"]) for row in hours(rows)}
    cells = values["Table A11, ast"] + values["Table A11, taltrans"]
    assert values["Table A11"] == pytest.approx(
        values["train-gen"] + values["synth --n 80000"] + cells, rel=2e-2
    )
    each = values["train-gen"] + 20_371 / 3 / 3600 + 2 * 20_371 / 50 / 3600
    assert values["Table 1"] == pytest.approx(4 * each, rel=1e-2)


def test_the_committed_file_has_the_columns_of_the_script(script):
    with (FOLDER / "gpu.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows and tuple(rows[0]) == script.COLUMNS
    assert all(row["device"] for row in rows)


@pytest.mark.slow
def test_every_part_runs_with_tiny_sizes(tmp_path):
    command = [sys.executable, FOLDER / "gpu.py", "--tiny", "--minutes", "8", "--out", tmp_path / "gpu.csv"]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    with (tmp_path / "gpu.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = {
        "peak",
        "training",
        "synthesis",
        "codec",
        "front_ends",
        "evaluation",
        "tests",
        "compiled",
        "hours",
    }
    assert {row["part"] for row in rows} == wanted
    measured = [row for row in rows if row["part"] != "hours"]
    assert not [row for row in measured if row["error"]]
    models = {row["model"] for row in rows if row["part"] == "training"}
    assert models == {"generator", "ast", "taltrans", "r2plus1d"}
