import itertools

import numpy as np
import pytest
from fakes import hum_record, hum_store
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from ajbench.core.clip_sections import Mix, Tail
from ajbench.core.errors import UsageError
from ajbench.data import real_clips
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Row


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """The same clips as a store and as a manifest: every third one is an eval clip."""
    subsets = ["balanced", "unbalanced", None]
    records = [hum_record(i, subset=subsets[i % 9 % 3] if i % 3 < 2 else None) for i in range(30)]
    store = hum_store(tmp_path_factory.mktemp("real_clips") / "store", records)
    rows = [
        Row(
            one["clip_id"], one["path"], labels=tuple(one["labels"]), split=one["split"], subset=one["subset"]
        )
        for one in records
    ]
    return store, Manifest(rows, LabelSet(tuple(store.meta.labels)))


@pytest.mark.parametrize(
    ("real", "n"), [("all", 20), ("none", 0), ("balanced", 10), ("shots=3", 6), ("share=0.2", 4)]
)
def test_store_and_manifest_agree_on_the_real_clips_of_a_mix(clips, real, n):
    store, manifest = clips
    mix = Mix(real=real, draw=1, dose=1)
    chosen = real_clips.chosen(mix, store)
    assert len(chosen) == n
    assert chosen.tolist() == real_clips.places(mix, manifest).tolist()
    assert {store[int(i)].split for i in chosen} <= {"train"}
    assert (np.diff(chosen) > 0).all()
    assert real_clips.chosen(Mix(), store).tolist() == store.split_indices("train").tolist()


def test_more_shots_than_a_class_has_clips_are_refused(clips):
    for refuse in (
        lambda: real_clips.chosen(Mix(real="shots=11"), clips[0]),
        lambda: real_clips.places(Mix(real="shots=11"), clips[1]),
    ):
        with pytest.raises(UsageError, match=r"mix\.real=shots=11"):
            refuse()


def select(real, targets, subsets=None, draw=0):
    names = [f"c{k}" for k in range(targets.shape[1])]
    where = subsets or [None] * len(targets)
    return real_clips.drawn(real, draw, sparse.csr_array(targets, dtype=np.float32), names, where)


ONE_LABEL = np.arange(39)[:, None] % 5 == np.arange(5)  # 8 clips of four classes, 7 of c4


@given(seed=st.integers(0, 99))
def test_drawn_real_clips_are_nested_and_a_function_of_the_draw(seed):
    some = np.random.default_rng(seed).random((60, 5)) < 0.2
    targets = some | (np.arange(60)[:, None] % 7 == np.arange(5))
    for chain in (["shots=1", "shots=3", "shots=8", "all"], ["share=0.05", "share=0.3", "share=0.8", "all"]):
        drawn = [select(real, targets, draw=seed).tolist() for real in chain]
        assert all(clips == sorted(set(clips)) for clips in drawn)
        assert all(set(few) < set(more) for few, more in itertools.pairwise(drawn))
        assert drawn[1] == select(chain[1], targets, draw=seed).tolist()
        assert drawn[1] != select(chain[1], targets, draw=seed + 1).tolist()
    assert (targets[select("shots=8", targets)].sum(axis=0) >= 8).all()


@pytest.mark.parametrize(
    ("real", "per_class"),
    [("shots=3", [3] * 5), ("shots=7", [7] * 5), ("share=0.25", [2] * 5), ("share=0.01", [1] * 5)],
)
def test_of_clips_with_one_label_every_class_has_as_many(real, per_class):
    assert ONE_LABEL[select(real, ONE_LABEL)].sum(axis=0).tolist() == per_class


def test_of_clips_with_several_labels_no_more_are_drawn_than_needed():
    both = np.concatenate([np.tile([[1, 1, 0], [1, 0, 1]], (20, 1)), np.tile([1, 0, 0], (200, 1))])
    assert len(select("shots=5", both)) == 10  # five of each rare class, which have the common one too


def test_real_clips_of_a_subset():
    subsets = ["balanced", "unbalanced", None] * 13
    assert select("balanced", ONE_LABEL, subsets).tolist() == list(range(0, 39, 3))
    assert select("all", ONE_LABEL, subsets).tolist() == list(range(39))
    assert select("none", ONE_LABEL, subsets).tolist() == []


@pytest.mark.parametrize(
    ("real", "subsets", "word"),
    [
        ("shots=8", None, "shots=8: class 'c4' has 7 "),
        ("balance", ["balanced", None, "other"] * 13, "balance:.* balanced, other"),
        ("balanced", None, "real=balanced"),
    ],
)
def test_real_clips_that_a_corpus_lacks_are_refused(real, subsets, word):
    with pytest.raises(UsageError, match=word):
        select(real, ONE_LABEL, subsets)


SEVERAL = np.arange(60)[:, None] % 7 == np.arange(5)


def tailed(targets, tail, real="all", draw=0):
    """The clips of a mix with this tail: positions in the train split."""
    names = [f"c{k}" for k in range(targets.shape[1])]
    rows = sparse.csr_array(targets, dtype=np.float32)
    among = real_clips.drawn(real, draw, rows, names, [None] * len(targets))
    return real_clips.thinned(tail, draw, rows, names, among)


@given(
    seed=st.integers(0, 99), real=st.sampled_from(["all", "shots=6", "share=0.9"]), number=st.integers(1, 3)
)
def test_a_tail_takes_clips_of_its_classes_only_and_fewer_are_among_more(seed, real, number):
    targets = (np.random.default_rng(seed).random((60, 5)) < 0.1) | SEVERAL
    names = [f"c{k}" for k in range(5)]
    tails = [Tail(classes=number, shots=shots) for shots in (1, 2, 4)]
    few = real_clips.tail_classes(tails[0], seed, names)
    of_tail = targets[:, few].any(axis=1)
    whole = set(select(real, targets, draw=seed).tolist())
    drawn = [tailed(targets, tail, real, seed).tolist() for tail in tails]
    rest = {k for k in whole if not of_tail[k]}
    assert all(clips == sorted({*clips}) and {k for k in clips if not of_tail[k]} == rest for clips in drawn)
    assert all({*one} < {*other} for one, other in itertools.pairwise([*drawn, sorted(whole)]))
    for tail, clips in zip(tails, drawn, strict=True):
        assert (targets[clips][:, few].sum(axis=0) >= tail.shots).all()
    assert {*few} <= {*real_clips.tail_classes(Tail(classes=number + 1, shots=1), seed, names)}


@given(seed=st.integers(0, 99), shots=st.integers(1, 5))
def test_the_clips_of_a_tail_are_the_first_shots_of_its_classes(seed, shots):
    tail = Tail(classes=["c1", "c4"], shots=shots)
    few = set(select(f"shots={shots}", ONE_LABEL, draw=seed).tolist())
    of_tail = ONE_LABEL[:, [1, 4]].any(axis=1)
    for real in ("all", "shots=6", "share=0.9"):
        kept = tailed(ONE_LABEL, tail, real, seed)
        assert ONE_LABEL[kept][:, [1, 4]].sum(axis=0).tolist() == [shots, shots]
        assert {k for k in kept.tolist() if of_tail[k]} == {k for k in few if of_tail[k]}


@pytest.mark.parametrize("real", ["all", "shots=4", "balanced"])
def test_store_and_manifest_agree_on_the_clips_of_a_tail(clips, real):
    store, manifest = clips
    mix = Mix(real=real, tail=Tail(classes=["Hiss"], shots=2))
    found = real_clips.chosen(mix, store)
    assert found.tolist() == real_clips.places(mix, manifest).tolist()
    counts = [sum(store[int(i)].labels == [name] for i in found) for name in ("Hum", "Hiss")]
    without = [store[int(i)].labels for i in real_clips.chosen(Mix(real=real), store)]
    assert counts == [without.count(["Hum"]), 2]
    assert real_clips.in_tail(mix, store).tolist() == [
        labels == ["Hiss"] for labels in store.column("labels")
    ]
    only = mix.model_copy(update={"real": "none", "dose": 1})
    assert not len(real_clips.chosen(only, store)) and not real_clips.in_tail(Mix(), store).any()


@pytest.mark.parametrize(
    ("tail", "word"),
    [
        ({"classes": ["c7"], "shots": 1}, r"mix\.tail\.classes: 'c7'"),
        ({"classes": ["c1", "c4"], "shots": 7}, r"mix\.tail\.shots=7: class 'c4' has 7 "),
        ({"classes": 5, "shots": 1}, r"mix\.tail\.classes: all 5"),
        ({"classes": ["c0", "c1", "c2", "c3", "c4"], "shots": 1}, r"mix\.tail\.classes: all 5"),
    ],
)
def test_impossible_tails_are_refused(tail, word):
    with pytest.raises(UsageError, match=word):
        tailed(ONE_LABEL, Tail(**tail))
