import warnings

import pytest
import torch
from fakes import random_transformers_ast, save_untrained_classifier


@pytest.fixture
def empty_caches(tmp_path, monkeypatch):
    """Point torch's and the hub's caches to empty folders, and AJBENCH_WEIGHTS to tmp_path."""
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def ast_folder(tmp_path_factory):
    """A small random AST with five classes."""
    folder = tmp_path_factory.mktemp("ast")
    options = {"hidden_size": 16, "intermediate_size": 64, "max_length": 1024}
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        random_transformers_ast(folder, 5, 0.2, id2label={i: f"sound {i}" for i in range(5)}, **options)
    return folder


@pytest.fixture(scope="session")
def encodec_file(tmp_path_factory):
    """(model, path): EnCodec with random weights, and its checkpoint."""
    from encodec import EncodecModel

    path = tmp_path_factory.mktemp("encodec") / "mine.th"
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = EncodecModel.encodec_model_24khz(pretrained=False).eval()
    torch.save(model.state_dict(), path)
    return model, path


@pytest.fixture(scope="session")
def reference_folder(tmp_path_factory):
    """An untrained classifier of rain and dog, clips of 80,640 samples."""
    return save_untrained_classifier(tmp_path_factory.mktemp("reference"), ["rain", "dog"], 80_640)
