"""The table of the tail, from rows of a made-up run."""

import csv

import numpy as np
import pytest
from fakes import ESC10_CONTEXT, esc10_recipe, grid_predictions
from sklearn.metrics import f1_score, recall_score

from ajbench.core.clip_sections import Mix, Tail
from ajbench.core.rows import append_rows, make_row, read_rows
from ajbench.evaluation.classification import TAIL, cell_rows, compare_to_real, measure
from ajbench.reporting import tables, tail_table

FEW = [1, 4]


def run_in(folder, trained=lambda cell: True):
    """Rows and tables of some cells of a made-up run in a folder: the recipe, the predictions, the tables."""
    plan = esc10_recipe(published="none")
    names = next(iter(grid_predictions(plan).values())).labels
    tail = Tail(classes=[names[c] for c in FEW], shots=4, fill=True)
    plan = plan.model_copy(update={"mix": Mix(tail=tail)})
    cells = {cell: scores for cell, scores in grid_predictions(plan).items() if trained(cell)}
    found = {cell: measure(scores, tail=FEW, resamples=100) for cell, scores in cells.items()}
    rows = [row for cell, measured in found.items() for row in cell_rows(cell, measured, ESC10_CONTEXT)]
    rows += compare_to_real(found, plan.name, ESC10_CONTEXT)
    about = {"n": 8, "split": "train"}
    rows += [make_row(ESC10_CONTEXT, TAIL, names[c], plan.name, "real_clips", 4.0, **about) for c in FEW]
    append_rows(folder / "rows.csv", [row | {"pool": 320, "real": 264} for row in rows])
    return plan, cells, names, tables.write(folder / "rows.csv", folder, plan)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The recipe, its predictions, its classes, its tables and their folder."""
    folder = tmp_path_factory.mktemp("tail")
    return *run_in(folder), folder


def test_lines_have_the_means_over_seeds_and_the_gains_of_every_mix(made):
    plan, cells, names, written, folder = made
    with (folder / "table_tail.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["model"], line["mix"]) for line in lines] == [
        (model.name, mix) for model in plan.evaluate.models for mix in ("esc10G", "esc10", "+160G", "+320G")
    ]
    for line in lines:
        mine = [s for c, s in cells.items() if (c.model, c.column) == (line["model"], line["mix"])]
        pairs = [(s.targets.argmax(axis=1), s.scores.argmax(axis=1)) for s in mine]
        recalls = [100 * recall_score(*pair, labels=FEW, average="macro") for pair in pairs]
        assert float(line["tail_recall"]) == pytest.approx(np.mean(recalls), abs=0.006)
        assert float(line["tail_recall_std"]) == pytest.approx(np.std(recalls, ddof=1), abs=0.006)
        f1 = [100 * f1_score(*pair, average="macro") for pair in pairs]
        assert float(line["macro_f1"]) == pytest.approx(np.mean(f1), abs=0.006)
        assert (line["real"], line["seeds"], line["eval_clips"]) == ("264", "3", "80")
        assert line["tail"] == f"{names[1]} 4, {names[4]} 4" and line["tail_eval_clips"].endswith(" 8")
        gain = [line[f"tail_recall_delta{end}"] for end in ("_low", "", "_high")]
        assert all(gain) == (line["mix"] != "esc10")
    real, more = lines[1], lines[3]
    assert float(more["macro_f1_delta"]) == pytest.approx(
        float(more["macro_f1"]) - float(real["macro_f1"]), abs=0.02
    )
    assert (
        float(more["macro_f1_delta_low"]) < float(more["macro_f1_delta"]) < float(more["macro_f1_delta_high"])
    )
    assert written.document["table_tail"][0]["mix"] == "esc10G"


def test_every_table_names_the_tail_and_its_real_clips(made):
    _, _, names, written, folder = made
    named = f"{names[1]} 4, {names[4]} 4"
    for name in ("table_tail.md", "table_a11.md", "table_tail.tex", "table_a11.tex"):
        assert named.replace("_", r"\_" if name.endswith("tex") else "_") in (folder / name).read_text()
    assert any(named in note for note in written.table["notes"])
    with (folder / "table_a11.csv").open(newline="") as file:
        assert {line["tail"] for line in csv.DictReader(file)} == {named}


@pytest.mark.parametrize(
    ("trained", "said", "silent"),
    [
        (lambda cell: True, "mean ± standard deviation over 3 seeds; below it the paired difference from "
         "esc10 with its 95 % interval over clips and seeds", "mx+sp: "),
        (lambda cell: cell.seed == 0, "of 1 seed; below it the paired difference from esc10 with its 95 % "
         "interval over clips, each", "±"),
        (lambda cell: cell.seed == 0 or cell.column != "+320G", "taltrans-small, mx+sp: +320G: 1 of 3 seeds",
         "+160G: "),
    ],
)  # fmt: skip
def test_the_seeds_are_those_that_values_and_intervals_are_over(tmp_path, trained, said, silent):
    run_in(tmp_path, trained)
    text = (tmp_path / "table_tail.md").read_text()
    assert said in text
    assert silent not in text.partition("In percent, ")[2]


def test_without_a_tail_there_is_no_such_table(made, grid_results, tmp_path):
    plan, _, rows = grid_results
    assert "table_tail.csv" not in tables.write(rows, tmp_path, plan).paths
    assert tail_table.classes(read_rows(rows)) == ""
