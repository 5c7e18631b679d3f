"""`ajbench export` of clips: from any store, or by the name of a set of the recipe."""

import json
import re

import pytest
from fakes import hum_record, hum_store
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core.recipe import load
from ajbench.pipeline.places import Places
from ajbench.pipeline.recipe_stages import Pipeline


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


def of_mini(tmp_path, *arguments):
    done = run(tmp_path / "out", "--work", tmp_path / "work", *arguments)
    fold = re.search(r"data\.eval_fold=(\d)", done.stderr)
    return done.exit_code, done.stderr, fold and int(fold[1])


@pytest.mark.parametrize("what", [[], ["--clips", "synthetic"]])
def test_of_several_folds_one_is_named(tmp_path, what):
    several = *what, "evaluate.folds=[3,4]"
    code, said, first = of_mini(tmp_path, *several)
    assert (code, first) == (2, 3) and "allowed: 3, 4" in said
    assert of_mini(tmp_path, *several, "data.eval_fold=5")[0] == 2
    for keys in ((*several, "data.eval_fold=4"), (*what, "evaluate.folds=[4]"), (*what, "data.eval_fold=4")):
        # The stage that is missing is that of fold 4.
        code, said, _ = of_mini(tmp_path, *keys)
        alone = Pipeline(load("mini", ["data.eval_fold=4"]), Places(work=tmp_path / "work"))
        stage = alone.synth() if what else alone.train_gen
        assert code == 3 and stage.path.name in said, said
