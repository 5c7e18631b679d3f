"""Folders of models from strangers: their code does not run, and sizes are bounded before building."""

import json
import os
import shutil

import pytest
import transformers
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


def test_a_length_that_is_no_number_is_refused(folder):
    change(folder / "tokenizer_config.json", model_max_length=[8])
    with pytest.raises(IntegrityError, match="model_max_length"):
        hub_encoders.load(str(folder), 8)


@pytest.mark.parametrize(
    "changes",
    [{"num_labels": 10**6}, {"depths": [10**6]}, {"parts": [{"num_hidden_layers": 10**6}]}],
)
def test_numbers_in_lists_and_counts_of_parts_are_bounded_too(folder, changes):
    change(folder / "config.json", **changes)
    with pytest.raises(IntegrityError, match=f"{next(iter(changes))}|num_hidden_layers"):
        hub_encoders.load(str(folder), 8)


def test_a_model_that_is_larger_than_its_files_is_not_built(folder, monkeypatch):
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    text |= {"d_ff": 10**7, "num_layers": 200} if "d_ff" in text else {"intermediate_size": 10**7}
    change(folder / "config.json", **config)
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", None)
    with pytest.raises(IntegrityError, match=r"config\.json: a model of \d+ parameters.* \d+ bytes"):
        hub_encoders.load(str(folder), 8)


@pytest.mark.parametrize("kind", ["t5", "flan-t5", "clip", "clap"])
@pytest.mark.parametrize("how", [{}, {"max_shard_size": "20KB"}])
def test_a_model_has_no_more_parameters_than_its_files_have_bytes(tmp_path, monkeypatch, kind, how):
    folder = save_text_encoder(kind, tmp_path / kind, **how)
    assert how == {} or len([*folder.glob("*.safetensors")]) > 1
    monkeypatch.setattr(transformers_folder, "SPARE", 0)
    hub_encoders.load(str(folder), 8)


@pytest.mark.parametrize(
    "change_of",
    [{"fft_window_size": 10**6}, {"size": {"height": 10**6}}, {"crop_size": 10**6}, {"max_length_s": 10**6}],
)
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_sizes_of_what_prepares_the_input_are_bounded(folder, name, change_of):
    change(folder / name, **change_of)
    with pytest.raises(IntegrityError, match=name):
        transformers_folder.kind_of(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_pipes_in_place_of_files_are_refused(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises((IntegrityError, transformers_folder.MissingError)):
        hub_encoders.load(str(folder), 8)
