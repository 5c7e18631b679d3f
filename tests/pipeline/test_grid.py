"""Lines and columns of Table A11 that a recipe plans."""

import pytest
from fakes import mini_pipeline

from ajbench.core import recipe
from ajbench.core.errors import UsageError
from ajbench.pipeline import grid
from ajbench.pipeline.classifier_stages import cell_key, grid_stages

FIRST = "{name: taltrans-small, aug: none}"


@pytest.mark.parametrize(
    ("second", "line"),
    [
        ("{name: taltrans-small, aug: none, lr: 1.0e-4}", "taltrans-small/-/none"),
        (
            "{name: head, aug: none, options: {c: 1}}, {name: head, aug: none, options: {c: 2}}",
            "head/tiny/none",
        ),
    ],
)
def test_two_classifiers_of_one_line_are_refused_since_one_would_hide_the_other(second, line):
    with pytest.raises(UsageError, match=f"evaluate.models: .*{line}"):
        grid.models(recipe.load("mini", [f"evaluate.models=[{FIRST}, {second}]"]))


def test_the_same_classifier_twice_is_trained_once():
    twice = mini_pipeline(f"evaluate.models=[{FIRST}, {FIRST}]")
    assert [stage.fingerprint for stage in grid_stages(twice)] == [
        stage.fingerprint for stage in grid_stages(mini_pipeline(f"evaluate.models=[{FIRST}]"))
    ]


def test_lines_of_the_repositories_settings_are_different():
    stages = grid_stages(mini_pipeline())
    keys = [cell_key(stage, mini_pipeline().recipe) for stage in stages]
    assert len(set(keys)) == len(keys)
    lines = [model.line for model in grid.models(recipe.load("as20k", ["variant=original"]))]
    assert lines == ["taltrans/-/none", "taltrans/-/mx+sp", "ast/IM/none", "ast/IM/mx+sp"]


@pytest.mark.parametrize("change", ["{aug: mx+sp}", "{init: imagenet}", "{name: taltrans}"])
def test_the_upper_bound_stays_in_its_line(change):
    made = recipe.load("mini", [f"evaluate.all_real={change}"])
    with pytest.raises(UsageError, match=r"evaluate\.all_real: makes .*another line"):
        grid.cells(made)
    found = grid.cells(recipe.load("mini", ["evaluate.all_real={lr: 0.5}"]))
    assert {(column.all_real, settings.lr) for settings, column, _ in found} == {(False, 2e-3), (True, 0.5)}
