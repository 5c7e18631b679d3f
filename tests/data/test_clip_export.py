"""Clips of a store as files: every layout reads back with its metadata; an interrupted export goes on."""

import csv
import json
import tarfile

import numpy as np
import pytest
import soundfile
from fakes import flip_in, hum_record, hum_store, stopped_at

from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.recipe import Data
from ajbench.data import clip_export, shards
from ajbench.data.clip_export import LAYOUTS, Export, export
from ajbench.data.corpora import clip_table, hub, webdataset
from ajbench.data.external_clips import read
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest
from ajbench.data.store import ClipStore

N = 30


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Thirty clips in three shards, with what synthetic clips have."""
    folder = tmp_path_factory.mktemp("export") / "store"
    about = {"strength": 0.6, "guidance": 3.0, "fidelity": 0.25, "caption": "a hum, or ü"}
    records = [hum_record(i, parent_id=f"guide {i}", seed=i, **about) for i in range(N)]
    hum_store(folder, records)
    meta = shards.read_meta(folder)
    for number in range(3):
        shards.write_shard(folder, number, records[number * 10 : number * 10 + 10])
    shards.finish(folder, meta.model_copy(update={"shards": []}))
    return ClipStore.open(folder)


def table_of(out):
    path = next(path for path in (out / "metadata.csv", out / "clips.csv") if path.exists())
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("layout", "suffix"), [("folders", ".wav"), ("audiofolder", ".flac"), ("table", ".wav")]
)
def test_files_have_the_samples_and_the_table_what_is_known(store, tmp_path, layout, suffix):
    done = export(Export(store, tmp_path / "out", layout, suffix))
    assert done["clips"] == N and (tmp_path / "out" / done["table"]).is_file()
    rows = table_of(tmp_path / "out")
    assert [row["clip_id"] for row in rows] == store.clip_ids
    for index, row in enumerate(rows):
        name = row.get("file_name") or row["path"]
        samples, rate = soundfile.read(tmp_path / "out" / name, dtype="float32")
        assert rate == 16_000 and name.endswith(suffix)
        np.testing.assert_array_equal(samples, store.audio([index])[0])
        clip = store[index]
        assert row["labels"].split(";") == clip.labels and row["caption"] == clip.caption
        assert (row["parent_id"], int(row["seed"]), float(row["fidelity"])) == (f"guide {index}", index, 0.25)
    assert not (tmp_path / "out" / ".export").exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sounds_are_on_disk_before_a_note_says_so(store, tmp_path, monkeypatch, unsynced, layout):
    seal, lost = clip_export.write_sealed, []

    def write_sealed(path, *arguments, **options):
        lost.append(unsynced(tmp_path / "out") - {clip_export.STATE})
        seal(path, *arguments, **options)

    monkeypatch.setattr(clip_export, "write_sealed", write_sealed)
    export(Export(store, tmp_path / "out", layout))
    assert lost == [set()] * 5  # at the beginning, after each of three shards, and at the end


def test_layouts_are_read_as_corpora(store, tmp_path):
    labels = sorted(clip.labels for clip in store)
    readers = {"audiofolder": hub.read, "table": clip_table.read, "webdataset": webdataset.read}
    for layout, reader in readers.items():
        export(Export(store, tmp_path / layout, layout))
        found = reader(Data(corpus="table"), tmp_path / layout)
        assert sorted(list(row.labels) for row in found.rows) == labels and not found.problems
        assert {row.caption for row in found.rows} == {"a hum, or ü"}
    export(Export(store, tmp_path / "folders", "folders"))
    real = Manifest([], LabelSet(tuple(store.meta.labels)))
    found = read(tmp_path / "folders", real)
    assert sorted(list(row.labels) for row in found.manifest.rows) == labels


def test_tars_hold_each_clip_with_its_metadata(store, tmp_path):
    export(Export(store, tmp_path / "out", "webdataset", ".wav", split="train"))
    train = set(np.array(store.clip_ids)[store.split_indices("train")])
    found = {}
    for path in sorted((tmp_path / "out").glob("*.tar")):
        assert path.name.startswith("train-")
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    about = json.load(tar.extractfile(member))
                    assert member.name.replace(".json", ".wav") in tar.getnames()
                    found[about["clip_id"]] = about
    assert {*found} == train and all(about["strength"] == 0.6 for about in found.values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_interrupted_export_goes_on(store, tmp_path, monkeypatch, layout):
    whole, out = tmp_path / "whole", tmp_path / "out"
    export(Export(store, whole, layout))
    calls, write = [], clip_export._write

    def interrupted(job, number, indices):
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(job, number, indices)

    monkeypatch.setattr(clip_export, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(Export(store, out, layout))
    with pytest.raises(UsageError, match="out"):
        export(Export(store, out, layout, ".wav"))
    with stopped_at(clip_export.shutil, "rmtree", 1):
        export(Export(store, out, layout))
    export(Export(store, out, layout))
    assert calls == [0, 1, 2, 2]  # finished shards are not written again
    files = lambda root: {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}  # noqa: E731
    one, other = files(whole), files(out)
    for found in (one, other):
        found.pop(next(path for path in found if path.name == "export.json"))
    assert one == other


def test_damaged_notes_of_an_export_are_named(store, tmp_path):
    out = tmp_path / "out"
    with stopped_at(clip_export, "_write_table", 1):
        export(Export(store, out, "table"))
    part = out / clip_export.STATE / "part-00001.json"
    flip_in(part, '"clip_id": "clip-12')
    with pytest.raises(IntegrityError, match=r"part-00001\.json: damaged .*; delete it"):
        export(Export(store, out, "table"))
    part.unlink()
    export(Export(store, out, "table"))
    for text in ("{", "[]"):
        (out / "export.json").write_text(text)
        with pytest.raises(IntegrityError, match=r"export\.json: damaged .*; choose a new folder"):
            export(Export(store, out, "table"))


def test_a_folder_with_other_files_is_left_alone(store, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=tmp_path.name):
        export(Export(store, tmp_path, "folders"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("layout", ["folders", "audiofolder", "table"])
def test_a_class_with_a_semicolon_in_its_name_is_read_back_as_one(tmp_path, layout):
    names = ["a;b", "c"]
    records = [hum_record(i, labels=[names[i % 2]]) for i in range(6)]
    store = hum_store(tmp_path / "store", records, labels=names)
    export(Export(store, tmp_path / "out", layout, ".flac"))
    cells = [row["labels"] for row in table_of(tmp_path / "out")]
    assert {*cells} == {'["a;b"]', "c"}
