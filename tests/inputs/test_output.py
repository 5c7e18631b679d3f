"""Places that cannot be written, and terminals that cannot show every character."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import BandExtractor, write_chords
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console


class Extractor(BandExtractor):
    """Takes the arguments of `LazyExtractor`."""

    def __init__(self, *_):
        super().__init__()


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """invoke(*arguments) -> result of an ajbench command in a folder with the file `taken` and two sets."""
    write_chords(tmp_path, 6)
    (tmp_path / "taken").write_text("a file")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AJBENCH_WORK", raising=False)
    monkeypatch.setattr("ajbench.features.extractor.LazyExtractor", Extractor)
    yield lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])
    console.configure()


SETS = ("eval-gen", "--gen", "gen", "--ref", "ref", "--metrics", "fd", "--bootstrap", "0")


@pytest.mark.parametrize("place", ["taken/x", "taken", "/proc/none/x"])
@pytest.mark.parametrize("option", ["--work", "--results"])
def test_folders_that_cannot_be_made_are_refused_before_any_work(invoke, option, place):
    if place == "taken" and option == "--results":
        place = "taken/y"
    done = invoke("run", "mini", option, place)
    assert done.exit_code == 3 and done.stderr.count("\n") == 1 and option in done.stderr, done.output


@pytest.mark.parametrize("place", ["taken/x.yaml", "/proc/none/x.yaml"])
def test_a_recipe_that_cannot_be_written_is_refused_before_any_work(invoke, place):
    done = invoke("run", "--data", "gen", "--dry-run", "--write-recipe", place)
    assert done.exit_code == 3 and done.stderr.count("\n") == 1 and "--write-recipe" in done.stderr, (
        done.output
    )


@pytest.mark.parametrize("option", ["--out", "--clips", "--curve"])
@pytest.mark.parametrize("place", ["taken/x.csv", "/proc/none/x.csv", "gen/y.csv", f"{'x' * 300}.csv"])
def test_files_that_cannot_be_made_are_refused_before_any_work(invoke, option, place):
    if place.startswith("gen"):
        Path(place).mkdir()
    done = invoke(*SETS, option, place)
    assert done.exit_code == 3 and done.stderr.count("\n") == 1 and option in done.stderr, done.output


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_audit_refuses_files_that_cannot_be_made(invoke, option):
    done = invoke("audit", "--synth", "gen", "--train", "ref", "--eval", "ref", option, "taken/x.csv")
    assert done.exit_code == 3 and done.stderr.count("\n") == 1 and option in done.stderr, done.output


@pytest.mark.parametrize("work", ["taken", "taken/x", "/proc/none"])
def test_eval_gen_goes_on_without_keeping_features(invoke, work):
    done = invoke(*SETS, "--work", work)
    assert done.exit_code == 0 and "fd" in done.stdout, done.output
    assert done.stderr.count("features are not kept") == 2 or done.stderr.count("features are not kept") == 1
    assert invoke(*SETS, "--work", "fine").stdout == done.stdout


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
@pytest.mark.parametrize("arguments", [("--help",), ("run", "mini", "--dry-run")])
def test_encodings_without_a_dash_give_no_traceback(tmp_path, encoding, arguments):
    how = {
        **os.environ,
        "PYTHONIOENCODING": encoding,
        "PYTHONUTF8": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", "from ajbench.cli.app import app; app()", *arguments]
    done = subprocess.run(command, env=how, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
