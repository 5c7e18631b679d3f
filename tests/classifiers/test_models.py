"""The two architectures: published sizes, independent implementations, what the interface promises."""

import numpy as np
import pytest
import timm
import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import nn

from ajbench import classifiers
from ajbench.classifiers import Classifier, ast, taltrans
from ajbench.core.errors import IntegrityError, MissingError, UsageError

torch.set_num_threads(1)
SAMPLES = 13_440
SMALL = {"ast-tiny": {"clip_samples": SAMPLES}, "taltrans-small": {}}


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_taltrans_has_the_published_number_of_parameters():
    tied, untied = classifiers.build("taltrans", 527), classifiers.build("taltrans", 527, tied=False)
    assert count(tied) == 12_097_662  # the paper's 12.1 M
    assert count(untied) == pytest.approx(18.40e6, abs=5e3)
    assert tied.state_dict().keys() < untied.state_dict().keys()


def test_ast_has_the_published_number_of_parameters():
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


@pytest.mark.parametrize("name", SMALL)
def test_interface(name):
    module = classifiers.build(name, 7, **SMALL[name]).eval()
    wav = torch.randn(3, SAMPLES)
    features = module.frontend(wav)
    assert features.shape == (3, module.frontend.frames(SAMPLES), module.frontend.bands)
    logits = module(wav)
    assert logits.shape == (3, 7)
    torch.testing.assert_close(module(features), logits)
    assert module.embed(wav).ndim == 2
    assert torch.equal(module.embed(features), module.embed(wav))
    # A clip's answer does not depend on its companions.
    torch.testing.assert_close(module(wav[1:2]), logits[1:2], atol=1e-5, rtol=1e-4)
    # Another length works as well.
    assert module(torch.randn(2, 3 * SAMPLES)).shape == (2, 7)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("autocast", [False, True])
def test_every_parameter_gets_a_gradient_and_logits_are_float32(name, autocast):
    module = classifiers.build(name, 4, **SMALL[name]).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = module(torch.randn(4, SAMPLES))
    assert logits.dtype == torch.float32
    logits.square().sum().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_taltrans_logits_are_those_of_the_attention_pooled_probability():
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
def test_taltrans_applies_one_layer_twice_or_two_layers(options, calls):
    module = classifiers.build("taltrans-small", 5, **options).eval()
    seen = []
    for name, layer in zip("ab", [module.layer, *module.further], strict=False):
        layer.register_forward_hook(lambda *_, name=name: seen.append(name))
    module(torch.randn(1, SAMPLES))
    assert "".join(seen) == calls


def test_sinusoid_is_the_transformer_papers():
    table = taltrans.sinusoid(400, 64).numpy()
    for position, column in ((0, 0), (3, 7), (399, 40), (123, 63)):
        angle = position / 10_000 ** (2 * (column // 2) / 64)
        assert table[position, column] == pytest.approx(
            np.cos(angle) if column % 2 else np.sin(angle), abs=1e-4
        )


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


def test_ast_begins_as_deit_does_with_the_same_gain_at_every_width():
    for dim in (96, 384):
        module = classifiers.build("ast", 3, dim=dim, depth=1, heads=3, clip_samples=SAMPLES)
        for name, weight in module.blocks.named_parameters():
            if name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")):
                assert float(weight.detach().std()) * dim**0.5 == pytest.approx(0.02 * 768**0.5, rel=0.05), (
                    name
                )
            elif name.endswith("bias"):
                assert not weight.any(), name


def test_positions_are_cut_in_the_middle_or_interpolated():
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


def test_unknown_names_and_options_are_refused():
    with pytest.raises(UsageError, match="did you mean 'taltrans'"):
        classifiers.build("taltran", 5)
    with pytest.raises(UsageError, match="ast-tiny: options colour"):
        classifiers.build("ast-tiny", 5, colour="red")


def test_saved_classifier_loads_with_the_same_answers(tmp_path):
    module = classifiers.build("ast-tiny", 2, clip_samples=SAMPLES).eval()
    classifiers.save(
        module, tmp_path, name="ast-tiny", labels=["Bark", "Rain"], clip_samples=SAMPLES,
        options={"clip_samples": SAMPLES}, extra={"fingerprint": "abc"},
    )  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = classifiers.load(tmp_path)
    wav = np.random.default_rng(0).normal(0, 0.1, (3, SAMPLES)).astype(np.float32)
    assert torch.equal(loaded.predict(wav), module(torch.from_numpy(wav)).detach())
    assert torch.equal(loaded.embed(torch.from_numpy(wav)), module.embed(torch.from_numpy(wav)).detach())
    assert loaded.labels == ("Bark", "Rain")
    assert loaded.config["fingerprint"] == "abc"
    with pytest.raises(UsageError, match=r"\(13440,\)"):
        loaded.predict(wav[0])

    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(IntegrityError, match="checksum"):
        classifiers.load(tmp_path)
    weights.unlink()
    with pytest.raises(MissingError, match=r"model\.safetensors"):
        classifiers.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"config\.json"):
        classifiers.load(tmp_path)
    (tmp_path / "config.json").write_text('{"name": "ast"}')
    with pytest.raises(IntegrityError, match="lacks"):
        classifiers.load(tmp_path)
    with pytest.raises(MissingError, match="run train-cls"):
        classifiers.load(tmp_path / "nothing")


def test_saved_folder_says_what_a_hub_shows_and_goes_around(tmp_path):
    module = classifiers.build("taltrans-small", 2, tied=False)
    options = {"tied": False, "init": "elsewhere", "new_head": True, "labels": ["Bark", "Rain, heavy"]}
    classifiers.save(
        module, tmp_path / "a", name="taltrans-small", labels=options["labels"], clip_samples=SAMPLES,
        options=options, extra={"seed": 3},
    )  # fmt: skip
    first = Classifier.from_pretrained(tmp_path / "a")
    first.save_pretrained(tmp_path / "b")
    again = Classifier.from_pretrained(str(tmp_path / "b"))
    assert again.config == first.config
    assert again.config["options"] == {"tied": False}
    assert again.config["seed"] == 3
    assert again.config["architectures"] == ["TalTrans"]
    assert again.config["model_type"] == "ajbench-taltrans"
    assert again.config["id2label"] == {"0": "Bark", "1": "Rain, heavy"}
    assert again.config["label2id"] == {"Bark": 0, "Rain, heavy": 1}
    assert again.config["sampling_rate"] == 16_000
    assert again.labels == ("Bark", "Rain, heavy")
    wav = torch.randn(2, SAMPLES)
    assert torch.equal(again.predict(wav), first.predict(wav))
    with safe_open(tmp_path / "b" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    card = (tmp_path / "b" / "README.md").read_text()
    assert "`Bark`, `Rain, heavy`" in card and "16,000 Hz" in card and "0.84 s" in card
    (tmp_path / "b" / "README.md").write_text("mine")
    again.save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / "README.md").read_text() == "mine"
