"""Plans, their shards, what is refused, and that no kill or number of processes changes a byte."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
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
    make_generator,
    make_store,
    make_tokens,
    small_recipe,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from ajbench.core.errors import IntegrityError, MissingError, NumericError, UsageError
from ajbench.core.files import seed_for
from ajbench.data import shards
from ajbench.data import store as stores
from ajbench.data.verify import verify
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.plan import ListedClips, _interleaved, plan
from ajbench.generation.synthesize import synthesize
from ajbench.generation.worker import Job
from ajbench.pipeline.estimates import synthesis_seconds

torch.set_num_threads(1)
TOKENS = {label: f"<aj-{label.lower().replace(' ', '-')}>" for label in SMALL_LABELS}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("synthesis")


@pytest.fixture(scope="module")
def real(home):
    return make_store(home / "real")


@pytest.fixture(scope="module")
def generator(home, real):
    return make_generator(home / "generator", real)


@pytest.fixture(scope="module")
def tokens(home):
    return make_tokens(home / "tokens")


def planned(real, tokens=TOKENS, seed=7, **synth):
    return plan(small_recipe(synth=synth).synth, ListedClips.of_store(real), tokens, seed)


# Plans


def test_per_clip_makes_one_round_of_all_train_clips_after_the_other(real):
    rows = planned(real, n=30).to_pylist()
    parents = [row["parent_id"] for row in rows]
    train = set(real.clip_ids[:N_TRAIN])
    assert set(parents[:N_TRAIN]) == set(parents[N_TRAIN : 2 * N_TRAIN]) == train
    assert [row["clip_id"] for row in rows] == [f"syn-{p}-{k // N_TRAIN}" for k, p in enumerate(parents)]
    assert parents[:N_TRAIN] != parents[N_TRAIN : 2 * N_TRAIN]  # an order of its own
    for row in rows:
        parent = real[row["parent"]]
        assert (parent.clip_id, sorted(parent.label_ids)) == (row["parent_id"], row["label_ids"])
        assert row["labels"] == [SMALL_LABELS[k] for k in row["label_ids"]]
        assert row["seed"] == seed_for(7, row["clip_id"])
        assert row["prompt"] == "The sound of " + ", ".join(TOKENS[name] for name in row["labels"])
        assert row["caption"] == "The sound of " + ", ".join(row["labels"])


@pytest.mark.parametrize("kind", ["per-clip", "random-classes"])
def test_a_shorter_plan_begins_a_longer_one_and_the_seed_decides(real, kind):
    long = planned(real, n=40, plan=kind)
    assert planned(real, n=17, plan=kind).equals(long.slice(0, 17))
    assert not planned(real, n=40, plan=kind, seed=8).equals(long)


@pytest.mark.parametrize(
    ("synth", "digest"),
    [
        ({}, "7b9c0a92fcd44c4d"),
        ({"plan": "random-classes"}, "d51f1ff217941c3f"),
        ({"plan": "random-classes", "strength": 1.0}, "33078831acaeda75"),
        ({"classes": 1}, "e0c0fa28caf2d39d"),
        ({"plan": "random-classes", "classes": 2}, "25be7c15058d87d7"),
    ],
)
def test_plans_are_those_of_earlier_versions(real, synth, digest):
    rows = planned(real, n=300, **synth).to_pylist()
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == digest


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 99))
def test_every_beginning_has_the_classes_shares_of_the_whole(classes, seed):
    classes = np.array(classes)
    counts = np.bincount(classes, minlength=5)
    order = _interleaved(classes, counts, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(classes)))
    seen = np.cumsum(np.eye(5)[classes[order]], axis=0)
    share = counts / len(classes)
    wanted = np.arange(1, len(classes) + 1)[:, None] * share
    present = (counts > 0).sum()
    assert (np.abs(seen - wanted) <= 1 + present * share + 1e-9).all()


def test_random_classes_draws_one_to_three_and_a_guide_that_has_one_of_them(real):
    rows = planned(real, n=3000, plan="random-classes").to_pylist()
    assert [row["clip_id"] for row in rows[:2]] == ["syn-000000", "syn-000001"]
    numbers = np.bincount([len(row["labels"]) for row in rows])[1:]
    assert len(numbers) == 3 and (np.abs(numbers - 1000) < 100).all()
    classes = np.bincount([k for row in rows for k in row["label_ids"]])
    assert (np.abs(classes - 2000) < 150).all()  # two of three on average
    train = set(real.clip_ids[:N_TRAIN])
    for row in rows:
        assert row["label_ids"] == sorted(set(row["label_ids"]))
        assert row["parent_id"] in train and set(real[row["parent"]].labels) & set(row["labels"])
    guides = np.bincount([row["parent"] for row in rows if row["label_ids"] == [0]])
    having = [i for i in range(N_TRAIN) if 0 in real[i].label_ids]
    assert np.flatnonzero(guides).tolist() == having and guides[having].min() > 0.5 * guides[having].mean()


def test_the_first_classes_only(real):
    rows = planned(real, n=200, plan="random-classes", classes=2).to_pylist()
    assert {k for row in rows for k in row["label_ids"]} == {0, 1}
    rows = planned(real, n=20, classes=1).to_pylist()
    assert all("Dog" in row["labels"] for row in rows)


def test_from_noise_there_is_no_guide_but_per_clip_keeps_the_parent(real):
    assert planned(real, plan="random-classes", strength=1.0)["parent_id"].null_count == 30
    assert planned(real, strength=1.0)["parent_id"].null_count == 0


def test_prompts_of_names_and_of_nothing(real):
    assert planned(real, None, prompt="names")["prompt"][0].as_py().startswith("The sound of ")
    bare = planned(real, None, prompt="none")
    assert set(bare["prompt"].to_pylist()) == {""} and bare["caption"].null_count == 30


def test_classes_without_token_or_clip_are_refused(real, tmp_path):
    with pytest.raises(MissingError, match="Clock tick"):
        planned(real, {"Dog": "<aj-dog>", "Rain": "<aj-rain>"})
    only = ListedClips.of_store(make_store(tmp_path / "one", train=1, evaluated=4))  # of Dog and Rain
    with pytest.raises(UsageError, match="classes=1"):
        shifted = sparse.csr_array(np.roll(only.targets.toarray(), 1, axis=1))
        plan(small_recipe(synth={"classes": 1}).synth, replace(only, targets=shifted), TOKENS)


# Runs


def make(real, generator, tokens, out, codec=None, options=(), **synth):
    return synthesize(
        small_recipe(synth=synth),
        real,
        generator,
        tokens,
        out,
        fingerprint="f1",
        codec=codec or FakeCodec(),
        **dict(options),
    )


@pytest.fixture(scope="module")
def made(real, generator, tokens, home):
    return make(real, generator, tokens, home / "made", n=30)


def test_the_store_tells_where_each_clip_comes_from(made, real):
    assert verify(made.path)["clips"] == len(made) == 30
    assert pq.read_table(made.path / "plan.parquet")["clip_id"].to_pylist() == made.clip_ids
    assert made.meta.source == "synthetic" and made.meta.counts["train"]["kept"] == 30
    assert made.meta.train_ids_hash == shards.ids_hash(real.clip_ids[:N_TRAIN])
    assert [entry.clips for entry in made.meta.shards] == [6] * 5
    clip = made[13]
    assert (clip.source, clip.split, clip.strength, clip.guidance, clip.steps) == (
        "synthetic",
        "train",
        0.6,
        2.0,
        5,
    )
    assert (
        clip.parent_id in real.clip_ids
        and clip.generator == "gen0"
        and clip.seed == seed_for(0, clip.clip_id)
    )
    wave = FakeCodec().decode(clip.codes[None])[0].numpy()
    assert wave.shape == (CLIP_SAMPLES,) and np.abs(wave - clip.audio()).max() < 1 / 32768


def test_a_clip_is_noised_and_denoised_from_its_parent(real, generator, tokens, tmp_path):
    codec = FakeCodec()
    close = make(
        real, generator, tokens, tmp_path / "close", n=12, strength=0.02, sampler_steps=50, guidance=1.0
    )
    parents = codec.latents(real.codes([real.clip_ids.index(p) for p in close.column("parent_id")])).flatten(
        1
    )
    mine = codec.latents(close.codes(range(12))).flatten(1)
    similarity = torch.nn.functional.normalize(mine, dim=1) @ torch.nn.functional.normalize(parents, dim=1).T
    assert (similarity.argmax(1) == torch.arange(12)).all() and similarity.diagonal().min() > 0.9


def test_a_clips_bits_do_not_depend_on_shards_companions_or_the_plans_length(
    made, real, generator, tokens, tmp_path
):
    other = make(real, generator, tokens, tmp_path / "other", n=7, shard_size=7)
    for clip in other:
        same = made[made.clip_ids.index(clip.clip_id)]
        assert np.array_equal(clip.codes, same.codes) and np.array_equal(clip.audio(), same.audio())


def test_a_finished_store_is_not_made_again_and_another_job_is_refused(
    made, real, generator, tokens, monkeypatch
):
    monkeypatch.setattr(Job, "work", None)
    assert make(real, generator, tokens, made.path, n=30).clip_ids == made.clip_ids
    with pytest.raises(IntegrityError, match="f1"):
        synthesize(small_recipe(), real, generator, tokens, made.path, fingerprint="f2", codec=FakeCodec())


class Mute(FakeCodec):
    """Silent for every clip whose first code is even, or for all."""

    def __init__(self, everything=False):
        super().__init__()
        self.everything = everything

    def decode(self, codes):
        loud = torch.as_tensor(codes[:, 0, 0].astype(np.int64) % 2) * (not self.everything)
        return super().decode(codes) * loud[:, None]


def test_silent_and_broken_results_are_listed_not_replaced(
    made, real, generator, tokens, tmp_path, monkeypatch
):
    plain = AudioJourneyPipeline.grids

    def broken(self, prompts, guide, seeds, *rest):
        grids = plain(self, prompts, guide, seeds, *rest)
        grids[[seed == seed_for(0, made.clip_ids[4]) for seed in seeds]] = torch.nan
        return grids

    monkeypatch.setattr(AudioJourneyPipeline, "grids", broken)
    found = make(real, generator, tokens, tmp_path / "s", Mute(), n=30, retries=0)
    silent = {clip.clip_id for clip in made if clip.codes[0, 0] % 2 == 0}
    assert 3 < len(silent) < 27
    lines = (tmp_path / "s" / "quarantine.csv").read_text().splitlines()[1:]
    reasons = {line.split(",")[0]: line for line in lines}
    assert set(reasons) == silent | {made.clip_ids[4]} and "not finite" in reasons[made.clip_ids[4]]
    assert all("silent" in reasons[name] for name in silent - {made.clip_ids[4]})
    assert found.clip_ids == [name for name in made.clip_ids if name not in reasons]
    assert found.meta.counts["train"] == {
        "expected": 30,
        "found": 30,
        "decoded": 30,
        "kept": 30 - len(reasons),
    }
    with pytest.raises(NumericError, match="none of 6"):
        make(real, generator, tokens, tmp_path / "all", Mute(True), n=6)


def test_what_does_not_fit_the_store_is_refused(real, generator, tokens, tmp_path):
    fold = make_store(tmp_path / "fold", train=6, evaluated=9)
    with pytest.raises(IntegrityError, match="6 of the 9 evaluation clips"):
        make(fold, generator, tokens, tmp_path / "a")
    heard = make_tokens(tmp_path / "heard", train_ids=(real.clip_ids[N_TRAIN],))
    with pytest.raises(IntegrityError, match=r"heard.*evaluation clips"):
        make(real, generator, heard, tmp_path / "b")
    for change, word in (({"codec_hash": "else"}, "else"), ({"clip_samples": CLIP_SAMPLES * 2}, "samples")):
        bent = stores.ClipStore(real.path, real.meta.model_copy(update=change))
        with pytest.raises(IntegrityError, match=word):
            make(bent, generator, tokens, tmp_path / word)


def test_prompts_that_were_cut_are_counted(real, generator, tmp_path, monkeypatch):
    monkeypatch.setattr(AudioJourneyPipeline, "grids", lambda self, prompts, *_: torch.zeros(4, 128, 2, 21))
    monkeypatch.setattr(
        "ajbench.generation.plan.spoken", lambda label: "dog " * 12 if label == "Dog" else label
    )
    found = make(real, generator, None, tmp_path / "s", n=12, prompt="names")
    assert found.meta.extra["prompts_cut"] == sum("Dog" in labels for labels in found.column("labels")) > 0


def test_going_on_with_other_threads_needs_a_word(made, real, generator, tokens, tmp_path, monkeypatch):
    plain, calls = Job.make, []

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("cut")
        return plain(self, *arguments)

    monkeypatch.setattr(Job, "make", failing)
    with pytest.raises(RuntimeError, match="cut"):
        make(real, generator, tokens, tmp_path / "s", n=8, shard_size=4)
    monkeypatch.setattr(Job, "make", plain)
    assert len(list((tmp_path / "s").glob("part-*.arrow"))) == 1
    with pytest.raises(IntegrityError, match="threads 1 → 2"):
        make(real, generator, tokens, tmp_path / "s", n=8, shard_size=4, options={"threads": 2})
    allowed = {"threads": 2, "allow_inexact": True}
    found = make(real, generator, tokens, tmp_path / "s", n=8, shard_size=4, options=allowed)
    assert found.clip_ids == made.clip_ids[:8] and torch.get_num_threads() == 1


def test_the_estimate_times_without_leaving_anything(real, generator, tokens):
    before = sorted(real.path.iterdir())
    found = synthesis_seconds(small_recipe(), real, generator, tokens, codec=FakeCodec())
    assert 0 < found < 60
    shared = synthesis_seconds(small_recipe(), None, generator, codec=FakeCodec(), processes=1000)
    assert shared < 0.5 * found  # a generator alone can be timed
    assert sorted(real.path.iterdir()) == before


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_neither_kills_nor_the_number_of_processes_change_a_byte(tmp_path, start):
    script = Path(__file__).with_name("synthesis_kills.py")
    paths = os.pathsep.join([str(script.parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script, tmp_path, start],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    kept = {"store.json", "plan.parquet", "quarantine.csv", "retries.csv", "statistics.csv"}
    assert len(report["whole"]) == 3 + 5 and kept < set(report["whole"])
    for name in ("killed", "io", "shared", "two"):
        assert report[name] == report["whole"], name
    assert report["kills"] >= 3 and report["io_kills"] >= 8
