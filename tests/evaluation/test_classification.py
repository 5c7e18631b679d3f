from dataclasses import replace

import numpy as np
import pytest
from fakes import esc10_recipe
from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score

from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.recipe import Mix
from ajbench.core.rows import Context, is_control, is_rival
from ajbench.data.labels import Scores, save_scores
from ajbench.evaluation.classification import (
    Primary,
    TableCell,
    cell_rows,
    column_name,
    compare_to_real,
    measure,
    per_class,
    primary_comparison,
)
from ajbench.metrics.intervals import wilson

LABELS = ("clock", "dog", "rain", "siren")
CONTEXT = Context("run-1", "esc10", "f1", "c0ffee", "esc10 fold 1")


def predictions(skill, seed, n=60, multi=False):
    """Scores that are the better the larger `skill` is; the clips do not depend on the seed."""
    truth = np.random.default_rng(99).integers(0, len(LABELS), n)
    targets = np.eye(len(LABELS), dtype=np.uint8)[truth]
    if multi:
        targets[::3, 0] = 1
    noise = np.random.default_rng(seed).standard_normal(targets.shape)
    scores = (noise + skill * targets).astype(np.float32)
    ids = tuple(f"clip-{i}" for i in range(n))
    return Scores(scores, targets, ids, LABELS, ids)


def cell(column="esc10", seed=0):
    return TableCell("taltrans-small", "-", "mx+sp", column, seed)


def grid(seeds=(0,), **skills):
    """Predictions of columns (`real` is esc10, `more` +160G, `alone` esc10G, `decoded` a control)."""
    names = {"real": "esc10", "more": "+160G", "alone": "esc10G", "decoded": "esc10 (decoded)"}
    return {cell(names[k], seed): predictions(skill, seed) for k, skill in skills.items() for seed in seeds}


def compared(cells, resamples=50):
    """Rows of the comparison by column and metric."""
    measured = {cell: measure(scores, resamples=resamples) for cell, scores in cells.items()}
    rows = compare_to_real(measured, "esc10", CONTEXT)
    return {(row["column"], row["metric"]): row for row in rows}


def ends(row):
    return row["ci_low"], row["ci_high"]


def sklearn_map(s):
    return average_precision_score(s.targets, s.scores, average="macro")


@pytest.mark.parametrize(
    ("mix", "decoded", "column", "control"),
    [
        (Mix(), False, "esc10", False),
        (Mix(dose=160), False, "+160G", False),
        (Mix(dose=40_000), False, "+40kG", False),
        (Mix(dose=160, source="A"), False, "+160A", False),
        (Mix(dose=1000, source="R"), False, "+1kR", False),
        (Mix(dose=160, source="A+G"), False, "+160A+160G", False),
        (Mix(real="none", dose=320), False, "esc10G", False),
        (Mix(mode="alpha", alpha=0.25), False, "α=0.25", False),
        (Mix(), True, "esc10 (decoded)", True),
        (Mix(dose=160), True, "+160G (decoded)", True),
        (Mix().model_copy(update={"match_steps": 80_000}), False, "esc10 (steps of +80kG)", True),
    ],
)
def test_columns_are_named_as_in_table_a11_and_controls_in_brackets(mix, decoded, column, control):
    assert column_name("esc10", mix, decoded) == column
    assert is_control(column) == control
    assert is_control(column_name("esc10", mix, decoded, all_real=True))
    assert is_rival(column) == (mix.source != "G")


def test_a_control_is_named_after_the_mix_whose_steps_it_has():
    control = Mix().model_copy(update={"match_steps": 1280})
    for dose, source, name in ((640, "A+G", "+640A+640G"), (1280, "A", "+1280A"), (40_000, "G", "+40kG")):
        column = column_name("esc10", control, steps_of=Mix(dose=dose, source=source))
        assert column == f"esc10 (steps of {name})" and is_control(column) and not is_rival(column)


def test_rows_of_a_cell_agree_with_sklearn_and_contain_their_value():
    made = predictions(1.5, 3)
    found = {row["metric"]: row for row in cell_rows(cell(seed=3), measure(made), CONTEXT)}
    assert found["map"]["value"] == pytest.approx(sklearn_map(made))
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(made.targets, made.scores, average="macro"))
    expected = (made.scores.argmax(1) == made.targets.argmax(1)).mean()
    assert found["accuracy"]["value"] == pytest.approx(expected)
    assert found.pop("classes")["value"] == made.targets.any(axis=0).sum()
    for row in found.values():
        assert row["ci_low"] < row["value"] < row["ci_high"]
        assert (row["n"], row["seed"], row["row"], row["table"]) == (60, 3, "taltrans-small/-/mx+sp", "A11")
    assert ends(found["accuracy"]) == pytest.approx(wilson(np.arange(60) < 60 * expected, range(60))[1:])


def test_clips_of_one_recording_widen_the_intervals():
    made = predictions(1.5, 3)
    made.scores[1::2], made.targets[1::2] = made.scores[::2], made.targets[::2]
    whole = replace(made, recordings=tuple(f"r{k // 2}" for k in range(60)))
    ours, theirs = ({r["metric"]: r for r in cell_rows(cell(), measure(m), CONTEXT)} for m in (whole, made))
    for metric in ("map", "auc", "dprime", "accuracy"):
        wide, narrow = (row[metric]["ci_high"] - row[metric]["ci_low"] for row in (ours, theirs))
        assert wide > 1.2 * narrow, metric


def test_a_perfect_classifier_has_finite_metrics_and_bounds():
    made = predictions(100.0, 3)
    found = {row["metric"]: row for row in cell_rows(cell(), measure(made), CONTEXT)}
    assert found["auc"]["value"] == found["auc"]["ci_high"] == 1.0 and 0.9 < found["auc"]["ci_low"] < 1
    assert np.isfinite([found["dprime"][name] for name in ("value", "ci_low", "ci_high")]).all()


def test_multi_label_clips_have_no_accuracy():
    rows = cell_rows(cell(), measure(predictions(1.5, 3, multi=True), resamples=50), CONTEXT)
    assert [row["metric"] for row in rows] == ["map", "auc", "dprime", "macro_f1", "classes"]


@pytest.mark.parametrize("multi", [False, True])
def test_f1_and_tail_recall_agree_with_sklearn_and_are_compared_like_map(multi):
    seeds, tail = (0, 1), [1, 3]
    skills = {"esc10": 1.0, "+160G": 1.6}
    cells = {cell(c, s): predictions(skill, s, multi=multi) for c, skill in skills.items() for s in seeds}
    measured = {key: measure(scores, tail=tail, resamples=200) for key, scores in cells.items()}
    rows = compare_to_real(measured, "esc10", CONTEXT)
    found = {(row["column"], row["metric"]): row for row in rows}
    values = {}
    for key, s in cells.items():
        true, predicted = s.targets.argmax(axis=1), s.scores.argmax(axis=1)
        if multi:
            single = s.targets.sum(axis=1) == 1
            highest = np.eye(s.targets.shape[1], dtype=bool)[predicted]
            true, predicted = s.targets, np.where(single[:, None], highest, s.scores > 0)
        values.setdefault((key.column, "macro_f1"), []).append(f1_score(true, predicted, average="macro"))
        recall = recall_score(true, predicted, labels=tail, average="macro")
        values.setdefault((key.column, "tail_recall"), []).append(recall)
        own = {row["metric"]: row for row in cell_rows(key, measured[key], CONTEXT)}
        for metric in ("macro_f1", "tail_recall"):
            assert own[metric]["value"] == pytest.approx(values[key.column, metric][-1])
            low, high = ends(own[metric])
            assert low < high and low <= own[metric]["value"] <= high
    for metric in ("macro_f1", "tail_recall"):
        real, more = (np.mean(values[column, metric]) for column in skills)
        assert found["+160G", f"{metric}_mean"]["value"] == pytest.approx(more)
        delta = found["+160G", f"{metric}_delta"]
        assert delta["value"] == pytest.approx(more - real) and delta["seed"] == "0;1"
        assert delta["ci_low"] < delta["value"] < delta["ci_high"]
        assert ("esc10", f"{metric}_delta") not in found and ("+160G", f"{metric}_delta_family") not in found


def test_a_fold_without_clips_of_the_tail_leaves_the_tail_recall_of_the_others():
    cells = {}
    for column, skill in {"esc10": 1.0, "+160G": 1.6}.items():
        for seed in (0, 1):
            made = predictions(skill, seed)
            cells[cell(column, seed)._replace(fold=1)] = measure(made, tail=[1], resamples=100)
            lacking = replace(made, targets=np.where(made.targets[:, 1:2] == 1, [[1, 0, 0, 0]], made.targets))
            cells[cell(column, seed)._replace(fold=2)] = measure(lacking, tail=[1], resamples=100)
    rows = {(r["column"], r["metric"]): r["value"] for r in compare_to_real(cells, "esc10", CONTEXT)}
    of_fold_1 = {key: one for key, one in cells.items() if key.fold == 1}
    alone = {(r["column"], r["metric"]): r["value"] for r in compare_to_real(of_fold_1, "esc10", CONTEXT)}
    for key in (("esc10", "tail_recall_mean"), ("+160G", "tail_recall_mean"), ("+160G", "tail_recall_delta")):
        assert rows[key] == alone[key]
    assert rows["esc10", "macro_f1_mean"] != alone["esc10", "macro_f1_mean"]


def test_without_a_tail_or_its_clips_there_is_no_tail_recall():
    made = predictions(1.0, 0)
    assert "tail_recall" not in measure(made, resamples=50).resampled
    made.targets[made.targets[:, 1] == 1] = [1, 0, 0, 0]
    assert "tail_recall" not in measure(made, tail=[1], resamples=50).resampled


def test_a_control_is_compared_but_does_not_count_as_a_mix():
    alone = compared(grid((0, 1, 2), real=1.0, more=1.4))
    both = compared(grid((0, 1, 2), real=1.0, more=1.4, decoded=1.2))
    assert ends(both["+160G", "map_delta_family"]) == ends(alone["+160G", "map_delta_family"])
    assert {c for c, metric in both if metric == "map_delta"} == {"+160G", "esc10 (decoded)"}
    assert {c for c, metric in both if metric == "map_delta_family"} == {"+160G"}


def test_gains_by_class(tmp_path):
    cells = grid((0, 1), real=1.0, more=1.6)
    paths = {key: tmp_path / f"{key.column}{key.seed}.npz" for key in cells}
    for key, s in cells.items():
        save_scores(paths[key], s.scores, s.targets, s.clip_ids, s.labels, s.recordings)
    lines = per_class(paths, "esc10")
    assert [line["class"] for line in lines] == list(LABELS)
    for line in lines:
        assert line["+160G_gain"] == pytest.approx(line["+160G"] - line["esc10"], abs=0.011)
    runs = [cells[cell("esc10", seed)] for seed in (0, 1)]
    first = [average_precision_score(s.targets[:, 0], s.scores[:, 0]) for s in runs]
    assert lines[0]["esc10"] == pytest.approx(100 * np.mean(first), abs=0.006)
    # A second fold without a clock counts for the other classes only.
    for key, s in cells.items():
        paths[key._replace(fold=2)] = tmp_path / f"2{key.column}{key.seed}.npz"
        rest = s.targets[:, 0] == 0
        kept = s.scores[rest], s.targets[rest], np.array(s.clip_ids)[rest].tolist(), s.labels
        save_scores(paths[key._replace(fold=2)], *kept, np.array(s.recordings)[rest].tolist())
    both = per_class(paths, "esc10")
    assert both[0] == lines[0]
    assert [b["eval_clips"] for b in both[1:]] == [2 * line["eval_clips"] for line in lines[1:]]
    assert both[1]["esc10"] > lines[1]["esc10"]


def test_the_difference_to_real_clips_is_paired_and_averaged_over_seeds():
    cells = grid((0, 1, 2), real=1.0, more=1.4, alone=0.2)
    found = compared(cells, resamples=300)
    mean = {}
    for column in ("esc10", "+160G", "esc10G"):
        mean[column] = np.mean([sklearn_map(s) for c, s in cells.items() if c.column == column])
        assert found[column, "map_mean"]["value"] == pytest.approx(mean[column])
        if column != "esc10":
            delta = found[column, "map_delta"]
            assert delta["value"] == pytest.approx(mean[column] - mean["esc10"])
            assert delta["seed"] == "0;1;2" and delta["n"] == 60
    # Both columns share their noise, so the paired interval is far narrower than either column's own.
    paired, own = found["+160G", "map_delta"], found["+160G", "map_mean"]
    assert paired["ci_high"] - paired["ci_low"] < 0.6 * (own["ci_high"] - own["ci_low"])
    assert paired["ci_low"] > 0
    assert ("esc10", "map_delta") not in found
    assert ("esc10G", "map_delta_family") not in found, "synthetic clips only is not a mix"


def test_the_family_is_all_comparisons_of_all_lines():
    one = grid((0, 1, 2), real=1.0, more=1.4)
    second, third = ({key._replace(model=m): scores for key, scores in one.items()} for m in ("b", "c"))
    widths = []
    for some in (one, one | second, one | second | third):
        rows = compared(some, 100)
        plain, family = ends(rows["+160G", "map_delta"]), ends(rows["+160G", "map_delta_family"])
        widths.append((family[1] - family[0]) / (plain[1] - plain[0]))
    assert 1 < widths[0] < widths[1] < widths[2]


def test_the_primary_comparison_is_not_in_the_family():
    one = grid((0, 1, 2), real=1.0, more=1.4) | {
        cell("+320G", seed): predictions(1.3, seed) for seed in (0, 1, 2)
    }
    measured_cells = {key: measure(scores, resamples=100) for key, scores in one.items()}
    line = next(iter(one)).line
    rows = compare_to_real(measured_cells, "esc10", CONTEXT, Primary(line, "+160G"))
    assert [row["column"] for row in rows if row["metric"] == "map_delta_family"] == ["+320G"]
    alone = compared({key: s for key, s in one.items() if key.column != "+160G"}, 100)
    (left,) = (row for row in rows if row["metric"] == "map_delta_family")
    assert ends(left) == ends(alone["+320G", "map_delta_family"])


def test_the_primary_comparison_is_named_as_in_rows():
    plan = esc10_recipe(primary={"model": 1, "dose": 320})
    assert primary_comparison(plan) == ("ast-tiny/-/mx+sp", "+320G", "map_delta")
    both = esc10_recipe(arms=["A", "A+G"], primary={"dose": 160, "arm": "A+G"})
    assert primary_comparison(both) == ("taltrans-small/-/mx+sp", "+160A+160G", "map_delta_a")
    assert primary_comparison(esc10_recipe()) is None


def test_there_is_no_family_below_three_seeds_that_all_mixes_share():
    cells = grid((0, 1, 2), real=1.0, more=1.4) | {
        cell("+320G", seed): predictions(1.3, seed) for seed in (0, 1)
    }
    other = {key._replace(model="ast-tiny"): s for key, s in grid((0, 1, 2), real=1.0, more=1.4).items()}
    assert not any(metric == "map_delta_family" for _, metric in compared(cells))
    (row,) = (row for (_, metric), row in compared(cells | other).items() if metric == "map_delta_family")
    alone = compared(other)["+160G", "map_delta_family"]
    assert row["row"].startswith("ast-tiny") and ends(row) == ends(alone)


def of_fold(cells, fold, n):
    """The same trainings in a fold of n clips."""
    return {
        key._replace(fold=fold): replace(
            scores,
            scores=scores.scores[:n] + np.float32(1.5 * (fold - 1)) * scores.targets[:n],
            targets=scores.targets[:n],
            clip_ids=tuple(f"{fold}-{k}" for k in range(n)),
            recordings=scores.recordings[:n],
        )
        for key, scores in cells.items()
    }


def test_folds_are_compared_each_on_its_own_clips_and_averaged():
    cells = of_fold(grid((0, 1), real=1.0, more=1.4), 1, 60) | of_fold(
        grid((0, 1), real=1.0, more=1.4), 2, 40
    )
    found = compared(dict(reversed(cells.items())), 300)
    delta = found["+160G", "map_delta"]
    gains = [
        sklearn_map(cells[cell("+160G", seed)._replace(fold=fold)])
        - sklearn_map(cells[cell("esc10", seed)._replace(fold=fold)])
        for fold in (1, 2)
        for seed in (0, 1)
    ]
    assert delta["value"] == pytest.approx(np.mean(gains))
    assert (delta["n"], delta["seed"]) == (100, "0;1")
    assert ("+160G", "map_delta_family") in found, (
        "two seeds in each of two folds are as good as three in one"
    )
    alone = compared({key: scores for key, scores in cells.items() if key.fold == 2}, 300)
    assert ("+160G", "map_delta_family") not in alone
    of_first = compared({key: scores for key, scores in cells.items() if key.fold == 1}, 300)
    for metric in ("map_delta", "map_mean"):
        rows = (some["+160G", metric] for some in (found, of_first, alone))
        both, first, second = (row["ci_high"] - row["ci_low"] for row in rows)
        assert both < max(first, second), "the difficulty of folds is no variance"


def test_a_seed_counts_if_every_fold_has_it():
    cells = of_fold(grid((0, 1), real=1.0, more=1.4), 1, 60) | of_fold(grid((1,), real=1.0, more=1.4), 2, 60)
    found = compared(cells)
    assert {found["esc10", "map_mean"]["seed"], found["+160G", "map_delta"]["seed"]} == {"1"}
    with pytest.raises(UsageError, match=r"\+160G"):
        compared({key: made for key, made in cells.items() if key.fold == 1 or key.column == "esc10"})


def test_rivals_are_compared_but_no_mixes_of_the_verdict_and_both_sources_with_augmented_clips_alone():
    seeds = (0, 1, 2)
    names = {"+160A": 1.3, "+160R": 1.1, "+160A+160G": 1.5}
    rivals = {cell(name, seed): predictions(skill, seed) for name, skill in names.items() for seed in seeds}
    one = grid(seeds, real=1.0, more=1.4)
    alone, found = compared(one), compared(one | rivals)
    assert ends(alone["+160G", "map_delta_family"]) == ends(found["+160G", "map_delta_family"])
    assert {column for column, metric in found if metric == "map_delta_family"} == {"+160G"}
    assert {column for column, metric in found if metric == "map_delta"} == {"+160G", *names}
    (column,) = (column for column, metric in found if metric == "map_delta_a")
    mean = {name: found[name, "map_mean"]["value"] for name in names}
    assert column == "+160A+160G"
    gain = found[column, "map_delta_a"]
    assert gain["value"] == pytest.approx(mean[column] - mean["+160A"])
    assert gain["ci_low"] < gain["value"] < gain["ci_high"]


@pytest.mark.parametrize("skill", [1.0, 99.0])
def test_equal_predictions_differ_by_zero_which_says_little_of_other_clips(skill):
    found = compared(grid((0, 1, 2), real=skill, more=skill))
    for metric in ("map_delta", "map_delta_family"):
        assert found["+160G", metric]["value"] == 0.0 and np.isnan(ends(found["+160G", metric])).all()
    mean = found["+160G", "map_mean"]
    assert (mean["value"] == 1) == (skill == 99.0) and mean["ci_low"] < min(mean["value"], 0.99)


def test_only_shared_seeds_are_compared():
    delta = compared(grid((0, 1), real=1.0) | grid((1, 2), more=1.4))["+160G", "map_delta"]
    expected = sklearn_map(predictions(1.4, 1)) - sklearn_map(predictions(1.0, 1))
    assert delta["seed"] == "1" and delta["value"] == pytest.approx(expected)


def test_cells_that_cannot_be_compared_are_refused():
    real = predictions(1.0, 0)
    with pytest.raises(UsageError, match="'esc10'"):
        compared(grid(more=1.0))
    with pytest.raises(UsageError, match=r"\+160G and esc10"):
        compared(grid(real=1.0) | grid((1,), more=1.0))
    for what in ("clip_ids", "recordings"):
        other = replace(real, **{what: tuple(reversed(getattr(real, what)))})
        with pytest.raises(IntegrityError, match=r"\+160G"):
            compared(grid(real=1.0) | {cell("+160G", 0): other})
    assert compared({}) == {}
