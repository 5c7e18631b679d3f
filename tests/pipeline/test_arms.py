"""Source A: augmented clips, their plan and their labels; which stages need them."""

import subprocess
import sys

import numpy as np
import pytest
from fakes import mini_pipeline, prepared_store

from ajbench.core.errors import IntegrityError
from ajbench.core.recipe import Data
from ajbench.data import real_clips
from ajbench.data.store import ClipStore
from ajbench.pipeline import arms
from ajbench.pipeline.arms import ClipSubset, augment_clips, augment_stage
from ajbench.pipeline.classifier_stages import grid_stages
from ajbench.pipeline.stage import run_stages

N = 40


def subsets(store, split="train"):
    clips = ClipSubset(store, store.split_indices("train"))
    return clips, ClipSubset(store, store.split_indices(split))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """24 clips of `mini`, of which fold 5 is the eval split."""
    data = Data(n_clips=24, duration_s=0.84, eval_fold=5)
    return prepared_store(tmp_path_factory.mktemp("real") / "store", None, data)


@pytest.fixture
def made(real, tmp_path, audiomentations, tiny):
    """Forty augmented clips."""
    return augment_clips(*subsets(real), tmp_path / "made", n=N, seed=7, fingerprint="abc", codec=tiny)


def test_clips_descend_from_train_clips_in_turn_and_have_their_labels(real, made):
    train = real.split_indices("train")
    by_id = {real.clip_ids[i]: real[int(i)] for i in train}
    parents = made.column("parent_id")
    assert set(parents[: len(train)]) == set(by_id)
    assert made.clip_ids == [f"aug-{parent}-{k // len(train)}" for k, parent in enumerate(parents)]
    for clip in made:
        parent = by_id[clip.parent_id]
        assert (clip.labels, clip.label_ids, clip.split) == (parent.labels, parent.label_ids, "train")
        assert (clip.recording, clip.source) == (parent.recording, "augmented")
        assert clip.generator.startswith("audiomentations ")
        assert clip.audio().shape == parent.audio().shape
    differing = [not np.array_equal(clip.audio(), by_id[clip.parent_id].audio()) for clip in made]
    assert np.mean(differing) > 0.9  # each of six transforms is left out half the time


def test_fewer_clips_are_the_beginning_of_more_and_shards_change_nothing(
    real, made, tmp_path, tiny, monkeypatch
):
    monkeypatch.setattr(arms, "SHARD_CLIPS", 3)
    few = augment_clips(*subsets(real), tmp_path / "few", n=11, seed=7, fingerprint="abc", codec=tiny)
    assert few.clip_ids == made.clip_ids[:11]
    assert all(few.flac(k) == made.flac(k) for k in range(11))
    other = augment_clips(*subsets(real), tmp_path / "other", n=11, seed=8, fingerprint="abc", codec=tiny)
    assert sum(other.flac(k) == few.flac(k) for k in range(11)) < 2


def test_backgrounds_are_mixed_in(real, made, tmp_path, tiny):
    clips, others = subsets(real, "eval")
    other = augment_clips(clips, others, tmp_path / "other", n=N, seed=7, fingerprint="abc", codec=tiny)
    same = [made.flac(k) == other.flac(k) for k in range(N)]
    assert other.clip_ids == made.clip_ids and 0.2 < np.mean(same) < 0.8  # half of them have a background


def test_codes_are_those_of_the_stored_audio(made, tiny):
    for start in range(0, N, 8):
        items = range(start, start + 8)
        assert np.array_equal(np.asarray(tiny.encode(made.audio(items))), made.codes(items))


def test_another_process_makes_the_same_bytes(real, made, tmp_path):
    if not hasattr(sys.modules["audiomentations"], "__file__"):
        pytest.skip("needs the library audiomentations")
    code = (
        "from pathlib import Path\n"
        "from ajbench.data.store import ClipStore\n"
        "from ajbench.pipeline.arms import ClipSubset, augment_clips\n"
        f"real, out = ClipStore.open({str(real.path)!r}), Path({str(tmp_path / 'again')!r})\n"
        "clips = ClipSubset(real, real.split_indices('train'))\n"
        f"augment_clips(clips, clips, out, n={N}, seed=7, fingerprint='abc')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=600)
    again = ClipStore.open(tmp_path / "again")
    assert [bytes(again.flac(k)) for k in range(N)] == [bytes(made.flac(k)) for k in range(N)]


def test_a_folder_of_another_job_is_refused(real, made, tiny):
    with pytest.raises(IntegrityError, match="fingerprint"):
        augment_clips(*subsets(real), made.path, n=N, seed=7, fingerprint="other", codec=tiny)


def test_only_mixes_with_augmented_clips_need_them():
    made = mini_pipeline("evaluate.arms=[G, A, R, A+G]")
    stage = augment_stage(made)
    assert (stage.amount, stage.seed, stage.needs) == ("20 clips", 0, (made.prepare,))
    assert stage.disk_mb > 0
    assert stage.path in [one.path for one in made.sources()]
    assert "augment" not in [one.name for one in mini_pipeline().stages()]
    for one in grid_stages(made):
        needed = [need.name for need in one.needs]
        source = one.recipe.mix.source if one.recipe.mix.dose else ""
        assert needed == ["prepare"] + ["synth"] * ("G" in source) + ["augment"] * ("A" in source)


def test_augmented_clips_are_the_same_whatever_the_generator():
    plain, generated = mini_pipeline(), mini_pipeline("generator.lr=1", "synth.strength=1")
    assert augment_stage(plain).path == augment_stage(generated).path
    assert augment_stage(plain).path != augment_stage(mini_pipeline("synth.seed=1")).path


def test_they_depend_on_the_real_clips_and_on_the_pool():
    options = ("mix.real=shots=1", "mix.real=shots=2", "mix.real=shots=1 mix.draw=1", "generator.pool=real")
    made = [augment_stage(mini_pipeline(*text.split())).path for text in ("", *options)]
    assert len(set(made)) == 5


def test_only_the_real_clips_of_the_mix_are_augmented(tmp_path, audiomentations):
    made = mini_pipeline("mix.real=share=0.2", "data.duration_s=0.84", work=tmp_path)
    stage = augment_stage(made)
    run_stages([made.prepare, stage], "cpu")
    real, store = ClipStore.open(made.prepare.path), ClipStore.open(stage.path)
    chosen = real_clips.chosen(made.recipe.mix, real)
    assert 0 < len(chosen) < 20 and set(store.column("parent_id")) == {real.clip_ids[i] for i in chosen}


def test_only_clips_of_the_tail_are_augmented_where_synthesis_is_limited_to_it(tmp_path, audiomentations):
    tail = "mix.tail={classes: [Rain], shots: 1}", "synth.classes=tail"
    made = mini_pipeline(*tail, "data.duration_s=0.84", "data.n_clips=80", "synth.n=3", work=tmp_path)
    stage = augment_stage(made)
    run_stages([made.prepare, stage], "cpu")
    (parent,) = {*ClipStore.open(stage.path).column("parent_id")}
    real = ClipStore.open(made.prepare.path)
    assert "Rain" in real[real.clip_ids.index(parent)].labels
    assert real.clip_ids.index(parent) in real_clips.chosen(made.recipe.mix, real)


def test_the_estimate_needs_the_real_clips_only(tmp_path, audiomentations):
    made = mini_pipeline("data.duration_s=0.84", work=tmp_path)
    run_stages([made.prepare], "cpu")
    assert augment_stage(made).estimate()["seconds"] > 0


def test_sets_of_several_draws_are_made_in_workers_with_the_same_bytes(tmp_path, audiomentations):
    if not hasattr(audiomentations, "__file__"):
        pytest.skip("needs the library audiomentations")
    draws, found = ("mix.draw=0", "mix.draw=1"), dict[str, list[bytes]]()
    for name, workers in (("alone", 0), ("beside", 2)):
        made = [
            mini_pipeline("mix.real=shots=1", "data.duration_s=0.84", draw, work=tmp_path / name)
            for draw in draws
        ]
        stages = list(map(augment_stage, made))
        assert len({stage.path for stage in stages}) == 2
        run_stages([made[0].prepare, *stages], "cpu", workers=workers)
        shards = [path for stage in stages for path in sorted(stage.path.glob("part-*.arrow"))]
        found[name] = [path.read_bytes() for path in shards]
        threads = {stage.folder.info()["threads"] for stage in stages}
        assert name == "alone" or threads == {1}
    assert len(found["alone"]) == 2 and found["alone"] == found["beside"]
