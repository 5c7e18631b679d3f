import csv
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from fakes import ESC10_CONTEXT, esc10_recipe, grid_predictions, write_result_rows
from sklearn.metrics import average_precision_score

from ajbench.core.errors import MissingError
from ajbench.core.recipe import load
from ajbench.core.rows import ROW_COLUMNS, append_rows, make_row, read_rows
from ajbench.data.labels import Scores
from ajbench.evaluation.classification import cell_rows, compare_to_real, measure
from ajbench.reporting import current_rows, formats, tables
from ajbench.reporting.formats import signed

COUNTS = {
    "train": {"expected": 320, "found": 320, "decoded": 319, "kept": 318},
    "eval": {"expected": 80, "found": 80, "decoded": 80, "kept": 80},
}


@pytest.fixture(scope="session")
def written(grid_results, tmp_path_factory):
    """The tables of a made-up run."""
    plan, _, rows = grid_results
    return tables.write(rows, tmp_path_factory.mktemp("tables"), plan, counts=COUNTS)


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def percent(s):
    return 100 * average_precision_score(s.targets, s.scores, average="macro")


def test_table_a11_has_the_layout_of_the_paper(grid_results, written):
    _, cells, _ = grid_results
    lines = read(written.paths["table_a11.csv"])
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
            values = [percent(s) for c, s in cells.items() if (c.model, c.column) == (line["model"], column)]
            assert float(line[column]) == pytest.approx(np.mean(values), abs=0.006)
            assert float(line[f"{column}_std"]) == pytest.approx(np.std(values, ddof=1), abs=0.006)
        low, delta, high = (float(line[f"+320G_delta{end}"]) for end in ("_low", "", "_high"))
        assert delta == pytest.approx(float(line["+320G"]) - float(line["esc10"]), abs=0.02)
        assert low < delta < high
    assert "esc10_delta" not in names


def test_of_several_folds_the_table_has_the_means_over_them(tmp_path):
    plan = esc10_recipe(published="none")
    one = {cell._replace(fold=1): s for cell, s in grid_predictions(plan, seeds=(0, 1)).items()}
    ids = tuple(f"2-{i}" for i in range(40))
    other = {
        cell._replace(fold=2): Scores(
            s.scores[:40] + 0.3 * s.targets[:40], s.targets[:40], ids, s.labels, ids
        )
        for cell, s in one.items()
    }
    runs = ("fold 1", one), ("fold 2", other), ("folds 1-2", one | other), ("fold 2", other)
    for run, (fold, cells) in enumerate(runs):
        context = replace(ESC10_CONTEXT, dataset=f"esc10 {fold}", run=str(run))
        found = {cell: measure(scores, resamples=100) for cell, scores in cells.items()}
        if not fold.startswith("folds"):
            for cell, measured in found.items():
                append_rows(tmp_path / "rows.csv", cell_rows(cell, measured, context))
        append_rows(tmp_path / "rows.csv", compare_to_real(found, plan.name, context))
    line = tables.a11_lines(current_rows.select(read_rows(tmp_path / "rows.csv"), plan), plan)[0]
    mine = {cell: percent(s) for cell, s in (one | other).items() if cell.model == "taltrans-small"}
    of_dose = {cell: value for cell, value in mine.items() if cell.column == "+320G"}
    assert line["+320G"] == pytest.approx(np.mean(list(of_dose.values())), abs=0.006)
    by_seed = [np.mean([v for cell, v in of_dose.items() if cell.seed == seed]) for seed in (0, 1)]
    assert line["+320G_std"] == pytest.approx(np.std(by_seed, ddof=1), abs=0.006)
    assert line["eval_clips"] == 120 and line["seeds"] == 2 and line["dataset"] == "esc10 folds 1-2"


def test_published_rows_are_below_and_marked(written, published_dir):
    lines = [line for line in read(written.paths["table_a11.csv"]) if line["source"] == "published"]
    figures = read(published_dir / "table_a11.csv")
    found = {}
    for line, column in product(lines, tables.PUBLISHED_COLUMNS):
        if line[column]:
            key = line["model"], line["pretraining"], line["augmentation"], column
            found[key] = line[column], line[f"{column}_std"]
    assert len(found) == len(figures) == 47
    for row in figures:
        value, std = found[row["model"], row["pretraining"], row["augmentation"], row["dataset"]]
        assert float(value) == float(row["map"])
        assert (float(std) if std else None) == (float(row["map_std"]) if row["map_std"] else None)
    assert all("not comparable" in line["note"] for line in lines)


def test_the_shipped_figures_are_those_of_the_paper(published_dir):
    for path in published_dir.glob("*.csv"):
        assert (tables.PUBLISHED / path.name).read_bytes() == path.read_bytes()


def test_table_1_has_measured_sets_and_published_models(written):
    lines = read(written.paths["table_1.csv"])
    assert [line["model"] for line in lines[:4]] == ["img2img", "noise", "unconditional", "names"]
    assert lines[0]["fd"] == "21.0" and lines[0]["features"] == "reference" and lines[0]["n"] == "160"
    assert float(lines[0]["fd_low"]) < 21 < float(lines[0]["fd_high"])
    assert lines[2]["kl"] == "", "unpaired clips have no KL"
    paper = {line["model"]: line for line in lines if line["source"] == "published"}
    assert len(paper) == 7 and paper["Ours-T5"]["fd"] == "12.09"
    assert all("not comparable" in line["note"] for line in paper.values())
    assert "FAD" in paper["DiffSound"]["note"]


def test_published_rows_of_table_1_are_comparable_for_its_clips_and_extractor_only():
    rows = pd.DataFrame(columns=list(ROW_COLUMNS))
    for features, comparable in (("panns16k", True), ("mn04", False)):
        base = load("audiocaps", [f"evaluate.features={features}"])
        lines = tables.table_1_lines(rows, base)
        assert lines and all(("not comparable" not in line["note"]) == comparable for line in lines)


def test_baselines_and_label_agreement_are_listed(written):
    lines = read(written.paths["generation.csv"])
    assert {"white noise", "real, two halves", "real, another class"} <= {line["set"] for line in lines}
    agreement = [line for line in lines if line["metric"] == "label_agreement" and line["set"] == "img2img"]
    assert {line["class"] for line in agreement} >= {"all", "dog", "rain"}


def test_markdown_latex_and_terminal_agree(written):
    line = read(written.paths["table_a11.csv"])[0]
    shown = f"{float(line['+320G']):.1f} ± {float(line['+320G_std']):.1f}"
    delta = signed(float(line["+320G_delta"]))
    text = written.paths["table_a11.md"].read_text()
    assert shown in text and delta in text and "published" in text and "not comparable" in text
    rows = [row for row in text.splitlines() if row.startswith("|")]
    assert len({row.count("|") for row in rows[:4]}) == 1
    tex = written.paths["table_a11.tex"].read_text()
    assert shown.replace("±", r"$\pm$") in tex and delta.replace("−", "$-$") in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    assert not re.search(r"(?<!\\)[%#_]", tex.replace(r"\_", ""))
    assert written.table["header"] == ["Model", "Aug", "esc10G", "esc10", "+160G", "+320G"]
    assert {len(line) for line in written.table["lines"]} == {len(written.table["header"])}
    assert written.table["lines"][0][0] == "taltrans-small" and written.table["lines"][1][1] == "Δ"
    notes = written.table["notes"]
    assert any("80 evaluation clips" in note and "train 318 of 320" in note for note in notes)
    (note,) = (note for note in notes if "3 seeds" in note)
    assert (
        "deviation over 3 seeds" in note and "from esc10 with its 95 % interval over clips and seeds;" in note
    )


def test_the_sizes_of_pool_and_real_clips_and_the_codec_are_on_every_line(grid_results, tmp_path):
    plan, _, path = grid_results
    rows = []
    for row in read_rows(path).to_dict("records"):
        sizes = {"pool": "" if row["column"] == plan.name else 2_041_789}
        sizes |= {"real": 0 if row["column"] == f"{plan.name}G" else 40, "codec": "tiny@0123"}
        rows.append(row | sizes)
        if row["column"] == plan.name:
            rows.append(row | {"column": f"{plan.name} (all real)", "real": 320})
    append_rows(tmp_path / "rows.csv", rows)
    done = tables.write(tmp_path / "rows.csv", tmp_path, plan)
    for line in done.document["table_a11"]:
        assert (line["pool"], line["real"], line["all_real"]) == (2_041_789, 40, 320)
        assert line["codec"] == "tiny@0123"
    for line in (*done.document["table_1"], *done.document["generation"]):
        assert (int(line["pool"]), int(line["real"])) == (2_041_789, 40)
    for name in ("table_a11.md", "table_a11.tex", "table_1.md"):
        assert "pool 2,041,789, real 40" in done.paths[name].read_text()
    assert "real 40, all real 320, codec tiny@0123" in done.table["notes"][0]


def test_versions_of_the_codec_have_a_line_each(grid_results, tmp_path):
    plan, _, path = grid_results
    rows = [row | {"codec": "tiny@old"} for row in read_rows(path).to_dict("records")]
    old = tables.a11_lines(pd.DataFrame(rows), plan)[0]
    append_rows(tmp_path / "rows.csv", rows)
    later = [row for row in rows if row["column"] == plan.name]
    later = [row | {"codec": "tiny@new", "run": "later", "value": row["value"] / 2} for row in later]
    append_rows(tmp_path / "rows.csv", later)
    append_rows(tmp_path / "new.csv", later)
    done = tables.write(tmp_path / "rows.csv", tmp_path, plan)
    half = len(done.document["table_a11"]) // 2
    new, former = done.document["table_a11"][:half], done.document["table_a11"][half:]
    assert {line["codec"] for line in new} == {"tiny@new"} and {line["codec"] for line in former} == {
        "tiny@old"
    }
    assert former[0] == old, "as if there were no later version"
    assert done.document["table_1"] and done.document["generation"], "generated clips of the only version"
    assert (
        done.document["verdict"]
        == tables.write(tmp_path / "new.csv", tmp_path / "n", plan).document["verdict"]
    )
    assert new[0][plan.name] == pytest.approx(old[plan.name] / 2, abs=0.01)
    assert set(new[0]) < set(old), "nothing is taken from the other version"
    for name in ("table_a11.md", "table_a11.tex"):
        text = done.paths[name].read_text().replace("\\_", "_")
        assert text.count("tiny@new") == text.count("tiny@old") == half + 1


def test_a_rendered_corpus_is_marked(grid_results, tmp_path):
    plan, _, rows = grid_results
    mini = plan.model_copy(update={"data": plan.data.model_copy(update={"corpus": "mini"})})
    done = tables.write(rows, tmp_path, mini)
    assert any("mini is rendered" in note for note in done.table["notes"])
    measured = [line for line in read(done.paths["table_a11.csv"]) if line["source"] == "measured"]
    assert all("mini is rendered" in line["note"] for line in measured)


def test_other_recipes_settings_and_earlier_values_are_left_out(grid_results, tmp_path):
    plan, cells, _ = grid_results
    path = tmp_path / "rows.csv"
    cell, scores = next(iter(cells.items()))
    wrong = Scores(-scores.scores, scores.targets, scores.clip_ids, scores.labels, scores.recordings)
    bad = cell_rows(cell, measure(wrong, resamples=10), ESC10_CONTEXT)
    append_rows(path, [row | {"run": "earlier"} for row in bad])
    append_rows(path, cell_rows(cell, measure(scores, resamples=10), ESC10_CONTEXT))
    for other in ({"recipe": "esc50"}, {"fingerprint": "of other settings"}):
        append_rows(path, [row | other for row in bad])
    line = read(tables.write(path, tmp_path, plan, fingerprints={"f0"}).paths["table_a11.csv"])[0]
    assert float(line[cell.column]) == pytest.approx(percent(scores), abs=0.006)
    assert line["seeds"] == "1" and line[f"{cell.column}_std"] == ""


def test_of_one_seed_the_interval_is_over_clips_alone(tmp_path):
    plan = esc10_recipe(published="none")
    rows = write_result_rows(tmp_path / "rows.csv", plan, grid_predictions(plan, seeds=(0,)))
    written = tables.write(rows, tmp_path, plan)
    (note,) = (note for note in written.table["notes"] if note.startswith("mAP"))
    assert note.startswith("mAP in percent, of 1 seed; below it") and "95 % interval over clips; " in note
    assert "±" not in note and "±" not in str(written.table["lines"])


def test_a_column_that_lacks_seeds_says_so(grid_results, tmp_path):
    plan, cells, _ = grid_results
    some = {cell: s for cell, s in cells.items() if cell.column == plan.name or cell.seed < 2}
    some = {cell: s for cell, s in some.items() if cell.column != "+320G" or cell.seed == 1}
    written = tables.write(write_result_rows(tmp_path / "rows.csv", plan, some), tmp_path, plan)
    notes = written.table["notes"]
    for name in ("taltrans-small", "ast-tiny"):
        mine = [note for note in notes if note.startswith(f"{name}, mx+sp: ")]
        assert [note.split(": ", 1)[1] for note in mine] == [
            "esc10G: 2 of 3 seeds", "+160G: 2 of 3 seeds", "+320G: 1 of 3 seeds",
        ]  # fmt: skip
    (note,) = (note for note in notes if note.startswith("mAP"))
    assert "over 1–3 seeds" in note and "from esc10 over the seeds that both have, with" in note
    assert "over clips and, from two seeds on, seeds;" in note
    line = read(written.paths["table_a11.csv"])[0]
    assert [line[name] for name in ("seeds", "+160G_seeds", "+320G_seeds")] == ["3", "2", "1"]
    assert "esc10_seeds" not in line
    for name in ("table_a11.md", "table_a11.tex"):
        assert "+320G: 1 of 3 seeds" in written.paths[name].read_text()


def test_columns_with_different_seeds_say_so(grid_results, tmp_path):
    plan, cells, _ = grid_results
    some = {cell: s for cell, s in cells.items() if cell.seed != (0 if cell.column == plan.name else 2)}
    written = tables.write(write_result_rows(tmp_path / "rows.csv", plan, some), tmp_path, plan)
    assert written.document["table_a11"][0]["seeds"] == 3
    assert f"taltrans-small, mx+sp: {plan.name}: 2 of 3 seeds" in written.table["notes"]


def test_files_of_earlier_rows_do_not_stay_beside_the_tables(grid_results, tmp_path):
    plan, _, rows = grid_results
    former = [f"{name}.{kind}" for name in ("table_1", "table_tail") for kind in ("csv", "md", "tex")]
    for name in (*former, "gain_by_real.csv", "generation.csv", "tune.csv", "sweep_guidance.csv"):
        (tmp_path / name).write_text("of an earlier run")
    done = tables.write(rows, tmp_path, plan)
    own = {"tune.csv", "sweep_guidance.csv"}
    assert {path.name for path in tmp_path.iterdir()} == {*done.paths, *own}
    assert {"table_1.csv", "generation.csv"} <= {*done.paths}


def test_columns_are_in_the_order_of_the_paper():
    found = ["+2kG", "α=0.5", "esc10", "+800G", "esc10G"]
    rows = [make_row(ESC10_CONTEXT, "A11", "x/-/none", c, "map", 0.5, n=9, seed=0) for c in found]
    columns = tables.columns_of(pd.DataFrame(rows), esc10_recipe())
    assert columns == ["esc10G", "esc10", "+800G", "+2kG", "α=0.5"]


def test_missing_rows_are_an_error(tmp_path):
    with pytest.raises(MissingError, match=r"rows\.csv"):
        tables.write(tmp_path / "rows.csv", tmp_path, esc10_recipe())


def test_what_was_chosen_for_the_arms_is_told_over_folds(tmp_path):
    tuned = esc10_recipe(tune={})
    assert tables.chosen_keys(tmp_path, tuned) == {}
    lines = [
        {"model": name, "pretraining": "-", "augmentation": "mx+sp", "arm": arm, "tuned_on": "+160G",
         "fold": fold, "val_clips": 80, "train_steps": steps, "lr": 0.002, "steps": steps,
         "val_map": 0.5 + steps / 1e4, "chosen": int((steps == 300) == (fold == 1))}
        for name in ("taltrans-small", "ast-tiny")
        for arm in ("G", "A")
        for fold in (1, 2)
        for steps in (300, 600)
    ]  # fmt: skip
    lines.append(lines[2] | {"train_steps": 450, "fold": 3, "chosen": 1, "val_map": 0.54})
    lines += [line | {"model": "head", "train_steps": None, "options.c": 1.0} for line in lines[:1]]
    (tmp_path / "tune.csv").write_text(formats.to_csv(lines))
    notes = tables.chosen_keys(tmp_path, tuned)
    assert set(notes) == {"taltrans-small/-/mx+sp", "ast-tiny/-/mx+sp", "head/-/mx+sp"}
    shown = "{} (train_steps 300–600, lr 0.002, mAP 53.0–56.0)"
    assert f"{shown.format('G')}, {shown.format('A')}" in notes["ast-tiny/-/mx+sp"]
    assert "train_steps" not in notes["head/-/mx+sp"] and "options.c 1," in notes["head/-/mx+sp"]
    assert tables.chosen_keys(tmp_path, esc10_recipe()) == {}
