"""The figure of mixes, and what columns of Table A11 are called in words."""

import re

import pandas as pd
import pytest
from fakes import ESC10_CONTEXT, esc10_recipe

from ajbench.core.rows import make_row
from ajbench.reporting import mix_figure
from ajbench.reporting.verdict import answers

PLAN = esc10_recipe()


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("esc10", "real clips only"),
        ("esc10G", "generated clips only"),
        ("+320G", "+320 generated"),
        ("+40kX", "+40k from elsewhere"),
        ("+160A+160G", "+160 augmented, +160 generated"),
        ("+160R", "+160 repeated"),
        ("+160X (leaks)", "+160 from elsewhere (leaks)"),
        ("esc10 (all real)", "all real clips"),
        ("esc10 (decoded)", "real clips only, decoded"),
        ("α=0.5", "α=0.5"),
    ],
)
def test_columns_in_words(column, words):
    assert mix_figure.in_words(column, PLAN) == words


def measured(line, mixes):
    """Rows of a classifier: mAP of 0.5 with real clips only, and the gain of each mix."""
    found = [("esc10", "map_mean", 0.5), ("esc10", "map", 0.5)]
    for column, gain in mixes.items():
        found += [(column, metric, 0.5 + gain) for metric in ("map_mean", "map")] + [
            (column, "map_delta", gain)
        ]
    return [
        make_row(ESC10_CONTEXT, "A11", f"{line}/-/none", column, metric, value, n=80, seed="0;1;2")
        | {"ci_low": value - 0.02, "ci_high": value + 0.02}
        for column, metric, value in found
    ]


def draw(rows):
    rows = pd.DataFrame(rows)
    return mix_figure.draw(rows, PLAN, answers(rows, PLAN))


def texts(drawing):
    return re.findall(r">([^<>]+)</text>", drawing)


def test_with_one_dose_each_mix_is_a_row_with_its_numbers():
    shown = texts(draw(measured("a", {"+160G": 0.1, "+160A": -0.04, "esc10 (all real)": 0.2})))
    names = [text for text in shown if "clips" in text or text.startswith("+160")]
    assert names[:4] == ["real clips only", "+160 augmented", "+160 generated", "all real clips"]
    for number in ("50.0", "46.0", "60.0", "70.0", "−4.0", "+10.0", "+20.0"):
        assert number in shown
    assert not any("a, no" in text for text in shown)  # of one classifier, the name says nothing


def test_rows_of_several_classifiers_have_their_names():
    shown = texts(draw(measured("a", {"+160G": 0.1}) + measured("b", {"+160G": 0.2})))
    assert shown.count("real clips only") == 2 and {"a, no augmentation", "b, no augmentation"} <= {*shown}


def test_with_several_doses_there_are_curves():
    shown = texts(draw(measured("a", {"+160G": 0.1, "+320G": 0.2})))
    assert "real only" in shown and "+160 generated" not in shown
    assert draw(measured("a", {"esc10G": -0.1})) == ""


def test_what_is_compared():
    (answer,) = answers(pd.DataFrame(measured("a", {"+160G": 0.1})), PLAN)
    assert mix_figure.comparison(answer, PLAN) == "+160 generated against real clips only"
    plan = esc10_recipe(arms=["A", "A+G"], primary={"dose": 160, "arm": "A+G"})
    line = measured("taltrans-small", {"+160A+160G": 0.1})[-1]
    row = line | {
        "metric": "map_delta_a",
        "row": f"{plan.evaluate.models[0].name}/-/{plan.evaluate.models[0].aug}",
    }
    (first,) = answers(pd.DataFrame([row]), plan)
    assert mix_figure.comparison(first, plan) == "+160 generated on top of +160 augmented"


def test_curves_of_two_sources_have_their_names(monkeypatch):
    rows, curves = [], []
    for column, value in {"esc10": 0.5, "+40G": 0.52, "+80G": 0.54, "+40X": 0.5, "+80X": 0.48}.items():
        for metric in ("map", "map_mean", *(["map_delta"] if column != "esc10" else [])):
            made = make_row(ESC10_CONTEXT, "A11", "m/-/none", column, metric, value, (0, 1), n=80, seed=0)
            rows.append(made)
    frame = pd.DataFrame(rows)
    found = answers(frame, esc10_recipe())
    monkeypatch.setattr(mix_figure.figures, "dose_curve", curves.extend)
    mix_figure.draw(frame, esc10_recipe(), found)
    assert sorted(curve.name.rpartition(", ")[2] for curve in curves) == ["from elsewhere", "generated"]
