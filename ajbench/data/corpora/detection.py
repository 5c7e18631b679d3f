"""What a folder or file of someone's clips is: the reader for it and the keys of the data section.

Only names and headers of tables are read.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import absolute, walk
from ajbench.data.audio import SUFFIXES
from ajbench.data.corpora import audioset, clip_table, fold_names, fsd50k, hub, table_files, webdataset
from ajbench.data.corpora.folder import division, inner_splits
from ajbench.data.manifest import csv_records
from ajbench.data.video import SUFFIXES as VIDEO_SUFFIXES

SOUNDS = (*SUFFIXES, *VIDEO_SUFFIXES)
BY_COLUMN = " with a column for each class"
FLAT = "sound files in one folder"
SHOWN = 4  # folders that are named
PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
LAYOUTS = (
    "class folders (also in split or fold folders), files with the class in their names (--label), "
    "a table with columns of files and labels, an audiofolder, Parquet or tar shards, or the layout of "
    "ESC-50, FSD50K or AudioSet"
)


@dataclass(frozen=True)
class Found:
    """A recognised corpus.

    Attributes:
        root: what its reader takes, which may be a folder in the given one.
        layout: in words.
        data: keys of the recipe's data section.
    """

    root: Path
    layout: str
    data: dict[str, Any] = field(default_factory=dict)


def detect(path: Path) -> Found:
    """Return what `path` is.

    Raises:
        MissingError: there is no such path, or no sounds in it.
        UsageError: it is a file or folder of another kind.
    """
    if not path.exists():
        raise MissingError(f"--data {path}: no such file or folder")
    root = absolute(path)
    return _file(root) if root.is_file() else _folder(root)


def _file(path: Path) -> Found:
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        raise UsageError(f"--data {path}: a recipe; run it with `ajbench run {path}`")
    if suffix in PACKED:
        raise UsageError(f"--data {path}: unpack it, and give the folder")
    if suffix == ".tar":
        return Found(path, "a WebDataset tar", {"corpus": "webdataset"})
    if suffix in SOUNDS:
        raise UsageError(f"--data {path}: one sound file; expected {LAYOUTS}")
    if suffix not in table_files.SUFFIXES:
        raise UsageError(f"--data {path}: not a kind of file that is read; expected {LAYOUTS}")
    if hub.has_sounds(path):
        return Found(path, "a Parquet file with sounds", {"corpus": "hub"})
    by_column = BY_COLUMN if table_files.check(path) else ""
    return Found(path, f"a table of clips{by_column}", {"corpus": "table"})


def _folder(root: Path) -> Found:
    special = _published(root)
    if special:
        return special
    tables = hub.find_metadata(root)
    if any("path" in _columns(table) for table in tables):
        return Found(root, f"an audiofolder with {tables[0].name}", {"corpus": "hub"})
    if tables := hub.find_split_tables(root):
        shown = ", ".join(str(table.relative_to(root)) for table in tables[:SHOWN])
        return Found(root, f"a table for each split ({shown})", {"corpus": "hub"})
    if hub.find_shards(root):
        return Found(root, "Parquet shards with sounds", {"corpus": "hub"})
    if webdataset.find_tars(root) and not _has_sound(root):
        return Found(root, "WebDataset tars", {"corpus": "webdataset"})
    if table := _table(root):
        by_column = BY_COLUMN if table_files.check(table) else ""
        return Found(table, f"the table {table.name}{by_column}", {"corpus": "table"})
    sounding = [top for top in hub.subfolders(root) if _has_sound(top)]
    if not sounding:
        if any(is_sound(path.name) for path in root.iterdir()):
            return Found(root, FLAT, {"corpus": "folder"})
        raise MissingError(f"--data {root}: no sound files{_others(root)}; expected {LAYOUTS}")
    names = [top.name for top in sounding]
    splits, numbers = division(names, any(map(_has_sound, itertools.chain(*map(hub.subfolders, sounding)))))
    # A folder that holds everything, such as `audio` or `train`, is not a class.
    if len(sounding) == 1 and hub.subfolders(sounding[0]):
        return _folder(sounding[0])
    layout = "class folders"
    if len(splits) == len(names):
        layout = f"split folders ({', '.join(names)}) with class folders"
    elif numbers:
        layout = f"{len(names)} fold folders ({fold_names.in_words(numbers)}) with class folders"
    else:
        inside = [{sub.name for sub in hub.subfolders(top) if _has_sound(sub)} for top in sounding]
        loose = any(is_sound(path.name) for top in sounding for path in top.iterdir())
        if not loose and inner_splits(
            (top, name, "") for top, own in zip(names, inside, strict=True) for name in own
        ):
            layout = "class folders with split folders"
        elif not loose and len(inside) > 1 and len(inside[0]) > 1 and all(own == inside[0] for own in inside):
            classes = ", ".join(sorted(inside[0])[:SHOWN])
            console.say_once(
                f"{root}: each of its {len(names)} folders ({', '.join(names[:SHOWN])}) has folders "
                f"{classes}; if these are the classes, name the outer ones fold1, fold2, …, or train and test"
            )
    return Found(root, layout, {"corpus": "folder"})


def _others(root: Path) -> str:
    """Return which files a folder without sounds has, and which are sounds, in words."""
    kinds = Counter(path.suffix.lower() or "without suffix" for path in walk(root))
    if not kinds:
        return ""
    shown = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(SHOWN))
    return f" (found {shown}; convert sounds to one of {', '.join(SOUNDS)})"


def _published(root: Path) -> Found | None:
    """Return what is found if the folder has the layout of a published corpus."""
    if (root / "meta" / "esc50.csv").is_file() and (root / "audio").is_dir():
        records, _ = csv_records(root / "meta" / "esc50.csv")
        ten = {cells["filename"] for _, cells in records if cells.get("esc10", "").lower() in ("true", "1")}
        only_ten = {path.stem for path in (root / "audio").iterdir()} <= {Path(name).stem for name in ten}
        if only_ten:
            return Found(root, "ESC-10 in ESC-50's layout", {"corpus": "esc50", "subset": "esc10"})
        return Found(root, "ESC-50", {"corpus": "esc50"})
    if (root / fsd50k.GROUND_TRUTH).is_dir():
        return Found(root, "FSD50K", {"corpus": "fsd50k"})
    lists = [folder for folder in (root, *hub.subfolders(root)) if (folder / audioset.EVAL).is_file()]
    if lists:
        balanced = any((folder / audioset.BALANCED).is_file() for folder in (root, *hub.subfolders(root)))
        subset = "balanced" if balanced else "unbalanced"
        return Found(root, f"AudioSet, {subset} train segments", {"corpus": "audioset", "subset": subset})
    return None


def _table(root: Path) -> Path | None:
    """Return the one table in a folder that has columns of files and of labels; None if there is none."""
    found = [root / name for name in clip_table.TABLES if (root / name).is_file()]
    if not found:
        usable = (path for path in sorted(root.iterdir()) if path.suffix.lower() in table_files.SUFFIXES)
        found = [path for path in usable if {"path", "labels"} <= _columns(path)]
        if len(found) > 1:
            shown = ", ".join(path.name for path in found)
            raise UsageError(f"--data {root}: several tables ({shown}); name one with --data FILE")
    return found[0] if found else None


def _columns(path: Path) -> set[str]:
    """Return `path` and `labels` as far as a table has such columns; nothing of one that is not readable."""
    try:
        return table_files.contents(path)[0]
    except (UsageError, MissingError) as error:
        if path.suffix.lower() != ".json":  # most of these are no tables
            console.say_once(f"not used: {error}")
        return set()


def _has_sound(folder: Path) -> bool:
    return next(_sounds(folder), None) is not None


def _sounds(folder: Path) -> Iterator[str]:
    seen: set[str] = set()
    for inside, folders, names in os.walk(folder, followlinks=True):
        if (target := os.path.realpath(inside)) in seen:  # links in a circle
            folders.clear()
            continue
        seen.add(target)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (name for name in names if is_sound(name))


def is_sound(name: str) -> bool:
    """Return whether a file of this name is a sound, or a video with sound, and not hidden."""
    return not name.startswith(".") and name.lower().endswith(SOUNDS)
