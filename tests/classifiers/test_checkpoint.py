"""A classifier's folder: pickles are refused, missing files named, hub ids downloaded."""

import huggingface_hub
import pytest
import torch
from fakes import random_transformers_ast, save_classifier

from ajbench import classifiers
from ajbench.classifiers import Classifier
from ajbench.core.errors import IntegrityError, MissingError, UsageError

SHAPE = {"dim": 24, "depth": 2, "heads": 2, "clip_samples": 13_440}


@pytest.mark.parametrize("suffix", [".bin", ".pth"])
def test_a_pickle_is_refused(tmp_path, suffix):
    random_transformers_ast(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.rename(tmp_path / f"pytorch_model{suffix}")
    for source in (tmp_path, tmp_path / f"pytorch_model{suffix}"):
        with pytest.raises(IntegrityError, match="pickle") as refused:
            classifiers.build("ast", 5, init=str(source), **SHAPE)
        assert refused.value.exit_code == 5


def test_missing_and_damaged_files_are_refused(tmp_path):
    random_transformers_ast(tmp_path)
    with pytest.raises(UsageError, match=r"config\.json and model\.safetensors"):
        classifiers.build("ast", 5, init=str(tmp_path / "model.safetensors"), **SHAPE)
    with pytest.raises(MissingError, match="nowhere"):
        classifiers.build("ast", 5, init=str(tmp_path / "nowhere"), **SHAPE)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        classifiers.build("ast", 5, init=str(tmp_path), **SHAPE)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MissingError, match=r"model\.safetensors"):
        classifiers.build("ast", 5, init=str(tmp_path), **SHAPE)
    (tmp_path / "config.json").unlink()
    with pytest.raises(MissingError, match=r"config\.json"):
        classifiers.build("ast", 5, init=str(tmp_path), **SHAPE)


def test_a_hub_id_is_downloaded_and_offline_the_files_are_named(tmp_path, monkeypatch):
    asked = []

    def hub(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    monkeypatch.chdir(tmp_path)
    theirs = random_transformers_ast(tmp_path)
    ours = classifiers.build("ast", 5, init="MIT/ast-finetuned-audioset-10-10-0.4593", **SHAPE).eval()
    features = torch.randn(2, 128, 128)
    assert (ours(features) - theirs(features).logits).abs().max() <= 1e-4
    assert asked == [("MIT/ast-finetuned-audioset-10-10-0.4593", ["config.json", "model.safetensors"])]
    save_classifier(tmp_path, labels=["Bark", "Rain"])
    assert Classifier.from_pretrained("someone/rain").labels == ("Bark", "Rain")

    def offline(name, allow_patterns):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        MissingError, match=r"huggingface\.co/MIT/ast.*no route.*offline, put its config\.json"
    ):
        classifiers.build("ast", 5, init="MIT/ast", **SHAPE)
