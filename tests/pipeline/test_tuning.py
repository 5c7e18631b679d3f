"""A small run that chooses keys for its arms, from the corpus to tune.csv and the notes of the table."""

import csv

import pytest
from fakes import mini_pipeline

from ajbench.core.recipe import dump
from ajbench.data.store import ClipStore
from ajbench.pipeline import cell_training, estimates, results_folder
from ajbench.pipeline.classifier_stages import grid_stages, own_stage
from ajbench.pipeline.evaluation_stages import eval_cls_stage
from ajbench.pipeline.stage import in_order, run_stages
from ajbench.pipeline.tuning import candidate_lines, tunings
from ajbench.reporting import formats

SMALL = [
    *("data.duration_s=1.26", "classifier.batch_size=4", "classifier.warmup_steps=1"),
    *("evaluate.models=[{name: taltrans-small, aug: none}]", "evaluate.arms=[R]", "evaluate.doses=[10]"),
    "evaluate.tune={grid: {train_steps: [2, 3]}}",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished grid of real clips and repeated ones, and the titles of the stages that ran."""
    home = tmp_path_factory.mktemp("run")
    places = {"work": home / "work", "results": home / "results"}
    made = mini_pipeline(*SMALL, expression="tables/a11", base="mini", **places)
    stages = in_order([*tunings(made), eval_cls_stage(made, grid_stages(made))])
    plan = estimates.describe_grid(made)
    return made, plan, run_stages(stages, "cpu")


def test_arms_are_tuned_before_their_classifiers_and_nothing_runs_twice(run):
    made, _, ran = run
    assert ran == [
        "prepare",
        *(f"tune (taltrans-small none, mini{mix})" for mix in ("", "+10R")),
        *(f"train-cls (taltrans-small none, mini{mix}, seed 0)" for mix in ("", "+10R")),
        "eval-cls",
    ]
    again = mini_pipeline(*SMALL, work=made.places.work)
    stages = in_order(grid_stages(again))
    assert run_stages(stages, "cpu") == [] and {stage.path for stage in stages} == {
        stage.path for stage in in_order(grid_stages(made))
    }
    own = ["classifier.name=taltrans-small", "classifier.aug=none"]
    assert own_stage(mini_pipeline(*SMALL, *own, expression="mini+10R", work=made.places.work), 0).done()


def test_every_arm_has_the_same_budget_and_a_classifier_the_chosen_steps(run):
    made, _, _ = run
    budgets = {}
    for stage in tunings(made):
        found = cell_training.read_tuning(stage.path)
        budgets[stage.path] = [(line["keys"], line["steps"]) for line in found["candidates"]]
    assert len(budgets) == 2 and set(map(str, budgets.values())) == {
        str([({"train_steps": n}, n) for n in (2, 3)])
    }
    again = mini_pipeline(*SMALL, expression="tables/a11", base="mini", work=made.places.work)
    for cell in grid_stages(again):
        (tuning,) = (need for need in cell.needs if need.name == "tune")
        found = cell_training.read_tuning(tuning.path)
        steps = found["candidates"][found["chosen"]]["steps"]
        assert cell.amount == f"{steps} steps" and cell.recipe.classifier.train_steps == steps
        with (cell.path / "metrics.csv").open() as file:
            assert len(list(csv.DictReader(file))) == steps
        assert (cell.path / "recipe.yaml").read_text() == dump(cell.recipe)


def test_the_estimate_counts_the_trainings_of_the_choice(run):
    _, plan, _ = run
    assert [choice["steps"] for choice in plan["tunings"]] == [5, 5]
    assert plan["steps"] == 2 * 5 + 2 * 3 and plan["todo"] == 2
    hours = sum(line["seconds"] for line in [*plan["tunings"], *plan["cells"]]) / 3600
    assert plan["hours"] == pytest.approx(hours, abs=0.01)
    after = estimates.describe_grid(run[0])
    assert after["steps"] == 0 and {choice["state"] for choice in after["tunings"]} == {"done"}
    assert "tunings" not in estimates.describe_grid(mini_pipeline(*SMALL[:-1]))


def test_all_candidates_are_in_tune_csv_and_the_chosen_ones_in_notes_of_the_table(run):
    made, _, _ = run
    lines = candidate_lines(made)
    assert [(line["arm"], line["tuned_on"], line["train_steps"]) for line in lines] == [
        ("mini", "mini", 2), ("mini", "mini", 3), ("R", "+10R", 2), ("R", "+10R", 3),
    ]  # fmt: skip
    assert [lines[k]["chosen"] + lines[k + 1]["chosen"] for k in (0, 2)] == [1, 1]
    store = ClipStore.open(made.prepare.path)
    assert {line["val_clips"] for line in lines} <= set(range(1, len(store.split_indices("train"))))
    done = results_folder.publish(made, in_order([eval_cls_stage(made, grid_stages(made))]))
    assert "tune.csv" in done["files"]
    assert (made.results / "tune.csv").read_text() == formats.to_csv(lines)
    again = results_folder.write_tables(made.recipe, made.results)["table"]
    for notes in (done["table"]["notes"], again["notes"]):
        (note,) = (note for note in notes if "tune.csv" in note)
        best = [line for line in lines if line["chosen"]]
        assert all(f"{one['arm']} (train_steps {one['train_steps']}," in note for one in best)
