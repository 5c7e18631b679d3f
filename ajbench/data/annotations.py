"""Labels, captions and pairs of clips from tables and folder names."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import composed
from ajbench.data.audio import SUFFIXES
from ajbench.data.clip_set import Captions, ClipSet, Requests
from ajbench.data.corpora import table_files

PARENT = "parent"
SHOWN = 3


def read_requests(clips: ClipSet, source: str) -> Requests:
    """Return the classes that clips were requested to contain.

    Args:
        clips: the generated clips.
        source: a CSV with columns `clip` and `labels` (separated by `;`), or `parent`: the name of the folder
            that a file lies in.

    Raises:
        UsageError: the table lacks a column, a clip or its labels; or a file lies in no subfolder.
        MissingError: there is no such table.
    """
    if source == PARENT:
        found = _folders(clips)
    else:
        table = read_table("--labels", Path(source), ("clip", "labels"))
        found = {}
        for clip, text in zip(_names(clips, table["clip"]), table["labels"], strict=True):
            labels = [part.strip() for part in text.split(";") if part.strip()]
            found[clip] = list(dict.fromkeys([*found.get(clip, []), *labels]))
        _check_complete("--labels", source, clips, {clip: labels for clip, labels in found.items() if labels})
    classes = sorted({label for clip in clips.names for label in found[clip]})
    return Requests(classes, classes, {clip: found[clip] for clip in clips.names})


def read_captions(clips: ClipSet, path: Path) -> Captions:
    """Return the captions of clips from a CSV with columns `clip` and `caption`; a clip may have several.

    Raises:
        UsageError: the table lacks a column, a clip or its caption.
        MissingError: there is no such table.
    """
    table = read_table("--captions", path, ("clip", "caption"))
    found: dict[str, list[str]] = {}
    for clip, text in zip(_names(clips, table["clip"]), table["caption"], strict=True):
        if text.strip():
            found.setdefault(clip, []).append(text.strip())
    _check_complete("--captions", str(path), clips, found)
    return {clip: found[clip] for clip in clips.names}


def read_pairs(gen: ClipSet, ref: ClipSet, path: Path) -> dict[str, str]:
    """Return name of a generated clip → name of its real clip, from a CSV with columns `gen` and `ref`.

    Raises:
        UsageError: the table lacks a column or has no lines, names a clip that is in neither set, or lists a
            generated clip twice.
        MissingError: there is no such table.
    """
    table = read_table("--pairs", path, ("gen", "ref"))
    if table.empty:
        raise UsageError(f"--pairs {path}: no lines below the header gen,ref")
    for column, clips in (("gen", gen), ("ref", ref)):
        known = set(clips.names)
        table[column] = _names(clips, table[column])
        unknown = next((name for name in table[column] if name not in known), None)
        if unknown is not None:
            raise UsageError(
                f"--pairs {path}: no clip {unknown!r} in {clips.path}, such as {clips.names[0]!r}"
            )
    if (repeated := table["gen"][table["gen"].duplicated()]).size:
        raise UsageError(
            f"--pairs {path}: generated clip {repeated.iloc[0]!r} is listed twice; keep one line"
        )
    return dict(zip(table["gen"], table["ref"], strict=True))


def read_table(option: str, path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a CSV that has these columns, every value as text.

    In the header, case and blanks do not matter. Cells are separated by `,`, or by what separates the header.

    Args:
        option: the command-line option that named the file.
        path: the file.
        columns: required columns.

    Raises:
        UsageError: the file is not a CSV, cannot be read, or lacks a column.
        MissingError: there is no such file.
    """
    try:
        separator = table_files.delimiter(path)
        lines = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, skipinitialspace=True)
    except MissingError:
        raise MissingError(f"{option} {path}: no such file") from None
    except (UsageError, IntegrityError) as error:
        raise UsageError(f"{option} {error}") from None
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # pandas' own errors and decoding errors are ValueErrors
        raise UsageError(f"{option} {path}: not a CSV ({' '.join(str(error).split())[:80]})") from None
    lines = lines.fillna("")
    lines.columns = lines.columns.astype(str).str.strip().str.lower()
    if repeated := lines.columns[lines.columns.duplicated()].tolist():
        raise UsageError(
            f"{option} {path}: column {repeated[0]!r} occurs more than once; rename or remove one"
        )
    for name in {"clip", "gen", "ref"} & {*lines.columns}:
        lines[name] = lines[name].str.strip().map(composed)
    if not set(columns) <= set(lines.columns):
        shown = ascii(", ".join(map(str, lines.columns))[:80])[1:-1]
        raise UsageError(f"{option} {path}: columns {shown}; it needs {' and '.join(columns)}")
    return lines


def _names(clips: ClipSet, written: Iterable[str]) -> list[str]:
    """Return the names of clips in a table, of which some are written as files: with the suffix, or `\\`."""
    known = set(clips.names)

    def name(text: str) -> str:
        forms = (text, text.replace("\\", "/").removeprefix("./"))
        short = (form[: -len(s)] for form in forms for s in SUFFIXES if form.lower().endswith(s))
        return next((form for form in (*forms, *short) if form in known), text)

    return [*map(name, written)]


def _folders(clips: ClipSet) -> dict[str, list[str]]:
    if clips.is_store:
        raise UsageError(f"--labels parent: {clips.path} is a clip store and has labels; omit --labels")
    for name in clips.names:
        if "/" not in name:
            raise UsageError(f"--labels parent: {name!r} lies in no subfolder of {clips.path}")
    return {name: [name.split("/")[-2]] for name in clips.names}


def _check_complete(option: str, source: str, clips: ClipSet, found: Mapping[str, Sequence[str]]) -> None:
    absent = [name for name in clips.names if name not in found]
    if absent:
        shown = ", ".join(absent[:SHOWN]) + (", …" if len(absent) > SHOWN else "")
        count = f"{len(absent)} of {len(clips)} clips"
        raise UsageError(f"{option} {source}: no value for {count} ({shown})")
