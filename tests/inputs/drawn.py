"""Odd folders and tables of clips drawn from a seed, and what should be found in them."""

import csv
import io
import json
import math
import os
import random
import shutil
import tarfile
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

NAMES = [
    "a b", "Häß", unicodedata.normalize("NFD", "café"), "日本語", "🎵", "x,y", 'q"uote', "it's", "semi;colon",
    "pipe|", "percent%20", "hash#1", "-dash", "v1.5", "trailing ", "new\nline", "tab\tbed", "a::b",
    "b.ogg::1", "back\\slash", "$HOME", "~", "[b]", "{0}", "%s", "con", "UPPER", "x" * 200, "01", "nan",
    "None", "a..b", "=1+1", "<b>", "&amp;", os.fsdecode(b"caf\xe9"), "line\u2028sep", "\u200bzero", "train",
    "Test_1", "fold1",
]  # fmt: skip
CLASSES = [
    "dog", "cat", "rain", "Church bells", "Sea_waves", "Hund, groß", "日本", "rock & roll", "1", "2", "nan",
    "None", "child's", "a.b", "x|y", "crackling-fire", "train", "car", "🎵 music", "Dog barking (loud)",
]  # fmt: skip
FORMATS = [  # suffix, format, subtype, rate, channels
    (".wav", "WAV", "PCM_16", 16_000, 1),
    (".wav", "WAV", "PCM_16", 44_100, 2),
    (".wav", "WAV", "FLOAT", 8000, 1),
    (".WAV", "WAV", "PCM_24", 22_050, 1),
    (".wav", "WAV", "PCM_U8", 16_000, 1),
    (".wav", "WAV", "GSM610", 8000, 1),
    (".flac", "FLAC", "PCM_16", 48_000, 1),
    (".ogg", "OGG", "VORBIS", 16_000, 2),
    (".mp3", "MP3", None, 16_000, 1),
    (".opus", "OGG", "OPUS", 48_000, 1),
    (".aiff", "AIFF", "PCM_16", 16_000, 1),
    (".au", "AU", "ULAW", 8000, 1),
    (".caf", "CAF", "PCM_16", 16_000, 1),
    (".w64", "W64", "PCM_16", 16_000, 1),
    (".Flac", "FLAC", "PCM_24", 96_000, 1),
]
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64")
SPLITS = [
    ("train", "test"), ("Train", "Val", "Test"), ("dev", "eval"), ("TRAINING", "validation", "testing"),
    ("train", "valid"), ("development", "evaluation"),
]  # fmt: skip


@dataclass
class Drawn:
    """A drawn corpus.

    Attributes:
        path: for --data.
        layout: what it is.
        runs: whether it must be accepted.
        labels: of each clip whose sound and labels are good, by its file or `archive::member`.
        lines: file of each line of the tables, by the table and the number.
        merged: lines that are another label of a clip.
        members: sounds in archives, `archive::member`.
    """

    path: Path
    layout: str
    runs: bool = True
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lines: dict[tuple[str, int], str] = field(default_factory=dict)
    merged: int = 0
    members: set[str] = field(default_factory=set)

    def sounds(self) -> set[str]:
        """Return every visible sound file below the path, once, as `key`; and the members of archives."""
        found, seen = set[str](), set[str]()
        places = [self.path] if self.path.is_dir() else []
        for inside, folders, names in (one for top in places for one in os.walk(top, followlinks=True)):
            if (real := os.path.realpath(inside)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [name for name in folders if not name.startswith(".")]
            found |= {
                key(os.path.join(inside, name))  # noqa: PTH118
                for name in names
                if not name.startswith(".") and name.lower().endswith(SUFFIXES)
            }
        return found | {key(one) for one in self.members}


def key(path: str | Path) -> str:
    """Return what a file is compared by: its real folder and its own name, NFC, printable."""
    path = Path(path)
    whole = f"{os.path.realpath(path.parent)}/{path.name}"
    return unicodedata.normalize("NFC", whole.encode(errors="backslashreplace").decode())


def draw(seed: int, root: Path) -> Drawn:
    """Draw a corpus in the folder `root`, which is made."""
    rng = random.Random(seed)
    root.mkdir(parents=True)
    return LAYOUTS[seed % len(LAYOUTS)](_Draw(rng, root))


@dataclass
class _Draw:
    """What the layouts share."""

    rng: random.Random
    root: Path
    written: int = 0

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def name(self) -> str:
        """A file name without suffix, unlike all others; one in four is odd."""
        self.written += 1
        odd = self.rng.choice(NAMES) if self.chance(0.25) else "clip"
        return f"{odd}{self.written}" if self.chance(0.9) else f"{self.written}{odd}"

    def classes(self, most: int = 4) -> list[str]:
        return self.rng.sample(CLASSES, self.rng.randint(2, most))

    def sound(self, path: Path, good: bool | None = None) -> tuple[Path, bool]:
        """Write a sound; its suffix is added to the path. Return the path and whether it is good."""
        good = not self.chance(0.12) if good is None else good
        suffix, *how = self.rng.choice(FORMATS)
        path = path.with_name(path.name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content(*how) if good else self.broken())
        return path, good and path.name.encode(errors="backslashreplace").decode() == path.name

    def content(
        self, format: str = "WAV", subtype: str | None = "PCM_16", rate: int = 16_000, channels: int = 1
    ):
        wave = np.random.default_rng(self.rng.getrandbits(32)).normal(0, 0.1, (rate * 2 // 5, channels))
        file = io.BytesIO()
        soundfile.write(file, wave, rate, format=format, subtype=subtype)
        return file.getvalue()

    def broken(self) -> bytes:
        """The content of a file that cannot be used."""
        whole, zeros = self.content(), io.BytesIO()
        wave = self.rng.choice([np.zeros(6000), np.full(6000, 0.3), np.full(6000, math.nan), np.ones(300)])
        soundfile.write(zeros, wave, 16_000, format="WAV", subtype="FLOAT")
        return self.rng.choice([b"", b"no sound", whole[:3000], whole[:30], zeros.getvalue(), b"\0" * 9000])

    def litter(self, folder: Path) -> None:
        """Put files into a folder that are no clips."""
        hidden = [".DS_Store", "._clip.wav", ".hidden.wav", ".cache/a.wav", ".git/x/b.wav"]
        other = [
            "README.md",
            "notes.txt",
            "Thumbs.db",
            "old.zip",
            "docs/a.pdf",
            "__MACOSX/._x.wav",
            "empty/.keep",
        ]
        for name in self.rng.sample(hidden + other, self.rng.randint(0, 4)):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.rng.choice([b"", b"text", self.content()]))

    def links(self, folder: Path, files: list[Path]) -> None:
        """Put links into a folder: in a circle, to a file, to nothing."""
        if self.chance(0.3):
            (folder / "circle").symlink_to(folder.resolve())
        if self.chance(0.3):
            (folder / "again.wav").symlink_to(self.rng.choice(files).resolve())
        if self.chance(0.3):
            (folder / "gone.wav").symlink_to(folder / "nowhere.wav")

    def class_folders(self, root: Path, classes: list[str], out: Drawn, count: int = 6) -> list[Path]:
        """Write clips in class folders; most of them are good."""
        found = []
        for label in classes:
            nested = self.rng.choice(["", "", "id", "deep"])
            for k in range(self.rng.randint(count, count + 3)):
                name = self.name()
                inside = {"": name, "id": f"{name}/audio", "deep": f"a/{k % 2}/{name}"}[nested]
                path, good = self.sound(root / label / inside, good=True if k < count - 1 else None)
                good = good and key(path).encode() == unicodedata.normalize("NFC", str(path)).encode(
                    errors="replace"
                )
                found.append(path)
                if good:
                    out.labels[key(path)] = (label,)
        if self.chance(0.3):
            twin = found[0].with_name(f"twin{found[0].suffix}")
            shutil.copy(found[0], twin)
            out.labels[key(twin)] = (classes[0],)
            found.append(twin)
        return found


def plain_folders(d: _Draw) -> Drawn:
    out = Drawn(d.root, "class folders")
    files = d.class_folders(d.root, d.classes(), out)
    d.litter(d.root)
    d.links(files[0].parent, files)
    if d.chance(0.3):
        d.sound(d.root / d.name())
    if d.chance(0.3):
        (d.root / "nothing").mkdir()
    return out


def wrapped_folders(d: _Draw) -> Drawn:
    out = Drawn(d.root, "class folders in a folder")
    top = d.root / d.rng.choice(["audio", "data/wavs", "train", "set v1.0"])
    d.class_folders(top, d.classes(), out)
    d.litter(top)
    d.litter(d.root)
    if d.chance(0.4):
        d.sound(d.root / "loose")
    return out


def split_folders(d: _Draw) -> Drawn:
    out = Drawn(d.root, "split folders")
    classes = d.classes()
    for split in d.rng.choice(SPLITS):
        files = d.class_folders(d.root / split, classes, out, 3)
        d.links(files[0].parent, files)
    d.litter(d.root)
    return out


def fold_folders(d: _Draw) -> Drawn:
    out = Drawn(d.root, "fold folders")
    classes, word = d.classes(), d.rng.choice(["fold", "Fold ", "cv_", "fold-"])
    first = d.rng.choice([0, 1])
    for fold in range(first, first + d.rng.randint(2, 4)):
        d.class_folders(d.root / f"{word}{fold}", classes, out, 3)
    d.litter(d.root)
    return out


def linked_folders(d: _Draw) -> Drawn:
    out = Drawn(d.root / "set", "class folders behind links")
    classes = d.classes()
    elsewhere = Drawn(d.root, "")
    d.class_folders(d.root / "elsewhere", classes, elsewhere)
    if d.chance(0.5):
        (d.root / "set").symlink_to(d.root / "elsewhere")
    else:
        (d.root / "set").mkdir()
        for label in classes:
            (d.root / "set" / label).symlink_to(d.root / "elsewhere" / label)
    out.labels = elsewhere.labels
    return out


def few_clips(d: _Draw) -> Drawn:
    out = Drawn(d.root, "few clips or one class", runs=False)
    kind = d.rng.choice(
        ["one class", "one each", "all broken", "flat", "empty", "no sounds", "one eval class"]
    )
    if kind == "one class":
        d.class_folders(d.root, d.classes()[:1], out)
    elif kind in ("one each", "all broken"):
        for label in d.classes():
            d.sound(d.root / label / d.name(), good=kind == "one each")
    elif kind == "flat":
        for _ in range(5):
            d.sound(d.root / d.name())
    elif kind == "one eval class":
        classes = d.classes()
        d.class_folders(d.root / "train", classes, out)
        d.class_folders(d.root / "test", classes[:1], out)
    if kind != "flat":
        d.litter(d.root)
    out.labels.clear()
    return out


def table(d: _Draw, whole: bool = False) -> Drawn:
    """A table with the sounds beside it or elsewhere; `whole`: given by its own path."""
    rng, out = d.rng, Drawn(d.root, "a table")
    classes = [name.replace("|", " ") for name in d.classes()]  # `|` separates labels in any table
    kind = rng.choice([".csv", ".csv", ".tsv", ".jsonl", ".parquet", ".CSV"])
    file_column = rng.choice(["path", "file_name", "filename", "Filename", "file path", "audio_path"])
    label_column = rng.choice(["labels", "label", "Category", "tags", "class name"])
    many = label_column in ("labels", "tags") and not any(c in " ".join(classes) for c in ",|;")
    style = rng.choice([";", "|", ",", "list", "long"]) if many else "one"
    sides = rng.choice(["", "split", "fold", "Split", "recording"])
    names = rng.choice([s for s in SPLITS if "valid" not in s or len(s) > 2])
    rows: list[dict[str, object]] = []
    for k in range(rng.randint(24, 32)):
        path, good = d.sound(
            d.root / rng.choice(["", "audio", "a/b"]) / d.name(), good=True if k < 18 else None
        )
        own = [classes[k % len(classes)]]
        if many and k % 3 == 0:
            own.append(classes[(k + 1) % len(classes)])
        written = str(path.relative_to(d.root))
        if path.name.strip() != path.name or "\n" in str(path):
            good = False  # cells are stripped
        form = rng.choice(["relative", "relative", "relative", "dot", "whole", "windows", "NFD"])
        if form == "dot":
            written = f"./{written}"
        elif form == "whole":
            written = str(path)
        elif form == "windows" and "\\" not in written:
            written = written.replace("/", "\\")
        elif form == "NFD" and not path.with_name(unicodedata.normalize("NFD", path.name)).exists():
            written = unicodedata.normalize("NFD", written)
        row: dict[str, object] = {file_column: written, label_column: own}
        if sides in ("split", "Split"):
            row[sides] = names[k // len(classes) % len(names)]
        elif sides == "fold":
            row[sides] = k // len(classes) % 4
        elif sides == "recording":
            row[sides] = f"r{k // 2}"
        rows.append(row | {"note": rng.choice(["", "x", 'say "hi"', "a,b"])})
        if good:
            out.labels[key(path)] = tuple(own)
        elif d.chance(0.3) and sides != "recording":
            rows[-1][label_column] = rng.choice([[], [" "]])
    if d.chance(0.4):
        rows.insert(
            rng.randrange(len(rows)),
            rows[0] | {file_column: rng.choice(["gone.wav", "", "x" * 300, "audio"])},
        )
    if d.chance(0.3):
        d.sound(d.root / "audio" / "not in the table")
    if style == "long":
        rows = [row | {label_column: [one]} for row in rows for one in (row[label_column] or [""])]
    name = "clips" if whole else rng.choice(["metadata_all", "list", "clips", "Labels v2"])
    where = _write_table(d, d.root / f"{name}{kind}", rows, label_column, style, out, file_column)
    if not whole:
        d.litter(d.root)
    return Drawn(
        where if whole else d.root,
        f"a table {kind} with {style} labels",
        True,
        out.labels,
        out.lines,
        out.merged,
    )


def _write_table(d, path, rows, label_column, style, out, file_column) -> Path:
    suffix, seen = path.suffix.lower(), set()
    files = [os.path.normpath(path.parent / str(row[file_column])) for row in rows]
    table = str(path)
    for row in rows:
        labels = row[label_column]
        if style == "long":
            out.merged += bool(row[file_column] in seen)
            seen.add(row[file_column])
        if style != "list" or suffix in (".csv", ".tsv"):
            if style == "list":
                row[label_column] = d.rng.choice([json.dumps(labels, ensure_ascii=False), repr(labels)])
            else:
                row[label_column] = {"one": ";", "long": ";"}.get(style, style).join(labels)
    if suffix == ".jsonl":
        text = ""
        for row, file in zip(rows, files, strict=True):
            if d.chance(0.1):
                text += "\n"
            text += json.dumps(row, ensure_ascii=d.chance(0.5)) + "\n"
            out.lines[table, text.count("\n")] = file
        path.write_bytes(text.encode(errors="surrogateescape"))
        return path
    if suffix == ".parquet":
        columns = {name: [row.get(name) for row in rows] for name in rows[0]}
        with_text = {
            name: [
                one.encode(errors="surrogateescape").decode(errors="replace") if isinstance(one, str) else one
                for one in cells
            ]
            for name, cells in columns.items()
        }
        pq.write_table(pa.table(with_text), path)
        out.lines.update({(table, n): file for n, file in enumerate(files, start=1)})
        return path
    delimiter = "\t" if suffix == ".tsv" else d.rng.choice([",", ",", ";", "\t"])
    text = io.StringIO(newline="")
    ends = d.rng.choice(["\n", "\r\n"])
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ends)
    writer.writerow([f"{d.rng.choice(['', ' '])}{name}" for name in rows[0]])
    for row, file in zip(rows, files, strict=True):
        writer.writerow([*row.values()])
        out.lines[table, text.getvalue().count("\n")] = file
    body = text.getvalue().encode(errors="surrogateescape")
    path.write_bytes((b"\xef\xbb\xbf" if d.chance(0.3) else b"") + body)
    return path


def named_table(d: _Draw) -> Drawn:
    return table(d, whole=True)


def audiofolder(d: _Draw) -> Drawn:
    rng, out = d.rng, Drawn(d.root, "an audiofolder")
    classes = [name.replace("|", " ") for name in d.classes()]
    suffix = rng.choice([".csv", ".jsonl"])
    for split in rng.choice([("",), ("train", "test"), ("data/train", "data/validation", "data/test")]):
        rows = []
        for k in range(12):
            path, good = d.sound(
                d.root / split / rng.choice(["", "audio"]) / d.name(), good=True if k < 8 else None
            )
            if path.name.strip() != path.name or "\n" in str(path) or str(path) != key(path):
                good = False
            rows.append(
                {"file_name": str(path.relative_to(d.root / split)), "label": [classes[k % len(classes)]]}
            )
            if good:
                out.labels[key(path)] = tuple(rows[-1]["label"])
        if d.chance(0.3):
            d.sound(d.root / split / "extra")
        _write_table(d, d.root / split / f"metadata{suffix}", rows, "label", "one", out, "file_name")
    d.litter(d.root)
    return out


def shards(d: _Draw) -> Drawn:
    rng, out = d.rng, Drawn(d.root, "Parquet shards")
    classes, numbers = d.classes(), d.chance(0.5)
    folder = d.root / rng.choice(["", "data"])
    folder.mkdir(exist_ok=True)
    for split in rng.choice([("train", "test"), ("train",), ("train", "validation", "test")]):
        rows = []
        path = folder / f"{split}-00000-of-00001.parquet"
        for k in range(12):
            good = k < 8 or d.chance(0.5)
            content = d.content() if good else rng.choice([None, b"", d.broken()])
            label = k % len(classes)
            rows.append(
                {"audio": {"bytes": content, "path": rng.choice([None, f"{d.name()}.wav"])}, "label": label}
            )
            out.members.add(f"{path}::{k}")
            if good:
                out.labels[key(f"{path}::{k}")] = (classes[label],)
        for row in rows:
            if not numbers:
                row["label"] = classes[row["label"]]
            name = row["audio"]["path"]
            row["audio"]["path"] = name and name.encode(errors="replace").decode()
        made = pa.table({name: [row[name] for row in rows] for name in rows[0]})
        if numbers:
            about = {"info": {"features": {"label": {"names": classes, "_type": "ClassLabel"}}}}
            made = made.replace_schema_metadata({"huggingface": json.dumps(about)})
        pq.write_table(made, path)
    d.litter(d.root)
    if d.chance(0.3):
        d.sound(d.root / "beside")
    return out


def tars(d: _Draw) -> Drawn:
    rng, out = d.rng, Drawn(d.root, "tars")
    classes = [name.replace("|", " ") for name in d.classes()]
    how = rng.choice(["json", "cls", "txt", "folder"])
    sub, prefix = rng.choice(["", "shards"]), rng.choice(["", "./"])
    (d.root / sub).mkdir(exist_ok=True)
    for part in rng.choice([("train-000", "test-000"), ("000", "001"), ("all",)]):
        path = d.root / sub / f"{part}.tar"
        with tarfile.open(path, "w") as file:

            def put(name, content, file=file):
                about = tarfile.TarInfo(prefix + name)
                about.size = len(content)
                file.addfile(about, io.BytesIO(content))

            for k in range(14):
                label, good = classes[k % len(classes)], k < 9 or d.chance(0.5)
                name = d.name().replace("::", "")
                name = f"{label}/{name}" if how == "folder" else name
                suffix, *format = rng.choice(FORMATS)
                content = d.content(*format) if good else d.broken()
                put(name + suffix, content)
                texts = {
                    "json": json.dumps({"label": label, "split": [1], "extra": {"a": None}}),
                    "cls": label, "txt": f"{label}\n",
                }  # fmt: skip
                if how in texts:
                    put(f"{name}.{how}", texts[how].encode())
                out.members.add(f"{path}::{prefix}{name}{suffix}")
                if good and name.encode(errors="replace").decode() == name:
                    out.labels[key(f"{path}::{prefix}{name}{suffix}")] = (label,)
            if d.chance(0.4):
                put("._hidden.wav", b"x")
            if d.chance(0.4):
                put("lost.json", b'{"label": "dog"}')
    d.litter(d.root)
    return out


def esc50(d: _Draw) -> Drawn:
    out = Drawn(d.root, "ESC-50's layout")
    classes = d.classes()
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    (d.root / "meta").mkdir()
    for k in range(24):
        path = d.root / "audio" / f"{k % 3 + 1}-{k}-A-{k % 4}.wav"
        path.parent.mkdir(exist_ok=True)
        good = k < 18 or d.chance(0.7)
        path.write_bytes(d.content() if good else d.broken())
        label = classes[k % len(classes)]
        quoted = '"' + label.replace('"', '""') + '"'
        lines.append(f"{path.name},{k // len(classes) % 3 + 1},{k % len(classes)},{quoted},False,{k},A")
        if good:
            out.labels[key(path)] = (label,)
    if d.chance(0.3):
        lines.append("gone.wav,1,0,dog,False,9,A")
    if d.chance(0.3):
        (d.root / "audio" / "more.wav").write_bytes(d.content())
    (d.root / "meta" / "esc50.csv").write_text("\n".join(lines), encoding="utf-8")
    return out


LAYOUTS = [
    plain_folders, table, split_folders, named_table, audiofolder, fold_folders, shards, wrapped_folders,
    tars, few_clips, linked_folders, table, esc50, plain_folders, named_table,
]  # fmt: skip
