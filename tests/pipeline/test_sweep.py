"""Several values of one key of the synth section: the sets, their stages and their metrics."""

import pytest
from fakes import MINI

from ajbench.core import recipe
from ajbench.core.errors import MissingError, UsageError
from ajbench.pipeline import sweep
from ajbench.pipeline.places import Places
from ajbench.pipeline.recipe_stages import Pipeline

SMALL = (*MINI, "evaluate.doses=[10]")


def pipeline(*overrides, **more):
    made = recipe.load("mini", [*SMALL, *overrides])
    return Pipeline(sweep.swept(made, "guidance", "1,3,5", **more) if more else made, Places())


def test_each_set_differs_from_the_recipe_only_in_the_swept_key():
    made = recipe.load("mini", SMALL)
    swept = sweep.swept(made, "guidance", "1,3,5", n=8)
    sets = Pipeline(swept, Places()).probes
    assert list(sets) == ["guidance=1", "guidance=3", "guidance=5"]
    for value, section in zip((1, 3, 5), sets.values(), strict=True):
        assert section == made.synth.model_copy(update={"guidance": float(value), "n": 8})
    usual = Pipeline(sweep.swept(made, "sampler", "ddim,pndm"), Places()).probes
    assert [section.n for section in usual.values()] == [20, 20]


def test_all_other_stages_are_those_of_the_recipe():
    made, plain = pipeline(n=8), pipeline()
    stages = sweep.stages(made)
    names = [f"{stage.name} {stage.what}".strip() for stage in stages]
    sets = [f"synth guidance={value}" for value in (1, 3, 5)]
    judge = "train-cls taltrans-small mx+sp, mini, seed 0"
    assert names == ["prepare", "train-gen", "invert", *sets, judge, "eval-gen"]
    assert stages[4].path == pipeline("synth.guidance=3", "synth.n=8").synth().path
    known = {stage.path for stage in plain.stages()}
    assert [stage.path in known for stage in stages] == [True] * 3 + [False] * 3 + [True, False]


def test_missing_weights_are_found_before_any_work(tmp_path, monkeypatch):
    monkeypatch.delenv("AJBENCH_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match="t5-large"):
        sweep.run(pipeline("generator.text_encoder=t5-large", n=8), "guidance", "cpu")
    assert not list(tmp_path.rglob("*"))


def test_no_stage_comes_before_one_that_it_needs():
    stages = sweep.stages(pipeline("synth.judge=reference", n=8))
    places = {stage.fingerprint: place for place, stage in enumerate(stages)}
    assert len(places) == len(stages) == 8
    for stage in stages:
        assert all(places[need.fingerprint] < places[stage.fingerprint] for need in stage.needs)
    assert [stage.name for stage in stages[:4]] == ["prepare", "train-gen", "invert", "train-cls"]


@pytest.mark.parametrize(
    ("key", "values", "match"),
    [
        ("guidence", "1,2", "'guidance'"),
        ("n", "10,20", "sweep n"),
        ("guidance", "3", "guidance 3"),
        ("guidance", "3,3.0,3", "guidance 3,3.0,3"),
    ],
)
def test_keys_and_values_that_cannot_be_swept_are_refused(key, values, match):
    with pytest.raises(UsageError, match=match):
        sweep.swept(recipe.load("mini"), key, values)


def test_a_value_that_the_key_does_not_take_is_refused_before_any_work():
    with pytest.raises(UsageError, match=r"guidance=0\.guidance: .*greater than or equal to 1"):
        Pipeline(sweep.swept(recipe.load("mini"), "guidance", "0,2"), Places())


def test_a_line_holds_each_metric_of_its_set_alone():
    def row(name, metric, value, table="1", column=""):
        about = {"row": name, "metric": metric, "table": table, "column": column, "features": "reference"}
        return about | {"value": value, "ci_low": value - 1, "ci_high": value + 1, "n": 8}

    rows = [
        row("strength=0.2", "fd", 9.0, table="generation"),
        row("strength=0.2", "fd", 2.0),
        row("strength=0.4", "fd", 3.0) | {"ci_low": "", "ci_high": ""},
        row("strength=0.2", "label_agreement", 0.5, "generation", "Dog"),
        row("strength=0.2", "label_agreement", 0.25, "generation", "all"),
        row("white noise", "fd", 99.0),
    ]
    first, second = sweep.lines(rows, sweep.swept(recipe.load("mini"), "strength", "0.2,0.4"))
    assert (first["set"], first["fd"], first["fd_low"], first["fd_high"]) == ("strength=0.2", 2.0, 1.0, 3.0)
    assert (first["label_agreement"], first["kl"], first["n"]) == (0.25, None, 8)
    assert (second["fd"], second["fd_low"], second["label_agreement"]) == (3.0, None, None)
