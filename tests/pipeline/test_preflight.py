"""What is refused before any work, and the identity of inputs."""

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import (
    TINY_HASH,
    caption_table_of,
    given_generator,
    hum_record,
    hum_store,
    mini_pipeline,
    save_untrained_classifier,
)

from ajbench.core import recipe, registry
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.recipe import Generator, load
from ajbench.data.audio import clip_samples
from ajbench.data.corpora import recordings
from ajbench.data.labels import LabelSet
from ajbench.data.leak_rule import HEARD, heard
from ajbench.data.manifest import Manifest, Problem, Row
from ajbench.pipeline import given_models, preflight
from ajbench.pipeline.classifier_stages import own_stage, tune_stage
from ajbench.pipeline.inputs import corpus_identity, extractor_identity, weights_identity


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("synth.n=15", ["evaluate.doses", "20", "synth.n=15"]),
        ("mix.real=shots=99", ["mix.real=shots=99"]),
        ("mix.amplify=4", ["mix.amplify", "mix.balanced"]),
        ("mix={balanced: true, amplify: 17}", ["mix.amplify=17", "16"]),
        ("evaluate.controls=[amplify]", ["mix.amplify=100", "16"]),
        ("mix.dose=21", ["mix.dose", "21"]),
        ("mix={mode: alpha, real: shots=2}", ["mix.mode=alpha", "synth.guides=real", "synth.n"]),
        ("synth.classes=17", ["synth.classes=17", "16"]),
        ("data.eval_fold=6", ["data.eval_fold=6"]),
        ("data.corpus=mimi", ["data.corpus", "'mini'"]),
        ("evaluate.models=[{name: asst, aug: none}]", ["evaluate.models", "'ast'"]),
        ("evaluate.probes.noise.strenght=1", ["evaluate.probes.noise.strenght", "'strength'"]),
        ("evaluate.probes.noise.strength=2", ["evaluate.probes.noise.strength"]),
        ("evaluate.probes.img2img={strength: 0.5}", ["evaluate.probes.img2img", "another line"]),
        ("evaluate.probes.X={strength: 0.5}", ["evaluate.probes.X", "another line"]),
        ("codec.name=tinny", ["codec.name", "'tiny'"]),
        ("evaluate.features=pans", ["evaluate.features", "panns16k"]),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(tmp_path, override, parts):
    with pytest.raises(UsageError) as caught:
        made = mini_pipeline(override, work=tmp_path / "work")
        made.check(made.recipe.evaluate.doses)
    assert [part for part in parts if part not in str(caught.value)] == []
    assert not list(tmp_path.iterdir())


def test_seeds_with_other_tail_classes_are_refused():
    keys = ("evaluate.redraw=true", "mix.tail={classes: 2, shots: 1}")
    with pytest.raises(UsageError, match=r"evaluate\.redraw: mix\.tail\.classes=2"):
        mini_pipeline(*keys).check()


def test_repeated_clips_are_not_limited_by_the_generated_ones(tmp_path):
    mini_pipeline("mix={source: R, dose: 999}", work=tmp_path).check()


@pytest.mark.parametrize("text", ["{", "[]", '{"train_ids": 3}', '{"codec": "tiny", "train_ids": {}}'])
def test_a_damaged_generator_is_refused_in_one_line(tmp_path, text):
    given = given_generator(tmp_path / "g")
    (given / "generator.json").write_text(text)
    (given / "unet").mkdir()
    (given / "unet" / "diffusion_pytorch_model.safetensors").touch()
    clips = mini_pipeline().manifest
    for check in (
        lambda: given_models.check_generator(given, mini_pipeline().recipe, clips),
        lambda: given_models.check_init(str(given), clips),
        lambda: given_models.pool_size(given),
    ):
        with pytest.raises(
            IntegrityError, match=r"generator\.json: damaged .*; train the generator"
        ) as found:
            check()
        assert "\n" not in str(found.value)


def test_a_generator_that_was_trained_on_evaluation_clips_is_refused(tmp_path):
    clips = mini_pipeline().manifest
    train = [row.clip_id for row in clips.split("train")]
    held_out = clips.split("eval")[0].clip_id
    mini_pipeline(generator=given_generator(tmp_path / "clean", train)).check()
    with pytest.raises(IntegrityError, match=held_out):
        mini_pipeline(generator=given_generator(tmp_path / "leaky", [*train, held_out])).check()
    other = [f"copy of {name}" for name in train]
    for sources, matched in (([*train[1:], held_out], held_out), (train[1:], "train it again")):
        given = given_generator(tmp_path / f"g{len(sources)}", other, recordings=sources)
        with pytest.raises(IntegrityError, match=matched):
            mini_pipeline(generator=given).check()
    unnamed = given_generator(tmp_path / "unnamed")
    (unnamed / "generator.json").write_text('{"codec": "tiny"}')
    with pytest.raises(IntegrityError, match="unnamed"):
        mini_pipeline(generator=unnamed).check()
    with pytest.raises(IntegrityError, match="encodec_24khz@16k"):
        mini_pipeline(generator=given_generator(tmp_path / "other", train, "encodec_24khz@16k")).check()
    former = given_generator(tmp_path / "former", train, codec_hash="ff1b92258faaad59")
    with pytest.raises(IntegrityError, match="tiny@ff1b92258faaad59"):
        mini_pipeline(generator=former).check()
    mini_pipeline("codec.name=tiny@ff1b92258faaad59", generator=former).check()
    with pytest.raises(MissingError, match=r"generator\.json"):
        mini_pipeline(generator=tmp_path / "nowhere").check()


@pytest.fixture(scope="module")
def pool_store(tmp_path_factory):
    """pool_store(**changes of its metadata) -> folder of a store of another corpus that mini can use."""
    fit = {"codec": "tiny", "codec_hash": TINY_HASH, "clip_samples": clip_samples(2.52)}
    fit["whitening"] = {"mean": [0.0], "std": [1.0], "basis": [[1.0]]}

    def build(recording=None, clip_id="other", **meta):
        folder = tmp_path_factory.mktemp("pools") / "pool"
        records = [hum_record(0, clip_id=clip_id, recording=recording), hum_record(2, clip_id="held out")]
        return hum_store(folder, records, **(fit | meta)).path

    return build


def test_a_pool_of_another_corpus_is_accepted(pool_store):
    for other in (pool_store(), pool_store(recording="elsewhere")):
        mini_pipeline(f"generator.pool={other}").check()


@pytest.mark.parametrize(
    "meta",
    [
        {"codec": "encodec_24khz@16k"},
        {"codec_hash": "ff1b92258faaad59"},
        {"clip_samples": 6720},
        {"whitening": {"mean": [0.0], "std": [1.0]}},
        {"source": "synthetic"},
    ],
)
def test_a_pool_that_the_recipe_cannot_use_is_refused(pool_store, meta):
    with pytest.raises(UsageError, match=r"generator\.pool="):
        mini_pipeline(f"generator.pool={pool_store(**meta)}").check()


def test_a_pool_with_an_eval_clip_or_another_cut_of_its_recording_is_refused(pool_store, tmp_path):
    held_out = mini_pipeline().manifest.split("eval")[0]
    for leak in ({"clip_id": held_out.clip_id}, {"recording": held_out.recording or held_out.clip_id}):
        made = mini_pipeline(f"generator.pool={pool_store(**leak)}", work=tmp_path / "work")
        with pytest.raises(IntegrityError, match=held_out.clip_id):
            made.check()
        with pytest.raises(IntegrityError, match=held_out.clip_id):
            made.train_gen.check()
    with pytest.raises(MissingError, match="nowhere"):
        mini_pipeline(f"generator.pool={tmp_path / 'nowhere'}").check()


def test_two_cuts_of_one_source_are_one_recording_for_the_leak_rule(tmp_path, write_wav):
    splits = {"dog/rex_1": "eval", "dog/bello_1": "train", "cat/tom_1": "train", "cat/kit_1": "eval"}
    paths = {write_wav(f"{name}.wav"): split for name, split in splits.items()}
    lines = [f"{path},{path.parent.name},{split}" for path, split in paths.items()]
    (tmp_path / "clips.csv").write_text("\n".join(["path,labels,split", *lines]))
    keys = ["data.corpus=table", "data.eval_fold=null", "data.recording_from='([a-z]+)_'"]
    for source, refused in (("rex", True), ("bello", False), ("lassie", False)):
        given = given_generator(tmp_path / source, [f"cut 2 of {source}"], recordings=[source])
        made = mini_pipeline(*keys, data=tmp_path / "clips.csv", generator=given)
        with pytest.raises(IntegrityError, match="rex") if refused else nullcontext():
            made.check()


def test_the_identity_of_a_corpus_is_its_content(tmp_path, write_wav):
    def identity():
        made = mini_pipeline("data.corpus=folder", "data.eval_fold=null", data=tmp_path / "c")
        return corpus_identity(made.manifest)

    for name in ("x/1", "x/2", "x/3", "y/4", "y/5", "y/6"):
        write_wav(f"c/{name}.wav")
    first = identity()
    clips = mini_pipeline("data.corpus=folder", "data.eval_fold=null", data=tmp_path / "c").manifest
    described = [replace(row, visual_caption="a dog") for row in clips.rows]
    assert corpus_identity(replace(clips, rows=described)) != first
    subset, captioned = (
        [replace(row, **{key: value}) for row in clips.rows]
        for key, value in (("subset", "balanced"), ("more_captions", ("balanced",)))
    )
    assert corpus_identity(replace(clips, rows=subset)) != corpus_identity(replace(clips, rows=captioned))
    os.utime(tmp_path / "c/x/1.wav", (0, 0))
    assert identity() == first
    (tmp_path / "c/x/1.wav").rename(tmp_path / "c/y/1.wav")
    assert identity() != first


@pytest.mark.parametrize("key", ["evaluate.features", "synth.judge"])
@pytest.mark.parametrize("name", [name for name in registry.FEATURES if name != "reference"])
def test_extractors_without_classes_are_refused(key, name):
    chosen = recipe.load("mini", (f"{key}={name}",))
    if registry.FEATURES[name].classes:
        registry.check_names(chosen)
    else:
        with pytest.raises(UsageError, match=rf"^{key}={name}: .*eval-gen --gen DIR --ref DIR"):
            registry.check_names(chosen)


@pytest.fixture(scope="module")
def splits():
    """The clips of mini: split → ids."""
    manifest = mini_pipeline().manifest
    return {name: [row.clip_id for row in manifest.split(name)] for name in ("train", "eval")}


def test_captions_of_train_clips_are_an_input_of_the_generator(tmp_path, splits):
    captions = dict.fromkeys(splits["train"], "a sound")
    keys = f"generator.captions={caption_table_of(tmp_path / 'one', captions)}"
    given = mini_pipeline(keys)
    given.check()
    assert given.train_gen.fingerprint != mini_pipeline().train_gen.fingerprint
    assert given.prepare.fingerprint == mini_pipeline().prepare.fingerprint
    again = mini_pipeline(f"generator.captions={caption_table_of(tmp_path / 'copy', captions)}")
    assert given.train_gen.fingerprint == again.train_gen.fingerprint
    other = caption_table_of(tmp_path / "other", captions | {splits["train"][0]: "another"})
    assert mini_pipeline(f"generator.captions={other}").train_gen.fingerprint != given.train_gen.fingerprint


@pytest.mark.parametrize("kind", ["clip", "recording", "related"])
def test_captions_of_evaluation_clips_are_refused(tmp_path, splits, kind):
    pipeline = mini_pipeline()
    held_out = splits["eval"][0]
    rows = [
        replace(row, recording="youtube:abc") if row.clip_id in (held_out, splits["train"][0]) else row
        for row in pipeline.manifest.rows
    ]
    problem = Problem(splits["train"][0], "", None, f"{recordings.HELD_OUT} (youtube:abc)", "train")
    rows = [row for row in rows if row.clip_id != splits["train"][0]]
    manifest = replace(pipeline.manifest, rows=rows, problems=[problem])
    leak = {"clip": held_out, "recording": "abc", "related": splits["train"][0]}[kind]
    table = caption_table_of(tmp_path / "t", dict.fromkeys([*splits["train"][1:], leak], "a sound"))
    with pytest.raises(IntegrityError, match=leak):
        given_models.check_captions(Generator(captions=str(table)), manifest)


def test_captions_of_a_table_that_does_not_fit_are_refused(tmp_path, splits):
    folder = caption_table_of(tmp_path / "t", {"another clip": "a sound"})
    with pytest.raises(UsageError, match=r"generator\.captions"):
        mini_pipeline(f"generator.captions={folder}").check()
    with pytest.raises(UsageError, match="merge"):
        mini_pipeline(f"generator.captions={folder}", "generator.caption_kind=merge").check()
    with pytest.raises(MissingError, match="nowhere"):
        mini_pipeline(f"generator.captions={tmp_path / 'nowhere'}").check()


def test_an_eval_split_of_one_recording_is_told():
    manifest = mini_pipeline().manifest
    rows = [replace(row, recording="tape" * (row.split == "eval")) for row in manifest.rows]
    before, after = map(preflight.shortcomings, (manifest, replace(manifest, rows=rows)))
    (sentence,) = {*after} - {*before}
    assert "(tape)" in sentence and "no verdict" in sentence


def set_of(splits):
    """A corpus of clips of the classes a and b, and of (label, split, recording) each."""
    rows = [Row(f"{label}{split}{k}", "", labels=(label,), split=split)
            for label in "ab" for split in ("train", "eval") for k in range(3)]  # fmt: skip
    rows += [Row(f"c{k}", "", labels=(label,), split=split, recording=recording)
             for k, (label, split, recording) in enumerate(splits)]  # fmt: skip
    return Manifest(rows, LabelSet.from_names(label for row in rows for label in row.labels))


def test_a_class_that_cannot_be_in_both_splits_is_told_once_for_all_folds():
    folds = [
        preflight.shortcomings(set_of([("c", split, None)]), k) for k, split in enumerate(("train", "eval"))
    ]
    (told,) = {*folds[0], *folds[1]}
    assert "class c has 1 clip" in told and "remove it" in told
    (several,) = preflight.shortcomings(set_of([("c", "train", None), ("d", "eval", None)]))
    assert "c, d have 1 clip each" in several
    (tape,) = preflight.shortcomings(set_of([("c", "eval", "tape")] * 2))
    assert "clips of 1 recording" in tape
    (other,) = preflight.shortcomings(set_of([("c", "eval", None)] * 2), 3)
    assert other.startswith("fold 3: no train clip of 1 class (c)")


def test_the_clips_of_a_store_are_those_without_its_quarantine(tmp_path):
    hum_store(tmp_path / "store", [hum_record(i) for i in range(4)])
    rows = [Row(f"clip-{i}", "", labels=("hum",)) for i in range(6)]
    listed = Manifest(rows, LabelSet.from_names(["hum"]))
    for done, kept in ((True, rows[:4]), (False, rows)):
        prepared = SimpleNamespace(path=tmp_path / "store", done=lambda done=done: done)
        assert preflight.usable(listed, prepared).rows == kept


def test_a_pool_of_backgrounds_is_checked_whatever_the_generator(pool_store, tmp_path):
    clips = mini_pipeline().manifest
    given = given_generator(tmp_path / "given", [row.clip_id for row in clips.split("train")])
    leaky = f"generator.pool={pool_store(clip_id=clips.split('eval')[0].clip_id)}"
    mini_pipeline(leaky, generator=given).check()
    with pytest.raises(IntegrityError, match=clips.split("eval")[0].clip_id):
        mini_pipeline(leaky, "evaluate.arms=[A,G]", generator=given).check()


@pytest.mark.parametrize(
    "key",
    [
        "classifier.init={0}",
        "synth.judge={0}",
        "per_classifier.taltrans-small.init={0}",
        "evaluate.all_real.init={0} classifier.init={1}",
        "evaluate.tune.grid.init=[{1},{0}] classifier.init={1}",
        "evaluate.probes.more.judge={0}",
    ],
)
def test_a_classifier_of_another_fold_is_refused(tmp_path, key):
    rows, length = mini_pipeline().manifest, clip_samples(2.52)
    other = save_untrained_classifier(tmp_path / "other", rows.label_set.names, length)
    for split, refused in (("train", False), ("eval", True)):
        folder = save_untrained_classifier(tmp_path / split, rows.label_set.names, length)
        known = [row.clip_id for row in rows.split(split)][:5]
        np.save(folder / HEARD, heard(known, ["elsewhere"]))
        with pytest.raises(IntegrityError, match=known[0]) if refused else nullcontext():
            mini_pipeline(*key.format(folder, other).split(), work=tmp_path / "work").check()
    (folder / HEARD).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match="damaged"):
        mini_pipeline(*key.format(folder, other).split(), work=tmp_path / "work").check()


def test_a_given_generator_counts_with_what_says_how_it_is_used(tmp_path):
    folder = given_generator(tmp_path / "g")
    before = weights_identity(folder)
    (folder / "whitening.json").write_text("{}")
    assert len({before, weights_identity(folder)}) == 2


@pytest.fixture
def own_extractor(tmp_path, monkeypatch):
    """A registered extractor, in a file that can be changed."""
    monkeypatch.setattr(registry, "FEATURES", dict(registry.FEATURES))
    monkeypatch.setitem(registry.KINDS, "features", registry.FEATURES)
    path = tmp_path / "own_extractor.py"
    path.write_text(
        "from ajbench.features.extractor import Extractor\n\n\n"
        "class Own(Extractor):\n    sample_rate = 16_000\n\n"
        "    def compute(self, wav):\n        return wav[:, :8], None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.register("features", "own", "own_extractor:Own", classes=False)
    yield path
    sys.modules.pop("own_extractor", None)


def test_the_source_of_a_judge_of_ones_own_counts_for_the_clips_it_chooses(own_extractor):
    keys = set()
    for columns in (8, 9):
        own_extractor.write_text(own_extractor.read_text().replace(":8", f":{columns}"))
        registry.register("features", "own", "own_extractor:Own")
        keys.add(mini_pipeline("synth.judge=own", "synth.candidates=2").synth().fingerprint)
        sys.modules.pop("own_extractor")
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("kind", "key"), [("classifier", "classifier.name"), ("text encoder", "generator.text_encoder")]
)
def test_the_source_of_a_model_of_ones_own_counts(tmp_path, monkeypatch, kind, key):
    monkeypatch.setitem(registry.KINDS, kind, dict(registry.KINDS[kind]))
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = set()
    for dropout in (0.1, 0.9):
        (tmp_path / "own_model.py").write_text(f"def own():\n    return {dropout}\n")
        registry.register(kind, "own", "own_model:own")
        made = mini_pipeline(f"{key}=own")
        stage = own_stage(made, 0) if kind == "classifier" else made.train_gen
        keys.add(stage.fingerprint)
        sys.modules.pop("own_model", None)
    assert len(keys) == 2


def test_other_weights_of_a_candidate_make_another_choice(tmp_path):
    keys = set()
    for content in (b"1", b"2"):
        (tmp_path / "model.safetensors").write_bytes(content)
        made = mini_pipeline("classifier.init=hub/own", f"evaluate.tune.grid.init=[hub/own,{tmp_path}]")
        keys.add(tune_stage(made, made.recipe.classifier_of(), made.recipe.mix).fingerprint)
    assert len(keys) == 2


def test_a_path_below_the_home_folder_is_that_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for key in ("classifier.init", "synth.judge", "generator.pool", "generator.captions", "data.leave_out"):
        short, whole = (load("mini", [f"{key}={home}/some"]) for home in ("~", tmp_path))
        assert short == whole, key
    with pytest.raises(UsageError, match=r"classifier\.init.*~nobody-here"):
        load("mini", ["classifier.init=~nobody-here/some"])


def test_the_source_of_an_extractor_of_ones_own_counts(own_extractor):
    before = extractor_identity("own")
    own_extractor.write_text(own_extractor.read_text().replace(":8", ":9"))
    assert extractor_identity("own") != before and extractor_identity("mn04") == ()
