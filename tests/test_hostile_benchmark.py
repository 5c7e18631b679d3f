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


def test_a_kind_whose_unharmed_input_is_not_read_is_refused(runs, monkeypatch):
    hostile = importlib.import_module("hostile")
    ends = {0: "done\n", 3: "ajbench: prepare: not finished\n"}
    for code, text in ends.items():
        monkeypatch.setattr(runs, "run", lambda *_, end=(code, "", 1.0, 100, text): runs.Outcome(*end))
        if code:
            with pytest.raises(RuntimeError, match="listening: odd sheets, unharmed: score-listening"):
                hostile.read_unharmed(["listening: odd sheets"])
        else:
            hostile.read_unharmed(["listening: odd sheets"])


def test_memory_is_that_of_a_command_with_its_workers(runs):
    code = "import subprocess, sys; held = bytearray(30_000_000); print(flush=True); {}input()"
    worker = f"subprocess.Popen([sys.executable, '-c', {code.format('')!r}]).wait(); "
    seen = []
    for more in ("", worker):
        command = [sys.executable, "-c", code.format(more)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, start_new_session=True, **pipes) as process:
            for _ in range(1 + bool(more)):  # each says when it has its memory
                process.stdout.readline()
            seen.append(runs._state(process.pid)[1])
            process.stdin.close()
            process.kill()
    assert seen[0] > 30 and seen[1] > seen[0] + 30


def test_memory_that_a_child_shares_with_its_command_counts_once(runs):
    code = "import os; held = bytearray(30_000_000); os.fork(); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **pipes) as process:
        process.stdout.readline()
        process.stdout.readline()
        assert 30 < runs._state(process.pid)[1] < 60
        process.stdin.close()


@pytest.mark.slow
def test_no_input_of_any_kind_ends_in_a_traceback(tmp_path):
    command = [sys.executable, "hostile.py", "--n", "39", "--seed", "7", "--out", str(tmp_path / "h.csv")]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "h.csv").read_text().startswith("kind,inputs,exit_codes,traceback,")
