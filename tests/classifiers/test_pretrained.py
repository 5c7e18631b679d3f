"""Beginning with trained weights: the same logits as their source, and every misfit is refused."""

import json

import huggingface_hub
import pytest
import timm
import torch
from torch import nn
from transformers import ASTConfig, ASTForAudioClassification

from ajbench import classifiers
from ajbench.classifiers import Classifier, ast_weights
from ajbench.core.errors import IntegrityError, MissingError, UsageError

torch.set_num_threads(1)
SAMPLES = 13_440
SHAPE = {"dim": 24, "depth": 2, "heads": 2, "clip_samples": SAMPLES}
LABELS = ["Bark", "Hum", "Rain", "Siren", "Speech"]


def random_transformers(folder, classes=5, spread=0.1, **options):
    """Save transformers' AST with random weights everywhere, norms and tokens too."""
    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    config = ASTConfig(num_labels=classes, **({"max_length": 128} | small | options))
    model = ASTForAudioClassification(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * spread)
    model.save_pretrained(folder)
    return model


def saved(folder, name="ast-tiny", labels=LABELS, **options):
    """Save an untrained classifier of ours as the trainer does."""
    if name.startswith("ast"):
        options = {"clip_samples": SAMPLES} | options
    module = classifiers.build(name, len(labels), **options).eval()
    meta = {"name": name, "labels": labels, "clip_samples": SAMPLES, "options": options}
    classifiers.save(module, folder, **meta, extra={})
    return module


def change(folder, **keys):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize("eps", [1e-12, 1e-3])
def test_ast_has_the_logits_of_transformers_ast(tmp_path, eps):
    wide = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 3, "num_hidden_layers": 3}
    theirs = random_transformers(tmp_path / "theirs", classes=11, layer_norm_eps=eps, max_length=256, **wide)
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
def test_whole_ast_has_the_logits_of_transformers_ast(tmp_path):
    theirs = random_transformers(
        tmp_path, 527, 0.01, max_length=1024, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3072,
    )  # fmt: skip
    ours = classifiers.build("ast", 527, init=str(tmp_path)).eval()
    with torch.no_grad():
        for features in torch.randn(16, 1, 1024, 128):
            assert (ours(features) - theirs(features).logits).abs().max() <= 1e-4


def test_ast_norms_are_timms_unless_the_weights_or_the_user_say_otherwise(tmp_path):
    random_transformers(tmp_path)
    plain = classifiers.build("ast", 5, **SHAPE)
    asked = classifiers.build("ast", 5, init=str(tmp_path), norm_eps=1e-4, **SHAPE)
    norms = [[m.eps for m in module.modules() if isinstance(m, nn.LayerNorm)] for module in (plain, asked)]
    assert norms == [[1e-6] * 5 + [1e-5], [1e-4] * 6]


def test_a_checkpoint_of_transformers_that_does_not_fit_is_refused(tmp_path):
    random_transformers(tmp_path)
    for wrong in ({"depth": 3}, {"dim": 48}, {"heads": 4}):
        with pytest.raises(IntegrityError, match="not the weights of an AST like this"):
            classifiers.build("ast", 5, init=str(tmp_path), **(SHAPE | wrong))
    with pytest.raises(IntegrityError, match=r"5 classes, this classifier 3; classifier\.new_head=true"):
        classifiers.build("ast", 3, init=str(tmp_path), **SHAPE)
    body = classifiers.build("ast", 3, init=str(tmp_path), new_head=True, **SHAPE)
    whole = classifiers.build("ast", 5, init=str(tmp_path), **SHAPE)
    assert torch.equal(body.blocks[1].attn.qkv.weight, whole.blocks[1].attn.qkv.weight)
    change(tmp_path, num_mel_bins=64)
    with pytest.raises(IntegrityError, match="no position table"):
        classifiers.build("ast", 5, init=str(tmp_path), **SHAPE)
    change(tmp_path, num_mel_bins="many")
    with pytest.raises(IntegrityError, match="damaged"):
        classifiers.build("ast", 5, init=str(tmp_path), **SHAPE)
    change(tmp_path, model_type="wav2vec2")
    with pytest.raises(IntegrityError, match="neither"):
        classifiers.build("ast", 5, init=str(tmp_path), **SHAPE)


def test_other_class_names_are_refused_where_both_are_known(tmp_path):
    random_transformers(tmp_path)
    build = lambda labels: classifiers.build("ast", 5, init=str(tmp_path), labels=labels, **SHAPE)  # noqa: E731
    build(LABELS)  # transformers' LABEL_0 and on are no names
    change(tmp_path, id2label={str(i): label for i, label in enumerate(LABELS)})
    build(LABELS)
    build(None)
    with pytest.raises(IntegrityError, match=r"class 1 is 'Hum' there and 'Rain' here.*new_head=true"):
        build([LABELS[i] for i in (0, 2, 1, 3, 4)])
    saved(tmp_path / "ours", "taltrans-small")
    with pytest.raises(IntegrityError, match="class 0 is 'Bark' there and 'Meow' here"):
        classifiers.build("taltrans-small", 5, init=str(tmp_path / "ours"), labels=["Meow", *LABELS[1:]])


@pytest.mark.parametrize("name", ["ast-tiny", "taltrans-small"])
def test_a_classifier_goes_on_from_one_of_ours(tmp_path, name):
    options = {"clip_samples": SAMPLES} if name == "ast-tiny" else {}
    first = saved(tmp_path, name)
    wav = torch.randn(2, SAMPLES)
    assert torch.equal(classifiers.build(name, 5, init=str(tmp_path), **options).eval()(wav), first(wav))
    with pytest.raises(IntegrityError, match=r"5 classes, this classifier 2.*new_head=true"):
        classifiers.build(name, 2, init=str(tmp_path), **options)
    other = classifiers.build(name, 2, init=str(tmp_path), new_head=True, **options).eval()
    torch.testing.assert_close(other.embed(wav), first.embed(wav))
    # Asked for, the head is new also where the old one would fit.
    fresh = classifiers.build(name, 5, init=str(tmp_path), new_head=True, **options)
    changed = [n for n, t in fresh.state_dict().items() if not torch.equal(t, first.state_dict()[n])]
    assert changed and all(n.startswith(fresh.head_names) for n in changed)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="checksum"):
        classifiers.build(name, 5, init=str(tmp_path), **options)


def test_a_longer_clip_takes_the_position_table_interpolated(tmp_path):
    first = saved(tmp_path)
    longer = classifiers.build("ast-tiny", 5, init=str(tmp_path), clip_samples=2 * SAMPLES)
    assert first.grid == (8, 8) and longer.grid == (8, 12)
    assert torch.equal(longer.patch.weight, first.patch.weight)


def test_another_architecture_is_refused(tmp_path):
    saved(tmp_path / "ast")
    saved(tmp_path / "tal", "taltrans-small")
    random_transformers(tmp_path / "theirs")
    with pytest.raises(IntegrityError, match="taltrans-small is a TalTrans, this classifier an AST"):
        classifiers.build("ast-tiny", 5, init=str(tmp_path / "tal"))
    with pytest.raises(IntegrityError, match="ast-tiny is an AST, this classifier a TalTrans"):
        classifiers.build("taltrans-small", 5, init=str(tmp_path / "ast"))
    with pytest.raises(IntegrityError, match="not the weights of a TalTrans like this"):
        classifiers.build("taltrans", 5, init=str(tmp_path / "tal"))
    with pytest.raises(IntegrityError, match="no classifier of ajbench, lacks"):
        classifiers.build("taltrans-small", 5, init=str(tmp_path / "theirs"))
    with pytest.raises(UsageError, match="none for TALtrans"):
        classifiers.build("taltrans-small", 5, init="imagenet")


@pytest.mark.parametrize("suffix", [".bin", ".pth"])
def test_a_pickle_is_refused(tmp_path, suffix):
    random_transformers(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.rename(tmp_path / f"pytorch_model{suffix}")
    for source in (tmp_path, tmp_path / f"pytorch_model{suffix}"):
        with pytest.raises(IntegrityError, match=r"a pickle.*convert to safetensors") as refused:
            classifiers.build("ast", 5, init=str(source), **SHAPE)
        assert refused.value.exit_code == 5


def test_weights_that_are_not_there_are_missing(tmp_path):
    random_transformers(tmp_path)
    with pytest.raises(UsageError, match="name its folder"):
        classifiers.build("ast", 5, init=str(tmp_path / "model.safetensors"), **SHAPE)
    with pytest.raises(MissingError, match="no such folder"):
        classifiers.build("ast", 5, init=str(tmp_path / "nowhere"), **SHAPE)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(IntegrityError, match="damaged"):
        classifiers.build("ast", 5, init=str(tmp_path), **SHAPE)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MissingError, match=r"model\.safetensors: missing"):
        classifiers.build("ast", 5, init=str(tmp_path), **SHAPE)
    (tmp_path / "config.json").unlink()
    with pytest.raises(MissingError, match=r"config\.json is missing"):
        classifiers.build("ast", 5, init=str(tmp_path), **SHAPE)


def test_a_hub_id_is_fetched_and_offline_it_is_said_how_to_go_on(tmp_path, monkeypatch):
    asked = []

    def hub(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    monkeypatch.chdir(tmp_path)
    theirs = random_transformers(tmp_path)
    ours = classifiers.build("ast", 5, init="MIT/ast-finetuned-audioset-10-10-0.4593", **SHAPE).eval()
    features = torch.randn(2, 128, 128)
    assert (ours(features) - theirs(features).logits).abs().max() <= 1e-4
    assert asked == [("MIT/ast-finetuned-audioset-10-10-0.4593", ["config.json", "model.safetensors"])]
    saved(tmp_path, "taltrans-small")
    assert Classifier.from_pretrained("someone/rain").labels == tuple(LABELS)

    def offline(name, allow_patterns):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        MissingError, match=r"huggingface\.co/MIT/ast.*no route.*offline, put its config\.json"
    ):
        classifiers.build("ast", 5, init="MIT/ast", **SHAPE)


@pytest.mark.parametrize(("name", "deit"), [("ast-small", "small"), ("ast", "tiny")])
def test_ast_takes_timms_imagenet_weights(monkeypatch, name, deit):
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


def test_imagenet_weights_that_are_not_there_are_an_error(monkeypatch):
    def offline(name, pretrained):
        raise OSError("offline")

    with pytest.raises(UsageError, match="width 24"):
        classifiers.build("ast", 5, init="imagenet", **SHAPE)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(MissingError, match=r"deit_small_distilled_patch16_224.*offline.*without init"):
        classifiers.build("ast-small", 5, clip_samples=SAMPLES, init="imagenet")
