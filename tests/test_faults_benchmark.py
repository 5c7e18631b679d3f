"""benchmarks/faults.py: how ends are judged and bytes compared, and a few tries of two commands."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def part(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.mark.parametrize(
    ("code", "stopped", "text", "end"),
    [
        (0, "", "done\n", "done"),
        (5, "", "prepare: 3 clips\najbench: part-00000.arrow: damaged\n", "refused"),
        (3, "", "ajbench: part-00000.arrow: out of memory\n", "refused"),
        (3, "", "ajbench: disk: no space left\n", "traceback"),
        (3, "", "ajbench: disk: read-only; choose others than part-00000.arrow\n", "traceback"),
        (1, "", "Traceback (most recent call last):\nOSError: part-00000.arrow\n", "traceback"),
        (-9, "time", "", "hang"),
        (-6, "", "terminate called: part-00000.arrow\n", "traceback"),
    ],
)
def test_ends_are_judged(part, code, stopped, text, end):
    outcome = part("hostile_runs").Outcome(code, stopped, 1.0, 100, text)
    one = SimpleNamespace(say=lambda text: None)
    assert part("faults_cases").judge(one, outcome, ("part-00000.arrow",)) == end


def test_bytes_count_but_not_times(part, tmp_path):
    def contents(seconds, shard=b"whole", **more):
        stage = tmp_path / "work" / "stage"
        stage.mkdir(parents=True, exist_ok=True)
        (stage / "run.json").write_text(json.dumps({"stage": "prepare", "seconds": seconds} | more))
        (stage / "metrics.csv").write_text(f"step,loss,seconds\n1,0.5,{seconds}\n")
        (stage / "part-00000.arrow").write_bytes(shard)
        return part("faults_ground").contents(tmp_path, ("work",))

    assert contents(1.0) == contents(2.0)
    assert contents(1.0) != contents(1.0, b"other") and contents(1.0) != contents(1.0, seed=1)
    before = contents(1.0)
    (tmp_path / "work" / "stage" / ".part.tmp").touch()
    assert contents(1.0) != before


@pytest.mark.slow
def test_kills_and_faults_of_two_commands_leave_the_same_bytes(tmp_path):
    out = tmp_path / "f.csv"
    how = ["--tries", "2", "--others", "1", "--only", "^(prepare|train-cls)$", "--out", str(out)]
    done = subprocess.run([sys.executable, "faults.py", *how], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = out.read_text().splitlines()
    assert lines[0] == "command,fault,how,tries,same,refused,lost,different,traceback,hang"
    assert {line.split(",")[0] for line in lines[1:]} == {"prepare", "train-cls"}
    assert sum(",kill,SIGKILL,2,2,0," in line for line in lines) == 2
