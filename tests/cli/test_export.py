"""`ajbench export` of clips: from any store, or by the name of a set of the recipe."""

import json

import pytest
from fakes import hum_record, hum_store
from typer.testing import CliRunner

from ajbench.cli.app import app


def run(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_clips_of_a_store(tmp_path):
    hum_store(tmp_path / "store", [hum_record(i) for i in range(6)])
    arguments = [tmp_path / "out", "--clips", tmp_path / "store", "--format", "wav", "--json"]
    assert json.loads(run(*arguments, "--dry-run").stdout)["clips"] == 6
    assert not (tmp_path / "out").exists()
    done = json.loads(run(*arguments).stdout)
    assert done["clips"] == len(list((tmp_path / "out").rglob("*.wav"))) == 6
    assert run(*arguments[:-1], "--as", "webdataset").exit_code == 2


@pytest.mark.parametrize(("name", "code"), [("synthetic", 3), ("real", 3), ("nosuch", 2)])
def test_clips_that_are_not_there(tmp_path, name, code):
    shown = run(tmp_path / "out", "--clips", name, "--work", tmp_path / "work")
    assert shown.exit_code == code, shown.output
