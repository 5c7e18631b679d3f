"""AST: published size, initialisation and position table."""

import pytest
import timm
import torch
from accelerate import init_empty_weights
from fakes import count_parameters as count
from fakes import save_classifier
from torch import nn

from ajbench import classifiers
from ajbench.classifiers import ast

SAMPLES = 13_440


def test_it_has_the_published_number_of_parameters():
    with init_empty_weights():
        module = classifiers.build("ast", 527)
    with torch.device("meta"):
        # The published model: DeiT with all it came with, another patch layer and position table, a new head.
        published = timm.create_model("deit_base_distilled_patch16_384")
        published.patch_embed.proj = nn.Conv2d(1, 768, 16, 10)
        published.pos_embed = nn.Parameter(torch.empty(1, 12 * 101 + 2, 768))
        published.mlp_head = nn.Sequential(nn.LayerNorm(768), nn.Linear(768, 527))
    assert module.grid == (12, 101)
    assert count(published) == pytest.approx(88.1e6, abs=0.1e6)
    never_used = count(published.head) + count(published.head_dist)
    assert never_used == 2 * 769_000
    assert count(module) == count(published) - never_used


@pytest.mark.parametrize("training", [False, True])
def test_last_block_gives_the_class_tokens_of_the_whole_block(training):
    last = ast.LastBlock(24, 3, qkv_bias=True).double().train(training)
    whole = timm.models.vision_transformer.Block(24, 3, qkv_bias=True).double().train(training)
    whole.load_state_dict(last.state_dict())
    tokens = torch.randn(2, 50, 24, dtype=torch.double, requires_grad=True)
    gradients = []
    for states in (last(tokens), whole(tokens)[:, :2]):
        weights = list((last if not gradients else whole).parameters())
        gradients.append([states, *torch.autograd.grad(states.square().sum(), [tokens, *weights])])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)


def test_initialisation_is_that_of_deit_with_the_same_gain_at_every_width():
    for dim in (96, 384):
        module = classifiers.build("ast", 3, dim=dim, depth=1, heads=3, clip_samples=SAMPLES)
        for name, weight in module.blocks.named_parameters():
            if name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")):
                gain = float(weight.detach().std()) * dim**0.5
                assert gain == pytest.approx(0.02 * 768**0.5, rel=0.05), name
            elif name.endswith("bias"):
                assert not weight.any(), name


def test_positions_are_cropped_to_the_centre_or_interpolated():
    table = torch.arange(24.0).reshape(1, 24, 1)  # grid (4, 6): value 6 f + t
    cut = ast.positions(table, (4, 6), (2, 4))
    assert cut.flatten().tolist() == [7, 8, 9, 10, 13, 14, 15, 16]
    longer = ast.positions(table, (4, 6), (4, 12)).unflatten(1, (4, 12))[0, :, :, 0]
    assert longer[:, 1:-1].diff(dim=1).flatten().tolist() == pytest.approx([0.5] * 36)
    assert ast.positions(table, (4, 6), (4, 6)) is table


def test_patchout_leaves_out_tokens_in_training_only():
    module = classifiers.build("ast-tiny", 3, clip_samples=SAMPLES)
    seen = []
    module.blocks[0].register_forward_hook(lambda m, args, out: seen.append(args[0].shape[1]))
    module.train()(torch.randn(2, SAMPLES))
    module.eval()(torch.randn(2, SAMPLES))
    assert seen == [2 + 32, 2 + 64]


def test_a_longer_clip_takes_the_position_table_interpolated(tmp_path):
    first = save_classifier(tmp_path, "ast-tiny", clip_samples=SAMPLES)
    longer = classifiers.build("ast-tiny", 2, init=str(tmp_path), clip_samples=2 * SAMPLES)
    assert first.grid == (8, 8) and longer.grid == (8, 12)
    assert torch.equal(longer.patch.weight, first.patch.weight)
