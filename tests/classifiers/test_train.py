"""Training a classifier: the clips it uses, divided batches, exact resume, the settings of a recipe."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from fakes import (
    HUM_LABELS,
    classifier_weights,
    fit_hum,
    free_port,
    hum_recipe,
    hum_record,
    hum_store,
    join_launch,
    launch,
    stopped_at,
    watch_gradients,
    weight_difference,
)

from ajbench import classifiers
from ajbench.classifiers import predict, selection, train
from ajbench.classifiers.selection import check_descent, select
from ajbench.core import files
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.recipe import Mix
from ajbench.data import mixing, real_clips, shards, store
from ajbench.data.leak_rule import refuse_heard
from ajbench.data.pcm import open_store
from ajbench.data.val_part import ValPart
from ajbench.training import state

# Neither batch norm nor dropout: nothing depends on how a batch is divided.
WHOLE = {"name": "ast-tiny", "options": {"patchout": 0.0}, "train_steps": 3, "warmup_steps": 0}
MIXED = hum_recipe(Mix(dose=20, balanced=True), **WHOLE)
INTERRUPTED = hum_recipe(Mix(dose=12, balanced=True))


@pytest.fixture(scope="module")
def with_val(tmp_path_factory):
    split = ("train", "val", "eval")
    records = [hum_record(i, split=split[i % 3]) for i in range(30)]
    return hum_store(tmp_path_factory.mktemp("with_val") / "real", records)


def rows(folder):
    """Return loss and learning rate of every step."""
    return [line.split(",")[1:3] for line in (folder / "metrics.csv").read_text().splitlines()[1:]]


@pytest.mark.parametrize(("name", "loss"), [("taltrans-small", "bce"), ("ast-tiny", "ce")])
def test_it_learns_and_predicts_the_eval_clips(tmp_path, real, synthetic, name, loss):
    recipe = hum_recipe(Mix(dose=10), name=name, loss=loss, train_steps=40, aug="none")
    out = fit_hum(recipe, real, synthetic, tmp_path / "out")
    written = ["config.json", "metrics.csv", "model.safetensors", "train_split.npy"]
    assert sorted(p.name for p in out.iterdir()) == written
    train, held_out = (
        {real.clip_ids[i]: real.recordings[i] for i in real.split_indices(s)} for s in ("train", "eval")
    )
    refuse_heard(out, held_out)
    with pytest.raises(IntegrityError, match=next(iter(train))):
        refuse_heard(out, dict([next(iter(train.items()))]))
    classifier = classifiers.load(out)
    expected = {"fingerprint": "abc", "loss": loss, "train_ids_hash": synthetic.meta.train_ids_hash}
    assert expected.items() <= classifier.config.items()
    indices = real.split_indices("eval")[::-1]
    scores = predict(classifier, real, indices, batch=3)
    assert scores.dtype == np.float32 and scores.shape == (10, 2)
    assert np.mean(scores.argmax(1) == real.targets()[indices].argmax(1)) >= 0.9
    np.testing.assert_allclose(scores, predict(classifier, real, indices), atol=1e-4)


@pytest.mark.parametrize(
    ("mix", "aug"),
    [(Mix(dose=12), "mx+sp"), (Mix(mode="alpha", alpha=0.5, balanced=True), "mx+sp"), (Mix(), "wave")],
)
def test_an_interrupted_training_ends_with_the_same_bits(
    tmp_path, real, synthetic, mix, aug, monkeypatch, audiomentations
):
    recipe = hum_recipe(mix, aug=aug)
    straight = fit_hum(recipe, real, synthetic, tmp_path / "a")
    with stopped_at(mixing, "batch", 10):
        fit_hum(recipe, real, synthetic, tmp_path / "b")
    assert [p.name for p in (tmp_path / "b" / "checkpoints").iterdir()] == ["step-00000005"]
    # The cache of decoded audio does not change the bits either.
    monkeypatch.setattr(selection, "CACHE_BYTES", 0)
    torch.manual_seed(99)
    resumed = fit_hum(recipe, real, synthetic, tmp_path / "b")
    assert weight_difference(straight, resumed) == 0
    assert weight_difference(straight, fit_hum(recipe, real, synthetic, tmp_path / "c", seed=2))


def test_decoded_sound_in_mapped_files_gives_the_same_bits(tmp_path, real, synthetic, monkeypatch):
    recipe = hum_recipe(Mix(dose=12))
    straight = fit_hum(recipe, real, synthetic, tmp_path / "a")
    mapped = [open_store(one.path, tmp_path / "cache") for one in (real, synthetic)]
    monkeypatch.setattr("ajbench.data.audio.flac_samples", None)
    assert weight_difference(straight, fit_hum(recipe, *mapped, tmp_path / "b")) == 0
    indices = real.split_indices("eval")
    assert (predict(classifiers.load(straight), mapped[0], indices) != 0).all()
    assert not select(recipe, *mapped, None, None, 1, None).clips.cache.size


@pytest.mark.parametrize(("owner", "name"), [(classifiers, "save"), (train, "remove_checkpoints")])
@pytest.mark.parametrize("select", ["best", "last"])
def test_a_training_stopped_after_its_last_step_leaves_the_same_files(
    tmp_path, with_val, owner, name, select
):
    recipe = hum_recipe(train_steps=4, select=select, validate_every=2, average_last=0.0)
    score = (lambda *_: 0.5) if select == "best" else None
    straight = fit_hum(recipe, with_val, None, tmp_path / "a", score=score)
    with stopped_at(owner, name, 1):
        fit_hum(recipe, with_val, None, tmp_path / "b", score=score)
    stopped = fit_hum(recipe, with_val, None, tmp_path / "b", score=score)
    assert weight_difference(straight, stopped) == 0
    assert [path.name for path in sorted(stopped.iterdir())] == [p.name for p in sorted(straight.iterdir())]


def kill_in_step_7(rank, stores, out):
    loss, calls = train.loss_of, []

    def counted(*args):
        calls.append(1)
        if len(calls) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(*args)

    train.loss_of = counted
    fit_hum(INTERRUPTED, *map(store.ClipStore.open, stores), out)


def test_a_training_killed_by_the_system_ends_with_the_same_bits(tmp_path, real, synthetic):
    with pytest.raises(torch.multiprocessing.ProcessExitedException, match="SIGKILL"):
        launch(kill_in_step_7, ((real.path, synthetic.path), tmp_path / "killed"), 1)
    checkpoints = tmp_path / "killed" / "checkpoints"
    assert [path.name for path in checkpoints.glob("step-*")] == ["step-00000005"]  # within an epoch of 32
    resumed = fit_hum(INTERRUPTED, real, synthetic, tmp_path / "killed")
    straight = fit_hum(INTERRUPTED, real, synthetic, tmp_path / "straight")
    assert weight_difference(resumed, straight) == 0
    assert rows(resumed) == rows(straight)


def train_together(rank, processes, port, stores, folder, cpu=True):
    join_launch(rank, processes, port, cpu)
    watch_gradients(train, folder / f"{processes}-{rank}.pt")
    fit_hum(MIXED, *map(store.ClipStore.open, stores), folder / f"out-{processes}")


@pytest.mark.gpu
def test_a_group_of_one_process_on_nccl_trains_as_a_process_alone(tmp_path, real, synthetic, cuda):
    launch(train_together, (1, free_port(), (real.path, synthetic.path), tmp_path, False), 1)
    fit_hum(MIXED, real, synthetic, tmp_path / "alone")
    assert weight_difference(tmp_path / "out-1", tmp_path / "alone") < 1e-4


@pytest.mark.parametrize("cpu", [True, pytest.param(False, marks=pytest.mark.gpu)], ids=["gloo", "nccl"])
def test_two_processes_have_the_gradient_of_one_process(tmp_path, real, synthetic, monkeypatch, cpu):
    if not cpu and torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    launch(train_together, (2, free_port(), (real.path, synthetic.path), tmp_path, cpu))
    monkeypatch.setattr(train, "_optimizer", train._optimizer)  # restored at the end
    watch_gradients(train, tmp_path / "1-0.pt")
    fit_hum(MIXED, real, synthetic, tmp_path / "out-1")
    saved = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    one, *both = (list(steps[0].values()) for steps in saved)
    assert max(float(g.abs().max()) for g in one) > 1e-3
    assert all(map(torch.equal, *both))
    for other in both:
        assert max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) <= 1e-6
    assert weight_difference(tmp_path / "out-1", tmp_path / "out-2") < 1e-4
    assert len(rows(tmp_path / "out-2")) == 3  # written by one of them


def test_for_a_gpu_clips_are_mixed_in_the_step_as_they_are_mixed_here_for_a_cpu(
    tmp_path, real, synthetic, monkeypatch
):
    made = select(MIXED, real, synthetic, None, None, 0, None)
    settings = MIXED.classifier.model_copy(update={"aug": "mx+sp", "mixup": 0.5})
    here = train._batches(settings, made.plan, made.clips, 3)
    monkeypatch.setattr(train, "device_of", lambda: torch.device("cuda"))
    there = train._batches(settings, made.plan, made.clips, 3)
    mixed = 0
    for index in range(4):
        wav, targets, masks, where, keep = there(index)
        assert len(wav) == len(targets) == 8 + len(where) and len(keep) == len(where)
        mixed += len(where)
        expected = here(index)
        assert torch.equal(masks, expected[2]) and not len(expected[3])
        assert all(map(torch.equal, train.frontend.mixup(wav, targets, where, keep), expected[:2]))
    assert mixed > 4


def test_for_a_gpu_clips_are_centred_also_where_none_is_mixed(tmp_path, real, synthetic, monkeypatch):
    recipe = hum_recipe(
        MIXED.mix, **WHOLE | {"name": "taltrans-small", "options": {}, "aug": "mx+sp", "mixup": 0.0}
    )
    rows = selection.TrainingClips.rows
    monkeypatch.setattr(
        selection.TrainingClips,
        "rows",
        lambda *args: ([wave + np.int16(900) for wave in rows(*args)[0]], rows(*args)[1]),
    )
    fit_hum(recipe, real, synthetic, tmp_path / "cpu")
    monkeypatch.setattr(train, "device_of", lambda: torch.device("cuda"))
    fit_hum(recipe, real, synthetic, tmp_path / "gpu")
    assert weight_difference(tmp_path / "cpu", tmp_path / "gpu") == 0


def select_together(rank, processes, port, real, folder):
    join_launch(rank, processes, port)
    load_best, checksum, read = state.State.load_best, files.checksum, []

    def late(self, path):
        time.sleep(1.0 * rank)
        load_best(self, path)

    state.State.load_best = late
    files.checksum = lambda path: read.append(path) or checksum(path)
    opened, seen = store.ClipStore.open(real), []
    assert bool(read) == (rank == 0)  # one process verifies the shards
    recipe = hum_recipe(select="best", validate_every=6, **WHOLE | {"train_steps": 12})
    out = fit_hum(recipe, opened, None, folder / "out", score=lambda *a: seen.append(a) or len(seen))
    np.savez(folder / f"{rank}.npz", *(logits for logits, _ in seen))
    every = predict(classifiers.load(out), opened, range(len(opened)), batch=4, shared=True)
    np.save(folder / f"{rank}.npy", every)


def test_two_processes_share_the_scoring_and_none_removes_the_best_weights_too_early(tmp_path):
    split = ["train", "val", "eval"]
    real = hum_store(tmp_path / "real", [hum_record(i, split=split[i % 3]) for i in range(30)])
    launch(select_together, (2, free_port(), real.path, tmp_path))
    one, other = (np.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    assert len(one.files) == 2 and all(np.array_equal(one[name], other[name]) for name in one.files)
    alone = predict(classifiers.load(tmp_path / "out"), real, range(30), batch=4)
    for rank in (0, 1):
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), alone, atol=1e-5)


@pytest.mark.parametrize("aug", ["mx+sp", "wave+mx+sp"])
def test_parts_of_a_batch_train_as_the_whole(tmp_path, real, synthetic, audiomentations, aug):
    for parts in (1, 4):
        recipe = hum_recipe(Mix(dose=9), **WHOLE, aug=aug, accumulate=parts)
        fit_hum(recipe, real, synthetic, tmp_path / str(parts))
    # The first steps of AdamW have the size of the learning rate for any gradient: its sign must agree.
    assert weight_difference(tmp_path / "1", tmp_path / "4") < 1e-4


def test_processes_that_do_not_divide_the_batch_are_refused(tmp_path, real, monkeypatch):
    monkeypatch.setattr(train, "world", lambda: (3, 0))
    with pytest.raises(UsageError, match=r"classifier\.batch_size=8.* multiple of 3"):
        fit_hum(hum_recipe(), real, None, tmp_path / "out")


def test_only_clips_of_the_mix_are_read(tmp_path, real, synthetic, monkeypatch):
    read, audio_of = {"real": set(), "synthetic": set()}, store.ClipStore.audio16

    def spy(self, indices):
        read[self.meta.source] |= {int(i) for i in indices}
        return audio_of(self, indices)

    monkeypatch.setattr(store.ClipStore, "audio16", spy)
    fit_hum(hum_recipe(Mix(dose=7), mixup=1.0), real, synthetic, tmp_path / "dose")
    assert read["real"] == set(real.split_indices("train").tolist())
    assert read["synthetic"] == set(range(7))
    read["real"].clear()
    fit_hum(hum_recipe(Mix(real="none", dose=40)), real, synthetic, tmp_path / "only")
    assert read["real"] == set()


def test_synthetic_clips_whose_generator_had_other_train_clips_are_mixed(real, synthetic):
    of_eval = shards.ids_hash(real.clip_ids[i] for i in real.split_indices("eval"))
    known = synthetic.meta.model_copy(update={"train_ids_hash": "0" * 16, "eval_ids_hash": of_eval})
    check_descent(real, store.ClipStore(synthetic.path, known))


@pytest.mark.parametrize("through_codec", [False, True])
def test_of_the_real_clips_only_those_of_the_mix_are_used(tmp_path, real, through_codec):
    decoded, everything = None, real.split_indices("train")
    mix = Mix(real="shots=2", draw=1)
    chosen = real_clips.chosen(mix, real)
    assert len(chosen) == 4 < len(everything)
    if through_codec:
        decoded = hum_store(tmp_path / "decoded", [hum_record(int(i)) for i in everything])
    trained = fit_hum(hum_recipe(mix), real, None, tmp_path / "few", decoded=decoded)
    # A store that has no other train clip gives the same classifier.
    alone = hum_store(tmp_path / "alone", [hum_record(int(i)) for i in chosen])
    assert weight_difference(trained, fit_hum(hum_recipe(), alone, None, tmp_path / "out")) == 0


@pytest.fixture(scope="module")
def augmented(hum_folder, real):
    """One augmented clip of every train clip."""
    parents = [real.clip_ids[i] for i in real.split_indices("train")]
    records = [
        hum_record(300 + int(p[5:]), clip_id=f"aug-{p}-0", split="train", parent_id=p, source="augmented")
        for p in parents
    ]
    return hum_store(hum_folder / "augmented", records, source="synthetic")


def test_every_source_adds_its_first_clips(tmp_path, real, synthetic, augmented, monkeypatch):
    read, audio_of = {}, store.ClipStore.audio16

    def spy(self, indices):
        read.setdefault(self.path.name, set()).update(int(i) for i in indices)
        return audio_of(self, indices)

    monkeypatch.setattr(store.ClipStore, "audio16", spy)
    made = []
    for source, dose in (("G", 7), ("A", 7), ("R", 7), ("A+G", 7)):
        read.clear()
        recipe = hum_recipe(Mix(dose=dose, source=source), mixup=1.0)
        out = fit_hum(recipe, real, synthetic, tmp_path / source, augmented=augmented)
        stores = {"G": "synthetic", "A": "augmented"}
        expected = {stores[one]: set(range(dose)) for one in source.split("+") if one in stores}
        assert read == {"real": set(real.split_indices("train").tolist())} | expected
        made.append(out)
    for k, one in enumerate(made):
        assert all(weight_difference(one, other) for other in made[:k])


def test_augmented_waves_are_not_those_of_the_store(tmp_path, real, plain, audiomentations):
    made = {aug: fit_hum(hum_recipe(aug=aug), real, None, tmp_path / aug) for aug in ("wave", "wave+mx+sp")}
    assert weight_difference(made["wave"], made["wave+mx+sp"])
    assert weight_difference(made["wave+mx+sp"], plain)
    assert weight_difference(made["wave"], fit_hum(hum_recipe(aug="none"), real, None, tmp_path / "none"))


def test_neither_val_clips_nor_what_was_made_from_their_recordings_is_trained_on(real, synthetic):
    train = real.split_indices("train")
    val = train[::4]
    part = ValPart(np.setdiff1d(train, val), val, frozenset(real.recordings[i] for i in val))
    recipe = hum_recipe(Mix(dose=10))
    ids, clips, _ = select(recipe, real, synthetic, None, None, 0, None, part)
    assert ids == [real.clip_ids[i] for i in part.real]
    (_, places), (_, added) = clips.parts
    assert places.tolist() == part.real.tolist()
    of_val, parents = {real.clip_ids[i] for i in val}, synthetic.column("parent_id")
    assert added.tolist() == [k for k, parent in enumerate(parents) if parent not in of_val][:10]
    most = sum(parent not in of_val for parent in parents)
    assert 10 < most < len(parents)
    with pytest.raises(UsageError, match=r"mix\.dose"):
        select(hum_recipe(Mix(dose=most + 1)), real, synthetic, None, None, 0, None, part)


def test_unused_synthetic_clips_do_not_change_the_result(tmp_path, real, synthetic, plain):
    assert weight_difference(plain, fit_hum(hum_recipe(), real, synthetic, tmp_path / "out")) == 0


@pytest.mark.parametrize(
    "change",
    [{"mix": Mix(dose=5)}, {"aug": "none"}, {"mixup_partner": "batch"}, {"mixup_beta": 0.3},
     {"optimizer": "adam"}, {"ema_decay": 0.9}, {"clip_grad": None, "betas": (0.95, 0.999)},
     {"schedule": "step", "decay_from_epoch": 1}, {"precision": "bf16"}],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_the_result(tmp_path, real, synthetic, plain, change):
    assert weight_difference(plain, fit_hum(hum_recipe(**change), real, synthetic, tmp_path / "other"))


def test_a_finished_classifier_is_not_trained_again(plain, real):
    before = (plain / "model.safetensors").stat().st_mtime_ns
    fit_hum(hum_recipe(), real, None, plain)
    assert (plain / "model.safetensors").stat().st_mtime_ns == before


def test_a_mix_that_cannot_be_formed_is_refused_before_any_work(tmp_path, real, synthetic, augmented):
    out = tmp_path / "out"
    for mix, made, of_a, match in (
        (Mix(dose=41), synthetic, None, r"dose=41.* 40"),
        (Mix(dose=3), None, None, r"mix\.dose=3"),
        (Mix(mode="alpha", alpha=0.2), None, None, r"mix\.alpha=0\.2"),
        (Mix(dose=21, source="A+G"), synthetic, augmented, r"mix\.dose=21.* 20"),
        (Mix(dose=2, source="A+G"), synthetic, None, r"mix\.dose=2.* A;"),
    ):
        with pytest.raises(UsageError, match=match):
            fit_hum(hum_recipe(mix), real, made, out, augmented=of_a)
    bare = hum_store(tmp_path / "bare", [hum_record(i, split="eval") for i in range(4)])
    with pytest.raises(MissingError, match="bare"):
        fit_hum(hum_recipe(), bare, None, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "meta", "match"),
    [
        ({"parent_id": "clip-2"}, {}, "clip aug .*clip-2.* eval split"),
        ({"parent_id": "clip-77"}, {}, "clip-77"),
        ({}, {"codec_hash": "01"}, "codec_hash 01.* 00"),
        ({}, {"labels": ["Hiss", "Hum"]}, "labels"),
        ({}, {"train_ids_hash": "0" * 16}, "eval split"),
        ({}, {"eval_ids_hash": "0" * 16}, "eval split"),
    ],
)
def test_synthetic_clips_of_eval_clips_or_of_another_store_are_refused(tmp_path, real, change, meta, match):
    values = {"clip_id": "aug", "split": "train", "source": "synthetic", "parent_id": "clip-0"} | change
    bad = hum_store(tmp_path / "bad", [hum_record(0, **values)], source="synthetic", **meta)
    with pytest.raises(IntegrityError, match=match):
        fit_hum(hum_recipe(Mix(dose=1)), real, bad, tmp_path / "out")


def test_synthetic_clips_of_recordings_in_the_eval_split_are_refused(tmp_path):
    real = hum_store(
        tmp_path / "real", [hum_record(i, recording="tape" if i < 3 else None) for i in range(6)]
    )
    made = hum_record(0, clip_id="aug", split="train", source="synthetic", parent_id="clip-0")
    bad = hum_store(tmp_path / "bad", [made], source="synthetic")
    with pytest.raises(IntegrityError, match=r"aug .*clip-0.*tape"):
        check_descent(real, bad)


def test_epochs_follow_the_mix_unless_match_steps_is_set(tmp_path, real, synthetic):
    settings = {"epochs": 2, "warmup_steps": None, "warmup_epochs": 1}
    for name, mix, steps in (
        ("real", Mix(), 5),  # 20 clips, batches of 8
        ("dose", Mix(dose=12), 8),
        ("only", Mix(real="none", dose=12), 3),
        ("repeated", Mix(dose=12, source="R"), 8),
        ("alpha", Mix(mode="alpha"), 5),
        ("matched", Mix(match_steps=12), 8),
    ):
        fit_hum(hum_recipe(mix, **settings), real, synthetic, tmp_path / name)
        assert len(rows(tmp_path / name)) == steps, name
    assert rows(tmp_path / "matched")[3][1] == "0.002"  # after warm-up over the four steps of an epoch


def test_weights_are_averaged_at_the_ends_of_epochs(tmp_path, real, monkeypatch):
    given, whole = {}, train.loop.fit
    monkeypatch.setattr(train.loop, "fit", lambda *a, **k: given.update(k) or whole(*a, **k))
    settings = {"epochs": 4, "average_epochs": (2, 4), "schedule": "step", "decay_from_epoch": 2}
    fit_hum(hum_recipe(**settings, decay_every_epochs=1), real, None, tmp_path / "out")
    assert list(given["average_after"]) == [5, 8, 10]  # 2.5 steps per epoch
    rates = [given["lr_at"](i) / 2e-3 for i in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25])
    with pytest.raises(UsageError, match="average_epochs"):
        fit_hum(hum_recipe(train_steps=4, average_epochs=(2, 4)), real, None, tmp_path / "short")


def test_the_best_weights_on_the_val_split_are_kept_besides_the_last(tmp_path, real, with_val):
    scores = iter([0.2, 0.9, 0.5])
    recipe = hum_recipe(select="best", validate_every=4)
    out = fit_hum(recipe, with_val, None, tmp_path / "best", score=lambda logits, targets: next(scores))
    unselected = fit_hum(hum_recipe(average_last=0.0), with_val, None, tmp_path / "plain")
    assert weight_difference(out, unselected)
    last = classifier_weights(out, train.LAST)
    assert all(torch.equal(last[name], t) for name, t in classifier_weights(unselected).items())
    with pytest.raises(UsageError, match=r"classifier\.select=best"):
        fit_hum(recipe, real, None, tmp_path / "no", score=lambda logits, targets: 0.0)


def test_decoded_clips_are_used_instead_of_the_originals(tmp_path, real, plain):
    train_clips = [int(real.clip_ids[i][5:]) for i in real.split_indices("train")]
    louder = [hum_record(i, audio=hum_record(i + 100)["audio"]) for i in train_clips]
    decoded = hum_store(tmp_path / "decoded", louder)
    assert weight_difference(plain, fit_hum(hum_recipe(), real, None, tmp_path / "out", decoded=decoded))
    other = hum_store(tmp_path / "other", [hum_record(i, split="train") for i in range(20)])
    with pytest.raises(IntegrityError, match="other"):
        fit_hum(hum_recipe(), real, None, tmp_path / "no", decoded=other)
    assert decoded.meta.labels == HUM_LABELS


def test_a_time_mask_covers_at_most_half_a_clip(real, tmp_path, monkeypatch):
    widths = []
    masked = train.frontend.spec_augment
    monkeypatch.setattr(
        train.frontend, "spec_augment", lambda *a, **how: widths.append(how["time"]) or masked(*a, **how)
    )
    for wanted in (3, 1000):
        fit_hum(
            hum_recipe(aug="mx+sp", specaug_time=wanted, train_steps=1), real, None, tmp_path / str(wanted)
        )
    frames = train.frontend.TalMel().frames(real.meta.clip_samples)
    assert set(widths) == {3, frames // 2}
