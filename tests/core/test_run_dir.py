"""Stage folders and derived seeds."""

import json
import re
import subprocess

import pytest

from ajbench.core import run_dir
from ajbench.core.errors import IntegrityError
from ajbench.core.files import seed_for
from ajbench.core.run_dir import RunDir


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
    RunDir(tmp_path, "synth", "old").start("", seed=0, device="cpu")
    (tmp_path / "part").write_text("kept")
    new = RunDir(tmp_path, "synth", "new")
    assert not new.done()
    with pytest.raises(IntegrityError, match=r"synth old.* synth new.*--work.*--force"):
        new.start("", seed=0, device="cpu")
    assert (tmp_path / "part").exists()


def test_done_under_another_fingerprint_is_not_done(tmp_path):
    old = RunDir(tmp_path, "synth", "old")
    old.start("", seed=0, device="cpu")
    old.finish()
    assert not RunDir(tmp_path, "synth", "new").done()


def test_an_interrupted_run_is_resumed_and_force_clears_it(tmp_path):
    folder = RunDir(tmp_path / "run", "synth", "abc")
    folder.start("", seed=0, device="cpu")
    part = folder.path / "deep" / "part"
    part.parent.mkdir()
    part.write_text("kept")
    RunDir(folder.path, "synth", "abc").start("", seed=0, device="cpu")
    assert part.exists()
    assert folder.info()["sessions"] == 2
    folder.finish()
    folder.start("", seed=0, device="cpu")
    assert part.exists()
    assert not folder.done()  # until it is finished again
    folder.finish()
    folder.start("", seed=0, device="cpu", force=True)
    assert not part.exists()
    assert not folder.done()


def test_force_never_deletes_what_no_run_made(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(IntegrityError, match="--force"):
        RunDir(tmp_path, "synth", "abc").start("", seed=0, device="cpu", force=True)
    assert (tmp_path / "thesis.tex").exists()


def test_damaged_provenance_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"stage": "syn')
    with pytest.raises(IntegrityError, match=r"run\.json"):
        RunDir(tmp_path, "synth", "abc").start("", seed=0, device="cpu")


def test_finish_deletes_temporary_files_of_killed_processes(tmp_path):
    folder = RunDir(tmp_path, "synth", "abc")
    folder.start("", seed=0, device="cpu")
    (tmp_path / ".part-0.host.1.0.tmp").write_text("half")
    folder.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DONE", "recipe.yaml", "run.json"]


def test_seeds_are_the_same_everywhere_and_tell_names_apart():
    # sha256 of '[7,"dog/1",3]', first 8 bytes, shifted right by one: written down so that it never changes
    assert seed_for(7, "dog/1", 3) == 261545640487047655
    seeds = {
        seed_for(s, *n)
        for s in (0, 1)
        for n in [("a",), ("b",), ("a", "b"), ("ab",), ("a", 1), ("a", "1"), ()]
    }
    assert len(seeds) == 14
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_git_commit_is_that_of_ajbenchs_own_checkout(tmp_path, monkeypatch):
    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "ajbench" / "core"
    package.mkdir(parents=True)
    (package / "run.py").write_text("one")
    run_dir.git_commit.cache_clear()
    monkeypatch.setattr(run_dir, "__file__", str(package / "run.py"))
    try:
        assert run_dir.git_commit() is None  # no checkout
        git("init", "-q")
        git("add", ".")
        git("commit", "-qm", "first")
        commit = git("rev-parse", "HEAD")[:12]
        run_dir.git_commit.cache_clear()
        assert run_dir.git_commit() == commit
        (tmp_path / "rows.csv").write_text("a result is no change of code")
        run_dir.git_commit.cache_clear()
        assert run_dir.git_commit() == commit
        (package / "run.py").write_text("two")
        run_dir.git_commit.cache_clear()
        assert run_dir.git_commit() == f"{commit}-dirty"
        # Installed into an environment inside somebody else's checkout:
        installed = tmp_path / ".venv" / "lib" / "ajbench" / "core" / "run.py"
        monkeypatch.setattr(run_dir, "__file__", str(installed))
        installed.parent.mkdir(parents=True)
        run_dir.git_commit.cache_clear()
        assert run_dir.git_commit() is None
    finally:
        run_dir.git_commit.cache_clear()


def test_run_json_is_plain_json(tmp_path):
    folder = RunDir(tmp_path, "synth", "abc")
    folder.start("", seed=None, device="cpu")
    assert json.loads((tmp_path / "run.json").read_text())["seed"] is None
