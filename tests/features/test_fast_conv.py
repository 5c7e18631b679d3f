import pytest
import torch
from torch import nn

from ajbench.features import fast_conv
from ajbench.features.fast_conv import ScratchBuffer, Winograd


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 7), (3, 8, 2), (5, 6, 9), (2, 13, 4)])
@pytest.mark.parametrize("tiles", [1, 3, 1000])
def test_equals_the_convolution_for_any_size_and_any_number_of_clips_at_once(shape, tiles, monkeypatch):
    monkeypatch.setattr(fast_conv, "_TILES", tiles)
    torch.manual_seed(0)
    batch, height, width = shape
    conv = nn.Conv2d(6, 10, 3, padding=1).double()
    x = torch.randn(batch, 6, height, width, dtype=torch.float64)
    found = Winograd(conv, ScratchBuffer())(x)
    assert found.shape == (batch, 10, height, width)
    torch.testing.assert_close(found, conv(x), rtol=0, atol=1e-12)


def test_single_precision_of_a_wide_layer():
    torch.manual_seed(0)
    conv = nn.Conv2d(512, 64, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(2, 512, 9, 4).relu().to(memory_format=torch.channels_last)
    exact = nn.functional.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
    assert (Winograd(conv, ScratchBuffer())(x) - exact).abs().max() < 1e-5 * exact.abs().max()


def test_layers_share_memory_and_do_not_disturb_each_other():
    torch.manual_seed(0)
    scratch = ScratchBuffer()
    expected = found = torch.randn(3, 4, 9, 6, dtype=torch.float64)
    for channels in ((4, 9), (9, 5), (5, 7)):
        conv = nn.Conv2d(*channels, 3, padding=1).double()
        expected, found = conv(expected), Winograd(conv, scratch)(found)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_refuses_what_it_is_not():
    with pytest.raises(AssertionError):
        Winograd(nn.Conv2d(4, 4, 3, stride=2, padding=1), ScratchBuffer())
