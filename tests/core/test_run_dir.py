"""Stage folders and derived seeds."""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
from fakes import flip_in

from ajbench.core import cost, run_dir
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.files import seed_for
from ajbench.core.run_dir import RunDir


def start(folder, fingerprint="abc", **more):
    """Start the stage synth in a folder, and return its RunDir."""
    made = RunDir(folder, "synth", fingerprint)
    made.start("", device="cpu", **{"seed": 0} | more)
    return made


def test_a_stage_from_start_to_done(tmp_path):
    folder = RunDir(tmp_path / "work" / "prepare-abc", "prepare", "abc")
    assert not folder.done()
    assert folder.info() == {}
    folder.start("name: mini\n", seed=3, device="cpu", precision="bf16")
    assert not folder.done()
    folder.finish({"clips": 12})
    assert folder.done()
    info = folder.info()
    expected = {"stage": "prepare", "fingerprint": "abc", "seed": 3, "device": "cpu", "precision": "bf16"}
    assert info.items() >= (expected | {"clips": 12}).items()
    assert info["versions"]["numpy"]
    assert info["threads"] >= 1
    assert 0 <= info["seconds"] < 60
    assert 20 < info["peak_memory_mb"] < 100_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", info["finished"])
    assert (folder.path / "recipe.yaml").read_text() == "name: mini\n"


def test_outputs_with_another_fingerprint_are_refused(tmp_path):
    old = start(tmp_path, "old")
    (tmp_path / "part").write_text("kept")
    for finished in (False, True):
        if finished:
            old.finish()
        assert not RunDir(tmp_path, "synth", "new").done()
        with pytest.raises(IntegrityError, match=r"synth old.* synth new.*--work.*--force"):
            start(tmp_path, "new")
    assert (tmp_path / "part").exists()


def test_an_interrupted_run_is_resumed_and_force_clears_it(tmp_path):
    folder = start(tmp_path / "run")
    part = folder.path / "deep" / "part"
    part.parent.mkdir()
    part.write_text("kept")
    start(folder.path)
    assert part.exists() and folder.info()["sessions"] == 2
    folder.finish()
    start(folder.path)
    assert part.exists() and not folder.done()  # until it is finished again
    folder.finish()
    start(folder.path, force=True)
    assert not part.exists() and not folder.done()


def test_what_a_killed_force_has_left_is_not_finished(tmp_path, monkeypatch):
    folder = start(tmp_path / "run")
    for name in ("generator.json", "metrics.csv", "whitening.json"):
        (folder.path / name).write_text("kept")
    folder.finish()
    entries, unlink, left = list(folder.path.iterdir()), Path.unlink, [2]

    def until_the_kill(path, missing_ok=False):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    # The file system may list DONE last.
    last = sorted(entries, key=lambda entry: entry.name == "DONE")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "iterdir", lambda path: iter(last))
        patched.setattr(Path, "unlink", until_the_kill)
        folder.clear()
    assert len(list(folder.path.iterdir())) == len(entries) - 2 and not folder.done()
    folder.clear()
    assert not list(folder.path.iterdir())


def test_what_interrupted_sessions_used_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(run_dir, "COUNT_S", 0.01)
    killed = start(tmp_path)
    with killed.counting():
        while killed.info().get("seconds", 0) < 0.1:  # what a process that is killed now leaves
            time.sleep(0.01)
        left = killed.info()
    failed = start(tmp_path)
    assert failed.info()["seconds"] >= left["seconds"] >= 0.1
    monkeypatch.setattr(run_dir, "COUNT_S", 60.0)
    with pytest.raises(KeyboardInterrupt), failed.counting():
        time.sleep(0.1)
        raise KeyboardInterrupt
    interrupted = failed.info()["seconds"]
    assert interrupted >= left["seconds"] + 0.1
    last = start(tmp_path)
    with last.counting():
        time.sleep(0.1)
    last.finish()
    assert interrupted + 0.1 <= last.info()["seconds"] < interrupted + 10
    assert last.info()["cpu_seconds"] < last.info()["seconds"]
    for again in ({}, {"force": True}):
        start(tmp_path, **again).finish()
        assert tmp_path.joinpath("DONE").exists() and last.info()["seconds"] < interrupted


def test_a_stage_does_not_have_the_memory_of_workers_before_it(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "_workers", {"cpu_s": 0.0, "peak_mb": 0.0})
    cost.count_worker(0.0, 1e6)
    run = start(tmp_path)
    run.finish()
    assert run.info()["peak_memory_mb"] < 1e6


def test_a_part_of_the_energy_is_not_its_sum(tmp_path, monkeypatch):
    first = start(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(first.info() | {"seconds": 5.0, "energy_j": 500.0}))
    last = start(tmp_path)
    monkeypatch.setattr(run_dir.cost, "RAPL", tmp_path / "none")
    last.finish()
    assert last.info()["seconds"] >= 5 and "energy_j" not in last.info()


def test_counting_neither_makes_a_deleted_folder_again_nor_hides_an_error(tmp_path):
    folder = start(tmp_path / "run")
    with pytest.raises(IntegrityError, match="work"), folder.counting():
        (folder.path / "run.json").unlink()
        raise IntegrityError("work")
    assert not (folder.path / "run.json").exists()


@pytest.mark.parametrize("lack", [MissingError("no space"), OSError("no file")])
def test_what_counting_cannot_write_does_not_hide_an_error(tmp_path, monkeypatch, lack):
    def refuse(*about, **how):
        raise lack

    folder = start(tmp_path)
    monkeypatch.setattr(run_dir, "write_sealed", refuse)
    with pytest.raises(KeyboardInterrupt), folder.counting():
        raise KeyboardInterrupt


def test_force_never_deletes_what_no_run_made(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(IntegrityError, match="--force"):
        start(tmp_path, force=True)
    assert (tmp_path / "thesis.tex").exists()


def test_a_flipped_bit_of_the_provenance_is_found(tmp_path):
    start(tmp_path).finish()
    flip_in(tmp_path / "run.json", '"sessions": 1')
    with pytest.raises(IntegrityError, match=r"run\.json.*--force"):
        start(tmp_path)
    start(tmp_path, force=True).finish()


def test_damaged_provenance_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"stage": "syn')
    with pytest.raises(IntegrityError, match=r"run\.json"):
        start(tmp_path)


def test_finish_deletes_temporary_files_of_killed_processes(tmp_path):
    folder = start(tmp_path)
    (tmp_path / ".part-0.host.1.0.tmp").write_text("half")
    (tmp_path / ".tmp434Uwd").write_text("half")  # as safetensors names it
    (tmp_path / ".step-00000003.tmp").mkdir()  # a checkpoint
    (tmp_path / ".step-00000003.tmp" / ".weights.tmp").write_text("half")
    folder.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DONE", "recipe.yaml", "run.json"]


def test_seeds_are_the_same_everywhere_and_tell_names_apart():
    # sha256 of '[7,"dog/1",3]', first 8 bytes, shifted right by one: written down so that it never changes
    assert seed_for(7, "dog/1", 3) == 261545640487047655
    names = [("a",), ("b",), ("a", "b"), ("ab",), ("a", 1), ("a", "1"), ()]
    seeds = {seed_for(seed, *name) for seed in (0, 1) for name in names}
    assert len(seeds) == 14
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_git_commit_is_that_of_ajbenchs_own_checkout(tmp_path, monkeypatch):
    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git_commit = run_dir.git_commit.__wrapped__  # without its cache
    module = tmp_path / "ajbench" / "core" / "run.py"
    module.parent.mkdir(parents=True)
    module.write_text("one")
    monkeypatch.setattr(run_dir, "__file__", str(module))
    assert git_commit() is None  # no checkout
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")[:12]
    assert git_commit() == commit
    (tmp_path / "rows.csv").write_text("a result is no change of code")
    assert git_commit() == commit
    module.write_text("two")
    assert git_commit() == f"{commit}-dirty"
    # Installed into an environment inside somebody else's checkout:
    installed = tmp_path / ".venv" / "lib" / "ajbench" / "core" / "run.py"
    monkeypatch.setattr(run_dir, "__file__", str(installed))
    installed.parent.mkdir(parents=True)
    assert git_commit() is None


def test_run_json_is_plain_json(tmp_path):
    start(tmp_path, seed=None)
    assert json.loads((tmp_path / "run.json").read_text())["seed"] is None
