"""Which clips a mix adds to real ones where it fills the tail, and the decoded audio in memory."""

import numpy as np
import pytest
import torch
from fakes import HUM_LABELS, hum_recipe, hum_record, hum_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ajbench.classifiers import selection
from ajbench.classifiers.selection import TrainingClips, select
from ajbench.core.clip_sections import Mix, Tail
from ajbench.core.device import memory_share
from ajbench.core.errors import UsageError
from ajbench.data import real_clips

FILLED = Tail(classes=["Hiss"], shots=3, fill=True)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Real clips, and synthetic and augmented ones of both classes in an order of their own."""
    folder = tmp_path_factory.mktemp("selection")
    real = hum_store(folder / "real", [hum_record(i) for i in range(30)])
    parents = [real.clip_ids[i] for i in real.split_indices("train")]
    order = np.random.default_rng(0).permutation(parents)
    made = {}
    for name in ("synthetic", "augmented"):
        records = [
            hum_record(int(p[5:]), clip_id=f"{name}-{p}", split="train", parent_id=p, source=name)
            for p in order
        ]
        made[name] = hum_store(folder / name, records, source="synthetic")
    return real, made["synthetic"], made["augmented"]


def added(stores, mix):
    """Ids of the real clips, and of the added ones in order; of R the real clips that are repeated."""
    real, synthetic, augmented = stores
    ids, clips, plan = select(hum_recipe(mix), real, synthetic, None, augmented, 1, None)
    names = [store.clip_ids[i] for store, indices in clips.parts for i in indices]
    epoch = np.sort(plan.order(0))
    once = [names[k] for k in np.unique(epoch)]
    again = [names[k] for k in epoch[:-1][np.diff(epoch) == 0]]
    assert plan.epoch_size == mix.epoch_size(len(ids))
    return list(ids), once[len(ids) :] or again


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(
    source=st.sampled_from(["G", "A", "R", "A+G"]), few=st.integers(1, 4), more=st.integers(5, 10),
    draw=st.integers(0, 9),
)  # fmt: skip
def test_doses_of_the_tail_are_nested_and_the_other_classes_untouched(stores, source, few, more, draw):
    hiss = {clip.clip_id for store in stores for clip in store if clip.labels == ["Hiss"]}
    plain = [stores[0].clip_ids[i] for i in real_clips.chosen(Mix(), stores[0])]
    rest = [name for name in plain if name not in hiss]
    found = []
    for dose in (few, more):
        real, clips = added(stores, Mix(dose=dose, source=source, draw=draw, tail=FILLED))
        assert [name for name in real if name not in hiss] == rest
        assert len([name for name in real if name in hiss]) == FILLED.shots
        assert {*clips} <= hiss and (source == "R" or len(clips) == dose * len(source.split("+")))
        found.append(clips)
    assert {*found[0]} <= {*found[1]}
    if source == "G":
        first = [name for name in stores[1].clip_ids if name in hiss]
        assert found == [first[:few], first[:more]]


def test_without_fill_and_of_synthetic_clips_only_all_classes_are_added(stores):
    wide = FILLED.model_copy(update={"fill": False})
    for mix in (Mix(dose=6, tail=wide), Mix(real="none", dose=6, tail=FILLED)):
        assert added(stores, mix)[1] == stores[1].clip_ids[:6]


def test_a_store_with_too_few_clips_of_the_tail_is_refused(stores):
    assert HUM_LABELS == ["Hum", "Hiss"]
    for source in ("G", "A"):
        with pytest.raises(UsageError, match=r"mix\.tail\.fill: .* 11, .*synth\.n"):
            added(stores, Mix(dose=11, source=source, tail=FILLED))


def test_clips_beyond_the_cache_are_decoded_again_with_the_same_samples(real, synthetic, monkeypatch):
    chosen, order = real.split_indices("train"), np.array([3, 17, 0, 39, 17, 8])
    added = [(synthetic, np.arange(20))]
    whole = TrainingClips(real, chosen, added)
    monkeypatch.setattr(selection, "CACHE_BYTES", 9 * 2 * real.meta.clip_samples)
    part = TrainingClips(real, chosen, added)
    assert (len(whole.cache), len(part.cache)) == (40, 9)
    for _ in range(2):
        assert all(map(torch.equal, part.take(order), whole.take(order)))
    assert np.flatnonzero(part.filled).tolist() == [0, 3, 8]


def test_a_machine_with_a_gpu_keeps_more_audio_and_its_processes_share_the_memory(monkeypatch):
    assert selection.cache_bytes() == selection.CACHE_BYTES
    monkeypatch.setattr(selection, "CACHE_BYTES", 0)
    monkeypatch.setattr(selection, "device_of", lambda: torch.device("cuda", 0))
    alone = selection.cache_bytes()
    memory = memory_share()
    assert 0.1 * memory < alone < 0.2 * memory
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert selection.cache_bytes() == pytest.approx(alone / 8, abs=1)
