"""The stages of a recipe, their order and fingerprints."""

import shutil

import pytest
from fakes import given_generator, mini_pipeline

from ajbench.pipeline.classifier_stages import cell_key, grid_stages


def fingerprints(*overrides, **more):
    stages = mini_pipeline(*overrides, **more).stages()
    return {f"{stage.name} {stage.what}".strip(): stage.fingerprint for stage in stages}


def changed(*overrides):
    before, after = fingerprints(), fingerprints(*overrides)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


REAL = {"train-cls taltrans-small none, mini, seed 0", "train-cls taltrans-small mx+sp, mini, seed 0"}
MIXED = {
    f"train-cls taltrans-small {augmentation}, {mix}, seed 0"
    for augmentation in ("none", "mx+sp")
    for mix in ("miniG", "mini+10G", "mini+20G")
}
EVALUATIONS = {"eval-cls", "eval-gen"}


def test_a_run_holds_every_stage_in_order():
    names = [stage.name for stage in mini_pipeline().stages()]
    order = "prepare train-gen invert synth train-cls eval-cls eval-gen"
    assert " ".join(dict.fromkeys(names)) == order
    sources = {"prepare", "train-gen", "invert", "synth", "synth noise"}
    assert set(fingerprints()) == sources | REAL | MIXED | EVALUATIONS


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("mix.balanced=true", REAL | MIXED | EVALUATIONS),
        ("classifier.lr=1e-4", REAL | MIXED | EVALUATIONS),
        ("synth.strength=0.5", {"synth"} | MIXED | EVALUATIONS),
        ("synth.guidance=3", {"synth"} | MIXED | EVALUATIONS),
        ("evaluate.probes.noise.n=9", {"synth noise", "eval-gen"}),
        ("invert.train_steps=7", {"invert", "synth", "synth noise"} | MIXED | EVALUATIONS),
        ("generator.seed=1", {"train-gen", "invert", "synth", "synth noise"} | MIXED | EVALUATIONS),
        ("evaluate.bootstrap=200", EVALUATIONS),
        ("data.corpus_seed=3", set(fingerprints())),
        ("data.eval_fold=2", set(fingerprints())),
        ("description=other", set()),
    ],
)
def test_a_change_reaches_what_depends_on_it_and_nothing_else(override, expected):
    assert changed(override) == expected


MODELS = {"train-gen", "invert", "synth", "synth noise"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["generator.pool=real", "synth.guides=real"], set()),  # of all train clips
        (["mix.real=shots=1"], set()),
        (["mix.real=shots=1", "synth.guides=real"], {"synth", "synth noise"}),
        (["mix.real=shots=1", "generator.pool=real"], MODELS),
        (["mix.real=shots=1", "mix.draw=1", "generator.pool=real"], MODELS),
    ],
)
def test_the_pool_changes_what_is_fitted_on_it(overrides, expected):
    before, after = fingerprints(), fingerprints(*overrides)
    assert {name for name in MODELS if before[name] != after[name]} == expected
    assert before["prepare"] == after["prepare"]


def test_the_pool_of_synthetic_clips_only_is_that_of_the_whole_grid():
    keys = ["mix.real=shots=1", "generator.pool=real"]
    grid, other = fingerprints(*keys), fingerprints(*keys, "mix.draw=1")
    assert not {grid[name] for name in MODELS} & {other[name] for name in MODELS}
    alone = fingerprints(*keys, "mix.real=none", "mix.none_of=shots=1")
    assert {grid[name] for name in MODELS} == {alone[name] for name in MODELS}
    mixed = next(key for name, key in grid.items() if "none, miniG" in name)
    assert mixed in alone.values()


def test_with_redraw_every_seed_has_a_draw_of_its_own_and_nothing_else_changes():
    keys = ["mix.real=shots=2", "mix.draw=3", "evaluate.seeds=[0,1]", "evaluate.controls=[all_real]"]
    shared, own = mini_pipeline(*keys), mini_pipeline(*keys, "evaluate.redraw=true")
    before, after = grid_stages(shared), grid_stages(own)
    assert [stage.what for stage in before] == [stage.what for stage in after]
    for one, other in zip(before, after, strict=True):
        same = other.seed == 0 or other.recipe.mix.real != "shots=2"
        assert (one.fingerprint == other.fingerprint) == same
        assert other.recipe.mix.draw == 3 + (other.seed or 0)
        drawn = mini_pipeline(*keys, f"mix.draw={3 + (other.seed or 0)}")
        assert other.fingerprint in {stage.fingerprint for stage in grid_stages(drawn)}
    assert [stage.fingerprint for stage in shared.sources()] == [stage.fingerprint for stage in own.sources()]
    assert cell_key(after[0], own.recipe) == cell_key(before[0], shared.recipe)


def test_with_redraw_what_is_made_of_real_clips_is_made_for_every_draw():
    keys = ["mix.real=shots=2", "evaluate.seeds=[1,2]", "evaluate.arms=[A,G]", "generator.pool=real"]
    names = [stage.name for stage in mini_pipeline(*keys, "evaluate.redraw=true").stages()]
    assert [names.count(name) for name in ("train-gen", "augment", "eval-gen")] == [2, 2, 1]
    pooled = mini_pipeline(*keys, "evaluate.redraw=true", "generator.pool=train")
    names = [stage.name for stage in pooled.stages()]
    assert [names.count(name) for name in ("train-gen", "augment", "eval-gen")] == [1, 2, 1]
    everything = mini_pipeline("evaluate.redraw=true", "evaluate.seeds=[0,1]")
    assert everything.draws == [everything]  # with all real clips nothing is drawn


def test_fingerprints_do_not_depend_on_folders(tmp_path, write_wav):
    for name in ("dog/a", "dog/b", "dog/c", "cat/d", "cat/e", "cat/f"):
        write_wav(f"here/{name}.wav")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    options = ("data.corpus=folder", "data.eval_fold=null")
    here = fingerprints(*options, data=tmp_path / "here", work=tmp_path / "w1")
    there = fingerprints(*options, data=tmp_path / "there", work=tmp_path / "w2", results=tmp_path / "r")
    assert here == there
    write_wav("there/cat/d.wav", rate=8_000)
    other = fingerprints(*options, data=tmp_path / "there")
    assert not set(other.values()) & set(here.values())


def test_a_classifier_that_starts_from_other_weights_is_another(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1")
    assert changed(f"classifier.init={tmp_path}") == REAL | MIXED | EVALUATIONS
    first = fingerprints(f"classifier.init={tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"2")
    second = fingerprints(f"classifier.init={tmp_path}")
    assert {name for name in first if first[name] != second[name]} == REAL | MIXED | EVALUATIONS


def test_a_table_runs_only_what_it_needs():
    made = mini_pipeline(expression="tables/a11", base="mini")
    assert [stage.name for stage in made.sources()] == ["prepare", "train-gen", "invert", "synth"]
    assert [stage.name for stage in made.stages() if stage.name.startswith("eval")] == ["eval-cls"]
    own, usual = grid_stages(made), grid_stages(mini_pipeline())
    assert [stage.path for stage in own] == [stage.path for stage in usual]


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [
        (["synth.prompt=names", "evaluate.probes={}"], False),
        (["synth.prompt=names", "evaluate.probes.noise.prompt=tokens"], True),
        (["synth.prompt=names", "evaluate.probes={}", "invert.lora_rank=4"], True),
        (["evaluate.probes={}"], True),
    ],
)
def test_tokens_and_lora_are_trained_only_if_a_set_uses_them(overrides, needed):
    assert ("invert" in [stage.name for stage in mini_pipeline(*overrides).stages()]) == needed


REAL_ONLY = ("evaluate.doses=[]", "evaluate.synthetic_only=false", "evaluate.probes={}")


@pytest.mark.parametrize(
    ("overrides", "generated"),
    [
        (REAL_ONLY, False),
        ((*REAL_ONLY[1:], "evaluate.arms=[A]"), False),
        (REAL_ONLY[:2], True),  # for the probe
        ((*REAL_ONLY, "mix.mode=alpha"), True),
        ((*REAL_ONLY[1:], "evaluate.arms=[A, G]"), True),
    ],
)
def test_a_generator_is_trained_only_for_clips_that_are_mixed_or_probed(overrides, generated):
    names = {stage.name for stage in mini_pipeline(*overrides).stages()}
    assert ({"train-gen", "synth", "eval-gen"} & names) == (
        {"train-gen", "synth", "eval-gen"} if generated else set()
    )
    assert {"prepare", "train-cls", "eval-cls"} <= names


def test_a_given_generator_takes_the_place_of_the_trained_one(tmp_path):
    given = given_generator(tmp_path / "given")
    made = mini_pipeline(generator=given)
    assert "train-gen" not in [stage.name for stage in made.stages()]
    before = made.synth().fingerprint
    (given / "unet.safetensors").write_bytes(b"others")
    assert mini_pipeline(generator=given).synth().fingerprint != before
