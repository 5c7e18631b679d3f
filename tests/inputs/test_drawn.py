"""Drawn folders and tables: no traceback, and every file is used or listed with a reason."""

import csv
import json

import pytest
from inputs.drawn import draw, key
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console
from ajbench.core.errors import AjbenchError
from ajbench.data.store import ClipStore
from ajbench.pipeline import own_data

FEW = range(30)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(own_data, "measured_speed", lambda duration_s, classes: 1.0)
    monkeypatch.setenv("AJBENCH_WORK", str(tmp_path / "work"))
    yield
    console.configure()


def ajbench(tmp_path, *arguments):
    """Run a command; there is no traceback, and errors are one line."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--results", str(tmp_path / "results")])
    if done.exit_code not in (0, 2, 3):
        raise AssertionError(done.output) from done.exception
    if done.exit_code:
        assert done.stderr.count("ajbench: ") == 1 and "Traceback" not in done.stderr, done.stderr
    return done


def check(drawn, tmp_path):
    """Read a drawn corpus, and compare what is used and what is listed with what is there."""
    done = ajbench(tmp_path, "run", "--data", drawn.path, "--dry-run", "--json")
    if drawn.runs or not done.exit_code:
        assert done.exit_code == 0, done.stderr
    else:
        with pytest.raises(AjbenchError):
            own_data.make(drawn.path, tmp_path / "work", tmp_path / "results", keep=False)
        return
    made = own_data.make(drawn.path, tmp_path / "work", tmp_path / "results", keep=False)
    rows = {key(row.path): row for row in made.manifest.rows}
    lines = [(problem.path, problem.line) for problem in made.left_out if problem.line]
    if drawn.lines:
        assert len(rows) + len(lines) + drawn.merged == len(drawn.lines)
    listed = {key(problem.path) for problem in made.left_out}
    named = (drawn.lines.get(line, "") for line in lines)
    listed |= {key(name) for line in named for name in (line, line.replace("\\", "/"))}
    assert not drawn.sounds() - rows.keys() - listed
    assert not rows.keys() & {key(problem.path) for problem in made.left_out if not problem.line}
    assert all(problem.reason for problem in made.left_out)
    assert {name: rows[name].labels for name in drawn.labels} == drawn.labels
    found = json.loads(done.stdout)["found"]
    assert sum(found["left_out"].values()) == len(made.left_out)


def check_prepared(drawn, tmp_path):
    """Prepare a drawn corpus, and compare the store and its quarantine with what is there."""
    made = own_data.make(drawn.path, tmp_path / "work", tmp_path / "results", keep=False)
    done = ajbench(tmp_path, "prepare", "--data", drawn.path, "--json")
    assert done.exit_code == 0, done.stderr
    (folder,) = (tmp_path / "work").glob("*/prepare-*")
    store = ClipStore.open(folder)
    with (folder / "quarantine.csv").open(encoding="utf-8", newline="") as file:
        listed = [*csv.DictReader(file)]
    assert all(problem["reason"] for problem in listed)
    assert len(store) + len(listed) == len(made.manifest.rows) + len(made.manifest.problems)
    repeated = {one["clip_id"] for one in listed if "duplicate" in one["reason"]}
    good = {row.clip_id for row in made.manifest.rows if key(row.path) in drawn.labels}
    assert good <= {*store.clip_ids} | repeated


@pytest.mark.parametrize("seed", FEW)
def test_every_file_is_used_or_listed(tmp_path, seed):
    check(draw(seed, tmp_path / "drawn"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30, 300))
def test_every_file_of_many_is_used_or_listed(tmp_path, seed):
    check(draw(seed, tmp_path / "drawn"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_every_clip_is_in_the_store_or_in_quarantine(tmp_path, seed):
    drawn = draw(seed, tmp_path / "drawn")
    if drawn.runs:
        check_prepared(drawn, tmp_path)
