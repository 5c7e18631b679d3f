"""The tail of a recipe: its sizes in plans and rows, its columns, and what is refused before any work."""

import pytest
from fakes import hum_record, hum_store, mini_pipeline

from ajbench.core.clip_sections import Mix, Tail
from ajbench.core.errors import UsageError
from ajbench.core.rows import Context
from ajbench.pipeline import estimates, tail_clips
from ajbench.pipeline.arms import augment_stage
from ajbench.pipeline.classifier_stages import cell_key, grid_stages
from ajbench.pipeline.tail_clips import counts

TAIL = "mix.tail={classes: [Rain, Wind], shots: 2}"
FILLED = "mix.tail={classes: [Rain, Wind], shots: 2, fill: true}"


def columns(pipeline):
    return list(dict.fromkeys(cell_key(stage, pipeline.recipe).column for stage in grid_stages(pipeline)))


def keys(pipeline, *names):
    return [getattr(pipeline, name).fingerprint for name in names]


def test_the_sizes_of_a_plan_are_those_of_the_tail():
    made, whole = mini_pipeline(TAIL, "data.n_clips=200"), mini_pipeline("data.n_clips=200")
    found = tail_clips.planned(made)
    assert found["classes"] == {"Rain": 2, "Wind": 2} and "Rain 2, Wind 2" in found["sentence"]
    sizes, before = estimates.sizes_of(made), estimates.sizes_of(whole)
    assert found["real"] == sizes["real"] < sizes["pool"] == before["real"] == before["pool"]
    assert tail_clips.planned(whole) == {}
    drawn = tail_clips.planned(mini_pipeline("mix.tail={classes: 3, shots: 1}", "data.n_clips=200"))
    assert len(drawn["classes"]) == 3


def test_all_real_is_a_column_of_its_own_and_has_no_tail():
    made = mini_pipeline(TAIL, "evaluate.controls=[all_real]", "data.n_clips=200")
    assert columns(made) == ["mini", "miniG", "+10G", "+20G", "mini (all real)"]
    tails = {cell_key(s, made.recipe).column: s.recipe.mix.tail for s in grid_stages(made)}
    assert tails["mini (all real)"] is None and tails["mini"] == tails["+20G"] == made.recipe.mix.tail
    plain = {stage.fingerprint: stage for stage in grid_stages(mini_pipeline("data.n_clips=200"))}
    shared = {cell_key(s, made.recipe).column for s in grid_stages(made) if s.fingerprint in plain}
    assert shared == {"miniG", "mini (all real)"}


def test_the_generator_depends_on_the_tail_only_where_its_pool_does():
    names = ("prepare", "train_gen", "invert")
    many = "data.n_clips=200"
    plain, tailed = mini_pipeline(many), mini_pipeline(TAIL, many)
    assert keys(plain, *names) == keys(tailed, *names) == keys(mini_pipeline(FILLED, many), *names)
    assert plain.synth().fingerprint == tailed.synth().fingerprint
    real = [mini_pipeline("generator.pool=real", many, *more) for more in ([], [TAIL], [FILLED])]
    assert keys(real[1], *names) == keys(real[2], *names)
    assert keys(real[0], "train_gen", "invert") != keys(real[1], "train_gen", "invert")
    only = mini_pipeline(TAIL, many, "synth.classes=tail")
    other = mini_pipeline(TAIL.replace("Wind", "Siren"), many, "synth.classes=tail")
    assert len({one.synth().fingerprint for one in (plain, only, other)}) == 3
    assert len({augment_stage(one).fingerprint for one in (plain, tailed, only, other)}) == 4
    assert "miniG" not in columns(only), "a classifier of synthetic clips of the tail alone"


@pytest.mark.parametrize("arm", ["G", "A"])
def test_a_dose_that_the_planned_clips_of_the_tail_do_not_reach_is_refused_before_any_work(arm):
    some = ["data.n_clips=200", FILLED, f"evaluate.arms=[{arm}]"]
    made = mini_pipeline(*some)
    with pytest.raises(UsageError, match=r"mix\.tail\.fill: the dose is 20, .*synth\.n"):
        made.check(made.recipe.evaluate.doses)
    made.check()  # of no dose
    for more in (["synth.classes=tail"], ["synth.n=2000"], ["evaluate.arms=[R]"]):
        other = mini_pipeline(*some, *more)
        other.check(other.recipe.evaluate.doses)


@pytest.mark.parametrize(
    ("tail", "word"),
    [
        ("{classes: [Rain, Snow], shots: 2}", "mix.tail.classes: 'Snow'"),
        ("{classes: [Rain], shots: 90}", "mix.tail.shots=90: class 'Rain'"),
        ("{classes: 16, shots: 2}", "mix.tail.classes: all 16"),
    ],
)
def test_impossible_tails_are_refused_before_any_work(tail, word):
    with pytest.raises(UsageError, match=word):
        mini_pipeline(f"mix.tail={tail}").check()


def test_rows_count_the_real_and_the_evaluated_clips_of_each_class_over_folds(tmp_path):
    stores = [hum_store(tmp_path / f"{n}", [hum_record(i) for i in range(n)]) for n in (30, 36)]
    recipe = mini_pipeline().recipe.model_copy(update={"mix": Mix(tail=Tail(classes=["Hiss"], shots=3))})
    (row,) = tail_clips.rows(recipe, stores, Context("run", "mini", "f", "", "mini folds 1-2"))
    assert (row["table"], row["row"], row["metric"], row["value"]) == ("tail", "Hiss", "real_clips", 3)
    held_out = sum(store[int(i)].labels == ["Hiss"] for store in stores for i in store.split_indices("eval"))
    assert (row["n"], row["dataset"], row["split"]) == (held_out, "mini folds 1-2", "train")
    assert counts(Mix(), stores[0]) == {}
