"""What a recipe can ask of a training: divided batches, schedules, selection, controls."""

import json
import multiprocessing
import os
import signal
import socket

import numpy as np
import pytest
import torch
from hum_and_hiss import LABELS, SAMPLES, fit, make, recipe_of, record, same, weights

from ajbench.classifiers import train
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.recipe import Mix
from ajbench.data import audio, shards, store
from ajbench.data.verify import verify
from ajbench.pipeline.prepare import decode_train_split

torch.set_num_threads(1)
# Neither batch norm nor dropout: nothing depends on how a batch is divided.
WHOLE = {"name": "ast-tiny", "options": {"patchout": 0.0}, "train_steps": 3, "warmup_steps": 0}
KILLED = recipe_of(Mix(dose=12, balanced=True))
PRELOADED = ["ajbench.classifiers.train", "timm", "accelerate", "torch._dynamo"]
MIXED = recipe_of(Mix(dose=20, balanced=True), **WHOLE)


def launched(rank, processes, port, folder):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    torch.set_num_threads(1)
    real, synthetic = (store.ClipStore.open(folder / name) for name in ("real", "synthetic"))
    watch_gradients(folder / f"{processes}-{rank}.pt")
    fit(MIXED, real, synthetic, folder / f"out-{processes}")


def watch_gradients(path):
    """Save the gradients of the first optimiser step, as they are before it."""
    make_optimizer = train._optimizer

    def optimizer(settings, module):
        made = make_optimizer(settings, module)

        def save(*_):
            if not path.exists():
                torch.save([p.grad.clone() for p in module.parameters()], path)

        made.register_step_pre_hook(save)
        return made

    train._optimizer = optimizer


def start(target, arguments, processes):
    """Run target(rank, *arguments) in processes that share their imports, which take most of the time."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    torch.multiprocessing.start_processes(target, arguments, processes, start_method="forkserver")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(tmp_path, real, synthetic, monkeypatch):
    start(launched, (2, free_port(), tmp_path), 2)
    monkeypatch.setattr(train, "_optimizer", train._optimizer)  # put back at the end
    watch_gradients(tmp_path / "1-0.pt")
    fit(MIXED, real, synthetic, tmp_path / "out-1")
    one, *both = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    assert max(float(g.abs().max()) for g in one) > 1e-3
    for other in both:
        assert max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) <= 1e-6
    a, b = weights(tmp_path / "out-1"), weights(tmp_path / "out-2")
    assert max(float((a[n] - b[n]).abs().max()) for n in a) < 1e-4


def killed_in_step_7(rank, folder):
    torch.set_num_threads(1)
    step = train._loss
    calls = []

    def loss(*args):
        calls.append(1)
        if len(calls) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args)

    train._loss = loss
    real, synthetic = (store.ClipStore.open(folder / name) for name in ("real", "synthetic"))
    fit(KILLED, real, synthetic, folder / "killed")


def test_killed_mid_epoch_by_the_system_and_resumed_nothing_differs(tmp_path, real, synthetic):
    with pytest.raises(torch.multiprocessing.ProcessExitedException, match="SIGKILL"):
        start(killed_in_step_7, (tmp_path,), 1)
    checkpoints = tmp_path / "killed" / "checkpoints"
    assert [path.name for path in checkpoints.glob("step-*")] == ["step-00000005"]  # 40 clips in, of 20 + 12
    resumed = fit(KILLED, real, synthetic, tmp_path / "killed")
    straight = fit(KILLED, real, synthetic, tmp_path / "straight")
    assert same(resumed, straight)
    assert rows(resumed) == rows(straight)


def test_parts_of_a_batch_train_as_the_whole(tmp_path, real, synthetic):
    out = [
        fit(recipe_of(Mix(dose=9), **WHOLE, accumulate=parts), real, synthetic, tmp_path / str(parts))
        for parts in (1, 4)
    ]
    a, b = map(weights, out)
    # AdamW's first steps have the size of the learning rate whatever the gradient: its sign must agree.
    assert max(float((a[n] - b[n]).abs().max()) for n in a) < 1e-4


def test_processes_that_do_not_divide_the_batch_are_refused(tmp_path, real, monkeypatch):
    monkeypatch.setattr(train, "world", lambda: (3, 0))
    with pytest.raises(UsageError, match=r"batch_size=8: 3 processes .* choose a multiple of 3"):
        fit(recipe_of(), real, None, tmp_path / "out")


def rows(folder):
    return [line.split(",")[1:3] for line in (folder / "metrics.csv").read_text().splitlines()[1:]]


def test_epochs_follow_the_mix_and_match_steps_undoes_that(tmp_path, real, synthetic):
    settings = {"epochs": 2, "warmup_steps": None, "warmup_epochs": 1}
    for name, mix, steps in (
        ("real", Mix(), 5),  # 20 clips, batches of 8
        ("dose", Mix(dose=12), 8),
        ("only", Mix(real=False, dose=12), 3),
        ("alpha", Mix(mode="alpha"), 5),
        ("matched", Mix(match_steps=12), 8),
    ):
        fit(recipe_of(mix, **settings), real, synthetic, tmp_path / name)
        assert len(rows(tmp_path / name)) == steps, name
    assert rows(tmp_path / "matched")[3][1] == "0.002"  # warmed up over the four steps of a longer epoch


def test_weights_are_averaged_at_the_ends_of_epochs(tmp_path, real, monkeypatch):
    asked = {}
    whole = train.loop.fit
    monkeypatch.setattr(train.loop, "fit", lambda *a, **k: asked.update(k) or whole(*a, **k))
    settings = {"epochs": 4, "average_epochs": (2, 4), "schedule": "step", "decay_from_epoch": 2}
    fit(recipe_of(**settings, decay_every_epochs=1), real, None, tmp_path / "out")
    assert list(asked["average_after"]) == [5, 8, 10]  # 2.5 steps an epoch
    rates = [asked["lr_at"](i) / 2e-3 for i in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25])
    with pytest.raises(UsageError, match="average_epochs"):
        fit(recipe_of(train_steps=4, average_epochs=(2, 4)), real, None, tmp_path / "short")


def test_best_on_the_val_split_is_kept_beside_the_last(tmp_path):
    split = ("train", "val", "eval")
    real = make(tmp_path / "real", [record(i, split=split[i % 3]) for i in range(30)])
    scores = iter([0.2, 0.9, 0.5])
    recipe = recipe_of(select="best", validate_every=4)
    out = fit(recipe, real, None, tmp_path / "best", score=lambda logits, targets: next(scores))
    eight = fit(recipe_of(average_last=0.0), real, None, tmp_path / "plain")
    assert not same(out, eight)
    last = train.LAST
    assert torch.equal(
        torch.cat([t.flatten() for t in weights(eight).values()]),
        torch.cat([t.flatten() for t in train_last(out / last, weights(eight))]),
    )
    without = make(tmp_path / "without", [record(i) for i in range(30)])
    with pytest.raises(UsageError, match="has no val split"):
        fit(recipe, without, None, tmp_path / "no", score=lambda logits, targets: 0.0)


def train_last(path, like):
    from safetensors.torch import load_file

    found = load_file(path)
    return [found[name] for name in like]


@pytest.mark.parametrize(
    "change",
    [{"mixup_partner": "batch"}, {"mixup_beta": 0.3}, {"optimizer": "adam"}, {"ema_decay": 0.9},
     {"clip_grad": None, "betas": (0.95, 0.999)}, {"schedule": "step", "decay_from_epoch": 1}],
    ids=str,
)  # fmt: skip
def test_every_option_changes_the_result(tmp_path, real, change):
    plain = fit(recipe_of(), real, None, tmp_path / "plain")
    assert not same(plain, fit(recipe_of(**change), real, None, tmp_path / "other"))


class Quiet:
    """A codec that gives every clip back at half its level, for codes that are clip numbers."""

    name, weights_hash, hop = "fake", "00", 320

    def decode(self, codes):
        level = torch.from_numpy(codes[:, 0, 0].astype(np.float32))
        return (level / 100)[:, None].expand(-1, SAMPLES) * torch.sin(torch.arange(SAMPLES) / 5)


def test_real_clips_heard_through_the_codec(tmp_path):
    codes = [np.full((8, 21), 1 + i, np.uint16) for i in range(30)]
    real = make(tmp_path / "real", [record(i, codes=codes[i]) for i in range(30)])
    heard = decode_train_split(real, tmp_path / "heard", fingerprint="x", codec=Quiet())
    train_ids = [real.clip_ids[i] for i in real.split_indices("train")]
    assert heard.clip_ids == train_ids
    levels = np.abs(heard.audio(np.arange(len(heard)))).max(axis=1)
    expected = [(1 + int(name[5:])) / 100 for name in train_ids]
    np.testing.assert_allclose(levels, expected, atol=1e-3)
    assert heard.meta.counts == {"train": dict.fromkeys(("expected", "found", "decoded", "kept"), 20)}
    verify(tmp_path / "heard")

    out = fit(recipe_of(aug="none"), real, None, tmp_path / "decoded", decoded=heard)
    assert not same(out, fit(recipe_of(aug="none"), real, None, tmp_path / "original"))
    swapped = make(tmp_path / "swapped", [record(i, split="train") for i in range(20)])
    with pytest.raises(IntegrityError, match="not the train clips"):
        fit(recipe_of(), real, None, tmp_path / "no", decoded=swapped)


def test_decoding_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    real = make(tmp_path / "real", [record(i) for i in range(30)])
    monkeypatch.setattr(shards, "SHARD_CLIPS", 6)
    whole = decode_train_split(real, tmp_path / "a", fingerprint="x", codec=Quiet())
    write = shards.write_shard

    def killed(folder, index, records):
        if index == 2:
            raise KeyboardInterrupt
        return write(folder, index, records)

    monkeypatch.setattr(shards, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        decode_train_split(real, tmp_path / "b", fingerprint="x", codec=Quiet())
    monkeypatch.setattr(shards, "write_shard", write)
    again = decode_train_split(real, tmp_path / "b", fingerprint="x", codec=Quiet())
    assert [e.xxh3 for e in again.meta.shards] == [e.xxh3 for e in whole.meta.shards]
    assert json.loads((tmp_path / "a" / "store.json").read_text())["clip_samples"] == SAMPLES
    assert audio.flac_decode(bytes(whole.flac(0))).shape == (SAMPLES,)
    assert whole.meta.labels == LABELS
