"""Validation of a training: which clips, how the loss is computed, and that training is not affected."""

import pytest
import torch
from fakes import N_TRAIN, make_store, mini_pipeline, results_of
from safetensors.torch import load_file

from ajbench.core import recipe
from ajbench.core.errors import UsageError
from ajbench.core.files import seed_for
from ajbench.generation import checkpoint, train, unet, validation

from .conftest import fit

pytestmark = pytest.mark.usefixtures("small_unet")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A store of 200 train clips without a val split."""
    return make_store(tmp_path_factory.mktemp("large") / "store", train=200, evaluated=20)


def test_validation_clips_are_the_val_split_or_a_share_of_the_train_split(captioned, large, tmp_path):
    trained, held_out = validation.divide(captioned, captioned.split_indices("train"), 0.5)
    assert list(trained) == list(captioned.split_indices("train"))
    assert list(held_out) == list(captioned.split_indices("val"))
    everything = set(large.split_indices("train"))
    trained, held_out = validation.divide(large, large.split_indices("train"), 0.0)
    assert set(trained) == everything and not len(held_out)
    trained, held_out = validation.divide(large, large.split_indices("train"), 0.2)
    assert set(trained) | set(held_out) == everything and not set(trained) & set(held_out)
    assert 25 < len(held_out) < 55
    assert len(validation.divide(large, large.split_indices("train"), 1e-9)[1]) == 1
    videos = make_store(tmp_path / "videos", train=60, recordings={i: f"video {i // 6}" for i in range(60)})
    sides = [
        {videos.recordings[i] for i in side}
        for side in validation.divide(videos, videos.split_indices("train"), 0.5)
    ]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 10
    # A clip stays on its side in a smaller corpus.
    fewer = make_store(tmp_path / "fewer", train=90, evaluated=20)
    chosen = {large.clip_ids[i] for i in held_out} & set(fewer.clip_ids[:90])
    assert chosen == {
        fewer.clip_ids[i] for i in validation.divide(fewer, fewer.split_indices("train"), 0.2)[1]
    }


def test_of_many_clips_always_the_same_few_are_used(large, monkeypatch):
    monkeypatch.setattr(validation, "CLIPS", 7)
    clips = large.split_indices("train")
    few = validation.watched(large, clips)
    assert len(set(few)) == 7 and set(few) <= set(clips) and list(few) == sorted(few)
    assert set(validation.watched(large, clips[::-1])) == set(few)


def test_the_loss_is_the_mean_squared_error_at_fixed_noise_and_timesteps():
    process = unet.noise_schedule("v_prediction")
    model = unet.build("tiny", 16, seed=1).eval()
    g = torch.Generator().manual_seed(0)
    grid, states = torch.randn(5, 128, 2, 21, generator=g), torch.randn(5, 4, 16, generator=g)
    ids = [f"c{i}" for i in range(5)]

    def evaluate(batch):
        watch = validation.watch(10, ids, lambda picks: grid[picks], states, None, process, batch)
        assert watch.columns == ("loss", "loss_1", "loss_2", "loss_3", "loss_4") and watch.every == 10
        with torch.no_grad():
            return watch.look(model)

    before = torch.get_rng_state()
    found = evaluate(2)
    assert torch.equal(torch.get_rng_state(), before) and evaluate(2) == found
    assert evaluate(5) == pytest.approx(found, rel=1e-5)
    errors = torch.zeros(4, 5)
    for quarter in range(4):
        for i, clip_id in enumerate(ids):
            own = torch.Generator().manual_seed(seed_for(0, "validation", clip_id, quarter))
            noise = torch.randn(128, 2, 21, generator=own)
            t = int(250 * (quarter + torch.rand((), generator=own)))
            assert quarter * 250 <= t < quarter * 250 + 250
            a, b = process.alphas_cumprod[t].sqrt(), (1 - process.alphas_cumprod[t]).sqrt()
            with torch.no_grad():
                noisy = (a * grid[i] + b * noise)[None]
                out = unet.denoise(model, noisy, torch.tensor([t]), states[i : i + 1], None)
            errors[quarter, i] = (out[0] - (a * noise - b * grid[i])).square().mean()
    assert found == pytest.approx([errors.mean().item(), *errors.mean(1).tolist()], rel=1e-4)


def test_training_is_the_same_with_and_without_validation(trained, captioned, tmp_path, monkeypatch):
    file = "unet/diffusion_pytorch_model.safetensors"
    plain = fit(captioned, tmp_path / "plain")
    assert (plain / file).read_bytes() == (trained / file).read_bytes()
    assert not (plain / validation.FILE).exists()
    rows = [line.split(",") for line in (trained / validation.FILE).read_text().splitlines()]
    assert [row[0] for row in rows] == ["step", "2", "4", "6"]
    losses = [float(row[1]) for row in rows[1:]]
    assert all(0.5 < loss < 2 for loss in losses) and len(set(losses)) == 3
    assert checkpoint.read_info(trained).held_out == ()
    # The last row belongs to the weights that are saved: the moving average.
    model = unet.build("tiny", 384)
    model.load_state_dict(load_file(trained / file))
    seen = {}
    monkeypatch.setattr(train.loop, "fit", lambda *_, watch, **__: seen.update(watch=watch) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(captioned, tmp_path / "again", validate_every=2)
    with torch.no_grad():
        assert seen["watch"].look(model.eval())[0] == pytest.approx(losses[-1], rel=1e-6)


def test_held_out_clips_are_not_trained_on_and_are_recorded(real, tmp_path):
    with results_of(train, "prompts_of") as prompts:
        out = fit(real, tmp_path / "g", train_steps=1, validate_every=1, val_share=0.3)
    info = checkpoint.read_info(out)
    assert 1 <= len(info.held_out) < N_TRAIN and len(prompts[0]) == N_TRAIN - len(info.held_out)
    assert info.held_out == tuple(
        sorted(real.clip_ids[i] for i in validation.divide(real, real.split_indices("train"), 0.3)[1])
    )
    # They count as training clips for the leak rule.
    assert info.train_ids == tuple(sorted(real.clip_ids[:N_TRAIN])) and {*info.held_out} < {*info.train_ids}
    with pytest.raises(UsageError, match=r"generator\.validate_every"):
        fit(real, tmp_path / "no", validate_every=2)
    with pytest.raises(UsageError, match=r"val_share"):
        recipe.load("mini", ["generator.val_share=0.1"])


def test_several_processes_may_train_a_generator():
    made = mini_pipeline()
    assert made.train_gen.distributed and made.invert.distributed
