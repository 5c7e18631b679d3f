"""Layouts of clips: each made in code, recognised, and read by the reader that is named."""

import csv
import io
import json
import os
import re
import shutil
import tarfile
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.clip_reader import read_clip
from ajbench.data.corpora import detection
from ajbench.data.corpora.recordings import read_corpus

CLASSES = ("cat", "dog")
PER_CLASS = 10


def sound(seed):
    buffer = io.BytesIO()
    wave = np.random.default_rng(seed).normal(0, 0.1, 16_000)
    soundfile.write(buffer, wave, 16_000, format="WAV")
    return buffer.getvalue()


def clips(split=None):
    """Yield class, name and bytes of each clip."""
    for c, name in enumerate(CLASSES):
        for k in range(PER_CLASS):
            yield name, f"{split or 'c'}{k}-{name}.wav", sound([c, k, len(split or "")])


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def class_folders(root):
    for label, name, content in clips():
        put(root / label / name, content)


def nested(root):
    class_folders(root / "data" / "audio")
    put(root / "docs" / "README.txt", b"about")


def linked(root):
    class_folders(root.with_name("elsewhere"))
    (root / "audio").mkdir(parents=True)
    (root / "audio" / "circle").symlink_to(root)
    for label in CLASSES:
        (root / "audio" / label).symlink_to(root.with_name("elsewhere") / label)


def splits(root):
    for split in ("train", "test"):
        for label, name, content in clips(split):
            put(root / split / label / name, content)


def train_and_val(root):
    for split in ("Train", "Val"):
        for label, name, content in clips(split):
            put(root / split / label / name, content)


def train_only(root):
    class_folders(root / "train")


def folds(root):
    for k, (label, name, content) in enumerate(clips()):
        put(root / f"fold{k % 2 + 1}" / label / name, content)


def table(suffix, **names):
    """Return what makes a table whose columns have these names."""

    def make(root):
        rows = []
        for label, name, content in clips():
            put(root / "audio" / name, content)
            rows.append({names.get("path", "path"): f"audio/{name}", names.get("labels", "labels"): label})
        file = root / f"mine{suffix}"
        if suffix == ".jsonl":
            file.write_text("\n".join(map(json.dumps, rows)))
        elif suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), file)
        else:
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)

    return make


def audiofolder(suffix, per_split):
    def make(root):
        for split in ("train", "test"):
            folder = root / split if per_split else root
            rows = []
            for label, name, content in clips(split):
                put(root / split / name, content)
                rows.append({"file_name": name if per_split else f"{split}/{name}", "label": label})
            if not per_split:
                rows = [row | {"split": split} for row in rows]
                kept = folder / "rows.json"
                rows = (json.loads(kept.read_text()) if kept.exists() else []) + rows
                kept.write_text(json.dumps(rows))
            if suffix == ".jsonl":
                (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
            else:
                with (folder / "metadata.csv").open("w", newline="") as out:
                    writer = csv.DictWriter(out, list(rows[0]))
                    writer.writeheader()
                    writer.writerows(rows)

    return make


def parquet_shards(root, splits=("train", "test")):
    (root / "data").mkdir(parents=True)
    feature = {"label": {"names": list(CLASSES), "_type": "ClassLabel"}, "audio": {"_type": "Audio"}}
    about = {b"huggingface": json.dumps({"info": {"features": feature}}).encode()}
    for split in splits:
        rows = [
            {"audio": {"bytes": content, "path": name}, "label": CLASSES.index(label)}
            for label, name, content in clips(split)
        ]
        written = pa.Table.from_pylist(rows).replace_schema_metadata(about)
        pq.write_table(written, root / "data" / f"{split}-00000-of-00001.parquet", row_group_size=7)


def one_parquet_shard(root):
    parquet_shards(root, ("train",))


def tars(label_suffix):
    def make(root):
        root.mkdir()
        for split in ("train", "test"):
            with tarfile.open(root / f"{split}-0.tar", "w") as tar:
                for label, name, content in clips(split):
                    text = json.dumps({"label": label}) if label_suffix == "json" else label
                    for path, data in ((name, content), (name[:-3] + label_suffix, text.encode())):
                        info = tarfile.TarInfo(path)
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))

    return make


def esc50(root):
    rows = []
    for k, (label, name, content) in enumerate(clips()):
        put(root / "audio" / name, content)
        rows.append([name, k % 5 + 1, CLASSES.index(label), label, "True", k, "A"])
    (root / "meta").mkdir()
    with (root / "meta" / "esc50.csv").open("w", newline="") as out:
        csv.writer(out).writerows(
            [["filename", "fold", "target", "category", "esc10", "src_file", "take"], *rows]
        )


def fsd50k(root):
    truth = root / "FSD50K.ground_truth"
    truth.mkdir(parents=True)
    (truth / "vocabulary.csv").write_text("0,cat,/m/0\n1,dog,/m/1\n")
    lines = {"dev": ["fname,labels,mids,split"], "eval": ["fname,labels,mids"]}
    for part, end in (("dev", ",train"), ("eval", "")):
        for label, name, content in clips(part):
            put(root / f"FSD50K.{part}_audio" / name, content)
            lines[part].append(f"{name[:-4]},{label},/m/{CLASSES.index(label)}{end}")
        (truth / f"{part}.csv").write_text("\n".join(lines[part]))


def in_cache(make):
    """Return what makes a layout of links to files without names, as in the cache of the hub."""

    def linked(root):
        files = root.with_name("files")
        make(files)
        for number, path in enumerate(sorted(path for path in files.rglob("*") if path.is_file())):
            blob = root.parent / "blobs" / f"{number:064x}"
            put(blob, path.read_bytes())
            link = root / path.relative_to(files)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        shutil.rmtree(files)

    return linked


def of_one_name(make):
    """Return what makes shards that have the same name in the folders of their splits."""

    def renamed(root):
        make(root)
        for path in [*root.rglob("*.tar"), *root.rglob("*.parquet")]:
            split = re.split("[-.]", path.name)[0]
            (path.parent / split).mkdir(exist_ok=True)
            path.rename(path.parent / split / f"00000{path.suffix}")

    return renamed


def with_other_accents(root):
    for split, form in (("train", "NFC"), ("test", "NFD")):
        for label, name, content in clips(split):
            put(root / split / unicodedata.normalize(form, f"{label} café") / name, content)


BY_SPLIT, ALL = {"train": 2 * PER_CLASS, "eval": 2 * PER_CLASS}, 2 * PER_CLASS
LAYOUTS = {
    "class folders": (class_folders, {"corpus": "folder"}, ALL),
    "nested": (nested, {"corpus": "folder"}, ALL),
    "linked": (linked, {"corpus": "folder"}, ALL),
    "splits": (splits, {"corpus": "folder"}, BY_SPLIT),
    "train and val": (train_and_val, {"corpus": "folder"}, BY_SPLIT),
    "train only": (train_only, {"corpus": "folder"}, ALL),
    "folds": (folds, {"corpus": "folder"}, {"train": PER_CLASS, "eval": PER_CLASS}),
    "csv": (table(".csv"), {"corpus": "table"}, ALL),
    "csv of other names": (table(".csv", path="filename", labels="category"), {"corpus": "table"}, ALL),
    "tsv": (table(".tsv", labels="label"), {"corpus": "table"}, ALL),
    "jsonl": (table(".jsonl", path="audio_filepath", labels="label"), {"corpus": "table"}, ALL),
    "parquet table": (table(".parquet"), {"corpus": "table"}, ALL),
    "audiofolder": (audiofolder(".csv", False), {"corpus": "hub"}, BY_SPLIT),
    "audiofolder by split": (audiofolder(".jsonl", True), {"corpus": "hub"}, BY_SPLIT),
    "parquet shards": (parquet_shards, {"corpus": "hub"}, BY_SPLIT),
    "one parquet shard": (one_parquet_shard, {"corpus": "hub"}, ALL),
    "tars with json": (tars("json"), {"corpus": "webdataset"}, BY_SPLIT),
    "tars with cls": (tars("cls"), {"corpus": "webdataset"}, BY_SPLIT),
    "cached parquet shards": (in_cache(parquet_shards), {"corpus": "hub"}, BY_SPLIT),
    "cached tars": (in_cache(tars("cls")), {"corpus": "webdataset"}, BY_SPLIT),
    "cached csv": (in_cache(table(".csv")), {"corpus": "table"}, ALL),
    "cached audiofolder": (in_cache(audiofolder(".jsonl", True)), {"corpus": "hub"}, BY_SPLIT),
    "parquet shards of one name": (of_one_name(parquet_shards), {"corpus": "hub"}, BY_SPLIT),
    "tars of one name": (of_one_name(tars("json")), {"corpus": "webdataset"}, BY_SPLIT),
    "esc50": (esc50, {"corpus": "esc50", "subset": "esc10"}, ALL),
    "fsd50k": (fsd50k, {"corpus": "fsd50k"}, BY_SPLIT),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognised_and_read(name, tmp_path):
    make, data, sizes = LAYOUTS[name]
    make(tmp_path / "set")
    found = detection.detect(tmp_path / "set")
    assert found.data == data
    manifest = read_corpus(Data(**found.data), found.root)
    assert manifest.problems == []
    assert manifest.label_set.names == CLASSES
    counts = {split: len(manifest.split(split)) for split in ("train", "eval")}
    assert counts == sizes if isinstance(sizes, dict) else sum(counts.values()) == sizes
    for row in manifest.rows:  # every clip has its own sound and the label in its name
        assert row.labels[0] in row.clip_id
    read = [read_clip(row, 1.26) for row in manifest.rows]
    assert {clip.reason for clip in read} == {None}
    assert len({clip.flac for clip in read}) == len(manifest.rows)


def test_accents_written_in_two_ways_are_of_one_class(tmp_path):
    with_other_accents(tmp_path / "set")
    found = detection.detect(tmp_path / "set")
    manifest = read_corpus(Data(**found.data), found.root)
    assert manifest.label_set.names == tuple(unicodedata.normalize("NFC", f"{one} café") for one in CLASSES)
    assert [len(manifest.split(split)) for split in ("train", "eval")] == [2 * PER_CLASS] * 2


@pytest.mark.parametrize(
    "names", [("Part 1", "Part 2"), ("set_a", "set_b"), ("training noise", "test noise")]
)
def test_classes_that_are_called_like_folds_or_splits(tmp_path, names):
    for label, name, content in clips():
        put(tmp_path / "set" / names[CLASSES.index(label)] / name, content)
    found = detection.detect(tmp_path / "set")
    assert found.layout == "class folders"
    assert {*read_corpus(Data(**found.data), found.root).label_set.names} == {*names}
    for label, name, content in clips("x"):
        put(tmp_path / "set" / names[0] / label / name, content)
        put(tmp_path / "set" / names[1] / label / name, content)
    assert "class folders" in detection.detect(tmp_path / "set").layout != "class folders"


def test_one_file_of_shards_is_read_too(tmp_path):
    parquet_shards(tmp_path / "set")
    found = detection.detect(tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    assert found.data == {"corpus": "hub"}


def tar_of(path, members):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            file.addfile(about, io.BytesIO(content))


@pytest.mark.parametrize("prefix", ["", "./"])
@pytest.mark.parametrize("key", ["{k}.5", "v1.{k}.a", "a.b/{k}.x"])
def test_keys_of_tars_with_dots(tmp_path, prefix, key):
    sounds = [content for _, _, content in clips()]
    members = {}
    for k, content in enumerate(sounds):
        name = prefix + key.format(k=k)
        members |= {f"{name}.wav": content, f"{name}.cls": CLASSES[k % 2].encode()}
    tar_of(tmp_path / "set" / "all.tar", members)
    manifest = read_corpus(Data(corpus="webdataset"), tmp_path / "set")
    assert {row.clip_id: row.labels for row in manifest.rows} == {
        f"all/{key.format(k=k)}": (CLASSES[k % 2],) for k in range(len(sounds))
    }
    assert {read_clip(row, 1.26).reason for row in manifest.rows} == {None}


def test_sounds_of_one_sample_in_tars(tmp_path):
    sounds = [content for _, _, content in clips()]
    members = {
        "lost.json": b'{"label": "dog"}',
        "both.wav": sounds[0],
        "both.flac": sounds[0],
        "both.cls": b"a",
    }
    for k, content in enumerate(sounds):
        members |= {f"{k}.mix.wav": content, f"{k}.json": json.dumps({"label": "ab"[k % 2]}).encode()}
        members |= {f"{k}.voice.wav": content} if k < 3 else {}
    tar_of(tmp_path / "set" / "all.tar", members)
    manifest = read_corpus(Data(corpus="webdataset"), tmp_path / "set")
    own = {"all/both": None, "all/both.flac": None, **{f"all/{k}": None for k in range(3, len(sounds))}}
    of_three = {f"all/{k}.{part}": str(k) for k in range(3) for part in ("mix", "voice")}
    assert {row.clip_id: row.recording for row in manifest.rows} == own | of_three
    assert [(one.clip_id, one.reason.partition(" (")[0]) for one in manifest.problems] == [
        ("all/lost", "no sound of a known kind")
    ]


@pytest.mark.parametrize("named", [True, False])
def test_rows_of_shards_without_a_label_are_left_out(tmp_path, named):
    sounds = [{"bytes": content} for _, _, content in clips()]
    labels = [-1, None, *(k % 2 for k in range(2, len(sounds)))]
    if not named:
        labels = [None, None, *(CLASSES[k] for k in labels[2:])]
    table = pa.table({"audio": sounds, "label": labels})
    feature = {"names": CLASSES} if named else {}
    about = json.dumps({"info": {"features": {"label": feature}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": about}), tmp_path / "a.parquet")
    manifest = read_corpus(Data(corpus="hub"), tmp_path)
    assert manifest.label_set.names == CLASSES and len(manifest.rows) == len(sounds) - 2
    assert {problem.line for problem in manifest.problems} == {1, 2}


@pytest.mark.parametrize("name", [5, b"a.wav", ["a.wav"]])
def test_rows_of_shards_whose_names_are_no_text_are_named_by_number(tmp_path, name):
    sounds = [{"bytes": content, "path": name} for _, _, content in clips()]
    labels = [CLASSES[k % 2] for k in range(len(sounds))]
    pq.write_table(pa.table({"audio": sounds, "label": labels}), tmp_path / "a.parquet")
    manifest = read_corpus(Data(corpus="hub"), tmp_path)
    assert [row.clip_id for row in manifest.rows] == [f"a/{k}-{k}" for k in range(len(sounds))]


@pytest.mark.parametrize("subset", ["balanced", "unbalanced"])
def test_audiosets_lists(touch, subset):
    root = touch("eval_segments.csv", f"{subset}_train_segments.csv")
    assert detection.detect(root).data == {"corpus": "audioset", "subset": subset}


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ((), MissingError),
        (("notes.txt",), MissingError),
        (("docs/a.txt", "more/b.txt"), MissingError),
    ],
)
def test_folders_without_sounds(touch, tmp_path, names, error):
    touch(*names)
    with pytest.raises(error, match="--data"):
        detection.detect(tmp_path)


def test_files_that_are_no_sounds_are_named_with_what_to_do(touch, tmp_path):
    touch("dog/1.wma", "dog/2.wma", "rain/1.WMA", "notes.txt")
    with pytest.raises(MissingError, match=r"3 \.wma, 1 \.txt; convert .*\.m4a"):
        detection.detect(tmp_path)
    touch("dog/3.m4a", "rain/2.AAC")
    assert detection.detect(tmp_path).layout == "class folders"


@pytest.mark.parametrize("name", ["clips.zip", "clips.tar.gz", "recipe.yaml", "a.wav", "notes.txt"])
def test_files_of_other_kinds(touch, name):
    with pytest.raises(UsageError, match="--data"):
        detection.detect(touch(name) / name)


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(MissingError, match="--data"):
        detection.detect(tmp_path / "none")


def test_two_tables_are_not_chosen_between(tmp_path):
    class_folders(tmp_path)
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("path,labels\ncat/c0-cat.wav,cat\n")
    with pytest.raises(UsageError, match="--data"):
        detection.detect(tmp_path)


@pytest.mark.parametrize("more", [(), ("docs/a.txt",)])
def test_sounds_in_one_folder(touch, tmp_path, more):
    touch("a.wav", "b.wav", *more)
    assert detection.detect(tmp_path).layout == detection.FLAT
