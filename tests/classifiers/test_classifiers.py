"""Classifiers by name: their interface, saving and loading, scores of a store; pickles and missing files."""

import json
import resource
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from fakes import (
    HUM_LABELS,
    HUM_SAMPLES,
    build_small_ast,
    flip_bit,
    flip_in,
    noise,
    random_transformers_ast,
    reseal,
    save_classifier,
)
from safetensors import safe_open
from torch.nn.attention import SDPBackend, sdpa_kernel

from ajbench import classifiers
from ajbench.classifiers import Classifier, predict
from ajbench.core import registry
from ajbench.core.errors import IntegrityError, MissingError, UsageError

SAMPLES = 13_440
SMALL = {"ast-tiny": {"clip_samples": SAMPLES}, "taltrans-small": {}}


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
    # A clip's logits do not depend on the others of the batch.
    torch.testing.assert_close(module(wav[1:2]), logits[1:2], atol=1e-5, rtol=1e-4)
    assert module(torch.randn(2, 3 * SAMPLES)).shape == (2, 7)  # another clip length


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("autocast", [False, True])
def test_every_parameter_gets_a_gradient_and_logits_are_float32(name, autocast):
    module = classifiers.build(name, 4, **SMALL[name]).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = module(torch.randn(4, SAMPLES))
    assert logits.dtype == torch.float32
    logits.square().sum().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_unknown_names_and_options_are_refused():
    with pytest.raises(UsageError, match="'taltrans'"):
        classifiers.build("taltran", 5)
    with pytest.raises(UsageError, match="colour"):
        classifiers.build("ast-tiny", 5, colour="red")


def test_saved_classifier_loads_with_the_same_logits(tmp_path):
    module = save_classifier(tmp_path, "ast-tiny", ["Bark", "Rain"], SAMPLES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = classifiers.load(tmp_path)
    wav = np.random.default_rng(0).normal(0, 0.1, (3, SAMPLES)).astype(np.float32)
    assert torch.equal(loaded.predict(wav), module(torch.from_numpy(wav)).detach())
    assert torch.equal(loaded.embed(torch.from_numpy(wav)), module.embed(torch.from_numpy(wav)).detach())
    assert loaded.labels == ("Bark", "Rain")
    with pytest.raises(UsageError, match=r"\(13440,\)"):
        loaded.predict(wav[0])


def test_missing_and_damaged_files_are_refused(tmp_path):
    save_classifier(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    flip_bit(weights)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        classifiers.load(tmp_path)
    weights.unlink()
    with pytest.raises(MissingError, match=r"model\.safetensors"):
        classifiers.load(tmp_path)
    for text in ("{", '{"name": "ast"}'):
        config.write_text(text)
        with pytest.raises(IntegrityError, match=r"config\.json"):
            classifiers.load(tmp_path)
    with pytest.raises(MissingError, match="nothing"):
        classifiers.load(tmp_path / "nothing")


def test_a_changed_class_is_found_and_a_folder_without_a_seal_is_read(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    flip_in(folder / "config.json", f'"clip_samples": {config["clip_samples"]}')
    with pytest.raises(IntegrityError, match=r"config\.json: damaged \(checksum mismatch\)"):
        classifiers.load(folder)
    del config["seal"]  # as earlier versions have written it
    (folder / "config.json").write_text(json.dumps(config))
    classifiers.load(folder)


def test_saved_folder_has_the_keys_of_the_hub_and_survives_a_round_trip(tmp_path):
    module = classifiers.build("taltrans-small", 2, tied=False)
    options = {"tied": False, "init": "elsewhere", "new_head": True, "labels": ["Bark", "Rain, heavy"]}
    about = {"name": "taltrans-small", "labels": options["labels"], "clip_samples": SAMPLES}
    extra = {"seed": 3, "fingerprint": "abc"}
    classifiers.save(module, tmp_path / "a", **about, options=options, extra=extra)
    first = Classifier.from_pretrained(tmp_path / "a")
    first.save_pretrained(tmp_path / "b")
    again = Classifier.from_pretrained(str(tmp_path / "b"))
    assert again.config == first.config
    expected = extra | {
        "options": {"tied": False}, "architectures": ["TalTrans"], "model_type": "ajbench-taltrans",
        "id2label": {"0": "Bark", "1": "Rain, heavy"}, "label2id": {"Bark": 0, "Rain, heavy": 1},
        "sampling_rate": 16_000,
    }  # fmt: skip
    assert {key: again.config[key] for key in expected} == expected
    assert again.labels == ("Bark", "Rain, heavy")
    wav = torch.randn(2, SAMPLES)
    assert torch.equal(again.predict(wav), first.predict(wav))
    with safe_open(tmp_path / "b" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    card = tmp_path / "b" / "README.md"
    assert all(part in card.read_text() for part in ("`Bark`, `Rain, heavy`", "16,000 Hz", "0.84 s"))
    card.write_text("mine")
    again.save_pretrained(tmp_path / "b")
    assert card.read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "match"),
    [({"labels": HUM_LABELS[::-1]}, "labels"), ({"clip_samples": 2 * HUM_SAMPLES}, f"{HUM_SAMPLES} samples")],
)
def test_predict_refuses_a_store_of_other_labels_or_length(tmp_path, real, change, match):
    save_classifier(tmp_path, **change)
    with pytest.raises(UsageError, match=match):
        predict(classifiers.load(tmp_path), real, [0])


@pytest.mark.gpu
@pytest.mark.parametrize("name", SMALL)
def test_a_step_on_cuda_has_the_gradient_of_the_cpu(name, cuda):
    module = classifiers.build(name, 4, **SMALL[name]).eval()
    wav, gradients = torch.randn(2, SAMPLES), []
    for device in ("cpu", cuda):
        module.to(device).zero_grad()
        module(wav.to(device)).square().sum().backward()
        assert all(p.grad.device.type == torch.device(device).type for p in module.parameters())
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in module.parameters()]))
    tolerance = 1e-4 * float(gradients[0].abs().max())
    torch.testing.assert_close(gradients[1], gradients[0], atol=tolerance, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SMALL)
def test_on_cuda_scores_in_bf16_rank_as_in_fp32_and_are_not_tied(name, cuda):
    module, wav = classifiers.build(name, 4, **SMALL[name]), noise(1, SAMPLES, clips=64)
    scorer = Classifier(module, {"labels": "abcd", "clip_samples": SAMPLES}, cuda)
    exact, rounded = scorer.predict(wav), scorer.predict(wav, "auto")
    assert exact.dtype == rounded.dtype == torch.float32
    assert float((exact - rounded).abs().mean()) < 0.1 * float(exact.std())
    assert all(len(column.unique()) > 48 for column in rounded.T)


@pytest.mark.parametrize("name", SMALL)
def test_logits_under_autocast_are_not_rounded_to_bf16(name):
    module = classifiers.build(name, 200, **SMALL[name]).eval()
    # torch's own attention fails on a CPU with AMX that is told to do without AVX-512
    plain = sdpa_kernel([SDPBackend.MATH])
    with plain, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = module(torch.randn(2, SAMPLES))
        vectors, again = module.outputs(torch.randn(2, SAMPLES))
    assert vectors.dtype == again.dtype == torch.float32
    assert (logits.bfloat16().float() != logits).float().mean() > 0.9


# The folder of a classifier


def check_refused(error, match, init):
    with pytest.raises(error, match=match) as refused:
        build_small_ast(init)
    return refused.value


@pytest.mark.parametrize("suffix", [".bin", ".pth"])
def test_a_pickle_is_refused(tmp_path, suffix):
    random_transformers_ast(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.rename(tmp_path / f"pytorch_model{suffix}")
    for source in (tmp_path, tmp_path / f"pytorch_model{suffix}"):
        assert check_refused(IntegrityError, "pickle", source).exit_code == 5


def test_missing_and_damaged_initial_weights_are_refused(tmp_path):
    random_transformers_ast(tmp_path)
    weights = tmp_path / "model.safetensors"
    check_refused(UsageError, r"config\.json and model\.safetensors", weights)
    check_refused(MissingError, "nowhere", tmp_path / "nowhere")
    weights.write_bytes(b"no")
    check_refused(IntegrityError, r"model\.safetensors", tmp_path)
    weights.unlink()
    check_refused(MissingError, r"model\.safetensors", tmp_path)
    (tmp_path / "config.json").unlink()
    check_refused(MissingError, r"config\.json", tmp_path)


def test_a_hub_id_is_downloaded_and_offline_the_files_are_named(tmp_path, monkeypatch):
    asked = []

    def hub(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    monkeypatch.chdir(tmp_path)
    theirs = random_transformers_ast(tmp_path)
    ours = build_small_ast("MIT/ast-finetuned-audioset-10-10-0.4593").eval()
    features = torch.randn(2, 128, 128)
    assert (ours(features) - theirs(features).logits).abs().max() <= 1e-4
    assert asked == [("MIT/ast-finetuned-audioset-10-10-0.4593", ["config.json", "model.safetensors"])]
    save_classifier(tmp_path, labels=["Bark", "Rain"])
    assert Classifier.from_pretrained("someone/rain").labels == ("Bark", "Rain")

    def offline(name, allow_patterns):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = r"huggingface\.co/MIT/ast.*no route.*offline, put its config\.json"
    check_refused(MissingError, message, "MIT/ast")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 3}, {"name": "no such"}, {"labels": "text"}, {"labels": []}, {"labels": [1, 2]},
        {"clip_samples": None}, {"clip_samples": "text"}, {"clip_samples": 2 * 10**9}, {"clip_samples": True},
        {"options": [1]}, {"options": {"width": 10**9}}, {"options": {"no such": 1}}, {"xxh3": 4},
    ],
)  # fmt: skip
def test_configurations_from_strangers_are_refused(plain, tmp_path, changes):
    folder = shutil.copytree(plain, tmp_path / "stranger")
    reseal(folder / "config.json", **changes)
    with pytest.raises(IntegrityError):
        classifiers.load(folder)


def _change(folder, **options):
    config = json.loads((folder / "config.json").read_text())
    reseal(folder / "config.json", options=config["options"] | options)


@pytest.mark.parametrize(
    "options",
    [
        {"dim": 16_384, "depth": 12, "heads": 16},  # 150 GB
        {"dim": 128, "depth": 5},
        {"clip_samples": 3600 * 16_000, "stride": 1},
    ],
)
def test_a_network_that_is_larger_than_its_file_is_not_built(tmp_path, options):
    save_classifier(tmp_path, "ast-tiny", ["Bark", "Rain"], SAMPLES)
    _change(tmp_path, **options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(IntegrityError, match=r"model\.safetensors: not the weights of config\.json"):
        Classifier.from_pretrained(tmp_path)
    with pytest.raises(IntegrityError, match=r"not the weights of config\.json"):
        classifiers.build("ast-tiny", 2, init=str(tmp_path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "in KB"


@pytest.mark.parametrize(
    "options",
    [{"depth": 10_000}, {"a": {"b": [{"depth": 10_000}]}}, {"heads": 0}, {"heads": 3}, {"stride": 0}],
)
def test_options_that_no_network_has_are_refused_in_one_line(tmp_path, options):
    save_classifier(tmp_path, "ast-tiny", ["Bark", "Rain"], SAMPLES)
    _change(tmp_path, **options)
    with pytest.raises(IntegrityError, match=r"config\.json"):
        Classifier.from_pretrained(tmp_path)


def test_registered_classifiers_are_loaded_though_their_code_needs_tensors(tmp_path, monkeypatch):
    class Own(torch.nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.out = torch.nn.Linear(int(torch.ones(3).sum()), num_classes)

    monkeypatch.setitem(registry.KINDS["classifier"], "own", Own)
    save_classifier(tmp_path, "own", ["Bark", "Rain"], SAMPLES)
    assert Classifier.from_pretrained(tmp_path).module.out.in_features == 3
