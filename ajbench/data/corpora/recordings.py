"""Recordings: in names of files, left out by a list, and never on both sides of a split."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ajbench.core import console, registry
from ajbench.core.errors import MissingError
from ajbench.core.recipe import Data
from ajbench.data import audio
from ajbench.data.corpora import youtube
from ajbench.data.manifest import Manifest, Problem, Row, csv_rows
from ajbench.data.reasons import short

# Reasons why clips are left out; the recording follows.
LISTED, HELD_OUT = "left out by data.leave_out", "left out: of a recording in the eval split"
# Columns of tables in data.leave_out, with the kind of recording they hold.
ID_COLUMNS = {
    "recording": "", "youtube_id": "youtube:", "src_file": "freesound:", "fname": "freesound:", "clip_id": "",
}  # fmt: skip


def in_name(data: Data, *names: str) -> str | None:
    """Return the recording in the first name that has one; None if `data.recording_from` is not set.

    Args:
        data: section of the recipe.
        names: a file's name without suffix, and perhaps its path below the class.

    Raises:
        ValueError: it is set, and the name has no recording.
    """
    pattern = data.recording_from
    if pattern is None:
        return None
    for name in names:
        if pattern == "youtube":
            video = youtube.video_id(name)
            found = video and f"youtube:{video}"
        else:
            match = re.search(pattern, name)
            found = match and match[1]
        if found:
            return found
    raise ValueError(f"no recording in the name ({names[-1]!r}, data.recording_from={pattern})")


def read_corpus(data: Data, root: Path | None, need_files: bool = True) -> Manifest:
    """Read the recipe's corpus, without the train and val clips that may not be trained on.

    Left out, as problems of their split, are the recordings that `data.leave_out` lists and those that have
    a clip in the eval split: also where a corpus publishes such splits, its eval split stays whole.

    Args:
        data: section of the recipe.
        root: folder or file of the corpus; None if it has none.
        need_files: whether clips without a sound file are problems; false only for `registry.LABEL_TABLES`.

    Raises:
        MissingError: no train clip remains, or the corpus or the list is missing.
        UsageError: the corpus cannot be read with these options.
    """
    read = registry.resolve("corpus", data.corpus)
    manifest: Manifest = read(data, root) if need_files else read(data, root, need_files=False)
    for one, other in manifest.label_set.alike():
        console.say_once(
            f"classes {one!r} and {other!r} differ only in case or blanks; rename one if they are the same"
        )
    names = set(listed(Path(data.leave_out))) if data.leave_out else set()
    names |= {_recording(row) for row in manifest.rows if row.clip_id in names}
    held_out = {_recording(row): row.clip_id for row in manifest.split("eval")}
    rows: list[Row] = []
    problems: list[Problem] = []
    for row in manifest.rows:
        recording, reason = _recording(row), ""
        if row.split == "eval":
            pass
        elif recording in held_out:
            reason = f"{HELD_OUT} ({recording}, clip {held_out[recording]})"
        elif recording in names:
            reason = f"{LISTED} ({recording})"
        if reason:
            problems.append(Problem(row.clip_id, row.path, None, reason, row.split, row.fold))
        else:
            rows.append(row)
    if problems and not any(row.split == "train" for row in rows):
        raise MissingError(f"corpus {data.corpus}: no train clip remains; {problems[0].reason}")
    return replace(manifest, rows=rows, problems=[*manifest.problems, *problems])


def left_out(problems: Iterable[Problem]) -> dict[str, list[Problem]]:
    """Return the clips that `read_corpus` left out, by the reason."""
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        reason = short(problem)
        if reason in (LISTED, HELD_OUT):
            found.setdefault(reason, []).append(problem)
    return found


def _recording(row: Row) -> str:
    return row.recording or row.clip_id


def listed(path: Path) -> Iterator[str]:
    """Yield the ids and recordings in a list: a corpus table, or a file with one of them in each line.

    Of a table, every column that names clips or recordings is read: a line may lack some of them.
    """
    columns: dict[int, str] = {}
    for _, cells in csv_rows(path):
        if not columns:
            named = {cells.index(name): kind for name, kind in ID_COLUMNS.items() if name in cells}
            columns = named or {0: ""}
        for column, kind in columns.items():
            if text := cells[column].strip() if column < len(cells) else "":
                yield kind + text
                if text.lower().endswith(audio.SUFFIXES):
                    yield text.rpartition(".")[0]
                if video := youtube.video_id(text):
                    yield f"youtube:{video}"
