"""The U-Net presets: odd sizes, the first width, the size of Stable Diffusion, and the mask."""

import copy
import sys

import pytest
import torch
from fakes import build_small_unet
from torch.utils.flop_counter import FlopCounterMode

from ajbench.generation import unet


@pytest.fixture(scope="module")
def small():
    return build_small_unet().eval()


@pytest.mark.parametrize("rows", [1, 2, 12, 24])
def test_odd_grids_keep_their_shape(small, rows):
    x = torch.randn(2, 128, rows, 21, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = unet.denoise(small, x, torch.tensor([3, 700]), torch.zeros(2, 5, 384), None)
    assert out.shape == x.shape and out.isfinite().all()


@pytest.fixture(scope="module", params=["tiny", "small", "full"])
def shape_only(request):
    with torch.device("meta"):
        return unet.build(request.param, 384)


def test_every_preset_accepts_the_papers_grids(shape_only):
    model = shape_only
    with torch.device("meta"):
        for rows in (12, 24):
            x, t = torch.zeros(2, 128, rows, 21), torch.zeros(2, dtype=torch.long)
            assert unet.denoise(model, x, t, torch.zeros(2, 16, 384), None).shape == x.shape
    # Without a skip connection around it, a narrower first layer could not pass 128 channels of noise.
    assert model.config.block_out_channels[0] >= 128


def test_parameters_and_operations_of_preset_full(capsys):
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = unet.build("full", 384)
        x, t = torch.zeros(1, 128, 24, 21), torch.zeros(1, dtype=torch.long)
        unet.denoise(model, x, t, torch.zeros(1, 50, 384), None)
    parameters = sum(p.numel() for p in model.parameters())
    flops, by_layer = counter.get_total_flops(), counter.get_flop_counts()
    with capsys.disabled():
        sys.stdout.write(f"\nfull: {parameters / 1e6:.1f} M parameters, {flops / 1e9:.1f} GFLOP a step\n")
    assert parameters == pytest.approx(860e6, rel=0.02) and flops == pytest.approx(92e9, rel=0.02)
    # A multiply-add counts as two operations: a 3 × 3 convolution from 128 to 320 channels.
    first = sum(by_layer["UNet2DConditionModel.conv_in"].values())
    assert first == 2 * 9 * 128 * 320 * 24 * 21


def test_full_is_stable_diffusions_unet_except_for_ends_and_projection(shape_only):
    found = sum(p.numel() for p in shape_only.parameters())
    sd14 = 859_520_964
    ends = 320 * 9 * (128 - 4) * 2 + (128 - 4)
    wanted = sd14 + ends + 384 * 768 + 768
    assert (found == wanted) == (shape_only.config.block_out_channels == (320, 640, 1280, 1280))


def test_weights_depend_on_the_seed_and_global_randomness_is_not_used(small):
    state = torch.random.get_rng_state()
    again, other = build_small_unet(), build_small_unet(seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(again.conv_in.weight, small.conv_in.weight)
    assert not torch.equal(other.conv_in.weight, small.conv_in.weight)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ends_start_from_xavier_uniform_weights(prediction):
    model = unet.build("tiny", 384, prediction=prediction)
    default = {"conv_in": 1 / (9 * 128) ** 0.5, "conv_out": 1 / (9 * 128) ** 0.5}  # of torch, for biases
    for name in ("conv_in", "conv_out") if prediction == "epsilon" else ("conv_in",):
        layer = model.get_submodule(name)
        bound = (6 / (9 * (layer.in_channels + layer.out_channels))) ** 0.5
        assert 0.999 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
        assert 0.8 * default[name] < layer.bias.abs().max() <= default[name]
    projection = model.encoder_hid_proj.weight.abs().max()
    assert projection <= 384**-0.5 < 1.01 * projection


@pytest.mark.parametrize("pooled", [True, False])
def test_states_of_the_width_of_the_cross_attention_are_not_projected(pooled):
    model = build_small_unet(768, pooled=pooled).eval()
    assert model.encoder_hid_proj is None and model.config.encoder_hid_dim is None
    assert not [name for name, _ in model.named_parameters() if name.startswith("encoder_hid_proj")]
    assert build_small_unet(767).encoder_hid_proj.in_features == 767
    g = torch.Generator().manual_seed(0)
    x, t = torch.randn(1, 128, 2, 21, generator=g), torch.tensor([500])
    one, other = torch.randn(2, 1, 6, 768, generator=g)
    with torch.no_grad():
        assert (unet.denoise(model, x, t, one, None) - unet.denoise(model, x, t, other, None)).abs().max() > 0


def test_masked_states_are_ignored(small):
    g = torch.Generator().manual_seed(0)
    x, t = torch.randn(1, 128, 2, 21, generator=g), torch.tensor([500])
    states, mask = torch.randn(1, 6, 384, generator=g), (torch.arange(6) < 3)[None]
    changed = states.clone()
    changed[:, 3:] += 1
    with torch.no_grad():
        outs = [unet.denoise(small, x, t, s, m) for m in (mask, None) for s in (states, changed)]
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=1e-5)
    assert (outs[2] - outs[3]).abs().max() > 1e-4


@pytest.mark.parametrize("pooled", [True, False])
def test_pooled_text_reaches_the_unet_without_cross_attention(pooled):
    model = build_small_unet(pooled=pooled).eval()
    g = torch.Generator().manual_seed(0)
    x, t = torch.randn(1, 128, 2, 21, generator=g), torch.tensor([500])
    one, other = torch.randn(2, 1, 6, 384, generator=g)
    with torch.no_grad():
        model.encoder_hid_proj.weight.zero_()
        change = unet.denoise(model, x, t, one, None) - unet.denoise(model, x, t, other, None)
    assert (change.abs().max() > 1e-3) == pooled


def test_the_first_velocity_prediction_is_zero():
    model = build_small_unet(prediction="v_prediction").eval()
    with torch.no_grad():
        out = unet.denoise(model, torch.randn(1, 128, 2, 21), torch.tensor([5]), torch.randn(1, 6, 384), None)
    assert not out.any()


def test_the_noise_schedule_is_that_of_table_a10():
    process = unet.noise_schedule()
    level = torch.cos((torch.arange(1001).double() / 1000 + 0.008) / 1.008 * torch.pi / 2) ** 2
    bar = level[1:-1] / level[0]
    torch.testing.assert_close(process.alphas_cumprod[:-1].double(), bar, rtol=1e-3, atol=1e-7)
    assert process.config.prediction_type == "epsilon"


@pytest.mark.gpu
def test_a_step_in_bf16_on_cuda_is_finite_and_close_to_fp32(small, cuda):
    model, x = copy.deepcopy(small).to(cuda), torch.randn(4, 128, 12, 21, device=cuda)
    t, states = torch.tensor([3, 200, 700, 999], device=cuda), torch.randn(4, 5, 384, device=cuda)
    outputs = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
            outputs.append(unet.denoise(model, x, t, states, None))
        outputs[-1].float().square().mean().backward()
        assert all(p.grad.device == cuda and p.grad.isfinite().all() for p in model.parameters())
    assert outputs[1].dtype == torch.bfloat16 and outputs[1].device == cuda
    error = (outputs[1].float() - outputs[0]).std() / outputs[0].std()
    assert error < 0.05
