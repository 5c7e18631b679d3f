"""What the clips of a set were asked to be: labels and captions, from a store, a table or folders' names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ajbench.core.errors import MissingError, UsageError
from ajbench.data.clip_set import ClipSet

PARENT = "parent"
SHOWN = 3
Captions = Mapping[str, Sequence[str]]  # name of a clip → its captions


@dataclass(frozen=True)
class Asked:
    """Labels that clips were asked to have.

    Attributes:
        names: all classes that could be asked for, in order.
        mids: their AudioSet ids where they are known.
        labels: name of a clip → its labels, at least one.
    """

    names: Sequence[str]
    mids: Sequence[str] | None
    labels: Mapping[str, Sequence[str]]

    def targets(self, clips: Sequence[str]) -> NDArray[np.bool_]:
        """Return which class each clip was asked to have, [n, C]."""
        place = {name: column for column, name in enumerate(self.names)}
        found = np.zeros((len(clips), len(self.names)), bool)
        for row, clip in enumerate(clips):
            found[row, [place[label] for label in self.labels[clip]]] = True
        return found


def asked_of(clips: ClipSet, source: str | None = None) -> Asked | None:
    """Return the labels of a set of clips; None where nothing tells them.

    Args:
        clips: the set.
        source: a CSV with columns `clip` and `labels` (separated by `;`), or `parent`: the name of the folder
            in which a file lies. None: those of a store.

    Raises:
        UsageError: the table lacks a column, a clip of the set or its labels; a file lies in no folder.
        MissingError: there is no such table.
    """
    if source is None:
        return _of_store(clips)
    if source == PARENT:
        return _of_folders(clips)
    table = table_of("--labels", Path(source), ("clip", "labels"))
    found: dict[str, list[str]] = {}
    for clip, text in zip(table["clip"], table["labels"], strict=True):
        labels = [part.strip() for part in text.split(";") if part.strip()]
        found[clip] = list(dict.fromkeys([*found.get(clip, []), *labels]))
    _complete("--labels", source, clips, {clip: labels for clip, labels in found.items() if labels})
    names = sorted({label for clip in clips.names for label in found[clip]})
    return Asked(names, names, {clip: found[clip] for clip in clips.names})


def captions_of(clips: ClipSet, source: Path | None = None) -> Captions | None:
    """Return the captions of a set of clips; None where nothing tells them of every clip.

    Args:
        clips: the set.
        source: a CSV with columns `clip` and `caption`; a clip may have several. None: those of a store.

    Raises:
        UsageError: the table lacks a column, a clip of the set or its caption.
        MissingError: there is no such table.
    """
    if source is None:
        texts = clips.captions()
        return {n: [t] for n, t in zip(clips.names, texts, strict=True) if t} if all(texts) else None
    table = table_of("--captions", source, ("clip", "caption"))
    found: dict[str, list[str]] = {}
    for clip, text in zip(table["clip"], table["caption"], strict=True):
        if text.strip():
            found.setdefault(clip, []).append(text.strip())
    _complete("--captions", str(source), clips, found)
    return {clip: found[clip] for clip in clips.names}


def _of_store(clips: ClipSet) -> Asked | None:
    known = clips.label_set()
    if known is None:
        return None
    labels = dict(zip(clips.names, clips.labels(), strict=True))
    return Asked(*known, labels) if all(labels.values()) else None


def _of_folders(clips: ClipSet) -> Asked:
    if clips.label_set() is not None:
        raise UsageError(f"--labels parent: {clips.path} is a clip store; its labels are taken without it")
    labels = {}
    for name in clips.names:
        if "/" not in name:
            raise UsageError(f"--labels parent: {name!r} lies in no folder below {clips.path}")
        labels[name] = [name.split("/")[-2]]
    names = sorted({label for (label,) in labels.values()})
    return Asked(names, names, labels)


def table_of(option: str, path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return the lines of a CSV that has these columns, all of them text.

    Args:
        option: by which it was given.
        path: of the file.
        columns: that it must have.

    Raises:
        UsageError: it is no CSV, cannot be read, or lacks a column.
        MissingError: there is no such file.
    """
    try:
        lines = pd.read_csv(path, dtype=str, keep_default_na=False).fillna("")
    except FileNotFoundError:
        raise MissingError(f"{option} {path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # pandas' own errors and those of decoding are such
        raise UsageError(f"{option} {path}: no CSV ({' '.join(str(error).split())[:80]})") from None
    if not set(columns) <= set(lines.columns):
        shown = ascii(", ".join(map(str, lines.columns))[:80])[1:-1]
        raise UsageError(f"{option} {path}: columns {shown}; {' and '.join(columns)} are needed")
    return lines


def _complete(option: str, source: str, clips: ClipSet, found: Mapping[str, Sequence[str]]) -> None:
    without = [name for name in clips.names if name not in found]
    if without:
        shown = ", ".join(without[:SHOWN]) + (", …" if len(without) > SHOWN else "")
        raise UsageError(
            f"{option} {source}: nothing of {len(without)} of {len(clips)} clips ({shown}); names have no "
            "suffix"
        )
