"""Plans: which clips a synthesis is to generate, with which labels, prompts, guides and seeds."""

import hashlib
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from fakes import N_EVAL, N_TRAIN, SMALL_LABELS, make_store, small_recipe
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from ajbench.core.clip_sections import Mix, Tail
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import seed_for
from ajbench.core.schema import Synth
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Row
from ajbench.generation.plan import ListedClips, _guide, plan, unguided
from ajbench.generation.prompts import sound_of, spoken

TOKENS = {label: f"<aj-{label.lower().replace(' ', '-')}>" for label in SMALL_LABELS}


def planned(real, tokens=TOKENS, seed=7, **synth):
    return plan(small_recipe(synth=synth).synth, ListedClips.of_store(real), tokens, seed)


def test_per_clip_uses_all_train_clips_once_before_any_twice(real):
    rows = planned(real, n=30).to_pylist()
    parents = [row["parent_id"] for row in rows]
    train = set(real.clip_ids[:N_TRAIN])
    assert set(parents[:N_TRAIN]) == set(parents[N_TRAIN : 2 * N_TRAIN]) == train
    assert [row["clip_id"] for row in rows] == [f"syn-{p}-{k // N_TRAIN}" for k, p in enumerate(parents)]
    assert parents[:N_TRAIN] != parents[N_TRAIN : 2 * N_TRAIN]  # another order
    for row in rows:
        parent = real[row["parent"]]
        assert (parent.clip_id, sorted(parent.label_ids)) == (row["parent_id"], row["label_ids"])
        assert row["labels"] == [SMALL_LABELS[k] for k in row["label_ids"]]
        assert row["seed"] == seed_for(7, row["clip_id"])
        assert row["prompt"] == "The sound of " + ", ".join(TOKENS[name] for name in row["labels"])
        assert row["caption"] == "The sound of " + ", ".join(row["labels"])


@pytest.mark.parametrize("kind", ["per-clip", "random-classes"])
def test_a_shorter_plan_is_the_beginning_of_a_longer_one_with_the_same_seed(real, kind):
    long = planned(real, n=40, plan=kind)
    assert planned(real, n=17, plan=kind).equals(long.slice(0, 17))
    assert not planned(real, n=40, plan=kind, seed=8).equals(long)


@pytest.mark.parametrize(
    ("synth", "digest"),
    [
        ({}, "7b9c0a92fcd44c4d"),
        ({"plan": "random-classes"}, "58042860cb52a80b"),
        ({"plan": "random-classes", "strength": 1.0}, "33078831acaeda75"),
        ({"classes": 1}, "e0c0fa28caf2d39d"),
        ({"plan": "random-classes", "classes": 2}, "2914f6a161633203"),
    ],
)
def test_plans_are_the_same_as_in_earlier_versions(real, synth, digest):
    rows = planned(real, n=300, **synth).to_pylist()
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == digest


def test_random_classes_draws_one_to_three_classes_and_a_guide_with_most_of_them(real):
    rows = planned(real, n=3000, plan="random-classes").to_pylist()
    assert [row["clip_id"] for row in rows[:2]] == ["syn-000000", "syn-000001"]
    numbers = np.bincount([len(row["labels"]) for row in rows])[1:]
    assert len(numbers) == 3 and (np.abs(numbers - 1000) < 100).all()
    classes = np.bincount([k for row in rows for k in row["label_ids"]])
    assert (np.abs(classes - 2000) < 150).all()  # two of three on average
    train = set(real.clip_ids[:N_TRAIN])
    labels = [set(real[i].label_ids) for i in range(N_TRAIN)]
    for row in rows:
        assert row["label_ids"] == sorted(set(row["label_ids"]))
        assert row["parent_id"] in train
        held = [len(own & set(row["label_ids"])) for own in labels]
        assert held[row["parent"]] == max(held)
    guides = np.bincount([row["parent"] for row in rows if row["label_ids"] == [0]])
    having = [i for i, own in enumerate(labels) if 0 in own]
    assert np.flatnonzero(guides).tolist() == having and guides[having].min() > 0.5 * guides[having].mean()


@given(
    st.lists(st.sets(st.integers(0, 3), max_size=2) | st.sets(st.integers(0, 3)), max_size=8),
    st.sampled_from([*itertools.permutations(range(4), 3), *itertools.permutations(range(4), 2), (0,), (3,)]),
)
def test_a_guide_has_most_of_the_requested_classes_and_ties_are_equally_likely(clips, requested):
    having = [np.array([i for i, held in enumerate(clips) if k in held], np.int32) for k in requested]
    counts = [len(held & set(requested)) for held in clips]
    best = [i for i, count in enumerate(counts) if count == max(counts) > 0] or [-1]
    # 840 is divisible by 1 to 8.
    found, times = np.unique([_guide(having, (k + 0.5) / 840) for k in range(840)], return_counts=True)
    assert (found.tolist(), set(times)) == (best, {840 // len(best)})
    assert _guide(having, 0.0) in best and _guide(having, np.nextafter(1, 0)) in best


def test_ties_between_guides_are_random():
    rows = [(0, 1), (0, 2), (1, 2)] * 4  # every pair has four clips, and three classes have twelve
    ids = np.concatenate(rows)
    targets = sparse.csr_array((np.ones(24, np.float32), ids, np.arange(0, 25, 2)), shape=(12, 3))
    clips = ListedClips(
        "here", ("dog", "rain", "clock"), [f"c{k}" for k in range(12)], np.arange(12), targets
    )
    made = drawn(clips, n=6000)
    for requested, tied in (
        ([0, 2], [1, 4, 7, 10]),
        ([0, 1, 2], range(12)),
        ([1], [0, 2, 3, 5, 6, 8, 9, 11]),
    ):
        guides = [row["parent"] for row in made if row["label_ids"] == requested]
        share = np.bincount(guides, minlength=12) / len(guides)
        assert np.flatnonzero(share).tolist() == list(tied)
        error = (1 / len(tied) / len(guides)) ** 0.5
        assert np.abs(share[list(tied)] - 1 / len(tied)).max() < 4 * error


def test_plans_can_be_limited_to_the_first_classes(real):
    rows = planned(real, n=200, plan="random-classes", classes=2).to_pylist()
    assert {k for row in rows for k in row["label_ids"]} == {0, 1}
    rows = planned(real, n=20, classes=1).to_pylist()
    assert all("Dog" in row["labels"] for row in rows)


@pytest.mark.parametrize(("kind", "alone"), [("per-clip", False), ("random-classes", True)])
def test_plans_can_be_limited_to_the_tail(real, kind, alone):
    mix = Mix(tail=Tail(classes=["Dog", "Clock tick"], shots=1))
    section = small_recipe(synth={"plan": kind, "n": 40}).synth.model_copy(update={"classes": "tail"})
    clips = ListedClips.of_store(real).with_tail(mix)
    rows = plan(section, clips, TOKENS, 7).to_pylist()
    assert len(rows) == 40 and {k for row in rows for k in row["label_ids"]} >= {0, 2}
    assert all({0, 2} & {*row["label_ids"]} for row in rows)
    assert not alone or all({*row["label_ids"]} <= {0, 2} for row in rows)
    assert ListedClips.of_store(real).with_tail(Mix()).tail == ()


def test_clips_from_noise_have_no_guide_but_per_clip_keeps_the_parent(real):
    assert planned(real, plan="random-classes", strength=1.0)["parent_id"].null_count == 30
    assert planned(real, strength=1.0)["parent_id"].null_count == 0


def test_prompts_can_be_names_or_empty(real):
    assert planned(real, None, prompt="names")["prompt"][0].as_py().startswith("The sound of ")
    bare = planned(real, None, prompt="none")
    assert set(bare["prompt"].to_pylist()) == {""} and bare["caption"].null_count == 30


def test_classes_without_a_token_or_a_clip_are_refused(real, tmp_path):
    with pytest.raises(MissingError, match="Clock tick"):
        planned(real, {"Dog": "<aj-dog>", "Rain": "<aj-rain>"})
    only = ListedClips.of_store(make_store(tmp_path / "one", train=1, evaluated=4))  # of Dog and Rain
    with pytest.raises(UsageError, match=r"synth\.classes=1"):
        shifted = sparse.csr_array(np.roll(only.targets.toarray(), 1, axis=1))
        plan(small_recipe(synth={"classes": 1}).synth, replace(only, targets=shifted), TOKENS)


# Classes without a train clip

NAMES = ("dog", "rain", "unheard", "clock", "never")


@pytest.fixture
def unheard():
    """Forty clips of classes 0, 1 and 3; none of 2 and 4."""
    rows = [[(0, 1, 3)[k % 3]] + [3] * (k % 5 == 0 and k % 3 != 2) for k in range(40)]
    ids = np.concatenate(rows)
    ends = np.cumsum([0, *map(len, rows)])
    targets = sparse.csr_array((np.ones(len(ids), np.float32), ids, ends), shape=(40, 5))
    return ListedClips("here", NAMES, [f"c{k}" for k in range(40)], np.arange(40) * 2, targets)


def drawn(clips, **synth):
    section = Synth(**{"plan": "random-classes", "n": 600, "prompt": "names"} | synth)
    return plan(section, clips, seed=3).to_pylist()


def test_classes_without_a_clip_are_left_out_by_default(unheard):
    rows = drawn(unheard)
    assert {k for row in rows for k in row["label_ids"]} == {0, 1, 3}
    section = Synth(plan="random-classes")
    assert unguided(section, unheard) == ["unheard", "never"]
    assert unguided(section.model_copy(update={"classes": 3}), unheard) == ["unheard"]
    assert unguided(Synth(plan="per-clip"), unheard) == []


def test_they_can_be_made_from_noise(unheard):
    rows = drawn(unheard, unguided="noise")
    assert {k for row in rows for k in row["label_ids"]} == {0, 1, 2, 3, 4}
    for row in rows:
        without = set(row["label_ids"]) <= {2, 4}
        assert (row["parent_id"] is None) == (row["parent"] is None) == without
        if not without:
            assert row["parent_id"] == f"c{row['parent'] // 2}"
            held = np.flatnonzero(unheard.targets[[row["parent"] // 2]].toarray())
            assert set(held) & set(row["label_ids"])
    assert 0 < sum(row["parent"] is None for row in rows) < 200


def test_they_can_be_refused(unheard):
    with pytest.raises(UsageError, match=r"refuse.*unheard, never"):
        drawn(unheard, unguided="refuse")
    assert drawn(unheard, unguided="refuse", classes=2) == drawn(unheard, classes=2)


# Captions

CAPTIONS = {"plan": "captions", "strength": 1.0, "prompt": "names"}


def test_every_evaluation_clip_has_a_clip_of_its_caption_from_noise(captioned):
    section = small_recipe(synth={**CAPTIONS, "n": N_EVAL + 1}).synth
    rows = plan(section, ListedClips.of_store(captioned, "eval", captions=True), seed=3).to_pylist()
    ids = [captioned.clip_ids[i] for i in captioned.split_indices("eval")]
    assert [row["parent_id"] for row in rows] == [*ids, ids[0]]
    assert [row["clip_id"] for row in rows] == [*(f"syn-{i}-0" for i in ids), f"syn-{ids[0]}-1"]
    for row in rows:
        clip = captioned[row["parent"]]
        assert row["prompt"] == row["caption"] == clip.caption and row["label_ids"] == sorted(clip.label_ids)
        assert row["seed"] == seed_for(3, row["clip_id"])


def test_every_caption_of_a_clip_has_a_clip_paired_with_it(tmp_path):
    store = make_store(tmp_path / "several", captions=3)
    of_store = ListedClips.of_store(store, "eval", captions=True)
    held_out = [store[i] for i in store.split_indices("eval")]
    wanted = {(clip.clip_id, text) for clip in held_out for text in (clip.caption, *clip.more_captions)}
    assert len(wanted) > len(held_out)
    rows = plan(small_recipe(synth={**CAPTIONS, "n": len(wanted)}).synth, of_store, seed=3).to_pylist()
    assert {(row["parent_id"], row["caption"]) for row in rows} == wanted
    assert len({row["clip_id"] for row in rows}) == len(rows)
    for row in rows:
        assert (
            row["labels"] == store[row["parent"]].labels and row["clip_id"][:-2] == f"syn-{row['parent_id']}"
        )
    # The first captions come first, so a shorter plan has a clip for every evaluation clip.
    assert [row["caption"] for row in rows[: len(held_out)]] == [clip.caption for clip in held_out]
    listed = [Row(c.clip_id, "", labels=tuple(c.labels), split=c.split, caption=c.caption,
                  more_captions=tuple(c.more_captions)) for c in store]  # fmt: skip
    manifest = Manifest(listed, LabelSet(tuple(store.meta.labels)))
    of_manifest = ListedClips.of_manifest(manifest, "here", "eval", captions=True)
    assert (of_manifest.captions, of_manifest.clip_ids) == (of_store.captions, of_store.clip_ids)
    assert np.array_equal(of_manifest.places, of_store.places)


def test_without_a_caption_the_labels_are_the_prompt(tmp_path):
    bare = make_store(tmp_path / "bare")
    clips = ListedClips.of_store(bare, "eval", captions=True)
    rows = plan(small_recipe(synth=CAPTIONS).synth, clips).to_pylist()
    for row in rows:
        text = sound_of([spoken(name) for name in row["labels"]])
        assert row["prompt"] == row["caption"] == text and row["labels"] == bare[row["parent"]].labels
    assert {len(row["labels"]) for row in rows} == {1, 2}


def test_captions_are_read_for_a_plan_of_them_alone(captioned):
    assert ListedClips.of_store(captioned, "eval").captions == ()
    found = ListedClips.of_store(captioned, "eval", captions=True).captions
    assert found == tuple(captioned[i].caption for i in captioned.split_indices("eval"))
