import csv
import re

import numpy as np
import pandas as pd
import pytest
from fakes import ESC10_CONTEXT, esc10_recipe
from sklearn.metrics import average_precision_score

from ajbench.core.errors import MissingError
from ajbench.core.rows import append_rows, make_row, read_rows
from ajbench.evaluation import classification
from ajbench.reporting import formats, tables

COUNTS = {
    "train": {"expected": 320, "found": 320, "decoded": 319, "kept": 318},
    "eval": {"expected": 80, "found": 80, "decoded": 80, "kept": 80},
}


@pytest.fixture(scope="session")
def written(grid_results, tmp_path_factory):
    """The tables of a made-up run, and what they were made from."""
    plan, cells, rows = grid_results
    return tables.write(rows, tmp_path_factory.mktemp("tables"), plan, counts=COUNTS), plan, cells, rows


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_table_a11_has_the_papers_shape(written):
    done, _, cells, _ = written
    lines = read(done.paths["table_a11.csv"])
    measured = [line for line in lines if line["source"] == "measured"]
    assert [line["model"] for line in measured] == ["taltrans-small", "ast-tiny"]
    assert [line["backbone"] for line in measured] == ["CNN+T", "DeiT"]
    names = list(lines[0])
    at = [names.index(column) for column in ("esc10G", "esc10", "+160G", "+320G", "AS-20kG", "AS-2M")]
    assert at == sorted(at)
    for line in measured:
        assert (line["seeds"], line["eval_clips"]) == ("3", "80")
        assert (line["train_expected"], line["train_kept"], line["eval_kept"]) == ("320", "318", "80")
        for column in ("esc10G", "esc10", "+160G", "+320G"):
            values = [
                100 * average_precision_score(s.targets, s.scores, average="macro")
                for c, s in cells.items()
                if (c.model, c.column) == (line["model"], column)
            ]
            assert float(line[column]) == pytest.approx(np.mean(values), abs=0.006)
            assert float(line[f"{column}_std"]) == pytest.approx(np.std(values, ddof=1), abs=0.006)
        low, delta, high = (float(line[f"+320G_delta{end}"]) for end in ("_low", "", "_high"))
        assert delta == pytest.approx(float(line["+320G"]) - float(line["esc10"]), abs=0.02)
        assert low < delta < high
    assert "esc10_delta" not in names


def test_published_rows_stand_below_and_are_marked(written, published_dir):
    done, *_ = written
    lines = [line for line in read(done.paths["table_a11.csv"]) if line["source"] == "published"]
    figures = read(published_dir / "table_a11.csv")
    found = {
        (line["model"], line["pretraining"], line["augmentation"], column): (
            line[column],
            line[f"{column}_std"],
        )
        for line in lines
        for column in ("AS-20kG", "AS-20k", "+20kG", "+40kG", "+60kG", "+80kG", "AS-2M")
        if line[column]
    }
    assert len(found) == len(figures) == 47
    for row in figures:
        value, std = found[row["model"], row["pretraining"], row["augmentation"], row["dataset"]]
        assert float(value) == float(row["map"])
        assert (float(std) if std else None) == (float(row["map_std"]) if row["map_std"] else None)
    assert all("not comparable" in line["note"] for line in lines)


def test_shipped_figures_are_those_of_the_paper(published_dir):
    for path in published_dir.glob("*.csv"):
        assert (tables.PUBLISHED / path.name).read_bytes() == path.read_bytes()


def test_table_1_has_measured_sets_and_published_models(written):
    done, *_ = written
    lines = read(done.paths["table_1.csv"])
    assert [line["model"] for line in lines[:4]] == ["img2img", "noise", "unconditional", "names"]
    assert lines[0]["fd"] == "21.0" and lines[0]["features"] == "reference" and lines[0]["n"] == "160"
    assert float(lines[0]["fd_low"]) < 21 < float(lines[0]["fd_high"])
    assert lines[2]["kl"] == "", "unpaired clips have no KL"
    paper = {line["model"]: line for line in lines if line["source"] == "published"}
    assert len(paper) == 7 and paper["Ours-T5"]["fd"] == "12.09"
    assert all("not comparable" in line["note"] for line in paper.values())
    assert "FAD" in paper["DiffSound"]["note"]


def test_yardsticks_and_agreement_are_listed(written):
    done, *_ = written
    lines = read(done.paths["generation.csv"])
    assert {"white noise", "real, two halves", "real, another class"} <= {line["set"] for line in lines}
    agreement = [line for line in lines if line["metric"] == "label_agreement" and line["set"] == "img2img"]
    assert {line["class"] for line in agreement} >= {"all", "dog", "rain"}


def test_markdown_and_latex_say_the_same(written):
    done, *_ = written
    line = read(done.paths["table_a11.csv"])[0]
    shown = f"{float(line['+320G']):.1f} ± {float(line['+320G_std']):.1f}"
    delta = formats.signed(float(line["+320G_delta"]))
    text = done.paths["table_a11.md"].read_text()
    assert shown in text and delta in text and "published" in text and "not comparable" in text
    rows = [row for row in text.splitlines() if row.startswith("|")]
    assert len({row.count("|") for row in rows[:4]}) == 1
    tex = done.paths["table_a11.tex"].read_text()
    assert shown.replace("±", r"$\pm$") in tex and delta.replace("−", "$-$") in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    assert not re.search(r"(?<!\\)[%#_]", tex.replace(r"\_", ""))


def test_console_table_is_rectangular(written):
    done, *_ = written
    assert done.header == ["Model", "Aug", "esc10G", "esc10", "+160G", "+320G"]
    assert {len(line) for line in done.lines} == {len(done.header)}
    assert done.lines[0][0] == "taltrans-small" and done.lines[1][1] == "Δ"
    assert any("80 evaluation clips" in note and "train 318 of 320" in note for note in done.notes)


def test_rendered_corpus_is_called_by_its_name(written, tmp_path):
    _, plan, _, rows = written
    mini = plan.model_copy(update={"data": plan.data.model_copy(update={"corpus": "mini"})})
    done = tables.write(rows, tmp_path, mini)
    assert any("rendered by ajbench itself" in note for note in done.notes)
    measured = [line for line in read(done.paths["table_a11.csv"]) if line["source"] == "measured"]
    assert all("rendered by ajbench" in line["note"] for line in measured)


def test_other_recipes_old_settings_and_old_values_are_left_out(written, tmp_path):
    _, plan, cells, _ = written
    path = tmp_path / "rows.csv"
    cell, scores = next(iter(cells.items()))
    wrong = classification.Scores(-scores.scores, scores.targets, scores.clip_ids, scores.labels)
    bad = classification.cell_rows(cell, wrong, ESC10_CONTEXT, resamples=10)
    append_rows(path, [row | {"run": "earlier"} for row in bad])
    append_rows(path, classification.cell_rows(cell, scores, ESC10_CONTEXT, resamples=10))
    append_rows(path, [row | {"recipe": "esc50"} for row in bad])
    append_rows(path, [row | {"fingerprint": "of other settings"} for row in bad])
    line = read(tables.write(path, tmp_path, plan, fingerprints={"f0"}).paths["table_a11.csv"])[0]
    value = 100 * average_precision_score(scores.targets, scores.scores, average="macro")
    assert float(line[cell.column]) == pytest.approx(value, abs=0.006)
    assert line["seeds"] == "1" and line[f"{cell.column}_std"] == ""


def test_a_comparison_over_more_seeds_replaces_the_earlier_one(written, tmp_path):
    _, plan, cells, _ = written
    path = tmp_path / "rows.csv"
    for seeds in ((0,), (0, 1, 2)):
        some = {cell: scores for cell, scores in cells.items() if cell.seed in seeds}
        append_rows(path, classification.compare_to_real(some, "esc10", ESC10_CONTEXT, resamples=20))
    rows = tables.select(read_rows(path), plan)
    assert set(rows["seed"]) == {"0;1;2"}


def test_columns_stand_in_the_papers_order(written):
    _, plan, _, _ = written
    found = ["+2kG", "α=0.5", "esc10", "+800G", "esc10G"]
    rows = [make_row(ESC10_CONTEXT, "A11", "x/-/none", c, "map", 0.5, n=9, seed=0) for c in found]
    assert tables.columns_of(pd.DataFrame(rows), plan) == ["esc10G", "esc10", "+800G", "+2kG", "α=0.5"]


def test_without_measurements_it_says_what_to_run(tmp_path):
    with pytest.raises(MissingError, match="ajbench run"):
        tables.write(tmp_path / "rows.csv", tmp_path, esc10_recipe())


@pytest.mark.parametrize(
    ("value", "text"), [(1.84, "+1.8"), (-0.36, "−0.4"), (0.04, "0.0"), (-0.04, "0.0"), (-12.0, "−12.0")]
)
def test_differences_show_their_sign(value, text):
    assert formats.signed(value) == text
