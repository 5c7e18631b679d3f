"""Sweeps by a classifier's gain: the trainings, what is checked before any work, and what is measured."""

import numpy as np
import pytest
from fakes import MINI, load, mini_pipeline

from ajbench.core.errors import UsageError
from ajbench.data import val_part
from ajbench.data.labels import save_scores
from ajbench.pipeline import gain_sweep, sweep
from ajbench.pipeline.cell_training import SCORES
from ajbench.pipeline.classifier_stages import grid_stages
from ajbench.pipeline.places import Places
from ajbench.pipeline.recipe_stages import Pipeline
from ajbench.pipeline.sweep_findings import REAL


def planned(*overrides, key="strength", values="0.3,0.6", n=None, model=None, dose=None, **places):
    recipe = load("mini", [*MINI, *overrides])
    made = Pipeline(sweep.swept(recipe, key, values, n, by_gain=True), Places(**places))
    return gain_sweep.planned(made, key, values, model, dose)


def test_every_setting_and_real_clips_only_are_trained_in_all_folds_and_seeds():
    found = planned("evaluate.folds=[1, 2]", "evaluate.seeds=[0, 1]")
    cells = found.cells()
    assert len({stage.path for _, stage in cells}) == len(cells) == 2 * 3 * 2
    for name, stage in cells:
        sets = [need for need in stage.needs if need.name == "synth"]
        assert [need.what for need in sets] == ([] if name == REAL else [name])
        assert stage.recipe.mix.dose == (0 if name == REAL else 10)
        if name != REAL:
            assert f"strength={stage.recipe.synth.strength:g}" == name
    stages = found.stages()
    assert len({stage.title for stage in stages}) == len(stages)
    assert [stage.name for stage in stages].count("eval-gen") == 2
    assert not {stage.path for _, stage in cells} & {s.path for s in grid_stages(mini_pipeline())}


def test_min_fidelity_filters_one_set():
    judge = "synth.judge=reference"
    found = planned(judge, key="min_fidelity", values="0,0.5")
    assert [found.mixes[name].min_fidelity for name in found.settings] == [0, 0.5]
    stages = found.stages()
    assert [stage.name for stage in stages].count("synth") == 1
    assert len({stage.path for name, stage in found.cells() if name != REAL}) == 2 * len(
        found.pipeline.recipe.evaluate.seeds
    )
    # Its evaluation is of other clips for other values, and not that of whole sets.
    (mine,) = found.evaluations()
    (other,) = planned(judge, key="min_fidelity", values="0,0.6").evaluations()
    whole = sweep.stages(found.pipeline)[-1]
    assert len({mine.path, other.path, whole.path}) == 3


@pytest.mark.parametrize(
    "keys",
    [
        ["synth.judge=reference", "mix.min_fidelity=0.5"],
        ["mix.tail={classes: 2, shots: 1, fill: true}", "synth.classes=tail"],
    ],
)
def test_where_classifiers_choose_among_the_clips_those_are_measured(keys, monkeypatch):
    seen, real_stage = [], gain_sweep.eval_gen_stage

    def spy(pipeline, names, mixes):
        seen.append(mixes)
        return real_stage(pipeline, names, mixes)

    monkeypatch.setattr(gain_sweep, "eval_gen_stage", spy)
    found = planned(*keys, dose=5)
    found.evaluations(), planned().evaluations()
    assert {*seen[0]} == {*found.settings} and not seen[1]
    cells = {name: stage.recipe.mix for name, stage in found.cells()}
    for name, mix in seen[0].items():
        assert (mix.dose, mix.min_fidelity, mix.tail) == (
            cells[name].dose, cells[name].min_fidelity, cells[name].tail,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "line", "dose"),
    [
        ({}, "taltrans-small/-/none", 10),
        ({"model": "taltrans-small+mx+sp", "dose": 5}, "taltrans-small/-/mx+sp", 5),
        ({"model": "1"}, "taltrans-small/-/mx+sp", 10),
    ],
)
def test_classifier_and_dose_are_given_or_the_first(given, line, dose):
    found = planned(**given)
    assert (found.model.line, found.mixes["strength=0.3"].dose) == (line, dose)


def test_the_primary_comparison_gives_classifier_and_dose():
    found = planned("evaluate.primary={model: taltrans-small+mx+sp, dose: 20}", "synth.n=40")
    assert (found.model.aug, found.mixes["strength=0.3"].dose) == ("mx+sp", 20)


@pytest.mark.parametrize(
    ("overrides", "given", "match"),
    [
        ([], {"model": "taltrans"}, "--model taltrans"),
        ([], {"dose": 20}, "--dose 20: .* strength=0.3 .*--n"),
        (["evaluate.doses=[0]"], {}, "--dose"),
        ([], {"key": "min_fidelity", "values": "0,0.5"}, r"synth\.judge"),
        (["synth.judge=reference"], {"key": "min_fidelity", "values": "0,1.5"}, r"mix\.min_fidelity"),
        (["evaluate.folds=[1, 9]"], {}, r"evaluate\.folds"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(overrides, given, match):
    with pytest.raises(UsageError, match=match):
        planned(*overrides, **given)


def test_doses_that_fill_the_tail_need_clips_of_the_tail():
    tail = (
        "mix.tail={classes: 2, shots: 1, fill: true}",
        "data.n_clips=240",
        "synth.n=40",
        "evaluate.doses=[2]",
    )
    with pytest.raises(
        UsageError, match=r"--dose 20: .* not made from val clips and have a label of the tail"
    ):
        planned(*tail, dose=20)
    assert planned(*tail, "synth.classes=tail", dose=10).mixes["strength=0.3"].fills_tail


def test_a_corpus_without_a_val_part_is_refused(monkeypatch):
    monkeypatch.setattr(val_part, "draw", lambda targets, *_: np.zeros(targets.shape[0], bool))
    with pytest.raises(UsageError, match="no val part"):
        planned()


def test_a_key_of_the_mix_takes_the_gain():
    with pytest.raises(UsageError, match="--by map"):
        sweep.swept(load("mini", MINI), "min_fidelity", "0,0.5")


def test_a_plan_says_which_gain_it_can_see_on_the_val_clips():
    found = planned("data.n_clips=240", "evaluate.seeds=[0, 1, 2]")
    known = gain_sweep.dry_run(found)
    clips = len(found.parts[0].val)
    assert known["power"]["val_clips"] == clips >= 20 and known["power"]["comparisons"] == 2
    assert f"{clips} val clips" in known["power"]["sentence"]
    assert known["train_cls_seconds"] > 0 and known["synth_seconds"] is None


def test_gains_come_from_the_scores_of_every_fold(tmp_path):
    found = planned("evaluate.folds=[1, 2]", "evaluate.seeds=[0, 1]", work=tmp_path)
    targets = np.eye(4, dtype=np.uint8)[np.arange(24) % 4]
    ids = [f"clip{i}" for i in range(24)]
    for name, stage in found.cells():
        stage.folder.start("", stage.seed, "cpu")
        noise = np.random.default_rng(0).standard_normal(targets.shape)
        skill = {REAL: 0.5, "strength=0.3": 1, "strength=0.6": 9}[name]
        save_scores(stage.path / SCORES, noise + skill * targets, targets, ids, list("abcd"), ids)
        stage.folder.finish()
    runs = gain_sweep.measured(found)
    assert {len(mine) for mine in runs.values()} == {4}
    assert [run.fold for run in runs[REAL]] == [1, 1, 2, 2]
    assert runs["strength=0.6"][0].value == pytest.approx(1)
    assert runs[REAL][0].value < runs["strength=0.3"][0].value < 1
