"""The classifiers that a recipe trains, and what they are trained on."""

import json
import sys
from dataclasses import replace

import pytest
from fakes import mini_pipeline

from ajbench.core import registry
from ajbench.core.errors import MissingError, UsageError
from ajbench.data import val_part
from ajbench.pipeline import classifier_stages
from ajbench.pipeline.classifier_stages import (
    cell_key,
    classifier_stage,
    grid_stages,
    own_stage,
    trained_stages,
)
from ajbench.pipeline.evaluation_stages import eval_cls_stage
from ajbench.pipeline.stage import in_order, lacking, run_stages

DOSES = {("dose", "all", dose) for dose in (0, 10, 20)}

FEW = {("dose", "none", 20), *(("dose", "shots=2", dose) for dose in (0, 10, 20))}


def grid(*overrides, **more):
    return grid_stages(mini_pipeline(*overrides, **more))


def paths(stages):
    return {stage.path for stage in stages}


def steps(stage):
    return int(stage.amount.split()[0].replace(",", ""))


def test_train_cls_and_the_grid_have_one_folder_for_the_same_classifier():
    own = mini_pipeline("classifier.name=taltrans-small", "classifier.aug=none", "mix.dose=10")
    assert own_stage(own, 0).path in paths(grid())


def test_decoded_sound_is_kept_in_the_work_folder_on_request_for_the_same_classifiers():
    plain, cached = mini_pipeline(), mini_pipeline("data.cache=pcm")
    stages, others = (grid_stages(one) for one in (plain, cached))
    assert paths(stages) == paths(others)
    assert {stage.do.args[1].pcm for stage in stages} == {None}
    assert {stage.do.args[1].pcm for stage in others} == {cached.places.work / "pcm"}


@pytest.mark.parametrize(
    ("expression", "overrides", "mixes"),
    [
        ("mini+10G", [], {("dose", "all", 0), ("dose", "all", 10)}),
        ("miniG", ["mix.real=none", "mix.none_of=all"], {("dose", "all", 0), ("dose", "none", 20)}),
        ("mini", ["mix.mode=alpha"], {("dose", "all", 0), ("alpha", "all", 0)}),
        ("mini", [], {("dose", "none", 20), *DOSES}),
        ("mini", ["mix.real=shots=2", "evaluate.controls=[all_real]"], FEW | {("dose", "all", 0)}),
        ("mini", ["evaluate.synthetic_only=false"], DOSES),
    ],
)
def test_every_mix_is_compared_with_real_clips_alone(expression, overrides, mixes):
    stages = grid(*overrides, expression=expression)
    found = [stage.recipe.mix for stage in stages]
    assert {(mix.mode, mix.real, mix.dose) for mix in found} == mixes
    for stage, mix in zip(stages, found, strict=True):  # only those that use synthetic clips need their store
        needs = [need.name for need in stage.needs]
        assert needs == ["prepare", *["synth"] * (mix.dose > 0 or mix.mode == "alpha")]


def test_a_training_that_is_scored_on_the_val_part_has_a_folder_and_a_name_of_its_own():
    made = mini_pipeline("classifier.epochs=1", "mix.dose=10")
    part = val_part.planned(made.recipe.mix, made.manifest)
    settings = made.recipe.classifier_of()
    plain, mine = (
        classifier_stage(made, settings, made.recipe.mix, 0, False, given) for given in (None, part)
    )
    assert plain.path != mine.path and plain.what != mine.what
    clips = made.real_clips(made.recipe.mix) - len(part.val)
    assert steps(mine) == settings.steps(clips + 10) < steps(plain)


def test_arms_are_columns_of_every_dose_and_leave_those_of_generated_clips_as_they_were():
    made = mini_pipeline("evaluate.arms=[G, A, R, A+G]")
    cells = {cell_key(stage, made.recipe).column: stage for stage in grid_stages(made)}
    doses = ("+{0}G", "+{0}A", "+{0}R", "+{0}A+{0}G")
    assert set(cells) == {"mini", "miniG", *(dose.format(n) for dose in doses for n in (10, 20))}
    assert paths(grid()) <= paths(grid_stages(made))
    assert {steps(stage) for stage in cells.values()} == {steps(cells["mini"])}
    assert cells["+10A+10G"].what == "taltrans-small mx+sp, mini+10A+10G, seed 0"
    own = {cell_key(stage, made.recipe).column for stage in grid(expression="mini+10A")}
    assert own == {"mini", "+10A"}
    assert {cell_key(stage, made.recipe).column for stage in grid("evaluate.arms=[A]")} == {
        "mini", "+10A", "+20A",
    }  # fmt: skip


def test_epochs_count_the_clips_of_both_sources():
    epochs = ["classifier.epochs=1", "evaluate.controls=[match_steps]", "evaluate.arms=[G, A+G]"]
    made = mini_pipeline(*epochs, "evaluate.models=[{name: taltrans-small, aug: none}]")
    found = {stage.what.split(", ")[1]: stage for stage in grid_stages(made)}
    most = steps(found["mini+20A+20G"])
    assert most > steps(found["mini+20G"]) and steps(found["mini mix.match_steps=40"]) == most


@pytest.mark.parametrize(
    ("arms", "mix"), [("G", "+20G"), ("A, G", "+20G"), ("A", "+20A"), ("G, A+G, A", "+20A+20G")]
)
def test_the_control_of_steps_is_named_after_the_mix_that_has_them(arms, mix):
    epochs = ["classifier.epochs=1", "evaluate.models=[{name: taltrans-small, aug: none}]"]
    made = mini_pipeline(*epochs, "evaluate.controls=[match_steps]", f"evaluate.arms=[{arms}]")
    cells = {cell_key(stage, made.recipe).column: stage for stage in grid_stages(made)}
    (control,) = (column for column in cells if "steps of" in column)
    assert control == f"mini (steps of {mix})"
    assert steps(cells[control]) == steps(cells[mix]) == max(map(steps, cells.values()))


def test_an_evaluation_with_another_name_for_the_control_of_steps_is_another():
    epochs = ["classifier.epochs=1", "evaluate.controls=[match_steps]"]
    cells = grid_stages(mini_pipeline(*epochs))
    found = {
        arms: eval_cls_stage(mini_pipeline(*epochs, f"evaluate.arms=[{arms}]"), cells).fingerprint
        for arms in ("G", "A, G", "A, G, A+G", "A")
    }
    assert found["G"] == found["A, G"] and len({*found.values()}) == 3


def test_augmented_waves_need_the_library_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "audiomentations", None)
    (stage, *_) = grid("evaluate.models=[{name: taltrans-small, aug: wave}]")
    assert len(lacking([stage])) == 1 and "aug" in lacking([stage])[0]
    (plain, *_) = grid()
    assert not lacking([plain])


def test_controls_are_real_clips_alone_with_more_steps_or_through_the_codec():
    epochs = ["classifier.epochs=1", "evaluate.controls=[match_steps, through_codec]"]
    made = mini_pipeline(*epochs, "evaluate.models=[{name: taltrans-small, aug: none}]")
    found = {stage.what.split(", ")[1]: stage for stage in grid_stages(made)}
    plain = ["mini", "miniG", "mini+10G", "mini+20G", "mini mix.match_steps=20"]
    assert list(found) == [*plain, "mini data.real_through_codec=true"]
    assert not any(made.decoded in found[name].needs for name in plain)
    assert found["mini data.real_through_codec=true"].needs == (made.prepare, made.decoded)
    assert steps(found["mini mix.match_steps=20"]) == steps(found["mini+20G"]) > steps(found["mini"])
    assert made.decoded in made.sources()
    assert made.prepare.fingerprint == mini_pipeline().prepare.fingerprint
    # Where every mix trains for the same steps, more steps are no control.
    assert paths(grid("evaluate.controls=[match_steps]")) == paths(grid())

    own = mini_pipeline("data.real_through_codec=true", "mix.dose=10")
    real, mixed = grid_stages(own)[:2]
    assert own.decoded not in real.needs and real.recipe.mix.dose == 0
    assert own.decoded in mixed.needs and mixed.recipe.mix.dose == 10
    assert own.prepare.fingerprint == mini_pipeline().prepare.fingerprint


def test_the_amplified_control_needs_the_real_column_of_its_seed():
    made = mini_pipeline("evaluate.controls=[amplify]", "mix.balanced=true", "evaluate.seeds=[0, 1]")
    stages = grid_stages(made)
    amplified = [stage for stage in stages if stage.recipe.mix.amplify]
    assert {cell_key(stage, made.recipe).column for stage in amplified} == {"mini (amplified)"}
    assert len(amplified) == 2 * len(made.recipe.evaluate.models)
    for stage in amplified:
        (base,) = (need for need in stage.needs if need.name == "train-cls")
        assert (base.path in paths(stages), base.seed) == (True, stage.seed)
        assert cell_key(base, made.recipe).column == "mini"
    own = mini_pipeline("mix.amplify=4", "mix.balanced=true")  # in every column, and thus no control
    assert {cell_key(stage, own.recipe).column for stage in grid_stages(own)} == {
        "mini", "miniG", "+10G", "+20G",
    }  # fmt: skip


def test_amplify_needs_a_classifier_of_real_clips_alone():
    made = mini_pipeline("mix.amplify=4", "mix.balanced=true")
    stages = grid_stages(made)
    bases = {need.path: need for stage in stages for need in stage.needs if need.name == "train-cls"}
    assert all(any(need.path in bases for need in stage.needs) for stage in stages)
    assert len(bases) == len({stage.recipe.classifier.aug for stage in stages})
    assert all(base.recipe.mix.amplify == 0 and base.recipe.mix.dose == 0 for base in bases.values())
    order = [stage.path for stage in made.stages() if stage.name == "train-cls"]
    assert {*order[: len(bases)]} == {*bases}  # before the others, so that these can run side by side
    assert not any(need.name == "train-cls" for stage in grid() for need in stage.needs)


HEAD = "evaluate.models=[{name: head, aug: none}, {name: head, aug: none, options: {hidden: 8}}]"


def test_a_head_is_one_line_per_features_and_takes_no_steps():
    made = mini_pipeline(HEAD, "classifier.epochs=1", "evaluate.controls=[match_steps]")
    stages = grid_stages(made)
    assert {cell_key(stage, made.recipe).line for stage in stages} == {"head/tiny/none", "head/tiny-8/none"}
    assert not any(stage.recipe.mix.match_steps or stage.parallel for stage in stages)
    clips = len(made.manifest.split("train"))
    assert {steps(stage) for stage in stages} == {clips, 20, clips + 10, clips + 20}


def test_a_run_says_that_a_head_has_no_control_of_steps(capsys):
    for models, count in ((HEAD, 1), ("evaluate.models=[{name: taltrans-small, aug: none}]", 0)):
        mini_pipeline(models, "classifier.epochs=1", "evaluate.controls=[match_steps]").check()
        assert capsys.readouterr().err.count("match_steps") == count


@pytest.mark.parametrize(
    "override",
    [
        "classifier.aug=mx+sp",
        "classifier.init=imagenet",
        "classifier.new_head=true",
        "classifier.select=best",
        "classifier.options.width=4",
        "mix.match_steps=20",
    ],
)
def test_keys_without_a_meaning_for_a_head_are_refused(override):
    key = override.partition("=")[0].replace(".", r"\.")
    with pytest.raises(UsageError, match=key):
        own_stage(mini_pipeline("classifier.name=head", "classifier.aug=none", override), 0)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [("features: mn04", MissingError, "mn04_as_mAP_432.pt"), ("depth: 3", UsageError, "depth")],
)
def test_missing_weights_and_unknown_options_of_a_head_are_found_before_any_work(
    options, error, named, monkeypatch, tmp_path
):
    for name in ("AJBENCH_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    head = [f"classifier.options={{{options}}}", "classifier.name=head", "classifier.aug=none"]
    with pytest.raises(error, match=named):
        run_stages(in_order([own_stage(mini_pipeline(*head, work=tmp_path), 0)]), "cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "error", "named"),
    [
        ("{name: ast-small, init: imagenet, aug: none}", MissingError, "deit_small_distilled_patch16_224"),
        ("{name: taltrans-small, init: imagenet, aug: none}", UsageError, "init=imagenet"),
        ("{name: ast-small, init: somebody/ast, aug: none}", MissingError, "somebody/ast"),
        ("{name: ast-small, init: nowhere, aug: none}", MissingError, "nowhere"),
        ("{name: ast-small, init: EMPTY, aug: none}", MissingError, "config.json"),
        ("{name: taltrans-small, options: {depth: 3}, aug: none}", UsageError, "depth"),
    ],
)
def test_missing_weights_and_unknown_options_of_a_network_are_found_before_any_work(
    override, error, named, monkeypatch, tmp_path
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "empty").mkdir()
    override = override.replace("EMPTY", str(tmp_path / "empty"))
    (first, *_) = grid_stages(mini_pipeline(f"evaluate.models=[{override}]", work=tmp_path / "work"))
    with pytest.raises(error, match=named):
        first.check()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_classifiers_that_can_be_built_pass_the_check(monkeypatch):
    def registered(num_classes, depth):
        raise AssertionError("code of a user, which may need tensors")

    monkeypatch.setitem(registry.KINDS["classifier"], "own", registered)
    for model in (
        "name: taltrans-small, options: {passes: 1}",
        "name: own, init: known, options: {depth: 3}",
    ):
        (first, *_) = grid_stages(mini_pipeline(f"evaluate.models=[{{{model}, aug: none}}]"))
        first.check()


def test_weights_in_the_hubs_cache_are_found_without_a_download(monkeypatch):
    asked = []
    classifier_stages._fault.cache_clear()
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *about: asked.append(about) or "here"
    )
    (first, *_) = grid_stages(mini_pipeline("evaluate.models=[{name: ast, init: imagenet, aug: none}]"))
    first.check()
    first.check()
    assert asked == [("timm/deit_base_distilled_patch16_384.fb_in1k", "model.safetensors")]


TUNE = "evaluate.tune={grid: {train_steps: [3, 6], lr: [0.1, 0.2]}}"


def tuning_of(stage):
    (found,) = (need for need in stage.needs if need.name == "tune")
    return found


def test_each_arm_of_a_model_chooses_its_keys_once_from_the_same_candidates():
    made = mini_pipeline(TUNE, "evaluate.arms=[G, A, R, A+G]", "evaluate.seeds=[4, 5]")
    chosen = {}
    for cell in grid_stages(made):
        key = cell_key(cell, made.recipe)
        arm = key.line, key.column.replace("10", "20")
        assert chosen.setdefault(arm, tuning_of(cell).fingerprint) == tuning_of(cell).fingerprint
        assert tuning_of(cell).seed == 4 and cell_key(tuning_of(cell), made.recipe).column == arm[1]
        assert {need.name for need in tuning_of(cell).needs} == {need.name for need in cell.needs} - {"tune"}
        assert cell.amount == "up to 6 steps"
    assert len(chosen) == len(set(chosen.values())) == 6 * len(made.recipe.evaluate.models)
    budgets = {tuning_of(cell).amount for cell in grid_stages(made)}
    assert budgets == {"4 candidates, 18 steps"}
    names = [stage.name for stage in made.stages() if stage.name in ("tune", "train-cls")]
    assert names == sorted(names, reverse=True) and names.count("tune") == len(chosen)


def test_the_primary_dose_is_the_one_that_its_arms_are_tuned_on():
    primary = "evaluate.primary={dose: 10, arm: A+G}"
    made = mini_pipeline(TUNE, "evaluate.arms=[G, A, A+G]", primary)
    doses = {
        (cell.recipe.mix.source, tuning_of(cell).recipe.mix.dose)
        for cell in grid_stages(made)
        if cell.recipe.mix.dose and cell.recipe.mix.has_real
    }
    assert doses == {("G", 20), ("A", 10), ("A+G", 10)}


def test_a_cell_depends_on_the_choice_of_its_keys_only_if_there_is_one():
    plain, tuned = grid(), grid(TUNE)
    assert paths(plain).isdisjoint(paths(tuned)) and len(plain) == len(tuned)
    for change in (TUNE.replace("0.2", "0.3"), TUNE.replace("3, 6", "3, 7")):
        assert paths(grid(change)).isdisjoint(paths(tuned))
    # A single classifier has the folder that it has in the grid, also at a dose between those of the grid.
    line = ["classifier.name=taltrans-small", "classifier.aug=none"]
    own = own_stage(mini_pipeline(TUNE, *line, expression="mini+10G"), 0)
    assert own.path in paths(tuned)
    between = own_stage(mini_pipeline(TUNE, *line, expression="mini+15G"), 0)
    assert tuning_of(between).path == tuning_of(own).path


def test_folds_choose_their_keys_from_their_own_clips():
    made = mini_pipeline(TUNE, "evaluate.folds=[2, 5]")
    found = [(tuning_of(cell).path, cell.recipe.data.eval_fold) for cell in grid_stages(made)]
    assert (
        len({path for path, _ in found})
        == len(set(found))
        == 2 * len({tuning_of(c).path for c in grid(TUNE)})
    )


def test_a_corpus_without_clips_to_hold_out_is_refused_before_any_work():
    made = mini_pipeline(TUNE)
    made.check()
    label = made.manifest.rows[0].labels[0]
    rows = [replace(row, recording="one") if label in row.labels else row for row in made.manifest.rows]
    with pytest.raises(UsageError, match=r"evaluate\.tune"):
        made.check(manifest=replace(made.manifest, rows=rows))


@pytest.mark.parametrize("key", ["mix.alpha=0.3", "mix.min_fidelity=0.4"])
def test_keys_of_added_clips_train_no_real_clips_again(key):
    keys = "evaluate.doses=[10]", "synth.judge=reference"
    one, other = grid(*keys), grid(*keys, key)
    shared = paths(one) & paths(other)
    assert {stage.path for stage in one if stage.recipe.mix.dose == 0} <= shared


def finished(stage):
    """Leave what `done` asks for."""
    stage.path.mkdir(parents=True)
    (stage.path / "run.json").write_text(json.dumps({"fingerprint": stage.fingerprint}))
    (stage.path / "DONE").touch()
    return stage


def test_the_recipes_own_classifier_of_other_keys_is_not_compared_with_the_grid(tmp_path):
    models = "evaluate.models=[{name: taltrans-small, aug: none, lr: 0.1}]"
    of_name = "classifier.name=taltrans-small", "classifier.aug=none", "mix.dose=10"
    made = mini_pipeline(models, *of_name, work=tmp_path)
    own = finished(own_stage(made, 0))
    assert paths(trained_stages(made)) == {own.path}, "as long as there is no other"
    cell = finished(grid_stages(made)[0])
    assert cell.path != own.path and paths(trained_stages(made)) == {cell.path}
    same = mini_pipeline(models.replace(", lr: 0.1", ""), *of_name, work=tmp_path)
    assert paths(trained_stages(same)) == {own.path}
    finished(next(one for one in grid_stages(same) if one.path != own.path))
    assert own.path in paths(trained_stages(same)) and len(trained_stages(same)) == 2


def test_synthetic_clips_only_are_amplified_by_the_classifier_of_the_recipes_real_clips():
    stages = grid("mix.real=shots=2", "mix.balanced=true", "mix.amplify=3")
    needed = {need.recipe.mix.real for stage in stages for need in stage.needs if need.name == "train-cls"}
    assert needed == {"shots=2"}
