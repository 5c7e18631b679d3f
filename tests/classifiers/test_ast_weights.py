"""Initial weights of an AST: the logits of transformers' AST, the tensors of timm's DeiT."""

import pytest
import timm
import torch
from fakes import build_small_ast, random_transformers_ast, set_config
from torch import nn

from ajbench import classifiers
from ajbench.classifiers import ast_weights
from ajbench.core.errors import IntegrityError, MissingError, UsageError

SAMPLES = 13_440


@pytest.mark.parametrize("eps", [1e-12, 1e-3])
def test_logits_are_those_of_transformers_ast(tmp_path, eps):
    wide = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 3, "num_hidden_layers": 3}
    wide |= {"layer_norm_eps": eps, "max_length": 256}
    theirs = random_transformers_ast(tmp_path / "theirs", classes=11, **wide)
    options = {"dim": 96, "depth": 3, "heads": 3, "clip_samples": 3 * SAMPLES}
    ours = classifiers.build("ast", 11, init=str(tmp_path / "theirs"), **options).eval()
    features = torch.randn(16, 256, 128)
    with torch.no_grad():
        expected = theirs(features).logits
        assert expected.std() > 0.1
        assert (ours(features) - expected).abs().max() <= 1e-4
        # Saved and loaded, nothing is lost, the norms' epsilon included.
        meta = {"name": "ast", "labels": list("abcdefghijk"), "clip_samples": 3 * SAMPLES, "options": options}
        classifiers.save(ours, tmp_path / "ours", **meta, extra={})
        again = classifiers.load(tmp_path / "ours").module
        assert torch.equal(again(features), ours(features))
        further = classifiers.build("ast", 11, init=str(tmp_path / "ours"), **options).eval()
        assert torch.equal(further(features), ours(features))
    assert further.adopted == {"norm_eps": eps}


@pytest.mark.slow
def test_logits_of_the_full_size_are_those_of_transformers_ast(tmp_path):
    theirs = random_transformers_ast(
        tmp_path, 527, 0.01, max_length=1024, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3072,
    )  # fmt: skip
    ours = classifiers.build("ast", 527, init=str(tmp_path)).eval()
    with torch.no_grad():
        for features in torch.randn(16, 1, 1024, 128):
            assert (ours(features) - theirs(features).logits).abs().max() <= 1e-4


def test_norms_are_those_of_timm_unless_the_weights_or_the_user_say_otherwise(tmp_path):
    random_transformers_ast(tmp_path)
    plain, asked = build_small_ast(""), build_small_ast(tmp_path, norm_eps=1e-4)
    norms = [[m.eps for m in module.modules() if isinstance(m, nn.LayerNorm)] for module in (plain, asked)]
    assert norms == [[1e-6] * 5 + [1e-5], [1e-4] * 6]


def test_a_checkpoint_of_transformers_that_does_not_fit_is_refused(tmp_path):
    random_transformers_ast(tmp_path)
    for wrong in ({"depth": 3}, {"dim": 48}, {"heads": 4}):
        with pytest.raises(IntegrityError, match="AST"):
            build_small_ast(tmp_path, **wrong)
    with pytest.raises(IntegrityError, match=r"5 classes.* 3; classifier\.new_head=true"):
        build_small_ast(tmp_path, 3)
    body, whole = build_small_ast(tmp_path, 3, new_head=True), build_small_ast(tmp_path)
    assert torch.equal(body.blocks[1].attn.qkv.weight, whole.blocks[1].attn.qkv.weight)
    changes = [("num_mel_bins", 64, "position table"), ("num_mel_bins", "many", r"config\.json")]
    for key, value, match in (*changes, ("model_type", "wav2vec2", "model_type")):
        set_config(tmp_path, **{key: value})
        with pytest.raises(IntegrityError, match=match):
            build_small_ast(tmp_path)


@pytest.mark.parametrize(("name", "deit"), [("ast-small", "small"), ("ast", "tiny")])
def test_imagenet_weights_are_those_of_timm(monkeypatch, name, deit):
    made = timm.create_model(f"deit_{deit}_distilled_patch16_224")
    monkeypatch.setitem(ast_weights.IMAGENET, 192, "deit_tiny_distilled_patch16_224")
    fetched = []
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: fetched.append(name) or made)
    options = {} if name == "ast-small" else {"dim": 192, "depth": 2, "heads": 3}
    module = classifiers.build(name, 5, clip_samples=SAMPLES, init="imagenet", **options)
    assert fetched == [f"deit_{deit}_distilled_patch16_224"]
    assert torch.equal(module.patch.weight[:, 0], made.patch_embed.proj.weight.sum(1))
    assert torch.equal(module.dist_token, made.dist_token)
    assert torch.equal(module.blocks[-1].mlp.fc1.weight, made.blocks[len(module.blocks) - 1].mlp.fc1.weight)
    assert module.grid == (12, 12)
    square = made.pos_embed[0, 2:].unflatten(0, (14, 14))
    assert torch.equal(module.pos_embed[0, 2:].unflatten(0, (12, 12)), square[1:13, 1:13])
    assert torch.equal(module.pos_embed[0, :2], made.pos_embed[0, :2])


def test_missing_imagenet_weights_are_an_error(monkeypatch):
    def offline(name, pretrained):
        raise OSError("offline")

    with pytest.raises(UsageError, match="width 24"):
        build_small_ast("imagenet")
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(MissingError, match=r"deit_small_distilled_patch16_224.*offline"):
        classifiers.build("ast-small", 5, clip_samples=SAMPLES, init="imagenet")
