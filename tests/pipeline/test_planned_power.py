"""What a run can see, from its plan and from its finished classifiers."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import mini_pipeline

from ajbench.data.labels import save_scores
from ajbench.evaluation.classification import enough
from ajbench.metrics import power
from ajbench.pipeline import planned_power
from ajbench.pipeline.cell_training import SCORES
from ajbench.pipeline.classifier_stages import grid_stages

PLAN = (
    "data.n_clips=240",
    "evaluate.seeds=[0,1,2]",
    "evaluate.models=[{name: taltrans-small, aug: none}]",
)


def finish(stage, skill, spread):
    """Write scores of 48 clips of 16 classes, as if the classifier had been trained."""
    targets = np.eye(16, dtype=np.uint8)[np.arange(48) % 16]
    ids, labels = [f"clip{i}" for i in range(48)], [f"class{i}" for i in range(16)]
    own = np.random.default_rng([1, stage.seed, int(10 * skill)]).standard_normal(targets.shape)
    noise = np.random.default_rng(0).standard_normal(targets.shape) + spread * own
    stage.path.mkdir(parents=True)
    save_scores(stage.path / SCORES, noise + skill * targets, targets, ids, labels, ids)
    folder = stage.folder
    folder.start("", stage.seed, "cpu")
    folder.finish()


def test_a_plan_says_what_it_can_see_before_any_work(tmp_path):
    made = mini_pipeline(*PLAN, work=tmp_path)
    found = planned_power.planned(made)
    clips, recordings = planned_power.evaluated(made.manifest)
    assert (found["eval_clips"], found["recordings"], found["seeds"]) == (clips, recordings, 3)
    assert found["comparisons"] == 2
    (line,) = found["lines"]
    assert not line["measured"] and line["smallest_gain"] > 1
    assert (line["recordings_needed"] or np.inf) > recordings
    assert f"{line['smallest_gain']:.1f}" in found["sentence"] and f"{clips} " in found["sentence"]


def test_clips_that_no_mix_tells_apart_are_no_measured_variance(tmp_path):
    made = mini_pipeline(*PLAN, work=tmp_path)
    for stage in grid_stages(made):
        finish(stage, 99.0, 1.0)
    assert planned_power.measured(planned_power.finished(made, None), "mini") == {}
    assert planned_power.planned(made)["lines"][0]["smallest_gain"] > 1


def test_clips_in_quarantine_are_not_counted(monkeypatch, tmp_path):
    made = mini_pipeline(*PLAN, work=tmp_path)
    held_out = made.manifest.split("eval")
    few = replace(made.manifest, rows=[row for row in made.manifest.rows if row not in held_out[:40]])
    monkeypatch.setattr(planned_power.preflight, "usable", lambda manifest, prepared: few)
    found = planned_power.planned(made)
    assert found["eval_clips"] == len(held_out) - 40 < 20 and "8 evaluation clips" in found["sentence"]


def test_a_fold_with_one_recording_sees_nothing(monkeypatch, tmp_path):
    made = mini_pipeline(*PLAN, work=tmp_path)
    monkeypatch.setattr(planned_power, "evaluated", lambda manifest: (48, 1))
    assert planned_power.planned(made) == {}


@pytest.mark.parametrize("clips", [240, 6])
def test_a_gain_that_is_not_possible_is_not_announced(monkeypatch, tmp_path, clips):
    made = mini_pipeline(*PLAN, f"data.n_clips={clips}", work=tmp_path)
    monkeypatch.setattr(planned_power, "evaluated", lambda manifest: (48, 2))
    found = planned_power.planned(made)
    assert found["lines"][0]["smallest_gain"] > 100 and "no possible gain" in found["sentence"]
    assert (
        "2 recordings" in found["sentence"]
        and f"{found['lines'][0]['smallest_gain']:.1f}" not in (found["sentence"])
    )
    # Of 6 clips, some folds have a single one, whose variance is unknown.
    assert ("evaluate.folds=[1,2,3,4,5]" in found["sentence"]) == (clips == 240)


def test_of_several_gains_only_the_possible_ones_are_announced():
    lines = [{"line": name, "primary": False, "smallest_gain": gain, "recordings_needed": None,
              "measured": False} for name, gain in (("a", 20.0), ("b", 130.0))]  # fmt: skip
    plan = {"eval_clips": 48, "recordings": 9, "seeds": 3, "folds": 1, "comparisons": 2, "power": 0.8}
    plan["lacking"] = []
    said = planned_power.sentence(plan | {"lines": lines})
    assert "20.0 points or more (2 comparisons, of some classifiers none)" in said and "130" not in said
    lines[0] |= {"primary": True}
    said = planned_power.sentence(plan | {"lines": lines, "comparisons": 1})
    assert "20.0 points" in said and "no possible size (1 comparison)" in said and "130" not in said


def test_few_real_clips_see_less_before_any_work(tmp_path):
    gains = [
        planned_power.planned(mini_pipeline(*PLAN, f"mix.real={real}", work=tmp_path))["lines"][0]
        for real in ("all", "shots=2", "shots=1")
    ]
    spreads = [line["seed_sd"] for line in gains]
    assert spreads == sorted(spreads) and spreads[2] > 2 * spreads[0]
    # FSDD, eight shots of ten digits: 2.2 to 6.7 points in 15 trainings of each mix, on 3,000 recordings.
    of_fsdd = planned_power.prior(80)
    assert 5.1 < 100 * np.sqrt(of_fsdd.between) < 10.1
    known = power.Design(3000, 3, folds=5)
    assert 3.5 < 100 * power.smallest_gain(of_fsdd.clips, of_fsdd.between, known) < 9


def test_the_primary_comparison_sees_smaller_gains_than_the_family(tmp_path):
    primary = "evaluate.primary={model: taltrans-small+none, dose: 20}"
    found = planned_power.planned(mini_pipeline(*PLAN, primary, work=tmp_path))
    first, other = found["lines"]
    assert (first["primary"], other["primary"], found["comparisons"]) == (True, False, 1)
    assert first["smallest_gain"] < other["smallest_gain"] + 1e-9


def test_a_single_comparison_sees_what_a_primary_one_sees(tmp_path):
    primary = "evaluate.primary={model: taltrans-small+none, dose: 20}"
    plan = *PLAN, "evaluate.doses=[20]"
    (single,), (declared,) = (
        planned_power.planned(mini_pipeline(*plan, *more, work=tmp_path))["lines"]
        for more in ((), (primary,))
    )
    assert not single["primary"] and single["smallest_gain"] == declared["smallest_gain"]


def test_finished_classifiers_replace_the_variances_of_other_runs(tmp_path):
    found = {}
    for spread in (0.0, 1.0):
        made = mini_pipeline(*PLAN, work=tmp_path / str(spread))
        for stage in grid_stages(made):
            if stage.recipe.mix.has_real:
                finish(stage, 1 + stage.recipe.mix.dose / 20, spread)
        (found[spread],) = planned_power.planned(made)["lines"]
    assert all(line["measured"] for line in found.values())
    assert found[0.0]["seed_sd"] == pytest.approx(0, abs=1e-6)
    assert found[1.0]["seed_sd"] > 0.1
    assert found[0.0]["smallest_gain"] < found[1.0]["smallest_gain"]


def test_a_primary_comparison_with_augmented_clips_has_its_own_variances(tmp_path):
    arms = "evaluate.arms=[A,G,A+G]", "evaluate.primary={dose: 20, arm: A+G}", "evaluate.doses=[20]"
    made = mini_pipeline(*PLAN, *arms, work=tmp_path)
    for stage in grid_stages(made):
        # mAP varies between the seeds of A+G, and of nothing else.
        finish(stage, 1 + stage.recipe.mix.dose / 40, 1.0 if stage.recipe.mix.source == "A+G" else 0.0)
    primary, family = planned_power.planned(made)["lines"]
    assert primary["primary"] and primary["measured"] and family["measured"]
    assert primary["seed_sd"] > 1 and family["seed_sd"] == pytest.approx(0, abs=1e-6)
    alone = "evaluate.arms=[A,A+G]", *arms[1:]
    (only,) = planned_power.planned(mini_pipeline(*PLAN, *alone, work=tmp_path))["lines"]
    assert only == primary


def test_folds_add_their_clips_and_trainings(tmp_path):
    plan = *PLAN, "evaluate.seeds=[0,1]"
    one, five = (
        mini_pipeline(*plan, f"evaluate.folds={f}", work=tmp_path / f) for f in ("[5]", "[1,2,3,4,5]")
    )
    alone, found = planned_power.planned(one), planned_power.planned(five)
    assert (found["folds"], found["eval_clips"], found["seeds"]) == (5, 240, 2)
    assert "3 needed" in alone["sentence"] and "5 folds" in found["sentence"]
    assert found["lines"][0]["smallest_gain"] < alone["lines"][0]["smallest_gain"] / 2
    for stage in grid_stages(five):
        if stage.recipe.mix.has_real:
            finish(stage, 1 + stage.recipe.mix.dose / 20 + stage.recipe.data.eval_fold, 0.0)
    (line,) = planned_power.planned(five)["lines"]
    assert line["measured"] and line["seed_sd"] == pytest.approx(0, abs=1e-6), "folds differ, seeds do not"


def test_only_what_a_verdict_lacks_is_named_with_what_to_do(tmp_path):
    base = {"eval_clips": 40, "recordings": 40, "seeds": 3, "folds": 1}
    lacking = planned_power.lacking
    assert lacking(base) == [] == lacking(base | {"seeds": 2, "folds": 2})
    (clips,) = lacking(base | {"eval_clips": 16, "recordings": 16}, "set more folds")
    assert "16 evaluation clips, 20 needed; add 4, or set more folds" in clips and "seed" not in clips
    (seeds,) = lacking(base | {"seeds": 1})
    assert "1 seed, 3 needed" in seeds and "evaluate.seeds=[0,1,2]" in seeds and "clip" not in seeds
    (of_folds,) = lacking(base | {"seeds": 1, "folds": 5})
    assert "5 folds, 2 needed" in of_folds and "evaluate.seeds=[0,1]" in of_folds
    made = mini_pipeline(*PLAN, "evaluate.seeds=[0]", "data.n_clips=50", work=tmp_path)
    found = planned_power.planned(made)
    assert len(found["lacking"]) == 2 and all(one in found["sentence"] for one in found["lacking"])
    assert "evaluate.folds=[1,2,3,4,5]" in found["sentence"]


def test_too_few_seeds_for_a_verdict_are_said(tmp_path):
    found = planned_power.planned(mini_pipeline(*PLAN, "evaluate.seeds=[0,1]", work=tmp_path))
    assert not enough(found["seeds"]) and "2 seeds, 3 needed" in found["sentence"]


def test_a_run_without_a_comparison_has_no_power(tmp_path):
    assert planned_power.planned(mini_pipeline("evaluate.doses=[]", work=tmp_path)) == {}
