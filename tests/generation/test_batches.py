"""Training batches: epochs, timesteps, parts of a batch, and the weights of min-SNR-γ."""

import numpy as np
import pytest
import torch
from diffusers.training_utils import compute_snr

from ajbench.generation import batches, unet


def position_grids(picks):
    """Grids filled with the clips' positions."""
    return torch.tensor(picks)[:, None, None, None].expand(-1, 2, 1, 21).float()


def test_without_captions_the_prompt_names_the_labels(real, captioned):
    first = real.split_indices("train")[:2]
    assert batches.prompts_of(real, first) == ["The sound of Dog, Rain", "The sound of Rain"]
    assert batches.prompts_of(captioned, first) == [captioned[i].caption for i in first]
    own = {captioned.clip_ids[first[1]]: "other", "unknown": "no"}
    assert batches.prompts_of(captioned, first, own) == [captioned[first[0]].caption, "other"]


def test_an_epoch_has_every_clip_once_and_a_batch_a_timestep_in_every_part_of_the_range():
    make = batches.noisy_batches(position_grids, 10, unet.noise_schedule(), 4, 0)
    picks = torch.cat([make(i)["picks"] for i in range(5)])
    assert sorted(picks[:10].tolist()) == sorted(picks[10:].tolist()) == list(range(10))
    assert not torch.equal(picks[:10], picks[10:])
    t = torch.stack([make(i)["t"] for i in range(500)])
    assert torch.equal(t // 250, torch.arange(4).expand(500, 4))
    assert abs(t.float().mean().item() - 499.5) < 5


def test_batches_are_made_on_the_device_of_the_grids(monkeypatch):
    drawn = []
    monkeypatch.setattr(batches, "generator", lambda *a, device="cpu": drawn.append(str(device)))
    make = batches.noisy_batches(
        lambda picks: position_grids(picks).to("meta"), 9, unet.noise_schedule(), 4, 0
    )
    batch = make(1)
    assert {key: batch[key].device.type for key in ("noisy", "target", "t")} == dict.fromkeys(
        ("noisy", "target", "t"), "meta"
    )
    assert batch["picks"].device.type == "cpu"  # captions are chosen by them
    assert "meta" in drawn


@pytest.mark.parametrize("size", [8, 40])
@pytest.mark.parametrize(("processes", "accumulate"), [(1, 4), (4, 1), (2, 4)])
def test_parts_of_a_batch_make_up_the_whole(size, processes, accumulate):
    parts, n = processes * accumulate, 3 * size + size // 2
    process = unet.noise_schedule("v_prediction")
    whole = batches.noisy_batches(position_grids, n, process, size, 5)
    make = batches.noisy_batches(position_grids, n, process, size, 5, parts)
    seen = []
    for step in range(7):  # two epochs
        # As in the training loop: process r computes part p of step s by the index (s · A + p) · W + r.
        pieces = [
            make((step * accumulate + part) * processes + rank)
            for part in range(accumulate)
            for rank in range(processes)
        ]
        together = {key: torch.cat([piece[key] for piece in pieces]) for key in pieces[0]}
        assert all(torch.equal(together[key], wanted) for key, wanted in whole(step).items())
        seen += together["picks"].tolist()
    assert sorted(seen[:n]) == sorted(seen[n:]) == list(range(n))
    noise = batches.noisy_batches(position_grids, n, unet.noise_schedule(), size, 5)(0)["target"]
    assert len({round(float(row.flatten()[0]), 5) for row in noise}) == size  # no block of noise twice


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weighs_the_error_of_the_clean_grid(prediction):
    process, velocity = unet.noise_schedule(prediction), prediction == "v_prediction"
    t, gamma = torch.arange(1000), 5.0
    weights = batches.min_snr_weights(process, gamma)
    # Hang et al. 2023: min(SNR, γ) · |x̂ − x|², with x̂ computed from the prediction.
    bar = process.alphas_cumprod.double()
    a, b, snr = bar.sqrt(), (1 - bar).sqrt(), bar / (1 - bar)
    g = torch.Generator().manual_seed(0)
    x, noise, slip = torch.randn(3, 1000, generator=g, dtype=torch.float64)
    noisy = a * x + b * noise
    guess = a * noisy - b * (a * noise - b * x + slip) if velocity else (noisy - b * (noise + slip)) / a
    wanted = np.minimum(snr, gamma) * (guess - x).square()
    torch.testing.assert_close(weights.double() * slip.square(), wanted, rtol=1e-4, atol=1e-9)
    theirs = compute_snr(process, t)
    expected = theirs.clamp_max(gamma) / (theirs + 1 if velocity else theirs)
    torch.testing.assert_close(weights, expected, rtol=1e-3, atol=1e-6)
    assert weights.min() < 1e-3 and weights.max() <= (5 / 6 if velocity else 1) + 1e-6
