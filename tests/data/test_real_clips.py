import numpy as np
import pytest
from fakes import hum_record, hum_store

from ajbench.core.errors import UsageError
from ajbench.core.recipe import Mix
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
    assert chosen.tolist() == real_clips.places(real, 1, manifest).tolist()
    assert {store[int(i)].split for i in chosen} <= {"train"}
    assert (np.diff(chosen) > 0).all()
    assert real_clips.chosen(mix, store, "all").tolist() == store.split_indices("train").tolist()


def test_more_shots_than_a_class_has_clips_are_refused(clips):
    for refuse in (
        lambda: real_clips.chosen(Mix(real="shots=11"), clips[0]),
        lambda: real_clips.places("shots=11", 0, clips[1]),
    ):
        with pytest.raises(UsageError, match=r"mix\.real=shots=11"):
            refuse()
