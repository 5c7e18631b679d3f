"""TALtrans: logits of the public implementation, published size, pooling and passes by their definitions."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import count_parameters as count
from fakes import save_classifier

from ajbench import classifiers
from ajbench.classifiers import taltrans
from ajbench.core.errors import IntegrityError

SAMPLES = 13_440
WIDTH = 1024


def parts():
    """Yield the repository's name of a tensor, its shape and our name; some of ours hold three of theirs."""
    sizes = (1, *taltrans.CHANNELS)
    for i in range(10):
        ours = f"convolutions.{3 * i + i // 2}", f"convolutions.{3 * i + i // 2 + 1}"
        yield f"conv.{i}.conv.weight", (sizes[i + 1], sizes[i], 3, 3), f"{ours[0]}.weight"
        yield f"conv.{i}.conv.bias", (sizes[i + 1],), f"{ours[0]}.bias"
        for kind in ("weight", "bias", "running_mean", "running_var"):
            yield f"conv.{i}.bn.{kind}", (sizes[i + 1],), f"{ours[1]}.{kind}"
    attention, forward = "enc_layer.slf_attn", "enc_layer.pos_ffn"
    for theirs, outputs, ours in (
        (f"{attention}.w_qs", WIDTH, "layer.self_attn.in_proj_"),
        (f"{attention}.w_ks", WIDTH, "layer.self_attn.in_proj_"),
        (f"{attention}.w_vs", WIDTH, "layer.self_attn.in_proj_"),
        (f"{attention}.fc", WIDTH, "layer.self_attn.out_proj."),
        (f"{forward}.w_1", WIDTH, "layer.linear1."),
        (f"{forward}.w_2", WIDTH, "layer.linear2."),
        ("fc_prob", 527, "frame_logits."),
        ("fc_att", 527, "attention."),
    ):
        yield f"{theirs}.weight", (outputs, WIDTH), f"{ours}weight"
        yield f"{theirs}.bias", (outputs,), f"{ours}bias"
    for theirs, ours in ((attention, "layer.norm1"), (forward, "layer.norm2")):
        yield f"{theirs}.layer_norm.weight", (WIDTH,), f"{ours}.weight"
        yield f"{theirs}.layer_norm.bias", (WIDTH,), f"{ours}.bias"


def seeded_tensors():
    """Yield (the repository's name, ours, values)."""
    for seed, (theirs, shape, ours) in enumerate(parts()):
        values = np.random.RandomState(seed).uniform(-1, 1, shape)
        if len(shape) > 1:
            scale = {"w_qs": 0.3, "w_ks": 0.3, "fc_prob": 0.5, "fc_att": 4}.get(theirs.split(".")[-2], 1.5)
            values *= scale * math.sqrt(6 / (math.prod(shape[2:]) * (shape[0] + shape[1])))
        elif theirs.endswith(("bn.weight", "running_var", "layer_norm.weight")):
            values = 1 + values / 2
        else:
            values /= 10
        yield theirs, ours, torch.from_numpy(values)


def seeded_features():
    """Eight clips of ten seconds, noise that changes its spectrum every second: [8, 400, 64]."""
    random = np.random.RandomState(1000)
    spectra = random.normal(0, 0.5, (8, 10, 64)).repeat(40, axis=1)
    return torch.from_numpy(spectra + random.normal(0, 0.3, (8, 400, 64)))


def test_logits_equal_those_of_the_public_implementation():
    # The file holds the logits of the probabilities that TransformerEncoder returns in eval mode and float64
    # (src/models/Net_mModal_mgpu.py of github.com/lijuncheng16/AudioTaggingDoneRight at 15af41d), with the
    # arguments of run-TALtrans.sh and target_length=400, the tensors of `seeded_tensors` and the input of
    # `seeded_features`.
    expected = np.load(Path(__file__).with_name("taltrans_logits.npy"))
    module = classifiers.build("taltrans", 527).eval()
    state = {}
    for _, ours, values in seeded_tensors():
        state.setdefault(ours, []).append(values)
    missing, unexpected = module.load_state_dict({k: torch.cat(v) for k, v in state.items()}, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    with torch.inference_mode():
        found = module(seeded_features().float()).numpy()
    assert found.shape == expected.shape == (8, 527) and expected.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_initial_weights_are_those_of_the_repository():
    torch.manual_seed(0)
    module = classifiers.build("taltrans", 527)
    ours = dict(module.named_parameters())
    place = dict.fromkeys(("layer.self_attn.in_proj_weight", "layer.self_attn.in_proj_bias"), 0)
    inputs = 0
    for theirs, shape, name in parts():
        if "norm" in theirs or ".bn." in theirs:
            continue
        piece = ours[name].detach()
        if name in place:  # queries, keys and values, one after the other
            piece = piece[place[name] : place[name] + WIDTH]
            place[name] += WIDTH
        assert piece.shape == shape
        if len(shape) > 1:
            inputs = math.prod(shape[1:])
            bound = math.sqrt(6 / (inputs + shape[0] * math.prod(shape[2:])))
        else:
            bound = 0 if theirs.startswith("fc_") else inputs**-0.5
        assert 0.75 * bound <= piece.abs().max() <= bound * (1 + 1e-6), theirs


def test_the_feed_forward_layer_has_no_dropout_inside():
    module = classifiers.build("taltrans-small", 5, tied=False, dropout=1.0).train()
    x = torch.randn(2, 7, 128)
    for layer in (module.layer, *module.further):
        inside = []
        layer.linear2.register_forward_pre_hook(lambda _, args, inside=inside: inside.append(args[0]))
        out = layer(x)
        assert (inside[0] > 0).any()
        # The output of either half is dropped as a whole.
        torch.testing.assert_close(out, layer.norm2(layer.norm1(x)))


@pytest.mark.parametrize("use", ["load", "init"])
def test_weights_of_an_earlier_model_are_refused(tmp_path, use):
    save_classifier(tmp_path, "taltrans-small")
    config = json.loads((tmp_path / "config.json").read_text())
    del config["revision"], config["seal"]  # as written before there were revisions
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(IntegrityError, match="revision"):
        if use == "load":
            classifiers.load(tmp_path)
        else:
            classifiers.build("taltrans-small", len(config["labels"]), init=str(tmp_path))


def test_it_has_the_published_number_of_parameters():
    tied, untied = classifiers.build("taltrans", 527), classifiers.build("taltrans", 527, tied=False)
    assert count(tied) == 12_097_662  # the paper's 12.1 M
    assert count(untied) == pytest.approx(18.40e6, abs=5e3)
    assert tied.state_dict().keys() < untied.state_dict().keys()


@pytest.mark.parametrize("bias", [0.0, 12.0])
def test_logits_are_those_of_the_attention_pooled_probability(bias):
    module = classifiers.build("taltrans-small", 5).eval()
    states = module.hidden(torch.randn(2, SAMPLES)).detach()
    module.hidden = lambda x: states
    with torch.no_grad():
        module.frame_logits.bias.fill_(bias)
        found = module(states)
        weights = torch.exp(module.attention(states)).double()
        frames = torch.sigmoid(module.frame_logits(states).double())
        expected = (weights * frames).sum(1) / weights.sum(1)
        torch.testing.assert_close(found, torch.logit(expected).float(), atol=1e-5, rtol=1e-5)
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
