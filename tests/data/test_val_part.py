import numpy as np
import pytest
from fakes import hum_record, hum_store
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from ajbench.core.errors import UsageError
from ajbench.core.recipe import Mix
from ajbench.data import real_clips, val_part
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Row


def made(folder, records):
    """The same clips as a store and as a manifest."""
    store = hum_store(folder, records)
    rows = [
        Row(
            one["clip_id"],
            one["path"],
            labels=tuple(one["labels"]),
            split=one["split"],
            recording=one.get("recording"),
        )
        for one in records
    ]
    return store, Manifest(rows, LabelSet(tuple(store.meta.labels)))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """30 clips of 15 recordings, every third clip in the eval split."""
    records = [hum_record(i, recording=f"take {i % 15}") for i in range(30)]
    return made(tmp_path_factory.mktemp("val_part") / "store", records)


@pytest.mark.parametrize("real", ["all", "shots=2", "share=0.9"])
def test_no_recording_is_both_trained_on_and_scored_and_the_manifest_gives_the_same_part(clips, real):
    store, manifest = clips
    mix = Mix(real=real)
    part, plan = val_part.divide(mix, store), val_part.planned(mix, manifest)
    assert part.val.tolist() == plan.val.tolist() and part.real.tolist() == plan.real.tolist()
    of_val = {store.recordings[i] for i in part.val}
    assert of_val == part.recordings and of_val.isdisjoint(store.recordings[i] for i in part.real)
    assert {store[int(i)].split for i in part.val} == {"train"}
    assert set(part.real) <= set(real_clips.chosen(mix, store))
    assert store.targets()[part.val].any(axis=0).all() and store.targets()[part.real].any(axis=0).all()
    assert val_part.divide(mix, store, seed=1).val.tolist() != part.val.tolist()


def test_the_val_split_of_a_corpus_is_the_part_and_leaves_the_real_clips(tmp_path):
    splits = ["val"] * 4 + ["train"] * 5 + ["eval"]
    store, manifest = made(tmp_path / "store", [hum_record(i, split=one) for i, one in enumerate(splits)])
    for part in val_part.divide(Mix(), store), val_part.planned(Mix(), manifest):
        assert (part.val.tolist(), part.real.tolist()) == ([0, 1, 2, 3], [4, 5, 6, 7, 8])
        assert not part.recordings


def test_a_corpus_of_one_recording_per_class_has_no_val_part(tmp_path):
    records = [hum_record(i, split="train", recording=f"{i % 2}") for i in range(8)]
    with pytest.raises(UsageError, match="no val part"):
        val_part.divide(Mix(), hum_store(tmp_path / "store", records))


CLASSES = st.lists(st.integers(0, 3), min_size=1, max_size=80)


@given(CLASSES, st.integers(0, 99), st.data())
def test_unused_recordings_go_first_and_every_class_keeps_a_used_one(classes, seed, data):
    used = np.array(data.draw(st.lists(st.booleans(), min_size=len(classes), max_size=len(classes))))
    targets = sparse.csr_array(np.eye(4, dtype=np.float32)[classes])
    taken = val_part.draw(targets, list(map(str, range(len(classes)))), used, seed)
    for c in set(classes):
        mine = np.array(classes) == c
        n, free = mine.sum(), (mine & ~used).sum()
        wanted = max(1, round(0.2 * n), round(0.5 * free))
        assert taken[mine].sum() == min(wanted, free + max(n - free - 1, 0))
        assert (taken & mine & used).sum() == max(0, taken[mine].sum() - free)


def test_of_many_recordings_each_class_gives_a_part(monkeypatch):
    monkeypatch.setattr(val_part, "MOST", 40)
    classes = np.repeat(np.arange(4), (400, 400, 100, 2))
    targets = sparse.csr_array(np.eye(4, dtype=np.float32)[classes])
    taken = val_part.draw(targets, list(map(str, range(902))), np.ones(902, bool), 0)
    counts = np.bincount(classes[taken], minlength=4)
    assert counts.min() >= 1 and 40 <= counts.sum() <= 44
