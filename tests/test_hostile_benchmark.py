"""benchmarks/hostile.py: how ends are judged and counted, and a few inputs of every kind."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def runs(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("hostile_runs")


@pytest.mark.parametrize(
    ("code", "stopped", "peak_mb", "text", "fault"),
    [
        (0, "", 100, "done\n", ""),
        (5, "", 100, "prepare: 3 clips\najbench: part-00000.arrow: not a readable shard\n", ""),
        (2, "", 100, "Usage: ajbench show\nError: Missing argument 'RECIPE'.\n", ""),
        (2, "", 100, "ajbench: one\najbench: two\n", "not one line"),
        (3, "", 100, "", "not one line"),
        (1, "", 100, "Traceback (most recent call last):\nValueError: x\n", "traceback"),
        (-11, "", 100, "", "crash"),
        (-9, "time", 100, "", "hang"),
        (-9, "memory", 100, "", "memory"),
        (0, "", 2_500, "", "memory"),
        (3, "", 100, "ajbench: out of memory (x)\n", "memory"),
    ],
)
def test_ends_are_judged(runs, code, stopped, peak_mb, text, fault):
    assert runs.Outcome(code, stopped, 1.0, peak_mb, text).fault == fault


@pytest.mark.slow
def test_no_input_of_any_kind_ends_in_a_traceback(tmp_path):
    command = [sys.executable, "hostile.py", "--n", "33", "--seed", "7", "--out", str(tmp_path / "h.csv")]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "h.csv").read_text().startswith("kind,inputs,exit_codes,traceback,")
