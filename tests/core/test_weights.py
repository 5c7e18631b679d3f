"""The table of published weights, and the one search for its files."""

import re
import zipfile
from pathlib import Path

import pytest
import torch

from ajbench.core import registry, transformers_folder, weights
from ajbench.core.errors import IntegrityError, MissingError, UsageError


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A machine without weights; returns put(*parts), which creates a file below tmp_path."""
    for variable in ("AJBENCH_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(*parts):
        path = tmp_path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        return path

    return put


def put_in_hub_cache(put, repository, *files):
    folder = f"models--{repository.replace('/', '--')}"
    put("hub", folder, "refs", "main").write_text("c0ffee")
    return next(iter([put("hub", folder, "snapshots", "c0ffee", file) for file in files]))


def test_every_row_of_the_table_can_be_used():
    files = weights.listed()
    assert len({file.file for file in files}) == len(files)
    for file in files:
        assert file.url.startswith("https://") and file.licence and file.used_for
        assert not file.sha256 or re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", file.sha256)
        assert file.bytes is None or file.bytes > 0
        assert not Path(file.file).is_absolute() and ".." not in file.file
        # Files of the hub share a folder of the weights' name; a loader finds them by that.
        assert file.file.startswith(f"{file.name}/") == ("huggingface.co" in file.url)
        # torch's way of naming a file after its hash
        if named := re.search(r"-([0-9a-f]{8})\.(?:pth|th)$", file.file):
            assert file.sha256.startswith(named[1])
    for name in {file.name for file in files if file.used_for.endswith("text encoder")}:
        assert {Path(file.file).name for file in weights.files_of(name)} & {*transformers_folder.TOKENIZERS}


def test_every_extractor_has_weights_in_the_table():
    assert weights.files_of("encodec") == weights.files_of("encodec_24khz")
    for name in registry.FEATURES.keys() - {"reference", "tiny"}:  # trained by the recipe; shipped
        assert weights.files_of(name)


def test_facts_in_the_table_are_those_of_the_file(tagger_path):
    (file,) = weights.files_of("mn04")
    assert file.fault(tagger_path) is None and file.bytes == tagger_path.stat().st_size
    weights.check("mn04", tagger_path)


def test_a_single_file_is_found_in_the_own_folder_then_in_torchs_cache(empty):
    (vggish,) = weights.files_of("vggish")
    assert vggish.find() is None and weights.find("vggish") is None
    for place in (("TORCH_HOME", "hub", "checkpoints"), ("AJBENCH_WEIGHTS",)):
        assert empty(*place, vggish.file) == vggish.find() == weights.find("vggish")
    with pytest.raises(IntegrityError, match=re.escape(vggish.url)):
        weights.check("vggish", weights.find("vggish"))


def test_a_folder_is_found_in_the_own_folder_then_in_the_hubs_cache(empty):
    tensors, config = weights.files_of("ast")
    repository = "MIT/ast-finetuned-audioset-10-10-0.4593"
    cached = put_in_hub_cache(empty, repository, "config.json")
    assert weights.find("ast") is None and tensors.find() is None  # a configuration alone is not enough
    put_in_hub_cache(empty, repository, "model.safetensors")
    assert weights.find("ast") == cached.parent and config.find() == cached
    own = empty("AJBENCH_WEIGHTS", "ast", "config.json")
    assert weights.find("ast") == cached.parent
    empty("AJBENCH_WEIGHTS", "ast", "model.safetensors")
    assert weights.find("ast") == own.parent
    with pytest.raises(IntegrityError, match=re.escape(f"{own.parent}/model.safetensors")):
        weights.check("ast", own.parent)


def test_both_layouts_of_encodec_are_found(empty):
    file = "encodec_24khz-d7cc33bc.th"
    hub = put_in_hub_cache(empty, "facebook/encodec_24khz", "config.json", "model.safetensors").parent
    assert weights.find("encodec_24khz") == hub
    assert empty("TORCH_HOME", "hub", "checkpoints", file) == weights.find("encodec_24khz")
    folder = empty("AJBENCH_WEIGHTS", "encodec_24khz", "model.safetensors").parent
    empty("AJBENCH_WEIGHTS", "encodec_24khz", "config.json")
    assert weights.find("encodec_24khz") == folder
    assert empty("AJBENCH_WEIGHTS", file) == weights.find("encodec_24khz")


@pytest.mark.parametrize("name", [*dict.fromkeys(file.name for file in weights.listed())])
def test_missing_weights_are_one_line_with_places_source_and_way_around(empty, tmp_path, name):
    with pytest.raises(MissingError, match=r"^stage: ") as missing:
        weights.locate(name, who="stage", instead="use another")
    message, row = str(missing.value), weights.files_of(name)[0]
    assert row.url in message and f"--download {name}`" in message and message.endswith("use another")
    assert str(tmp_path / "AJBENCH_WEIGHTS") in message and "\n" not in message
    assert str(tmp_path / ("hub" if "/" in row.file else "TORCH_HOME")) in message


def test_a_path_of_the_user_goes_before_every_place(empty, tmp_path, monkeypatch):
    how = {"who": "stage", "instead": "use another"}
    (row,) = weights.files_of("vggish")
    empty("AJBENCH_WEIGHTS", row.file)
    mine = empty("mine.pth")
    assert weights.locate("vggish", mine, **how) == mine
    monkeypatch.delenv("AJBENCH_WEIGHTS")
    with pytest.raises(MissingError, match=r"nowhere\.pth"):
        weights.locate("vggish", tmp_path / "nowhere.pth", **how)
    with pytest.raises(MissingError, match=r"AJBENCH_WEIGHTS \(not set\)"):
        weights.locate("vggish", **how)


def test_a_hub_repository_that_is_not_in_the_table_is_found_too(empty, tmp_path):
    found = put_in_hub_cache(empty, "someone/unet", "weights.bin")
    how = {"who": "stage", "instead": "use another"}
    assert weights.locate("someone/unet", files=("x.bin", "weights.bin"), **how) == found
    with pytest.raises(MissingError, match=r"hf download someone/other x.bin.*huggingface.co/someone/other"):
        weights.locate("someone/other", files=("x.bin",), **how)
    with pytest.raises(MissingError, match="nowhere"):
        weights.locate("nowhere", **how)


def test_unknown_weights_are_refused_with_the_near_name():
    with pytest.raises(UsageError, match="did you mean 'vggish'"):
        weights.files_of("vgish")


def test_identity_of_a_folder_is_that_of_its_tensors_and_configurations(empty):
    config = empty("folder", "config.json")
    first = weights.identity(config.parent)
    empty("folder", "README.md")
    assert weights.identity(config.parent) == first
    tensors = empty("folder", "model.bin")
    second = weights.identity(config.parent)
    config.write_text("{}")
    assert len({first, second, weights.identity(config.parent), weights.identity(tensors)}) == 4


def test_pickles_that_are_compressed_or_store_a_tensor_once_for_many_are_refused_unread(tmp_path):
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "plain.pth")
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "older.pth", _use_new_zipfile_serialization=False)
    for name in ("plain", "older"):
        assert len(weights.unpickled(tmp_path / f"{name}.pth")["a"]) == 100_000
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for member in plain.namelist():
            small.writestr(member, plain.read(member))
    with pytest.raises(IntegrityError, match=r"small\.pth: 4\d+ bytes once unpacked"):
        weights.unpickled(tmp_path / "small.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "plain.pth").read_bytes()[:-100])
    with pytest.raises(IntegrityError, match=r"cut\.pth"):
        weights.unpickled(tmp_path / "cut.pth")
