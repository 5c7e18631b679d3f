"""TALtrans: published size, pooling and passes against their definitions."""

import numpy as np
import pytest
import torch
from fakes import count_parameters as count

from ajbench import classifiers
from ajbench.classifiers import taltrans

SAMPLES = 13_440


def test_it_has_the_published_number_of_parameters():
    tied, untied = classifiers.build("taltrans", 527), classifiers.build("taltrans", 527, tied=False)
    assert count(tied) == 12_097_662  # the paper's 12.1 M
    assert count(untied) == pytest.approx(18.40e6, abs=5e3)
    assert tied.state_dict().keys() < untied.state_dict().keys()


def test_logits_are_those_of_the_attention_pooled_probability():
    module = classifiers.build("taltrans-small", 5).eval()
    states = module.hidden(torch.randn(2, SAMPLES))
    weights = torch.exp(module.attention(states))
    frames = torch.sigmoid(module.frame_logits(states))
    expected = (weights * frames).sum(1) / weights.sum(1)
    module.hidden = lambda x: states
    torch.testing.assert_close(module(states), torch.logit(expected), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        module.frame_logits.bias.fill_(1e4)
    assert torch.isfinite(module(states)).all()


@pytest.mark.parametrize(("options", "calls"), [({}, "aa"), ({"tied": False}, "ab"), ({"passes": 3}, "aaa")])
def test_it_applies_one_layer_twice_or_two_layers(options, calls):
    module = classifiers.build("taltrans-small", 5, **options).eval()
    seen = []
    for name, layer in zip("ab", [module.layer, *module.further], strict=False):
        layer.register_forward_hook(lambda *_, name=name: seen.append(name))
    module(torch.randn(1, SAMPLES))
    assert "".join(seen) == calls


def test_positions_are_those_of_the_transformer_paper():
    table = taltrans.sinusoid(400, 64).numpy()
    for position, column in ((0, 0), (3, 7), (399, 40), (123, 63)):
        angle = position / 10_000 ** (2 * (column // 2) / 64)
        expected = np.cos(angle) if column % 2 else np.sin(angle)
        assert table[position, column] == pytest.approx(expected, abs=1e-4)
