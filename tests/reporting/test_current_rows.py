from dataclasses import replace

import pytest
from fakes import ESC10_CONTEXT, esc10_recipe

from ajbench.core.recipe import settings_of_lines
from ajbench.core.rows import append_rows, make_row, read_rows
from ajbench.evaluation.classification import compare_to_real, measure
from ajbench.reporting import current_rows, verdict


@pytest.fixture
def versions(tmp_path):
    """Rows of classifiers without a codec, and of two codecs; generated clips of the first codec alone."""
    path = tmp_path / "rows.csv"
    for number, (table, codec) in enumerate((("A11", ""), ("A11", "a"), ("1", "a"), ("A11", "b"))):
        row = make_row(ESC10_CONTEXT, table, "line", f"column {number}", "map", 0.5, n=80, seed=0)
        append_rows(path, [row | {"codec": codec}])
    return read_rows(path)


def test_of_several_codecs_the_last_counts_for_classifiers_and_for_generated_clips(versions):
    plan = esc10_recipe()
    chosen = lambda *codec: current_rows.select(versions, plan, None, *codec)["column"].tolist()  # noqa: E731
    assert chosen() == ["column 0", "column 2", "column 3"]
    assert chosen("a") == ["column 1", "column 2"] and chosen("b") == ["column 3"]
    assert current_rows.select(versions, plan, ["of other settings"]).empty


def test_a_former_codec_has_the_rows_of_as_many_real_clips(tmp_path):
    path, fingerprints = tmp_path / "rows.csv", iter("abced")
    runs = (
        *(("tiny@old", 40, 0.4, 320, 0.1), ("tiny@old", 80, 0.5, 320, 0.1)),
        *(
            ("tiny@older", 40, 0.3, 320, 0.1),
            ("tiny@old", 80, 0.5, 80, -0.2),
            ("tiny@new", 80, 0.6, 320, 0.1),
        ),
    )
    for codec, real, value, pool, gained in runs:
        key = next(fingerprints)
        about = {"fingerprint": key, "run": f"eval-cls-{key}", "codec": codec, "real": real}
        context = replace(ESC10_CONTEXT, **about)
        for column, gain in (("esc10", 0.0), ("+160G", gained)):
            context = replace(context, pool=pool if gain else None)
            cell = replace(context, fingerprint=f"{context.fingerprint} {column}")
            append_rows(path, [make_row(cell, "A11", "m/-/none", column, "map", value + gain, n=80, seed=0)])
            mean = make_row(context, "A11", "m/-/none", column, "map_mean", value + gain, n=80, seed="0;1")
            append_rows(path, [mean])
    every, plan = read_rows(path), esc10_recipe()
    current = current_rows.select(every, plan, ["d", "d esc10", "d +160G"])
    (former,) = current_rows.other_codecs(every, plan, current)
    assert set(former["codec"]) == {"tiny@old"} and set(former["value"]) == {0.5, 0.6} and len(former) == 4
    bound = replace(ESC10_CONTEXT, fingerprint="f", codec="tiny@oldest", real=320)
    append_rows(path, [make_row(bound, "A11", "m/-/none", "esc10 (all real)", "map", 0.9, n=80, seed=0)])
    (same,) = current_rows.other_codecs(read_rows(path), plan, current)
    assert same.equals(former), "an upper bound alone is no line"


def test_the_line_of_a_former_codec_is_of_one_evaluation_with_the_same_settings(tmp_path):
    path, plan = tmp_path / "rows.csv", esc10_recipe()
    line = plan.classifier_of(plan.evaluate.models[0].model_dump()).line
    same = settings_of_lines(plan)[line]
    runs = (
        ("old", 0.5, ("+160G", "+320G"), same), ("old", 0.6, ("+160G",), same),
        ("old", 0.9, ("+160G",), "longer training"), ("new", 0.7, ("+160G",), same),
    )  # fmt: skip
    for number, (codec, value, columns, settings) in enumerate(runs):
        about = {"fingerprint": str(number), "run": f"eval-cls-{number}", "codec": codec, "real": 80}
        context = replace(ESC10_CONTEXT, settings=settings, **about)
        for column in ("esc10", *columns):
            append_rows(path, [make_row(context, "A11", line, column, "map_mean", value, n=80, seed="0;1")])
    every = read_rows(path)
    (former,) = current_rows.other_codecs(every, plan, current_rows.select(every, plan, ["3"]))
    assert set(former["column"]) == {"esc10", "+160G"} and set(former["value"]) == {0.6}


def test_a_comparison_over_more_seeds_replaces_the_earlier_one(grid_results, tmp_path):
    plan, cells, _ = grid_results
    path = tmp_path / "rows.csv"
    for seeds in ((0,), (0, 1, 2)):
        some = {cell: measure(scores, resamples=20) for cell, scores in cells.items() if cell.seed in seeds}
        append_rows(path, compare_to_real(some, "esc10", ESC10_CONTEXT))
    assert set(current_rows.select(read_rows(path), plan)["seed"]) == {"0;1;2"}


def test_a_comparison_over_more_folds_replaces_the_earlier_one(grid_results, tmp_path):
    plan, cells, _ = grid_results
    path = tmp_path / "rows.csv"
    for folds in ((1, 2), (1, 2, 3)):
        context = replace(ESC10_CONTEXT, dataset=f"esc10 folds 1-{folds[-1]}")
        some = {
            cell._replace(fold=fold): measure(scores, resamples=20)
            for cell, scores in cells.items()
            if cell.seed < 2
            for fold in folds
        }
        append_rows(path, compare_to_real(some, "esc10", context))
    found = current_rows.select(read_rows(path), plan)
    assert set(found["dataset"]) == {"esc10 folds 1-3"}
    assert all(answer.folds == 3 for answer in verdict.answers(found, plan))


def test_of_single_folds_the_last_counts_for_each_classifier(tmp_path):
    path, plan = tmp_path / "rows.csv", esc10_recipe()

    def measured(fold, *lines):
        about = {"dataset": f"esc10 fold {fold}", "fingerprint": str(fold), "run": f"eval-cls-{fold}"}
        context = replace(ESC10_CONTEXT, **about)
        for line in lines:
            for column in ("esc10", "+160G"):
                mean = make_row(context, "A11", line, column, "map_mean", fold / 10, n=80, seed="0;1")
                each = [
                    make_row(context, "A11", line, column, "map", fold / 10, n=80, seed=k) for k in (0, 1)
                ]
                append_rows(path, [mean, *each])

    measured(4, "m/-/none", "other/-/none")
    measured(5, "m/-/none")
    found = current_rows.select(read_rows(path), plan)
    assert found.groupby("row")["value"].unique().map(list).to_dict() == {
        "m/-/none": [0.5],
        "other/-/none": [0.4],
    }
    assert len(found) == 12


def test_of_two_evaluations_with_other_real_clips_the_last_counts(tmp_path):
    path, plan = tmp_path / "rows.csv", esc10_recipe()
    for number, (real, columns) in enumerate(((40, ("esc10", "+160G", "+160A")), (320, ("esc10", "+160G")))):
        context = replace(ESC10_CONTEXT, fingerprint=str(number), run=f"eval-cls-{number}", real=real)
        for column in columns:
            append_rows(
                path, [make_row(context, "A11", "m/-/none", column, "map_mean", 0.5, n=80, seed="0;1")]
            )
    found = current_rows.select(read_rows(path), plan)
    assert found["column"].tolist() == ["esc10", "+160G"] and set(found["fingerprint"]) == {"1"}


def test_of_one_evaluation_without_real_clips_alone_all_folds_count(tmp_path):
    path, plan = tmp_path / "rows.csv", esc10_recipe()
    for fold in (1, 2, 3):
        context = replace(
            ESC10_CONTEXT, dataset=f"esc10 fold {fold}", fingerprint=str(fold), run="eval-cls-k"
        )
        append_rows(path, [make_row(context, "A11", "m/-/none", "+160G", "map", fold / 10, n=80, seed=0)])
    assert len(current_rows.select(read_rows(path), plan)) == 3


def test_a_classifier_of_two_evaluations_counts_in_that_of_the_run(tmp_path):
    path, plan = tmp_path / "rows.csv", esc10_recipe()
    for evaluation, column in (("few", "esc10 (all real)"), ("every", "esc10")):
        context = replace(ESC10_CONTEXT, fingerprint="trained once", run=f"eval-cls-{evaluation}")
        append_rows(path, [make_row(context, "A11", "m/-/none", column, "map", 0.9, n=80, seed=0)])
    found = current_rows.select(read_rows(path), plan, ["trained once", "few"])
    assert found["column"].tolist() == ["esc10 (all real)"]
