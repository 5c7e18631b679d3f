import re
from dataclasses import replace

import pandas as pd
import pytest
from fakes import ESC10_CONTEXT, esc10_recipe

from ajbench.core.recipe import load, settings_of_lines
from ajbench.core.rows import ROW_COLUMNS, append_rows, make_row, read_rows
from ajbench.reporting import current_rows, gain_by_real, tables

MODEL = "taltrans-small/-/none"


def run_rows(fingerprint, real, pool, gains, seed="0;1;2"):
    """The rows of an evaluation: mAP 0.5 with real clips only, and each mix with its gain."""
    context = replace(ESC10_CONTEXT, fingerprint=fingerprint)
    rows = [
        make_row(context, "A11", MODEL, "esc10", "map_mean", 0.5, n=80, seed=seed)
        | {"real": real, "pool": ""}
    ]
    for column, gain in gains.items():
        sizes = {"real": 320 if "all real" in column else real, "pool": "" if "A" in column else pool}
        values = {"map_mean": 0.5 + gain, "map_delta": gain}
        rows += [
            make_row(
                context, "A11", MODEL, column, metric, value, (value - 0.02, value + 0.02), n=80, seed=seed
            )
            | sizes
            for metric, value in values.items()
        ]
    return rows


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    append_rows(path, run_rows("a", 40, 320, {"+160G": 0.1, "esc10 (all real)": 0.2}))
    append_rows(path, run_rows("b", 80, 320, {"+160G": 0.05}))
    append_rows(path, run_rows("c", 40, 40, {"+160G": -0.07}))
    return path


def test_a_line_for_each_mix_pool_and_number_of_real_clips(rows):
    found = gain_by_real.lines(read_rows(rows), esc10_recipe())
    assert [(n["column"], n["pool"], n["real"], round(n["delta"], 9)) for n in found] == [
        ("+160G", 40, 40, -7.0),
        ("+160G", 320, 40, 10.0),
        ("+160G", 320, 80, 5.0),
        ("esc10 (all real)", 320, 40, 20.0),
    ]
    assert {(n["model"], n["seeds"], n["n"]) for n in found} == {(MODEL, 3, 80)}
    ends = [found[0][name] for name in ("map", "delta_low", "delta_high")]
    assert ends == pytest.approx([43.0, -9.0, -5.0])


def test_the_last_run_of_the_same_numbers_counts(rows):
    append_rows(rows, run_rows("d", 40, 320, {"+160G": 0.11}))
    found = gain_by_real.lines(read_rows(rows), esc10_recipe())
    assert [n["delta"] for n in found if (n["pool"], n["real"], n["column"]) == (320, 40, "+160G")] == [11.0]


def test_a_run_that_is_repeated_at_the_end_of_the_file_is_the_last(rows):
    again = read_rows(rows).query("fingerprint == 'a'").to_dict("records")
    append_rows(rows, run_rows("d", 40, 320, {"+160G": 0.11}))
    every = pd.concat([read_rows(rows), pd.DataFrame(again)], ignore_index=True)
    found = gain_by_real.lines(every, esc10_recipe())
    (mine,) = (n for n in found if (n["pool"], n["real"], n["column"]) == (320, 40, "+160G"))
    assert mine["delta"] == pytest.approx(10)


def test_a_single_fold_does_not_take_the_place_of_all(rows):
    runs = ("esc10 folds 1-5", 0.12), ("esc10 fold 5", 0.01), ("esc10 folds 1-5", 0.13)
    for number, (dataset, gain) in enumerate(runs):
        found = run_rows(str(number), 40, 320, {"+160G": gain})
        append_rows(rows, [row | {"dataset": dataset} for row in found])
        lines = gain_by_real.lines(read_rows(rows), esc10_recipe())
        (mine,) = (n for n in lines if (n["pool"], n["real"], n["column"]) == (320, 40, "+160G"))
        assert (mine["dataset"], mine["delta"]) == ("esc10 folds 1-5", 13.0 if number == 2 else 12.0)


def test_the_current_run_counts_as_in_table_a11(rows):
    for number, (dataset, gain) in enumerate((("esc10 folds 1-5", 0.12), ("esc10 folds 1-3", -0.05))):
        found = run_rows(str(number), 40, 320, {"+160G": gain})
        append_rows(rows, [row | {"dataset": dataset} for row in found])
    for current, delta in (([], 12.0), (["1"], -5.0)):
        lines = gain_by_real.lines(read_rows(rows), esc10_recipe(), current)
        (mine,) = (n for n in lines if (n["pool"], n["real"], n["column"]) == (320, 40, "+160G"))
        assert mine["delta"] == pytest.approx(delta)
    current = current_rows.select(read_rows(rows), esc10_recipe(), ["1"])
    assert gain_by_real.contrast(lines, current, esc10_recipe()) == [], "the other pool has other clips"


def test_a_measurement_with_another_result_counts_once(rows):
    again = run_rows("a", 40, 320, {"+160G": 0.1})
    append_rows(rows, [row | {"value": row["value"] + 1e-5} for row in again])
    found = gain_by_real.lines(read_rows(rows), esc10_recipe())
    (mine,) = (n for n in found if (n["pool"], n["real"], n["column"]) == (320, 40, "+160G"))
    assert mine["map"] == pytest.approx(60.001)


def test_one_run_has_no_lines():
    rows = pd.DataFrame(run_rows("a", 40, 320, {"+160G": 0.1}), columns=list(ROW_COLUMNS))
    assert gain_by_real.lines(rows, esc10_recipe()) == []
    assert gain_by_real.figure([], esc10_recipe()) == ""


def test_tables_write_the_lines_of_all_runs(rows, tmp_path):
    written = tables.write(rows, tmp_path / "out", esc10_recipe(), fingerprints=["b"])
    assert written.paths["gain_by_real.csv"].read_text().count("\n") == 5


def test_the_figure_has_a_curve_for_each_mix_and_pool(rows):
    drawing = gain_by_real.figure(gain_by_real.lines(read_rows(rows), esc10_recipe()), esc10_recipe())
    for text in ("+160G, pool 40", "+160G, pool 320", "taltrans-small, no augmentation", ">80<"):
        assert text in drawing


def test_mixes_with_the_same_real_clips_are_rows(tmp_path):
    path = tmp_path / "rows.csv"
    mixes = {"+160G": 0.1, "+160A": 0.02, "esc10 (all real)": 0.2}
    append_rows(path, [row | {"dataset": "esc10 folds 1-5"} for row in run_rows("a", 40, 320, mixes)])
    append_rows(
        path, [row | {"dataset": "esc10 fold 5"} for row in run_rows("c", 40, 40, mixes | {"+160G": -0.07})]
    )
    drawing = gain_by_real.figure(gain_by_real.lines(read_rows(path), esc10_recipe()), esc10_recipe())
    names = [name for name in re.findall(r">([^<>]+)</text>", drawing) if name[0] in "+a" and " " in name]
    assert names == [
        "+160 generated, generator of the same 40 clips (fold 5)", "+160 augmented",
        "+160 generated, generator of 320 clips", "all real clips",
    ]  # fmt: skip
    for text in (">−7.0<", ">+2.0<", ">+10.0<", ">+20.0<", "taltrans-small, no augmentation, 40 real clips"):
        assert text in drawing


def contrast(path, fingerprint="a"):
    rows = read_rows(path)
    found = gain_by_real.lines(rows, esc10_recipe())
    return gain_by_real.contrast(
        found, current_rows.select(rows, esc10_recipe(), [fingerprint]), esc10_recipe()
    )


def test_pools_at_the_same_number_of_real_clips_are_compared_in_one_sentence(rows):
    (sentence,) = contrast(rows)
    large, small, apart = sentence.split(";")
    assert "40 real clips" in large and "+10.0 points [+8.0, +12.0] with a generator of 320 clips" in large
    assert "−7.0 points [−9.0, −5.0] with a generator of the same 40 clips" in small
    # two half widths of 2 points: √8
    assert "+17.0 points [+14.2, +19.8] apart: the generator of more clips is better" in apart
    assert contrast(rows, "b") == [], "80 real clips have one pool"


@pytest.mark.parametrize(("gain", "seed"), [(0.02, "0;1;2"), (-0.02, "0;1;2"), (0.1, "0;1"), (-0.1, "0")])
def test_no_generator_is_better_without_an_interval_that_excludes_zero_and_enough_seeds(tmp_path, gain, seed):
    # Of 0.02, both gains exclude zero or hardly do not; what counts is the difference.
    path = tmp_path / "rows.csv"
    for fingerprint, pool, own in (("a", 320, gain), ("b", 40, 0.0)):
        append_rows(path, run_rows(fingerprint, 40, pool, {"+160G": own}, seed))
    (sentence,) = contrast(path)
    assert "better" not in sentence
    assert ("no clear difference" if seed == "0;1;2" else "too few seeds") in sentence


def test_tables_have_the_sentence(rows, tmp_path):
    written = tables.write(rows, tmp_path / "out", esc10_recipe(), fingerprints=["a"])
    assert written.document["contrast"] == contrast(rows)


def test_versions_of_the_codec_stand_side_by_side(rows, monkeypatch):
    before = gain_by_real.lines(read_rows(rows), esc10_recipe())
    later = run_rows("e", 40, 320, {"+160G": 0.15})
    append_rows(rows, [row | {"codec": "tiny@0123"} for row in later])
    every = read_rows(rows)
    found = gain_by_real.lines(every, esc10_recipe())
    mine = {
        n["codec"]: n["delta"] for n in found if (n["pool"], n["real"], n["column"]) == (320, 40, "+160G")
    }
    assert mine == {"": 10.0, "tiny@0123": 15.0}
    assert len(found) == len(before) + 1
    # one pool of this version: nothing to contrast
    assert gain_by_real.contrast(found, every[every["fingerprint"] == "e"], esc10_recipe()) == []
    one = gain_by_real.figure(found, esc10_recipe())
    assert "tiny@0123" not in re.sub(r"<[^>]*>", "", one), "rows of an older version do not name it"
    append_rows(rows, [row | {"codec": "tiny@4567"} for row in run_rows("f", 40, 320, {"+160G": 0.15})])
    append_rows(rows, [row | {"codec": "tiny@4567"} for row in run_rows("g", 80, 320, {"+160G": 0.15})])
    append_rows(rows, [row | {"codec": "tiny@0123"} for row in run_rows("h", 80, 320, {"+160G": 0.15})])
    curves = []
    monkeypatch.setattr(gain_by_real.figures, "gain_curves", lambda panels: curves.extend(panels))
    gain_by_real.figure(gain_by_real.lines(read_rows(rows), esc10_recipe()), esc10_recipe())
    ((_, mine),) = curves
    reals = {curve.name: curve.real for curve in mine if "tiny@" in curve.name}
    assert reals == {f"+160G, pool 320, tiny@{name}": [40, 80] for name in ("0123", "4567")}


def test_clips_of_another_generator_have_lines_without_a_pool(tmp_path):
    path = tmp_path / "rows.csv"
    for fingerprint, real in (("a", 40), ("b", 80)):
        append_rows(path, run_rows(fingerprint, real, "", {"+160X": 0.1}))
    found = gain_by_real.lines(read_rows(path), esc10_recipe())
    assert [(n["column"], n["pool"], n["real"]) for n in found] == [("+160X", None, 40), ("+160X", None, 80)]
    drawing = gain_by_real.figure(found, esc10_recipe())
    assert "+160X" in drawing and "pool" not in drawing


def test_runs_with_other_settings_do_not_stand_side_by_side(tmp_path):
    path, plan = tmp_path / "rows.csv", esc10_recipe()
    line = plan.classifier_of(plan.evaluate.models[0].model_dump()).line
    same = settings_of_lines(plan)[line]
    runs = ("a", 40, 320, 0.1, same), ("b", 40, 40, 0.3, "longer training"), ("c", 80, 320, 0.05, same)
    for key, real, pool, gain, settings in runs:
        found = run_rows(key, real, pool, {"+160G": gain})
        append_rows(path, [row | {"row": line, "settings": settings} for row in found])
    found = gain_by_real.lines(read_rows(path), plan)
    assert [(n["real"], n["pool"]) for n in found] == [(40, 320), (80, 320)]


def test_pools_that_are_other_stores_are_told_apart(tmp_path):
    pools = "train", "real", "a/store", "b/store"
    keys = [settings_of_lines(load("esc10", [f"generator.pool={pool}"])) for pool in pools]
    assert keys[0] == keys[1] and len({*map(str, keys)}) == 3


def test_runs_of_one_draw_and_of_a_draw_for_each_seed_are_told_apart(tmp_path):
    path, plan = tmp_path / "rows.csv", esc10_recipe()
    (line, each), *_ = settings_of_lines(esc10_recipe(redraw=True)).items()
    one = settings_of_lines(plan)[line]
    runs = ("a", 320, 0.1, each), ("b", 320, 0.3, one), ("c", 40, -0.07, one)
    for key, pool, gain, settings in runs:
        found = run_rows(key, 40, pool, {"+160G": gain})
        append_rows(path, [row | {"row": line, "settings": settings} for row in found])
    found = gain_by_real.lines(read_rows(path), plan)
    assert [(n["pool"], n["draws"], round(n["delta"])) for n in found] == [
        (40, "one", -7), (320, "each seed", 10), (320, "one", 30),
    ]  # fmt: skip
    (said,) = gain_by_real.contrast(found, current_rows.select(read_rows(path), plan, ["c"]), plan)
    assert "by +30.0 points" in said and "10.0" not in said
    assert "+160 generated, generator of 320 clips, one draw" in gain_by_real.figure(found, plan)


def test_what_synthetic_clips_add_to_augmented_ones_is_a_line_of_its_own(rows):
    context = replace(ESC10_CONTEXT, fingerprint="a")
    of_both = [("map_mean", 0.66), ("map_delta", 0.16), ("map_delta_a", 0.04)]
    more = [
        make_row(context, "A11", MODEL, "+160A+160G", *one, (0, 0.2), n=80, seed="0;1;2") for one in of_both
    ]
    append_rows(rows, [row | {"real": 40, "pool": 320} for row in more])
    found = gain_by_real.lines(read_rows(rows), esc10_recipe())
    mine = [(n["minus"], round(n["delta"], 6)) for n in found if n["column"] == "+160A+160G"]
    assert mine == [("+160A", 4.0), ("esc10", 16.0)]
    assert "+160A+160G against +160 augmented" in gain_by_real.figure(found, esc10_recipe())


def test_settings_are_all_but_what_is_compared_and_how_much_is_measured():
    def settings(*changes):
        return settings_of_lines(load("esc10-shots", changes))

    before = settings()
    for change in (
        "mix.real=all", "mix.draw=3", "generator.pool=real", "codec.name=tiny@ff1b92258faaad59", "synth.n=40",
        "evaluate.seeds=[5]", "evaluate.folds=[1]", "evaluate.doses=[40,640]", "evaluate.arms=[G,A,A+G,R]",
        "data.eval_fold=1", "data.cache=pcm",
    ):  # fmt: skip
        assert settings(change) == before, change
    for change in (
        "classifier.train_steps=900", "generator.train_steps=900", "synth.guidance=7", "mix.balanced=true",
        "data.duration_s=1.26", "classifier.precision=bf16", "codec.whitening=channel",
        "mix.tail={classes: [dog], shots: 4}", "synth.guides=real", "evaluate.redraw=false",
        "evaluate.tune={grid: {lr: [1.0e-3, 2.0e-3]}}",
    ):  # fmt: skip
        assert set(settings(change)) == set(before) and settings(change) != before, change


def test_a_trial_with_fewer_seeds_does_not_take_the_place_of_all(rows):
    append_rows(rows, run_rows("d", 40, 320, {"+160G": 0.3}, seed="0"))
    found = gain_by_real.lines(read_rows(rows), esc10_recipe(), ["b"])
    (mine,) = (n for n in found if (n["pool"], n["real"], n["column"]) == (320, 40, "+160G"))
    assert mine["seeds"] == 3 and mine["delta"] == pytest.approx(10)


def test_curves_name_the_folds_of_points_that_have_fewer(rows):
    found = run_rows("d", 160, 320, {"+160G": 0.3})
    append_rows(rows, [row | {"dataset": "esc10 folds 1-3"} for row in found])
    svg = gain_by_real.figure(gain_by_real.lines(read_rows(rows), esc10_recipe()), esc10_recipe())
    assert "fold 5)" in svg and "folds 1-3)" not in svg
