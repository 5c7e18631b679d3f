"""Table 1: generators side by side on the captions of the evaluation clips, which are never trained on."""

import numpy as np
import pytest
import torch
from fakes import N_EVAL, N_TRAIN, FakeCodec, make_generator, make_store, small_recipe

from ajbench.classifiers.train import check_descent
from ajbench.core import recipe
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import seed_for
from ajbench.generation.plan import ListedClips, plan
from ajbench.generation.prompts import sound_of, spoken
from ajbench.generation.synthesize import synthesize
from ajbench.pipeline import table1
from ajbench.pipeline.recipe_stages import Pipeline, Places

torch.set_num_threads(1)
CAPTIONS = {"plan": "captions", "strength": 1.0, "prompt": "names"}
TWO = "evaluate.generators={plain: {mask: false}, masked: {mask: true, max_tokens: 12}}"


def pipeline(*overrides, **places):
    options = ("data.n_clips=40", "evaluate.seeds=[0]", *overrides)
    return Pipeline(recipe.load("tables/t1", options, base="mini"), Places(**places))


# The plan of captions


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("t1") / "real", captions=True)


def test_every_evaluation_clip_has_a_clip_of_its_caption_from_noise(real):
    section = small_recipe(synth={**CAPTIONS, "n": N_EVAL + 1}).synth
    rows = plan(section, ListedClips.of_store(real, "eval", captions=True), seed=3).to_pylist()
    ids = real.clip_ids[N_TRAIN:]
    assert [row["parent_id"] for row in rows] == [*ids, ids[0]]
    assert [row["clip_id"] for row in rows] == [*(f"syn-{i}-0" for i in ids), f"syn-{ids[0]}-1"]
    for row in rows:
        clip = real[row["parent"]]
        assert row["prompt"] == row["caption"] == clip.caption and row["label_ids"] == sorted(clip.label_ids)
        assert row["seed"] == seed_for(3, row["clip_id"])


def test_without_a_caption_the_labels_are_the_prompt(tmp_path):
    bare = make_store(tmp_path / "bare")
    clips = ListedClips.of_store(bare, "eval", captions=True)
    rows = plan(small_recipe(synth=CAPTIONS).synth, clips).to_pylist()
    for row in rows:
        text = sound_of([spoken(name) for name in row["labels"]])
        assert row["prompt"] == row["caption"] == text and row["labels"] == bare[row["parent"]].labels
    assert {len(row["labels"]) for row in rows} == {1, 2}


def test_captions_are_read_for_a_plan_of_them_alone(real):
    assert ListedClips.of_store(real, "eval").captions == ()
    found = ListedClips.of_store(real, "eval", captions=True).captions
    assert found == tuple(real[i].caption for i in range(N_TRAIN, N_TRAIN + N_EVAL))


def test_such_clips_answer_to_evaluation_clips_and_are_refused_in_a_mix(real, tmp_path):
    generator = make_generator(tmp_path / "g", real)
    made = synthesize(
        small_recipe(synth={**CAPTIONS, "n": N_EVAL}), real, generator, None, tmp_path / "s",
        fingerprint="f", codec=FakeCodec(),
    )  # fmt: skip
    assert made.column("parent_id") == real.clip_ids[N_TRAIN:] and set(made.column("split")) == {"eval"}
    assert set(made.column("strength")) == {1.0} and made.meta.counts["eval"]["kept"] == N_EVAL
    assert not np.array_equal(made.codes([0]), real.codes([N_TRAIN]))
    with pytest.raises(IntegrityError, match="in the eval split"):
        check_descent(real, made)


@pytest.mark.parametrize("change", [{"strength": 0.6}, {"prompt": "tokens"}])
def test_a_guide_or_tokens_are_refused(change):
    with pytest.raises(ValueError, match="captions"):
        small_recipe(synth=CAPTIONS | change)


# The table


def test_generators_share_prepared_clips_and_each_has_its_own_set():
    parts = table1.variants(pipeline(TWO))
    plain, masked = parts["plain"], parts["masked"]
    assert plain.prepare.path == masked.prepare.path
    assert plain.train_gen.path != masked.train_gen.path
    assert (masked.recipe.generator.mask, masked.recipe.generator.max_tokens) == (True, 12)
    assert plain.synth("plain").recipe.synth.n == len(plain.manifest.split("eval"))
    names = [f"{stage.name} {stage.what}".strip() for stage in table1.stages(pipeline(TWO))]
    judge = "train-cls taltrans-small mx+sp, mini, seed 0"
    assert names == [
        *("prepare", "train-gen", "synth plain", judge, "eval-gen"),
        *("train-gen", "synth masked", "eval-gen"),
    ]


def test_the_paper_s_four_are_the_default_and_their_weights_are_asked_for_first():
    made = pipeline()
    assert [*table1.variants(made)] == ["clap", "clap-masked", "t5-masked", "t5"]
    with pytest.raises(MissingError, match="clap"):
        table1.run(made, "cpu")


def test_a_trained_generator_is_taken(tmp_path, real):
    folder = make_generator(tmp_path / "g", real)
    made = pipeline(f"evaluate.generators={{mine: {{folder: {folder}}}}}")
    names = [stage.name for stage in table1.stages(made)]
    assert "train-gen" not in names and table1.variants(made)["mine"].generator == folder


@pytest.mark.parametrize(
    ("generators", "match"),
    [
        ("{a: {maks: true}}", r"evaluate\.generators\.a\.maks.*'mask'"),
        ("{a: {val_share: 0.1}}", r"evaluate\.generators\.a: generator\.val_share=0\.1"),
        ("{a: {text_encoder: t6}}", r"generator\.text_encoder.*'t6'"),
    ],
)
def test_a_generator_with_a_wrong_key_or_value_is_refused(generators, match):
    with pytest.raises(UsageError, match=match):
        table1.variants(pipeline(f"evaluate.generators={generators}"))


@pytest.mark.parametrize(
    ("name", "encoder", "mask"),
    [
        ("clap", "clap", False),
        ("clap-masked", "clap", True),
        ("t5-masked", "t5-large", True),
        ("t5", "t5-large", False),
    ],
)
def test_the_four_recipes_are_as2m_but_for_their_text(name, encoder, mask):
    base, made = recipe.load("as2m"), recipe.load(f"as2m/{name}")
    assert (made.generator.text_encoder, made.generator.mask, made.name) == (encoder, mask, f"as2m/{name}")
    text = {"text_encoder": base.generator.text_encoder, "mask": base.generator.mask}
    same = {"name": base.name, "description": base.description}
    assert made.model_copy(update={"generator": made.generator.model_copy(update=text), **same}) == base
