"""Folders of models from strangers: their code does not run, and sizes are bounded before building."""

import json
import os
import shutil

import pytest
from fakes import save_text_encoder

from ajbench.core import transformers_folder
from ajbench.core.errors import IntegrityError
from ajbench.generation import hub_encoders


@pytest.fixture(scope="module", params=["t5", "clip"])
def kept(request, tmp_path_factory):
    return save_text_encoder(request.param, tmp_path_factory.mktemp("kept") / request.param)


@pytest.fixture
def folder(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "encoder")


def change(path, **changes):
    tree = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(tree | changes))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_in_a_folder_is_refused_and_not_run(folder, name, monkeypatch):
    marker = folder / "ran"
    (folder / "mine.py").write_text(f"open({str(marker)!r}, 'w')\nclass Mine: pass\n")
    change(folder / name, auto_map={"AutoTokenizer": ["mine.Mine", None], "AutoModel": "mine.Mine"})
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # which transformers would ask
    with pytest.raises(IntegrityError, match="auto_map"):
        hub_encoders.load(str(folder), 8)
    assert not marker.exists()


@pytest.mark.parametrize("key", ["num_layers", "num_hidden_layers", "d_model", "vocab_size"])
def test_sizes_without_measure_are_refused_before_building(folder, key):
    change(folder / "config.json", **{key: 10**9})
    with pytest.raises(IntegrityError, match=key):
        hub_encoders.load(str(folder), 8)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_pipes_in_place_of_files_are_refused(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises((IntegrityError, transformers_folder.MissingError)):
        hub_encoders.load(str(folder), 8)
