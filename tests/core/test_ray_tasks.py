"""`--engine ray` on the command line: the same results, one line for an error, and what is missing."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import ray_tasks
from ajbench.core.errors import MissingError

SMALL = [
    *("data.n_clips=40", "data.duration_s=1.68", "generator.train_steps=2", "generator.warmup_steps=1"),
    *("generator.batch_size=2", "invert.train_steps=2", "invert.batch_size=2", "synth.n=8"),
    *("synth.sampler_steps=3", "synth.micro_batch=2", "synth.shard_size=4", "evaluate.doses=[4]"),
    *("evaluate.seeds=[0]", "evaluate.pools=[]", "evaluate.bootstrap=100", "classifier.train_steps=2"),
    *("classifier.warmup_steps=1", "mix.real=all"),
]
COMMANDS = ("synth", "prepare", "run mini", "run tables/a11 --base mini", "run tables/a8 --base mini")
LOCAL, RAY = "local", "ray"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_with_an_engine_says_how_to_install_ray(tmp_path, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "ray", None)
    work = tmp_path / "work"
    done = CliRunner().invoke(app, [*command.split(), "--engine", "ray", "--work", str(work)])
    assert done.exit_code == MissingError.exit_code
    assert done.stderr.count("\n") == 1 and "--engine ray" in done.stderr and "ajbench[ray]" in done.stderr
    assert not work.exists()


def test_a_cell_that_this_process_trains_needs_no_engine():
    done = CliRunner().invoke(app, ["run", "mini", "--cell", "1", "--engine", "ray"])
    assert done.exit_code == 2 and "--cell" in done.stderr


def test_a_cluster_that_is_not_there_is_one_line(ray_settings, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    how = {"title": str, "workers": 1, "threads": 1, "shared": [tmp_path], "fewer": "a lower --jobs"}
    with pytest.raises(MissingError, match=r"RAY_ADDRESS=127\.0\.0\.1:1.*ray start"):
        ray_tasks.run(print, None, ["part"], print, **how)


@pytest.mark.slow
def test_a_recipe_on_ray_has_the_same_rows_and_an_error_of_a_cell_is_one_line(tmp_path, ray_settings):
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | ray_settings | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}

    def run(engine, *more):
        command = [sys.executable, "-m", "ajbench", "run", "mini", "--engine", engine, "--device", "cpu"]
        places = ["--work", engine, "--results", f"{engine}-results", "--jobs", "2"]
        whole = [*command, *places, "--json", "-q", *SMALL, *more]
        return subprocess.run(whole, cwd=tmp_path, env=environment, capture_output=True, text=True)

    rows, files = {}, {}
    for engine in (LOCAL, RAY):
        done = run(engine)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["ran"]
        with (tmp_path / f"{engine}-results" / "mini" / "rows.csv").open() as file:
            measured = (
                "fingerprint",
                "row",
                "column",
                "split",
                "metric",
                "value",
                "ci_low",
                "ci_high",
                "seed",
            )
            rows[engine] = [[row[name] for name in measured] for row in csv.DictReader(file)]
        found = sorted((tmp_path / engine).rglob("scores.npz"))
        found += sorted((tmp_path / engine).rglob("part-*.arrow"))
        files[engine] = {str(path.relative_to(tmp_path / engine)): path.read_bytes() for path in found}
    assert rows[RAY] == rows[LOCAL] and rows[RAY]
    assert files[RAY] == files[LOCAL] and len(files[RAY]) > 5
    failed = run(RAY, "classifier.lr=1e30", "classifier.train_steps=8")
    assert failed.returncode == 4, failed.stderr
    assert failed.stderr.count("\n") == 1 and failed.stderr.startswith("ajbench: taltrans-small")
