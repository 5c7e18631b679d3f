"""The two architectures: published sizes, independent implementations, what the interface promises."""

import numpy as np
import pytest
import torch
from transformers import ASTConfig, ASTForAudioClassification

from ajbench import classifiers
from ajbench.classifiers import ast, taltrans
from ajbench.errors import IntegrityError, MissingError, UsageError

torch.set_num_threads(1)
SAMPLES = 13_440
SMALL = {"ast-tiny": {"clip_samples": SAMPLES}, "taltrans-small": {}}


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_taltrans_has_the_published_number_of_parameters():
    module = classifiers.build("taltrans", 527)
    assert count(module) == 12_097_662  # the paper's 12.1 M; untied it would be 18.4 M
    assert count(module) + count(module.layer) == pytest.approx(18.40e6, abs=5e3)


def test_ast_has_the_published_number_of_parameters():
    with torch.device("meta"):
        module = classifiers.build("ast", 527)
    assert module.grid == (12, 101)
    # AST's training log says 88.132 M; 1.538 M of them are DeiT's two ImageNet heads, which are never used.
    assert count(module) == pytest.approx(88.132e6 - 2 * (768 * 1000 + 1000), abs=1e3)


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


def test_taltrans_layer_is_applied_twice():
    module = classifiers.build("taltrans-small", 5).eval()
    calls = []
    module.layer.register_forward_hook(lambda *_: calls.append(1))
    module(torch.randn(1, SAMPLES))
    assert len(calls) == 2


def test_sinusoid_is_the_transformer_papers():
    table = taltrans.sinusoid(400, 64).numpy()
    for position, column in ((0, 0), (3, 7), (399, 40), (123, 63)):
        angle = position / 10_000 ** (2 * (column // 2) / 64)
        assert table[position, column] == pytest.approx(
            np.cos(angle) if column % 2 else np.sin(angle), abs=1e-4
        )


def test_ast_equals_transformers_ast_with_its_weights(tmp_path):
    config = ASTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96, num_labels=5,
        max_length=128, num_mel_bins=128, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    theirs = ASTForAudioClassification(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    theirs.save_pretrained(tmp_path)
    options = {"dim": 24, "depth": 2, "heads": 2, "clip_samples": SAMPLES, "init": str(tmp_path)}
    ours = classifiers.build("ast", 5, **options).eval()
    features = torch.randn(
        2,
        128,
        128,
    )
    for norm in (m for m in ours.modules() if isinstance(m, torch.nn.LayerNorm)):
        norm.eps = config.layer_norm_eps  # the original AST keeps timm's 1e-6
    torch.testing.assert_close(ours(features), theirs(features).logits, atol=1e-4, rtol=1e-4)
    other = classifiers.build("ast", 3, **options).eval()  # another number of classes: all but the head
    assert torch.equal(other.blocks[1].attn.qkv.weight, ours.blocks[1].attn.qkv.weight)
    with pytest.raises(IntegrityError, match="not the weights of an AST like this"):
        classifiers.build("ast", 5, **(options | {"depth": 3}))
    with pytest.raises(MissingError, match="missing"):
        classifiers.build("ast", 5, **(options | {"init": str(tmp_path / "nowhere")}))


def test_ast_takes_timms_imagenet_weights(monkeypatch):
    made = ast.timm.create_model("deit_tiny_distilled_patch16_224")
    monkeypatch.setitem(ast.IMAGENET, 192, "deit_tiny_distilled_patch16_224")
    monkeypatch.setattr(ast.timm, "create_model", lambda name, pretrained: made)
    module = classifiers.build("ast", 5, dim=192, depth=2, heads=3, clip_samples=SAMPLES, init="imagenet")
    assert torch.equal(module.patch.weight[:, 0], made.patch_embed.proj.weight.sum(1))
    assert torch.equal(module.blocks[1].mlp.fc1.weight, made.blocks[1].mlp.fc1.weight)
    assert module.grid == (12, 12)
    square = made.pos_embed[0, 2:].unflatten(0, (14, 14))
    assert torch.equal(module.pos_embed[0, 2:].unflatten(0, (12, 12)), square[1:13, 1:13])


def test_imagenet_weights_that_are_not_there_are_an_error(monkeypatch):
    def offline(name, pretrained):
        raise OSError("offline")

    with pytest.raises(UsageError, match="width 192"):
        classifiers.build("ast", 5, dim=192, depth=1, heads=3, clip_samples=SAMPLES, init="imagenet")
    monkeypatch.setattr(ast.timm, "create_model", offline)
    with pytest.raises(MissingError, match="offline"):
        classifiers.build("ast-small", 5, clip_samples=SAMPLES, init="imagenet")


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
