"""The loss on clips that are not trained on: which, how, and that training does not feel it."""

import pytest
import torch
from fakes import N_TRAIN, SMALL_UNET, FakeCodec, make_store, small_recipe
from safetensors.torch import load_file

from ajbench.core import recipe
from ajbench.core.errors import UsageError
from ajbench.core.files import seed_for
from ajbench.generation import checkpoint, train, unet, validation
from ajbench.pipeline import recipe_stages

torch.set_num_threads(1)
VAL = 3


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(unet.PRESETS, "tiny", SMALL_UNET)


@pytest.fixture(scope="module")
def with_val(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("val") / "store", captions=True, val=VAL)


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("plain") / "store", train=200, evaluated=20)


def run(real, out, **generator):
    made = small_recipe(generator={"ema_decay": 0.8, "train_steps": 5} | generator)
    return train.train_generator(made, real, out, fingerprint="f1", seed=3, codec=FakeCodec())


def weights(path):
    return (path / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


def test_the_val_split_is_looked_at_or_a_share_of_the_train_split(with_val, without, tmp_path):
    trained, seen = validation.divide(with_val, 0.5)
    assert list(trained) == list(with_val.split_indices("train"))
    assert list(seen) == list(with_val.split_indices("val"))
    everything = set(without.split_indices("train"))
    assert set(validation.divide(without, 0.0)[0]) == everything and not len(
        validation.divide(without, 0.0)[1]
    )
    trained, seen = validation.divide(without, 0.2)
    assert set(trained) | set(seen) == everything and not set(trained) & set(seen)
    assert 25 < len(seen) < 55
    assert len(validation.divide(without, 1e-9)[1]) == 1
    # A clip stays on its side in a corpus of fewer clips.
    fewer = make_store(tmp_path / "fewer", train=90, evaluated=20)
    chosen = {without.clip_ids[i] for i in seen} & set(fewer.clip_ids[:90])
    assert chosen == {fewer.clip_ids[i] for i in validation.divide(fewer, 0.2)[1]}


def test_of_many_clips_a_fixed_few_are_looked_at(without, monkeypatch):
    monkeypatch.setattr(validation, "CLIPS", 7)
    train_clips = without.split_indices("train")
    few = validation.watched(without, train_clips)
    assert len(set(few)) == 7 and set(few) <= set(train_clips) and list(few) == sorted(few)
    assert set(validation.watched(without, train_clips[::-1])) == set(few)


def test_the_figure_is_the_mean_squared_error_at_fixed_noise_and_timesteps():
    process = unet.noise_schedule("v_prediction")
    model = unet.build("tiny", 16, seed=1).eval()
    g = torch.Generator().manual_seed(0)
    grid, states = torch.randn(5, 128, 2, 21, generator=g), torch.randn(5, 4, 16, generator=g)
    ids = [f"c{i}" for i in range(5)]

    def look(batch):
        made = validation.watch(10, ids, lambda picks: grid[picks], states, None, process, batch)
        assert made.columns == ("loss", "loss_1", "loss_2", "loss_3", "loss_4") and made.every == 10
        with torch.no_grad():
            return made.look(model)

    before = torch.get_rng_state()
    found = look(2)
    assert torch.equal(torch.get_rng_state(), before) and look(2) == found
    assert look(5) == pytest.approx(found, rel=1e-5)
    errors = torch.zeros(4, 5)
    for quarter in range(4):
        for i, clip_id in enumerate(ids):
            own = torch.Generator().manual_seed(seed_for(0, "validation", clip_id, quarter))
            noise = torch.randn(128, 2, 21, generator=own)
            t = int(250 * (quarter + torch.rand((), generator=own)))
            assert quarter * 250 <= t < quarter * 250 + 250
            bar = process.alphas_cumprod[t]
            noisy, velocity = (
                bar.sqrt() * grid[i] + (1 - bar).sqrt() * noise,
                bar.sqrt() * noise - (1 - bar).sqrt() * grid[i],
            )
            with torch.no_grad():
                out = unet.denoise(model, noisy[None], torch.tensor([t]), states[i : i + 1], None)
            errors[quarter, i] = (out[0] - velocity).square().mean()
    assert found == pytest.approx([errors.mean().item(), *errors.mean(1).tolist()], rel=1e-4)


def test_training_does_not_feel_it_and_a_resumed_one_writes_the_same(with_val, tmp_path, monkeypatch):
    plain = run(with_val, tmp_path / "plain")
    seen = run(with_val, tmp_path / "seen", validate_every=2)
    assert weights(plain) == weights(seen) and not (plain / validation.FILE).exists()
    rows = [line.split(",") for line in (seen / validation.FILE).read_text().splitlines()]
    assert [row[0] for row in rows] == ["step", "2", "4", "5"]
    losses = [float(row[1]) for row in rows[1:]]
    assert all(0.5 < loss < 2 for loss in losses) and len(set(losses)) == 3
    assert checkpoint.read_info(seen).held_out == ()

    whole, calls = train.loss, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("cut")
        return whole(*arguments)

    monkeypatch.setattr(train, "loss", failing)
    with pytest.raises(RuntimeError, match="cut"):
        run(with_val, tmp_path / "cut", validate_every=2)
    monkeypatch.setattr(train, "loss", whole)
    again = run(with_val, tmp_path / "cut", validate_every=2)
    assert (again / validation.FILE).read_bytes() == (seen / validation.FILE).read_bytes()
    assert weights(again) == weights(seen)
    # The last row is of the weights that are written: the moving average.
    model = unet.build("tiny", 384)
    model.load_state_dict(load_file(seen / "unet" / "diffusion_pytorch_model.safetensors"))
    kept = {}
    monkeypatch.setattr(train.loop, "fit", lambda *_, watch, **__: kept.update(watch=watch) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(with_val, tmp_path / "again", validate_every=2)
    with torch.no_grad():
        assert kept["watch"].look(model.eval())[0] == pytest.approx(losses[-1], rel=1e-6)


def test_held_out_clips_are_not_trained_on_and_are_named(tmp_path, monkeypatch):
    real = make_store(tmp_path / "real")
    picked = []
    whole = train.noisy_batches

    def spied(grids, n, *rest):
        picked.append(n)
        return whole(grids, n, *rest)

    monkeypatch.setattr(train, "noisy_batches", spied)
    out = run(real, tmp_path / "g", train_steps=1, validate_every=1, val_share=0.3)
    info = checkpoint.read_info(out)
    assert 1 <= len(info.held_out) < N_TRAIN and picked == [N_TRAIN - len(info.held_out)]
    # Heard in a way, and so among the clips that must not be evaluated on.
    assert info.train_ids == tuple(sorted(real.clip_ids[:N_TRAIN])) and {*info.held_out} < {*info.train_ids}
    with pytest.raises(UsageError, match=r"validate_every=2: .*no val split; set generator\.val_share"):
        run(real, tmp_path / "no", validate_every=2)
    with pytest.raises(UsageError, match=r"val_share=0\.1"):
        recipe.load("mini", ["generator.val_share=0.1"])


def test_several_processes_may_train_a_generator():
    made = recipe_stages.Pipeline(recipe.load("mini", ["data.n_clips=40"]), recipe_stages.Places())
    assert made.train_gen.distributed and not made.invert.distributed
