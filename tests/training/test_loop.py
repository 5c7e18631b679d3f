"""The training loop: exact resume, averages, refusals."""

import copy
import csv
import os
import signal

import pytest
import torch
from accelerate.state import AcceleratorState
from fakes import flip_bit
from torch import nn

from ajbench.core.errors import IntegrityError, MissingError, NumericError
from ajbench.training import loop, state

STEPS = 12


class Net(nn.Module):
    """Dropout, batch norm and a frozen part: everything that a checkpoint could get wrong."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.frozen = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
            hidden = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3)
            self.body = nn.Sequential(*hidden, nn.Linear(16, 1))
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.body(self.frozen(x)).squeeze(-1)


def batches(index):
    g = torch.Generator().manual_seed(100 + index)
    x = torch.randn(8, 6, generator=g)
    return x, x.sum(1)


def mse(module, batch, step):
    return (module(batch[0]) - batch[1]).square().mean()


def train(folder, steps=STEPS, step=mse, make=batches, every=4, net=None, **kw):
    net = net or Net()
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    how = {"lr_at": loop.cosine(1e-2, 3, STEPS), "seed": 7, "precision": "fp32", "checkpoint_every": every}
    return loop.fit(net, step, make, steps=steps, optimizer=optimizer, folder=folder, **(how | kw))


def same(a, b):
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return [(r["step"], r["loss"], r["lr"]) for r in csv.DictReader(file)]


class KilledError(Exception): ...


def killed_at(kill):
    def step(module, batch, index):
        if index == kill:
            raise KilledError
        return mse(module, batch, index)

    return step


@pytest.mark.parametrize("kill", [1, 5, 8, 11])
@pytest.mark.parametrize(
    "kw", [{"ema_decay": 0.9}, {"average_after": loop.last_share(STEPS, 0.5)}, {"precision": "bf16"}], ids=str
)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, kill, kw):
    straight = train(tmp_path / "a", **kw)
    with pytest.raises(KilledError):
        train(tmp_path / "b", step=killed_at(kill), **kw)
    torch.rand(3)  # the caller's RNG state does not matter
    assert same(straight, train(tmp_path / "b", **kw))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert len(rows(tmp_path / "a")) == STEPS


def test_the_loss_falls_and_a_finished_run_is_only_loaded(tmp_path):
    net = train(tmp_path)
    losses = [float(r[1]) for r in rows(tmp_path)]
    assert losses[-1] < losses[0]
    assert same(net, train(tmp_path, step=killed_at(0)))
    assert not net.training


def test_averages_of_weights_follow_their_definitions(tmp_path):
    seen = []

    def watched(module, batch, step):
        seen.append(module.body[0].weight.detach().clone())
        return mse(module, batch, step)

    plain = train(tmp_path / "plain", step=watched).body[0].weight.detach()
    after = [*seen[1:], plain]
    mean = train(tmp_path / "mean", average_after=loop.last_share(STEPS, 1 / 3)).body[0].weight
    torch.testing.assert_close(mean, torch.stack(after[-4:]).mean(0), rtol=0, atol=1e-6)
    expected = seen[0]
    for n, weight in enumerate(after):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weight
    ema = train(tmp_path / "ema", ema_decay=0.5).body[0].weight
    torch.testing.assert_close(ema, expected, rtol=0, atol=1e-6)


def test_frozen_part_is_untouched_in_eval_mode_and_not_stored(tmp_path):
    start = {n: t.clone() for n, t in Net().state_dict().items()}
    net = train(tmp_path)
    assert all(torch.equal(t, start[n]) for n, t in net.state_dict().items() if n.startswith("frozen"))
    stored = state.load_file(loop.newest(tmp_path) / "weights.safetensors")
    assert stored.keys() == {n for n in start if n.startswith("body")}


def test_keeps_two_checkpoints_and_no_temporary_files(tmp_path):
    train(tmp_path, every=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000010", "step-00000012"]


def test_a_checkpoint_and_the_curve_are_on_disk(tmp_path, unsynced):
    train(tmp_path, every=12)
    assert len([*(tmp_path / "checkpoints").iterdir()]) == 1 and not unsynced(tmp_path)


def test_dropout_is_a_function_of_seed_and_step(tmp_path):
    def draw(module, batch, step):
        drawn.append(torch.rand(2))
        return mse(module, batch, step)

    drawn = []
    train(tmp_path / "a", step=draw)
    first, drawn = drawn, []
    state = torch.get_rng_state()
    train(tmp_path / "b", step=draw)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.stack(first), torch.stack(drawn))
    assert len(torch.stack(first).unique()) == 2 * STEPS


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_stops_the_run_and_names_step_and_checkpoint(tmp_path, where):
    def step(module, batch, index):
        loss = mse(module, batch, index)
        if index != 6:
            return loss
        return loss * float("nan") if where == "loss" else loss + torch.sqrt(module.body[0].weight.sum() * 0)

    with pytest.raises(NumericError, match=r"step 6.*step-00000004"):
        train(tmp_path, step=step)
    assert len(rows(tmp_path)) == 4
    assert loop.newest(tmp_path).name == "step-00000004"


def test_ctrl_c_saves_and_the_same_call_resumes(tmp_path):
    before = signal.getsignal(signal.SIGINT)

    def step(module, batch, index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return mse(module, batch, index)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a", step=step)
    assert loop.newest(tmp_path / "a").name == "step-00000006"
    assert signal.getsignal(signal.SIGINT) is before
    assert same(train(tmp_path / "a"), train(tmp_path / "b"))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


@pytest.mark.parametrize("name", ["weights.safetensors", "average.safetensors", "optimizer.pt", "state.json"])
def test_flipped_bit_in_a_checkpoint_is_refused(tmp_path, name):
    train(tmp_path, average_after=range(7, 13))
    flip_bit(loop.newest(tmp_path) / name)
    with pytest.raises(IntegrityError, match="step-00000012"):
        train(tmp_path, average_after=range(7, 13))


def test_checkpoint_of_another_module_or_length_is_refused(tmp_path):
    train(tmp_path)
    other = Net()
    other.body[4] = nn.Linear(16, 2)
    with pytest.raises(IntegrityError, match=r"weights\.safetensors.*body\.4"):
        train(tmp_path, net=other)
    with pytest.raises(IntegrityError, match="12 steps"):
        train(tmp_path, steps=20)


def test_batches_are_made_in_order_and_their_errors_are_raised(tmp_path):
    asked = []

    def make(index):
        asked.append(index)
        if index == 9:
            raise ValueError("bad clip")
        return batches(index)

    with pytest.raises(ValueError, match="bad clip"):
        train(tmp_path, make=make)
    assert asked == list(range(len(asked)))


def test_the_precision_of_a_launcher_s_configuration_does_not_count(tmp_path, monkeypatch):
    plain = train(tmp_path / "plain")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # as `accelerate launch` sets it
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})
    found = train(tmp_path / "launched")
    assert same(found, plain)
    x = torch.randn(8, 6)
    assert torch.equal(found.eval()(x), plain.eval()(x))


def test_cosine_schedule():
    lr_at = loop.cosine(2.0, 4, 10)
    assert [lr_at(i) for i in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert lr_at(7) == pytest.approx(1.0)
    assert lr_at(10) == pytest.approx(0.0)
    assert loop.cosine(1.0, 0, 10, floor=0.1)(10) == pytest.approx(0.1)


def test_steps_down_is_the_multi_step_schedule_of_torch():
    lr_at = loop.steps_down(2.0, 3, 4, 5, 2, 0.5)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=2.0)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, range(5, 100, 2), gamma=0.5)
    expected = []
    for _ in range(12):
        expected += [optimizer.param_groups[0]["lr"]] * 4
        optimizer.step()
        theirs.step()
    assert [lr_at(i) for i in range(3)] == pytest.approx([2 / 3, 4 / 3, 2.0])
    assert [lr_at(i) for i in range(3, 48)] == expected[3:]


def test_parts_of_a_batch_give_the_gradient_of_the_whole(tmp_path):
    def halves(index):
        x, y = batches(index // 2)
        return x[index % 2 :: 2], y[index % 2 :: 2]

    linear = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))
    whole = train(tmp_path / "a", net=copy.deepcopy(linear))
    parts = train(tmp_path / "b", net=linear, make=halves, accumulate=2)
    torch.testing.assert_close(parts[0].weight, whole[0].weight, atol=1e-6, rtol=1e-5)
    for one, other in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        assert float(one[1]) == pytest.approx(float(other[1]), rel=1e-5)


@pytest.mark.parametrize("ema", [None, 0.8])
def test_best_weights_have_the_best_score_also_after_a_resume(tmp_path, ema):
    def play(folder, **kw):
        seen = {}

        def validate(module):
            assert not module.training
            score = -abs(len(seen) - 2.0) if not resumed else -abs(len(seen) + resumed - 2.0)
            seen[score] = module.body[0].weight.detach().clone()
            return score

        return train(folder, validate=validate, validate_every=2, ema_decay=ema, **kw), seen

    resumed = 0
    straight, seen = play(tmp_path / "a")
    assert torch.equal(straight.body[0].weight, seen[0.0])
    with pytest.raises(KilledError):
        play(tmp_path / "b", step=killed_at(9))
    resumed = 4  # scores given before the checkpoint of step 8
    assert same(straight, play(tmp_path / "b")[0])


def test_best_weights_are_verified_and_deleted_with_their_checkpoint(tmp_path):
    scores = iter([0.1, 0.3, 0.2, 0.5, 0.4, 0.0])
    train(tmp_path, every=2, validate=lambda module: next(scores), validate_every=2)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("best-*"))
    assert kept == ["best-00000008.safetensors"]
    flip_bit(tmp_path / "checkpoints" / kept[0])
    with pytest.raises(IntegrityError, match=r"best-00000008\.safetensors"):
        train(tmp_path, every=2, validate=lambda module: 0.0, validate_every=2)


@pytest.mark.parametrize("ema", [None, 0.8])
def test_a_watch_changes_nothing_and_gets_the_moving_average(tmp_path, ema):
    def play(folder, **kw):
        def look(module):
            assert not module.training and not torch.is_grad_enabled()
            torch.rand(5)
            seen.append(module.body[0].weight.detach().clone())
            return module.body[0].weight.norm().item(), 1.0

        return train(folder, ema_decay=ema, watch=state.Watch("seen.csv", ("norm", "one"), 5, look), **kw)

    seen = []
    straight, plain = play(tmp_path / "a"), train(tmp_path / "plain", ema_decay=ema)
    assert same(straight, plain) and rows(tmp_path / "a") == rows(tmp_path / "plain")
    table = (tmp_path / "a" / "seen.csv").read_text().splitlines()
    assert table[0] == "step,norm,one" and [line.split(",")[0] for line in table[1:]] == ["5", "10", "12"]
    assert torch.equal(seen[-1], straight.body[0].weight)  # with an EMA, the average
    assert float(table[-1].split(",")[1]) == seen[-1].norm().item()
    # Killed after a row that the checkpoint of step 8 does not have.
    with pytest.raises(KilledError):
        play(tmp_path / "b", step=killed_at(11))
    with (tmp_path / "b" / "seen.csv").open("a") as file:
        file.write("10,0.5,1.0\n")
    assert same(play(tmp_path / "b"), straight)
    assert (tmp_path / "b" / "seen.csv").read_bytes() == (tmp_path / "a" / "seen.csv").read_bytes()


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.is_wandb_available", lambda: False)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(MissingError, match="wandb"):
        train(tmp_path, tracker="wandb")


def test_an_optimiser_is_loaded_onto_the_cpu_and_not_onto_the_gpu_of_the_first_process(tmp_path, monkeypatch):
    with pytest.raises(KilledError):
        train(tmp_path, step=killed_at(5))
    places, load = [], torch.load

    def spy(path, map_location=None, **options):
        places.append(map_location)
        return load(path, map_location=map_location, **options)

    monkeypatch.setattr(torch, "load", spy)
    train(tmp_path)
    assert places == ["cpu"]


def test_batches_are_copied_while_the_device_computes(tmp_path, monkeypatch):
    asked = []

    def send(batch, device, non_blocking=False):
        asked.append(non_blocking)
        return batch

    monkeypatch.setattr(loop, "send_to_device", send)
    train(tmp_path)
    assert asked == [True] * STEPS


def test_prepared_batches_are_pinned_for_a_gpu_if_they_are_not_there_already(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(len(self)) or self)
    there = torch.zeros(7, device="meta")
    for wanted in (False, True):
        made = list(loop._prefetch(lambda i: {"x": torch.zeros(i), "y": (there, 3)}, range(1, 4), wanted))
        assert [len(batch["x"]) for batch in made] == [1, 2, 3] and made[0]["y"][1] == 3
    assert pinned == [1, 2, 3]


@pytest.mark.gpu
def test_on_cuda_a_killed_run_goes_on_as_an_uninterrupted_one(tmp_path, cuda):
    straight = train(tmp_path / "a", ema_decay=0.8)
    with pytest.raises(KilledError):
        train(tmp_path / "b", step=killed_at(6), ema_decay=0.8)
    resumed = train(tmp_path / "b", ema_decay=0.8)
    assert next(straight.parameters()).device == cuda
    for one, other in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
def test_on_cuda_the_state_of_the_optimiser_is_where_its_parameters_are(tmp_path, cuda):
    with pytest.raises(KilledError):
        train(tmp_path, step=killed_at(5))
    net = Net().to(cuda)
    optimizer = torch.optim.AdamW(net.body.parameters(), lr=1e-2, fused=True)
    assert state.State(net, optimizer, None, (), STEPS).resume(tmp_path) == 4
    moments = [value for one in optimizer.state.values() for value in one.values()]
    assert moments and all(value.device == cuda for value in moments)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_an_error(tmp_path, score):
    kept = state.State.__new__(state.State)
    kept.best = None
    with pytest.raises(NumericError, match="select=last"):
        kept.keep_if_best(tmp_path, 1, score)
