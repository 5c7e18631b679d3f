"""Several folds of a recipe as one run."""

import pytest
from fakes import mini_pipeline

from ajbench.core.errors import UsageError
from ajbench.pipeline import classifier_stages, estimates, fold_stages
from ajbench.pipeline.classifier_stages import cell_key, grid_stages
from ajbench.pipeline.evaluation_stages import dataset_name

FOLDS = "evaluate.folds=[5,2]"


def test_a_fold_is_the_same_stages_as_a_run_of_that_fold_alone_with_its_seeds():
    together = mini_pipeline(FOLDS).stages()
    found = {stage.title: stage.fingerprint for stage in together}
    assert len(found) == len(together)
    for fold in (2, 5):
        alone = mini_pipeline(f"data.eval_fold={fold}", f"evaluate.seeds=[{1000 * fold}]").stages()
        # The judge of eval-gen is named by its seed in the run.
        known = {stage.fingerprint for stage in alone if not stage.name.startswith("eval")}
        mine = {title: key for title, key in found.items() if f"fold {fold}" in title}
        assert known == {key for title, key in mine.items() if not title.startswith("eval")}
    (pooled,) = (stage for stage in together if stage.name == "eval-cls")
    assert len(pooled.needs) == 2 * len(grid_stages(mini_pipeline()))
    one = [stage.fingerprint for stage in mini_pipeline("evaluate.folds=[2]").stages()]
    assert one == [stage.fingerprint for stage in mini_pipeline("data.eval_fold=2").stages()]


def test_no_two_folds_share_a_seed_or_a_draw_and_a_seed_has_one_name_in_all():
    keys = (
        "mix.real=share=0.5",
        "mix.draw=3",
        "evaluate.seeds=[0,1]",
        "evaluate.models=[{name: taltrans-small, aug: none}]",
    )
    made = mini_pipeline(FOLDS, *keys, "evaluate.redraw=true", "evaluate.doses=[]", "evaluate.controls=[]")
    real = [stage for stage in grid_stages(made) if stage.recipe.mix.real == "share=0.5"]
    seeds = [(stage.seed, stage.recipe.mix.draw) for stage in real]
    assert seeds == [(2000, 2003), (2001, 2004), (5000, 5003), (5001, 5004)]
    assert [stage.do.args[1].seed for stage in real] == [2000, 2001, 5000, 5001]
    cells = [cell_key(stage, made.recipe) for stage in real]
    assert [(cell.fold, cell.seed) for cell in cells] == [(2, 0), (2, 1), (5, 0), (5, 1)]
    with pytest.raises(UsageError, match=r"evaluate\.seeds: 1000 .* below 1000"):
        fold_stages.check(mini_pipeline(FOLDS, "evaluate.seeds=[0,1000]"))
    fold_stages.check(mini_pipeline("evaluate.folds=[2]", "evaluate.seeds=[1000]"))


def test_a_classifier_trained_by_itself_is_one_of_those_of_all_folds():
    made = mini_pipeline(FOLDS, "data.eval_fold=2", "mix.real=shots=1", "evaluate.redraw=true")
    one = classifier_stages.own_stage(fold_stages.own_fold(made), 0)
    real = fold_stages.own_fold(made).recipe
    assert one.seed == 2000 and real.data.eval_fold == 2 and not real.evaluate.folds
    alike = [cell for cell in classifier_stages.grid_stages(made) if cell.seed == 2000]
    assert one.recipe.mix.draw == alike[0].recipe.mix.draw
    alone = mini_pipeline("data.eval_fold=2")
    assert fold_stages.own_fold(alone) is alone
    with pytest.raises(UsageError, match=r"data\.eval_fold=1: not in evaluate\.folds; allowed: 2, 5"):
        fold_stages.own_fold(mini_pipeline(FOLDS, "data.eval_fold=1"))


def test_single_stages_are_those_of_the_one_fold_that_is_evaluated():
    made = mini_pipeline("evaluate.folds=[2]")
    one, alone = fold_stages.own_clips(made), mini_pipeline("data.eval_fold=2")
    assert one.recipe.data.eval_fold == 2
    for name in ("prepare", "train_gen", "invert"):
        first, second, planned = (getattr(some, name).fingerprint for some in (one, alone, made))
        assert first == second != planned
    assert fold_stages.own_fold(mini_pipeline(FOLDS)).recipe.data.eval_fold == 5
    with pytest.raises(UsageError, match=r"evaluate\.folds.*7.*1, 2, 3, 4, 5"):
        fold_stages.own_fold(mini_pipeline("evaluate.folds=[7]"))


def test_generated_clips_of_a_fold_are_of_its_first_draw():
    keys = "mix.real=shots=1", "evaluate.redraw=true", "generator.pool=real", "evaluate.seeds=[1,2]"
    made = mini_pipeline(FOLDS, "data.eval_fold=2", *keys)
    (measured,) = (one for one in made.stages() if one.title == "eval-gen (fold 2)")
    one = fold_stages.own_clips(made)
    assert one.recipe.mix.draw == 2001
    assert one.synth().fingerprint in {need.fingerprint for need in measured.needs}


def test_classifiers_of_all_folds_may_run_at_the_same_time():
    names = [stage.name for stage in mini_pipeline(FOLDS).stages()]
    first = names.index("train-cls")
    cells = len(grid_stages(mini_pipeline(FOLDS)))
    assert names[first : first + cells] == ["train-cls"] * cells and names.count("train-cls") == cells


def test_cells_are_numbered_over_all_folds():
    made = mini_pipeline(FOLDS)
    keys = [cell_key(stage, made.recipe) for stage in grid_stages(made)]
    assert len(set(keys)) == len(keys) and [key.fold for key in keys] == sorted(key.fold for key in keys)
    plan = estimates.describe_grid(made)["cells"]
    assert [f"fold {key.fold}" in cell["what"] for key, cell in zip(keys, plan, strict=True)] == [True] * len(
        keys
    )


@pytest.mark.parametrize(
    ("folds", "name"),
    [
        ("[]", "mini fold 5"),
        ("[3]", "mini fold 3"),
        ("[1,2,3]", "mini folds 1-3"),
        ("[1,3]", "mini folds 1,3"),
    ],
)
def test_rows_name_the_folds(folds, name):
    made = mini_pipeline(f"evaluate.folds={folds}")
    assert dataset_name(made, made.recipe.evaluate.folds) == name
    assert dataset_name(made) == "mini fold 5", "the fold of commands of single stages, data.eval_fold"


def test_unknown_folds_and_a_corpus_without_folds_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"evaluate\.folds.*7.*1, 2, 3, 4, 5"):
        fold_stages.check(mini_pipeline("evaluate.folds=[1,7]"))
    with pytest.raises(UsageError, match=r"evaluate\.folds"):
        mini_pipeline("evaluate.folds=[1,1]")
    for split in ("train", "eval"):
        (tmp_path / split / "dog").mkdir(parents=True)
        (tmp_path / split / "dog" / "a.wav").write_bytes(b"")
    split = "data.corpus=folder", "data.eval_fold=null"
    with pytest.raises(UsageError, match=r"evaluate\.folds"):
        fold_stages.check(mini_pipeline(*split, "evaluate.folds=[1,2]", data=tmp_path))


def test_every_fold_is_checked():
    fold_stages.check(mini_pipeline(FOLDS))
    with pytest.raises(UsageError, match=r"mix\.real|shots"):
        fold_stages.check(mini_pipeline(FOLDS, "mix.real=shots=99"))
