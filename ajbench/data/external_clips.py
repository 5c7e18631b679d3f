"""Synthetic clips made elsewhere, source X of a mix: a folder of sound files or a store, with labels.

The labels of a file come from a table or, without one, from the folder above it that is named after a class,
or else from the one class that its name contains.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ajbench.core.console import counted
from ajbench.core.errors import UsageError
from ajbench.core.files import printable
from ajbench.core.recipe import Data
from ajbench.data import reasons
from ajbench.data.clip_names import ClipNames
from ajbench.data.clip_set import ClipSet, open_set
from ajbench.data.corpora import hub, label_cells, table_files
from ajbench.data.corpora.recordings import left_out
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Problem, Row
from ajbench.data.reasons import NO_FILE, in_words
from ajbench.data.rounds import rounds
from ajbench.data.store import ClipStore

SHOWN = 8  # classes that are named


@dataclass(frozen=True)
class ExternalSource:
    """Where the clips are.

    Attributes:
        path: a folder of sound files, or a clip store.
        labels: table of their labels; None: as `read` finds them.
        allow_leaks: whether the clips may repeat evaluation clips.
    """

    path: Path
    labels: Path | None = None
    allow_leaks: bool = False

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    def read(self, real: Manifest, data: Data) -> "ExternalClips":
        """Find the clips and their labels, as `read` with the keys of a data section; errors as there."""
        return read(self.path, real, self.labels, data.label_separator, data.label_from)


@dataclass(frozen=True)
class ExternalClips:
    """Clips with their labels.

    Attributes:
        path: their folder.
        manifest: a row for each clip that is used, and why the others are left out.
        clips: the clips of the rows, in their order.
        strangers: clips whose parent is named, but is not a real clip of the corpus: it counts as unknown.
    """

    path: Path
    manifest: Manifest
    clips: ClipSet
    strangers: int = 0

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def found(self) -> str:
        """What is used and what is left out, in words."""
        rows, problems = self.manifest.rows, self.manifest.problems
        classes = len({label for row in rows for label in row.labels})
        text = f"{counted(len(rows), 'clip')} of {counted(classes, 'class')} from {self.path.resolve().name}"
        known = sum(row.parent_id is not None for row in rows)
        if known or self.strangers:
            text += f", {known} with a known parent"
        if self.strangers:
            text += f" ({counted(self.strangers, 'other parent')} not among the real clips)"
        if problems:
            text += f"; {len(problems)} left out: {in_words(problems)}"
        return text

    @property
    def counts(self) -> dict[str, Any]:
        """The number of clips, of those in each class, and of those that are left out for each reason."""
        of_class = Counter(label for row in self.manifest.rows for label in row.labels)
        left = reasons.counts(self.manifest.problems)
        return {"clips": len(self), "classes": dict(of_class.most_common()), "left_out": left}

    @property
    def summary(self) -> str:
        """How many of all clips are used, in how many classes of the real clips, and why not the others."""
        rows, problems, classes = self.manifest.rows, self.manifest.problems, self.manifest.label_set.names
        has = {label for row in rows for label in row.labels}
        text = f"{len(rows)} of {counted(len(rows) + len(problems), 'clip')} in "
        text += f"{len(has)} of {counted(len(classes), 'class')}"
        if lacking := [name for name in classes if name not in has]:
            text += f" (none: {', '.join(lacking[:SHOWN])}{', …' if len(lacking) > SHOWN else ''})"
        return text + (f"; left out {len(problems)}: {in_words(problems)}" if problems else "")


def read(
    path: Path,
    real: Manifest,
    table: Path | None = None,
    separator: str = ";",
    label_from: str | None = None,
) -> ExternalClips:
    """Find the clips of a folder or store and their labels.

    Labels are compared with the classes of the real clips as words: case, spaces and punctuation do not
    matter. A clip with a label that is not one of them is left out and listed. Clips are put in an order of
    which every section has the class proportions of the whole, so that the first n are a fair dose.

    Args:
        path: a folder of sound files, or a clip store.
        real: the real clips: their classes, and the ids that `parent_id` may name.
        table: with columns of files and labels, and perhaps `parent_id` and `caption`; None: the
            metadata.csv, .jsonl or .parquet in the folder, if there is one.
        separator: of several labels in a cell.
        label_from: `data.label_from`, by which classes are found in names of files first.

    Raises:
        MissingError: there is no such folder or table, or no sound file in it.
        UsageError: a table with a store or without the columns, or no clip has a class of the real clips.
    """
    classes = ClassNames(real.label_set)
    hidden = {one.clip_id: one for clips in left_out(real.problems).values() for one in clips if one.clip_id}
    known = ClipNames(
        [(row.clip_id, row.path) for row in real.rows] + [(clip, one.path) for clip, one in hidden.items()]
    )
    split = {row.clip_id: row.split for row in real.rows}
    every = open_set(path)
    if every.is_store:
        if table:
            raise UsageError(f"--synthetic-labels {table}: {path} is a clip store and has labels")
        found = list(_of_store(path, classes))
    elif table := table or next(iter(hub.find_metadata(path)), None):
        found = _of_table(path, table, every, classes, separator)
    else:
        files = zip(every.names, every.files, strict=True)
        found = [_of_path(name, file, classes, label_from) for name, file in files]
    rows, numbers, problems, parents = list[Row](), list[int](), list[Problem](), list[str | None]()
    place = {name: number for number, name in enumerate(every.names)}
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
            continue
        parent = known.find(item.parent_id)
        if split.get(parent or "") == "val":
            problems.append(Problem(item.clip_id, item.path, None, "made from a clip of the val split"))
            continue
        if parent in hidden and parent not in split:
            reason = f"made from a real clip that is {hidden[parent].reason}"
            problems.append(Problem(item.clip_id, item.path, None, reason))
            continue
        parents.append(parent or item.parent_id)  # the audit may know the recording of another
        rows.append(replace(item, parent_id=parent, split="train", source="synthetic"))
        numbers.append(place[item.clip_id])
    strangers = sum(
        row.parent_id is None and parent is not None for row, parent in zip(rows, parents, strict=True)
    )
    if not rows:
        raise UsageError(
            f"--synthetic {path}: none of its {counted(len(every), 'clip')} has a class of the real clips "
            f"({in_words(problems)}); classes: {', '.join(real.label_set.names[:SHOWN])}"
            f"{', …' if len(real.label_set) > SHOWN else ''}; name the folders after them, or give a table "
            "with --synthetic-labels"
        )
    order = rounds(Manifest(rows, real.label_set).sparse_targets(range(len(rows))), len(rows), 0)
    rows = [rows[k] for k in order]
    clips = every.take(np.array(numbers, np.int64)[order])
    clips = replace(clips, parents=[parents[k] for k in order])
    return ExternalClips(path, Manifest(rows, real.label_set, problems), clips, strangers)


class ClassNames:
    """Finds classes of a label set in what people write: `Sea_waves` is `sea waves`.

    Args:
        label_set: the classes.
    """

    def __init__(self, label_set: LabelSet) -> None:
        self.exact = {name: name for name in label_set.names}
        self.exact |= dict(zip(label_set.mids or (), label_set.names, strict=False))
        sizes = Counter(map(words, label_set.names))
        self.by_words = {words(name): name for name in label_set.names if sizes[words(name)] == 1}
        self.beginning: dict[str, list[tuple[str, ...]]] = {}  # first word → names
        for name in filter(None, self.by_words):
            self.beginning.setdefault(name[0], []).append(name)

    def find(self, written: str) -> str | None:
        """Return the class that is written; None if it is not one."""
        return self.exact.get(written.strip()) or self.by_words.get(words(written))

    def inside(self, text: str) -> list[str]:
        """Return the classes whose words occur in a text one after another; of nested ones the longest.

        Classes that are numbers are not looked for: a number in a name is an index rather than a class.
        """
        parts = words(text)
        spans = [
            (start, start + len(name))
            for start, word in enumerate(parts)
            for name in self.beginning.get(word, ())
            if parts[start : start + len(name)] == name and not "".join(name).isdecimal()
        ]
        outer = [
            (a, b) for a, b in spans if not any(c <= a and b <= d and (a, b) != (c, d) for c, d in spans)
        ]
        return list(dict.fromkeys(self.by_words[parts[a:b]] for a, b in sorted(outer)))


def words(text: str) -> tuple[str, ...]:
    """Return the words of a name in lower case, without spaces and punctuation."""
    return tuple(re.findall(r"[^\W_]+", text.casefold()))


def _of_path(name: str, file: Path, classes: ClassNames, label_from: str | None) -> Row | Problem:
    """Return the clip of a file, labelled by a pattern, its folders or its name."""
    if printable(str(file)) != str(file):
        return Problem(name, printable(str(file)), None, "its name is not UTF-8; rename it")
    folders = PurePath(name).parts[:-1]
    match = re.search(label_from, PurePath(name).name) if label_from else None
    found = [label for label in map(classes.find, [match[1]] if match and match[1] else folders) if label][:1]
    found = found or classes.inside(PurePath(name).name)
    if len(found) == 1:
        return Row(name, str(file), labels=(found[0],))
    if found:
        reason = f"several classes in its name: {', '.join(found)}"
    elif folders:
        reason = f"folder {folders[0]!r} is not a class of the real clips"
    else:
        reason = "no class of the real clips in its name"
    return Problem(name, str(file), None, reason)


def _of_table(
    path: Path, table: Path, every: ClipSet, classes: ClassNames, separator: str
) -> list[Row | Problem]:
    """Return the clips of a table, relative to its folder or to `path`; rows of one file are one clip."""
    records, problems = table_files.read(table)
    records = label_cells.read(records, separator, classes.exact, table)
    place = {
        os.path.normpath(file.absolute()): name for name, file in zip(every.names, every.files, strict=True)
    }
    files = dict(zip(every.names, every.files, strict=True))
    cells_of: dict[str, dict[str, Any]] = {}
    labels_of: dict[str, list[str]] = {}
    for line, cells in records:
        written = str(cells["path"] or "")
        where = (os.path.normpath((folder / written).absolute()) for folder in (table.parent, path))
        name = next((place[one] for one in where if one in place), None)
        name = name or (written if written in files else None)
        if name is None:
            problems.append(Problem(None, str(table), line, f"{NO_FILE} ({written})"))
            continue
        cells_of.setdefault(name, cells)
        labels_of.setdefault(name, []).extend(filter(None, map(str.strip, cells["labels"])))
    found: list[Row | Problem] = [*problems]
    for name, file in files.items():
        about = printable(str(file))
        if name not in cells_of:
            found.append(Problem(name, about, None, f"not in {table.name}"))
            continue
        labels = {written: classes.find(written) for written in labels_of[name]}
        if strange := [written for written, label in labels.items() if label is None]:
            found.append(Problem(name, about, None, f"label {strange[0]!r} is not a class of the real clips"))
        elif not labels:
            found.append(Problem(name, about, None, "no label"))
        else:
            parent, caption = (_text(cells_of[name], key) for key in ("parent_id", "caption"))
            distinct = tuple(dict.fromkeys(label for label in labels.values() if label))
            found.append(Row(name, str(file), labels=distinct, parent_id=parent, caption=caption))
    return found


def _of_store(path: Path, classes: ClassNames) -> Iterator[Row | Problem]:
    """Yield the clips of a store."""
    store = ClipStore.open(path)
    columns = zip(*map(store.column, ("clip_id", "labels", "parent_id", "caption")), strict=True)
    for name, written, parent, caption in columns:
        labels = {one: classes.find(one) for one in written}
        if strange := [one for one, label in labels.items() if label is None]:
            yield Problem(name, str(path), None, f"label {strange[0]!r} is not a class of the real clips")
        elif not labels:
            yield Problem(name, str(path), None, "no label")
        else:
            distinct = tuple(dict.fromkeys(label for label in labels.values() if label))
            yield Row(name, name, labels=distinct, parent_id=parent, caption=caption)


def _text(cells: Mapping[str, Any], column: str) -> str | None:
    value = cells.get(column)
    return None if value is None or not str(value).strip() else str(value).strip()
