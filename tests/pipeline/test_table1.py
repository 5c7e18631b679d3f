"""Table 1: generators compared on the captions of the evaluation clips, which are never trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import N_EVAL, N_TRAIN, FakeCodec, make_generator, make_store, mini_pipeline, small_recipe

from ajbench.classifiers.selection import check_descent
from ajbench.core import recipe
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data.clip_set import open_set
from ajbench.evaluation.set_pair import pairs_of
from ajbench.generation.synthesize import synthesize
from ajbench.pipeline import table1

torch.set_num_threads(1)
CAPTIONS = {"plan": "captions", "strength": 1.0, "prompt": "names"}
TWO = "evaluate.generators={plain: {mask: false}, masked: {mask: true, max_tokens: 12}}"


def pipeline(*overrides, **places):
    return mini_pipeline(*overrides, expression="tables/t1", base="mini", **places)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("t1") / "real", captions=2)


def test_clips_of_captions_are_paired_with_their_eval_clips_and_refused_in_a_mix(real, tmp_path):
    held_out = [real[i] for i in real.split_indices("eval")]
    parents = [c.clip_id for c in held_out] + [c.clip_id for c in held_out if c.more_captions]
    assert N_EVAL < len(parents) < 2 * N_EVAL
    generator = make_generator(tmp_path / "g", real)
    made = synthesize(
        small_recipe(synth={**CAPTIONS, "n": len(parents)}), real, generator, None, tmp_path / "s",
        fingerprint="f", codec=FakeCodec(),
    )  # fmt: skip
    assert made.column("parent_id") == parents and set(made.column("split")) == {"eval"}
    assert list(pairs_of(open_set(made.path), open_set(real.path)).values()) == parents
    texts = [c.caption for c in held_out] + [text for c in held_out for text in c.more_captions]
    assert made.column("caption") == texts and len(set(texts)) == len(texts)
    assert set(made.column("strength")) == {1.0} and made.meta.counts["eval"]["kept"] == len(parents)
    assert not np.array_equal(made.codes([0]), real.codes([N_TRAIN]))
    with pytest.raises(IntegrityError, match="eval"):
        check_descent(real, made)


def test_generators_share_prepared_clips_and_each_has_its_own_set():
    parts = table1.variants(pipeline(TWO))
    plain, masked = parts["plain"], parts["masked"]
    assert plain.prepare.path == masked.prepare.path
    assert plain.train_gen.path != masked.train_gen.path
    assert (masked.recipe.generator.mask, masked.recipe.generator.max_tokens) == (True, 12)
    assert plain.synth("plain").recipe.synth.n == len(plain.manifest.split("eval"))
    names = [f"{stage.name} {stage.what}".strip() for stage in table1.stages(pipeline(TWO))]
    judge = "train-cls taltrans-small mx+sp, mini, seed 0"
    first = ["prepare", "train-gen", "synth plain", judge, "eval-gen"]
    assert names == [*first, "train-gen", "synth masked", "eval-gen"]


def test_the_paper_s_four_are_the_default_and_need_their_weights_before_any_work():
    made = pipeline()
    assert [*table1.variants(made)] == ["clap", "clap-masked", "t5-masked", "t5"]
    with pytest.raises(MissingError, match="clap"):
        table1.run(made, "cpu")


def test_a_trained_generator_is_taken(tmp_path, real):
    folder = make_generator(tmp_path / "g", real)
    made = pipeline(f"evaluate.generators={{mine: {{folder: {folder}}}}}")
    names = [stage.name for stage in table1.stages(made)]
    assert "train-gen" not in names and table1.variants(made)["mine"].generator == folder


def test_the_only_trained_generator_of_another_recipe_is_taken(tmp_path, real):
    made = pipeline("evaluate.generators={mine: {recipe: as2m/t5}}", work=tmp_path)
    with pytest.raises(MissingError, match=r"generators\.mine: .*as2m/t5; .*train-gen --recipe as2m/t5"):
        table1.variants(made)
    (tmp_path / "as2m" / "t5" / "train-gen-1").mkdir(parents=True)  # unfinished
    folder = make_generator(tmp_path / "as2m" / "t5" / "train-gen-2", real)
    assert table1.variants(made)["mine"].generator == folder
    make_generator(tmp_path / "as2m" / "t5" / "train-gen-3", real)
    with pytest.raises(UsageError, match=r"generators\.mine.*train-gen-2, train-gen-3"):
        table1.variants(made)
    chosen = pipeline(f"evaluate.generators={{mine: {{recipe: as2m/t5, folder: {folder}}}}}", work=tmp_path)
    assert table1.variants(chosen)["mine"].generator == folder


def test_a_set_has_a_clip_for_every_caption_of_the_evaluation_clips():
    made = pipeline(TWO)
    held_out = len(made.manifest.split("eval"))
    rows = [
        replace(row, more_captions=("b", "c") if row.split == "train" else ("b",))
        for row in made.manifest.rows
    ]
    made.__dict__["manifest"] = replace(made.manifest, rows=rows)
    assert {mine.probes[name].n for name, mine in table1.variants(made).items()} == {2 * held_out}


def test_table_1_of_audiocaps_compares_generators_trained_on_audioset_by_panns():
    base = recipe.load("tables/t1", base="audiocaps")
    assert base.evaluate.features == "panns16k"
    assert base.evaluate.generators == {name: {"recipe": f"as2m/{name}"} for name in table1.PAPER}
    for name, keys in table1.PAPER.items():
        text = recipe.load(f"as2m/{name}").generator.model_dump()
        assert {key: text[key] for key in keys} == keys and not text["encoder_mask"]


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
    ("name", "encoder"),
    [("clap", "clap"), ("clap-masked", "clap"), ("t5-masked", "t5-large"), ("t5", "t5-large")],
)
def test_the_four_recipes_are_as2m_with_other_text_encoders(name, encoder):
    mask = name.endswith("-masked")
    base, made = recipe.load("as2m"), recipe.load(f"as2m/{name}")
    assert (made.generator.text_encoder, made.generator.mask, made.name) == (encoder, mask, f"as2m/{name}")
    text = {"text_encoder": base.generator.text_encoder, "mask": base.generator.mask}
    same = {"name": base.name, "description": base.description}
    assert made.model_copy(update={"generator": made.generator.model_copy(update=text), **same}) == base
