"""The table of published weights, and where its files are looked for."""

import re
from pathlib import Path

import pytest

from ajbench.core import published, registry, transformers_folder
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.files import sha256
from ajbench.generation import hub_encoders, pretrained


def test_every_line_of_the_table_can_be_used():
    files = published.listed()
    assert len({file.file for file in files}) == len(files)
    for file in files:
        assert file.url.startswith("https://") and file.licence and file.used_for
        assert not file.sha256 or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.bytes is None or file.bytes > 0
        assert not Path(file.file).is_absolute() and ".." not in file.file
        # torch's way of naming a file after its hash.
        if named := re.search(r"-([0-9a-f]{8})\.(?:pth|th)$", file.file):
            assert file.sha256.startswith(named[1])


def test_whatever_ajbench_loads_is_in_the_table():
    places = {file.file: file for file in published.listed()}
    for name, file in registry.FEATURE_FILES.items():
        assert places[file].name == name
    for name, repository in registry.FEATURE_FOLDERS.items():
        assert all(f"huggingface.co/{repository}/" in file.url for file in published.files_of(name))
    for name, entry in hub_encoders.PUBLISHED.items():
        assert {f"{name}/config.json"} <= set(places) and entry.ids[0] in places[f"{name}/config.json"].url
        assert {Path(file.file).name for file in published.files_of(name)} & set(
            transformers_folder.TOKENIZERS
        )
    assert f"sd14/{pretrained.FILES[0]}" in places
    assert set(registry.FEATURES) - {"reference", "encodec"} <= {file.name for file in published.listed()}


def test_the_tables_facts_are_those_of_the_file(tagger_path):
    (file,) = published.files_of("mn04")
    assert tagger_path.stat().st_size == file.bytes and sha256(tagger_path) == file.sha256
    published.check(file, tagger_path)


def test_files_are_found_where_their_publishers_tools_leave_them(tmp_path, monkeypatch):
    for variable in ("AJBENCH_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (vggish,), ast = published.files_of("vggish"), published.files_of("ast")[0]
    assert vggish.find() is None and ast.find() is None

    def put(*parts):
        path = tmp_path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        return path

    assert put("TORCH_HOME", "hub", "checkpoints", vggish.file) == vggish.find()
    assert put("AJBENCH_WEIGHTS", vggish.file) == vggish.find()
    repository = "models--MIT--ast-finetuned-audioset-10-10-0.4593"
    put("hub", repository, "refs", "main").write_text("c0ffee")
    assert put("hub", repository, "snapshots", "c0ffee", "model.safetensors") == ast.find()
    with pytest.raises(IntegrityError, match="1 bytes, 288567937 are published; remove it and get it again"):
        published.check(vggish, vggish.find())


def test_unknown_weights_are_refused_with_the_near_name():
    with pytest.raises(UsageError, match="did you mean 'vggish'"):
        published.files_of("vgish")
