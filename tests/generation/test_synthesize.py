"""Synthetic stores: what they record, what a clip depends on, what is refused, and kills."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fakes import (
    CLIP_SAMPLES,
    N_TRAIN,
    SMALL_LABELS,
    FakeCodec,
    make_store,
    make_tokens,
    run_script,
    small_recipe,
    stopped_at,
)

from ajbench.classifiers.selection import check_descent
from ajbench.core.errors import IntegrityError, NumericError, UsageError
from ajbench.core.files import seed_for
from ajbench.data import real_clips
from ajbench.data.shards import ids_hash
from ajbench.data.store import ClipStore
from ajbench.data.verify import verify
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.synthesize import synthesize
from ajbench.generation.worker import Job
from ajbench.pipeline.estimates import synthesis_seconds

from .conftest import N_SYNTHETIC, read_csv


def test_the_store_records_where_each_clip_comes_from(made, real):
    assert verify(made.path)["clips"] == len(made) == N_SYNTHETIC
    assert pq.read_table(made.path / "plan.parquet")["clip_id"].to_pylist() == made.clip_ids
    assert made.meta.source == "synthetic" and made.meta.counts["train"]["kept"] == N_SYNTHETIC
    assert made.meta.train_ids_hash == ids_hash(real.clip_ids[:N_TRAIN])
    assert [entry.clips for entry in made.meta.shards] == [6, 6, 2]
    clip = made[13]
    assert (clip.source, clip.split, clip.generator) == ("synthetic", "train", "gen0")
    assert (clip.strength, clip.guidance, clip.steps) == (0.6, 2.0, 3)
    assert clip.parent_id in real.clip_ids and clip.seed == seed_for(0, clip.clip_id)
    wave = FakeCodec().decode(clip.codes[None])[0].numpy()
    assert wave.shape == (CLIP_SAMPLES,) and np.abs(wave - clip.audio()).max() < 1 / 32768


class SquashingCodec(FakeCodec):
    """Keeps what it has decoded; its waves are never clipped."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def decode_latents(self, latents):
        self.heard.append(super().decode_latents(latents).tanh() / 2)
        return self.heard[-1]


@pytest.mark.parametrize("decode", ["latents", "codes"])
def test_the_sound_is_that_of_the_latents_or_of_their_codes(generate, tmp_path, decode):
    codec = SquashingCodec()
    store = generate(tmp_path / "s", n=4, codec=codec, decode=decode)
    (heard,) = codec.heard
    for n in range(4):
        wave, of_codes = store[n].audio(), codec.decode(store[n].codes[None])[0].numpy()
        assert np.abs(heard[n].numpy() - wave).max() < 1 / 32768
        assert (np.abs(of_codes - wave).max() < 1 / 32768) == (decode == "codes")


@pytest.mark.parametrize("plan", ["per-clip", "random-classes"])
@pytest.mark.parametrize(
    ("pool", "guides", "few"), [("train", "pool", False), ("train", "real", True), ("real", "pool", True)]
)
def test_guides_come_from_the_pool_or_the_real_clips(real, generator, tmp_path, plan, pool, guides, few):
    synth = {"n": 24, "sampler_steps": 1, "guides": guides, "plan": plan, "prompt": "names"}
    recipe = small_recipe(generator={"pool": pool}, mix={"real": "shots=2"}, synth=synth)
    about = {"fingerprint": "f", "codec": FakeCodec()}
    made = synthesize(recipe, real, generator, None, tmp_path / "s", **about)
    chosen = {real.clip_ids[i] for i in real_clips.chosen(recipe.mix, real)}
    assert (set(made.column("parent_id")) <= chosen) == few
    assert made.meta.eval_ids_hash == ids_hash(real.clip_ids[N_TRAIN:])


def test_a_clip_starts_from_its_parent(generate, real, tmp_path):
    codec = FakeCodec()
    close = generate(tmp_path / "s", n=12, strength=0.02, sampler_steps=50, guidance=1.0)
    parents = real.codes([real.clip_ids.index(name) for name in close.column("parent_id")])
    latents = [codec.latents(codes).flatten(1) for codes in (close.codes(range(12)), parents)]
    ours, theirs = (torch.nn.functional.normalize(one, dim=1) for one in latents)
    similarity = ours @ theirs.T
    assert (similarity.argmax(1) == torch.arange(12)).all() and similarity.diagonal().min() > 0.9


def test_a_clips_bits_do_not_depend_on_shards_other_clips_or_the_plans_length(made, generate, tmp_path):
    other = generate(tmp_path / "s", n=7, shard_size=7)
    for clip in other:
        same = made[made.clip_ids.index(clip.clip_id)]
        assert np.array_equal(clip.codes, same.codes) and np.array_equal(clip.audio(), same.audio())


def test_a_finished_store_is_not_made_again_and_another_job_is_refused(made, generate, monkeypatch):
    monkeypatch.setattr(Job, "work", None)
    assert generate(made.path).clip_ids == made.clip_ids
    with pytest.raises(IntegrityError, match="f1"):
        generate(made.path, fingerprint="f2")


class Silent(FakeCodec):
    """Decodes nothing but silence."""

    def decode(self, codes):
        return super().decode(codes) * 0


def test_a_store_without_a_usable_result_is_an_error(generate, tmp_path):
    with pytest.raises(NumericError, match=r"synth\.guidance"):
        generate(tmp_path / "s", codec=Silent(), n=6)
    lines = read_csv(tmp_path / "s" / "quarantine.csv")
    assert len(lines) == 6 and all(line["reason"].startswith("silent") for line in lines)
    assert not list((tmp_path / "s").glob("part-*"))


def test_generators_and_tokens_that_do_not_fit_the_store_are_refused(generate, real, tmp_path):
    fold = make_store(tmp_path / "fold", train=6, evaluated=9)
    with pytest.raises(IntegrityError, match="6 of the 9"):
        generate(tmp_path / "a", fold)
    leaking = make_tokens(tmp_path / "leaking", train_ids=(real.clip_ids[N_TRAIN],))
    with pytest.raises(IntegrityError, match="leaking"):
        generate(tmp_path / "b", tokens=leaking)
    for change, word in (({"codec_hash": "else"}, "else"), ({"clip_samples": CLIP_SAMPLES * 2}, "samples")):
        changed = ClipStore(real.path, real.meta.model_copy(update=change))
        with pytest.raises(IntegrityError, match=word):
            generate(tmp_path / word, changed)


def test_clips_of_a_generator_of_another_corpus_may_be_used_with_this_one(generate, real, tmp_path):
    here = make_store(tmp_path / "here", prefix="here")
    made = generate(tmp_path / "made", here, prompt="names")
    check_descent(here, made)
    with pytest.raises(IntegrityError, match="eval split"):
        check_descent(
            real, generate(tmp_path / "noise", here, prompt="names", plan="random-classes", strength=1.0)
        )


def test_the_negative_prompt_may_name_class_tokens(generate, tmp_path):
    label, token, word = (
        generate(tmp_path / str(i), n=4, negative=text).codes([0])
        for i, text in enumerate(("<Dog>", "<aj-dog>", "Dog"))
    )
    assert np.array_equal(label, token) and not np.array_equal(label, word)
    with pytest.raises(UsageError, match=r"synth\.negative: <Dgo>.*<Dog>"):
        generate(tmp_path / "typo", negative="<Dgo>")
    with pytest.raises(UsageError, match=r"synth\.negative: <Dog>.*no class tokens"):
        generate(tmp_path / "names", negative="<Dog>", prompt="names")


def test_a_mix_by_eq_1_needs_as_many_clips_of_each_real_clip(real, generator, tmp_path):
    def make(n):
        recipe = small_recipe(synth={"n": n, "sampler_steps": 2, "prompt": "names"}, mix={"mode": "alpha"})
        how = {"fingerprint": "f", "codec": FakeCodec()}
        return synthesize(recipe, real, generator, None, tmp_path / str(n), **how)

    with pytest.raises(UsageError, match=rf"each of the {N_TRAIN} real clips.* such as {N_TRAIN}$"):
        make(N_TRAIN + 1)
    made = make(N_TRAIN)
    assert sorted(made.column("parent_id")) == sorted(real.clip_ids[i] for i in real.split_indices("train"))


def test_truncated_prompts_are_counted(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(AudioJourneyPipeline, "grids", lambda self, prompts, *_: torch.zeros(4, 128, 2, 21))
    long = {"Dog": "dog " * 12}
    monkeypatch.setattr("ajbench.generation.plan.spoken", lambda label: long.get(label, label))
    found = generate(tmp_path / "s", n=12, prompt="names")
    assert found.meta.extra["prompts_cut"] == sum("Dog" in labels for labels in found.column("labels")) > 0


def test_classes_without_a_train_clip_are_made_from_noise_or_left_out(generate, real, tmp_path, capsys):
    wider = ClipStore(real.path, real.meta.model_copy(update={"labels": [*SMALL_LABELS, "Never"]}))
    synth = {"plan": "random-classes", "prompt": "names", "unguided": "noise", "n": 20}
    found = generate(tmp_path / "s", wider, **synth)
    assert "1 class (Never)" in capsys.readouterr().err
    assert found.meta.extra["unguided"] == {"what": "noise", "classes": ["Never"]}
    noise = [clip for clip in found if clip.labels == ["Never"]]
    assert noise and all((c.parent_id, c.strength) == (None, 1.0) for c in noise)
    assert all(c.strength == 0.6 and c.parent_id for c in found if c.labels != ["Never"])
    every = generate(tmp_path / "n", wider, **synth | {"strength": 1.0})
    for clip in noise:
        assert np.array_equal(clip.codes, every[every.clip_ids.index(clip.clip_id)].codes)
    left = generate(tmp_path / "l", wider, **synth | {"unguided": "leave_out", "n": 6})
    assert "left out" in capsys.readouterr().err and not any("Never" in clip.labels for clip in left)


def test_an_estimate_leaves_no_files(real, generator, tokens):
    before = sorted(real.path.iterdir())
    found = synthesis_seconds(small_recipe(), real, generator, tokens, codec=FakeCodec())
    assert 0 < found < 60
    shared = synthesis_seconds(small_recipe(), None, generator, codec=FakeCodec(), processes=1000)
    assert shared < 0.5 * found  # a generator without a store can be timed
    assert sorted(real.path.iterdir()) == before


@pytest.mark.parametrize("more", [(), pytest.param(("two",), marks=pytest.mark.slow)])
def test_neither_kills_nor_the_number_of_processes_change_a_byte(tmp_path, more):
    script = Path(__file__).with_name("synthesis_kills.py")
    report = json.loads(run_script([sys.executable, script, tmp_path, *more]).stdout)
    kept = {"store.json", "plan.parquet", "quarantine.csv", "retries.csv", "statistics.csv"}
    assert len(report["whole"]) == 3 + 5 and kept < set(report["whole"])
    for name in ("killed", "io", "shared", *more):
        assert report[name] == report["whole"], name
    assert report["kills"] >= 3 and report["io_kills"] >= 8


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_cuda_a_synthesis_that_was_stopped_goes_on_as_a_whole_one(
    real, generator, tokens, generate, tmp_path, precision, cuda
):
    whole = generate(tmp_path / "whole", precision=precision)
    with stopped_at(Job, "make", 2):
        generate(tmp_path / "stopped", precision=precision)
    found = generate(tmp_path / "stopped", precision=precision)
    assert found.clip_ids == whole.clip_ids
    codes = [store.codes(range(len(store))) for store in (whole, found)]
    assert (codes[0] == codes[1]).mean() > 0.99


def test_a_process_that_lets_others_generate_does_not_import_diffusers():
    code = (
        "import sys, ajbench.generation.synthesize\n"
        "print([name for name in ('diffusers', 'transformers', 'peft') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
