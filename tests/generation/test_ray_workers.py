"""Syntheses in processes started by torchrun or Ray: the same bytes, and one report."""

import json
import sys
from pathlib import Path

import pytest
from fakes import run_script, store_digests
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core.errors import UsageError
from ajbench.core.recipe import load
from ajbench.pipeline.stage import Stage

SMALL = [
    *("data.n_clips=40", "data.duration_s=1.68", "generator.train_steps=2", "generator.warmup_steps=1"),
    *("generator.batch_size=2", "invert.train_steps=2", "invert.batch_size=2", "synth.n=12"),
    *("synth.sampler_steps=3", "synth.micro_batch=2", "synth.shard_size=2", "evaluate.doses=[4]"),
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]


def test_launched_processes_may_not_use_force(tmp_path, monkeypatch):
    stage = Stage("synth", load("mini"), tmp_path / "s", "f", "", lambda: None, shared=True)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="--force"):
        stage.run("cpu", force=True)


@pytest.mark.slow
def test_torchrun_shares_a_synthesis_and_reports_it_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def run(stage, work):
        found = CliRunner().invoke(app, [stage, "--work", work, *SMALL])
        assert found.exit_code == 0, (found.stderr, found.exception)

    for stage in ("prepare", "train-gen", "invert", "synth"):
        run(stage, "one")
    (Path("two") / "mini").mkdir(parents=True)
    for kind in ("prepare", "train-gen", "invert"):
        (folder,) = Path("one/mini").glob(f"{kind}-*")
        (Path("two/mini") / folder.name).symlink_to(folder.resolve())
    command = [*TORCHRUN, sys.executable, "-m", "ajbench", "synth", "--work", "two", "--device", "cpu"]
    document = json.loads(run_script([*command, "--json", *SMALL]).stdout)  # of one process
    store = Path(document["path"])
    (whole,) = Path("one/mini").glob("synth-*")
    assert document["ran"] and store.name == whole.name
    assert json.loads((store / "run.json").read_text())["processes"] == 2
    ours, theirs = store_digests(store), store_digests(whole)
    kept = theirs.keys() - {"run.json", "recipe.yaml", "DONE"}
    assert len(kept) == 6 + 5 and all(ours[name] == theirs[name] for name in kept)
    assert not (store / ".claims").exists()
    assert run_script([*command, *SMALL]).stderr.count("nothing to do: synth") == 1


@pytest.mark.slow
def test_a_ray_run_with_a_killed_worker_ends_with_the_same_bytes(tmp_path, ray_settings):
    command = [sys.executable, Path(__file__).with_name("synthesis_on_ray.py"), tmp_path]
    done = run_script(command, **ray_settings)
    report = json.loads(done.stdout)
    assert report["ray"] == report["whole"] and len(report["ray"]) == 3 + 5
    assert report["killed"] != report["driver"]
