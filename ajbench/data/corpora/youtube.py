"""Clips cut from YouTube videos: segments that a corpus lists, matched with the files of a download.

Files may be named as downloaders do: `<id>`, `<id>_<start>` or `<id>_<start>_<end>` (or `<start>-<end>`), in
seconds or milliseconds, with an optional prefix `Y` (PANNs) or `id_`. They may lie in any folder and have any
suffix that ajbench reads. Of a sound and a video of one name, the second is the clip's video. Sounds may also
lie in tars (WebDataset) and in Parquet shards as the Hugging Face hub stores them; they are read in place.
"""

import math
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from ajbench.core.device import no_garbage_collection
from ajbench.core.errors import MissingError, UsageError
from ajbench.data import archive, audio, video
from ajbench.data.corpora.splits import need_splits
from ajbench.data.corpora.whole_videos import whole_videos
from ajbench.data.manifest import Problem, Row

ID_LENGTH = 11
OTHER_SUFFIXES = (".wma",)  # of downloads that need conversion

_ID = re.compile(r"[\w-]{11}", re.ASCII)
_PREFIXES = ("", "Y", "id_")
_TIMES = re.compile(r"_(\d{1,12}(?:\.\d+)?)(?:[_-]\d{1,12}(?:\.\d+)?)?", re.ASCII)  # no number is infinite
_NAME = re.compile(rf"(?:{'|'.join(_PREFIXES[1:])})?({_ID.pattern})(?:{_TIMES.pattern})?", re.ASCII)
_SOUND = frozenset(audio.SUFFIXES)
_MEDIA = frozenset((*audio.SUFFIXES, *video.SUFFIXES, *OTHER_SUFFIXES))


class Segment(NamedTuple):
    """A part of a video as a corpus lists it; its file may also be named after one of `also`."""

    clip_id: str
    video_id: str
    start_s: float
    duration_s: float
    labels: tuple[str, ...]
    split: str
    table: str
    line: int
    caption: str | None = None
    also: tuple[str, ...] = ()
    more_captions: tuple[str, ...] = ()
    subset: str | None = None

    def problem(self, reason: str) -> Problem:
        """Return the problem that leaves this segment out."""
        return Problem(self.clip_id, self.table, self.line, reason, self.split)

    def row(self, path: str, start_s: float = 0.0, video: str | None = None) -> Row:
        """Return the manifest's row: `start_s` is where the segment starts in the files."""
        about = self.duration_s, self.labels, self.split, None, self.caption
        more = f"youtube:{self.video_id}", self.more_captions, self.subset
        return Row(self.clip_id, path, start_s, *about, video, None, None, "real", *more)


class File(NamedTuple):
    """A media file and the start in its name, in seconds or milliseconds; None if the name has none."""

    start: float | None
    path: str

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with its dot."""
        return _suffix(self.path)

    def may_start_at(self, start_s: float) -> bool:
        """Return whether the name allows that the file was cut from `start_s` on."""
        start = self.start
        return start is None or int(start) == int(start_s) or round(start) == round(1000 * start_s)


def find_tables(
    root: Path, names: Iterable[str], optional: Iterable[str] = (), source: str = ""
) -> dict[str, Path]:
    """Return the tables with these names in `root` or in a folder directly below it.

    Args:
        root: folder of the corpus.
        names: tables that must exist.
        optional: tables that may be absent.
        source: URL of the tables, for the message.

    Raises:
        MissingError: `root` is no folder, or a table is missing.
        UsageError: two folders below `root` have a table of the same name, and `root` has none.
    """
    if not root.is_dir():
        raise MissingError(f"{root}: no such folder")
    with os.scandir(root) as entries:
        # Suffixes first: in a folder of millions of sounds, only a few names need a closer look.
        folders = sorted(Path(e.path) for e in entries if _suffix(e.name) not in _MEDIA and e.is_dir())
    found, names = {}, tuple(names)
    for name in (*names, *optional):
        places = [folder / name for folder in folders if (folder / name).is_file()]
        if (root / name).is_file():
            found[name] = root / name
        elif len(places) > 1:
            raise UsageError(f"{places[0]}, {places[1]}: two tables of one name; put the right one in {root}")
        elif places:
            found[name] = places[0]
        elif name in names:
            raise MissingError(f"{root / name}: missing; get it from {source}")
    return found


def check_id(text: str) -> str:
    """Return a video id.

    Raises:
        ValueError: it is none.
    """
    if not _ID.fullmatch(text):
        raise ValueError(f"id {text!r} is not {ID_LENGTH} letters, digits, - and _")
    return text


@lru_cache(maxsize=4096)  # most segments share a few start times, so their floats are shared too
def parse_seconds(text: str) -> float:
    """Return a time of 0 s or later.

    Raises:
        ValueError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{text!r} is not a time in seconds")
    return value


def parse_name(stem: str, ids: Container[str]) -> tuple[str, float | None] | None:
    """Return the id and the start (None if absent) in a file name without suffix; None if no id is in it.

    Ids may contain `_` and begin with `-` or `Y`, so only one of `ids` is taken for an id.
    """
    if stem in ids:
        return stem, None
    for prefix in _PREFIXES:
        end = len(prefix) + ID_LENGTH
        name = stem[len(prefix) : end]
        if name in ids and stem.startswith(prefix):
            rest = stem[end:]
            if not rest:
                return name, None
            if times := _TIMES.fullmatch(rest):
                return name, parse_seconds(times[1])
    return None


def video_id(name: str) -> str | None:
    """Return the video id in a file name or clip id of a known pattern, with any suffix or none; else None.

    Unlike `parse_name` this knows no ids, and a prefix `id_` or `Y` is never taken for the beginning of one
    where the rest can be an id.
    """
    base = name.rpartition("/")[2]
    found = _NAME.fullmatch(base) or _NAME.fullmatch(base.rpartition(".")[0])
    return found[1] if found else None


def match_files(
    root: Path, listed: Iterable[Segment | Problem], need_files: bool = True
) -> tuple[list[Row], list[Problem]]:
    """Find the file of each listed segment below `root`, and where the segment starts in it.

    A file with a start in its name contains that segment only. A file named by the id alone may be the whole
    video: see `whole_videos`. A segment without a file, or listed before, becomes a problem of its split.

    Args:
        root: folder of the corpus.
        listed: segments, and the problems of lines that are none.
        need_files: if false, no file is searched and every segment becomes a row without a path, which is
            enough to plan with.

    Returns:
        Rows in listed order; problems by table and line.

    Raises:
        MissingError: a folder cannot be listed, or the train or the eval split has no clip.
    """
    # Nothing here makes reference cycles, and searching millions of rows for them took 40 % of the time.
    with no_garbage_collection():
        segments, problems = _distinct(listed)
        rows = _rows(segments, root, problems) if need_files else [segment.row("") for segment in segments]
    need_splits(rows, problems, root)
    return rows, sorted(problems, key=lambda problem: (problem.path, problem.line or 0))


def _distinct(listed: Iterable[Segment | Problem]) -> tuple[list[Segment], list[Problem]]:
    """Separate segments from problems; a clip that is listed again is a problem."""
    first: dict[str, Segment] = {}
    problems: list[Problem] = []
    for item in listed:
        if isinstance(item, Problem):
            problems.append(item)
        elif (before := first.setdefault(item.clip_id, item)) is not item:
            place = f"line {before.line} of {Path(before.table).name}"
            problems.append(item.problem(f"clip id {item.clip_id!r} occurs twice; first used in {place}"))
    return list(first.values()), problems


def _rows(segments: Sequence[Segment], root: Path, problems: list[Problem]) -> list[Row]:
    """Return the rows of the segments that have a file; append a problem for each of the others."""
    files = find_files(root, {name for segment in segments for name in (segment.video_id, *segment.also)})
    paths: list[str] = []  # "": no file
    videos: list[str | None] = []
    unknown: list[bool] = []  # whether the file may be a whole video
    for segment in segments:
        file, reason = _file_of(segment, files)
        if reason:
            problems.append(segment.problem(reason))
        paths.append(file.path if file else "")
        videos.append(_video_of(file, files.get(segment.video_id, ())) if file else None)
        unknown.append(file is not None and file.start is None and segment.start_s > 0)
    del files
    starts = [segment.start_s for segment in compress(segments, unknown)]
    whole = whole_videos(list(compress(paths, unknown)), starts)
    return [
        segment.row(path, segment.start_s if path in whole else 0.0, seen)
        for segment, path, seen in zip(segments, paths, videos, strict=True)
        if path
    ]


def find_files(root: Path, ids: Container[str]) -> dict[str, list[File]]:
    """Return the media files below `root` by the one of `ids` in their names.

    Each folder is listed once, links to folders are followed, hidden names skipped; only archives are opened.

    Raises:
        MissingError: a folder cannot be listed, or an archive cannot be read.
    """
    found: dict[str, list[File]] = {}
    for path, stem in _media(str(root.resolve())):
        if named := parse_name(stem, ids):
            found.setdefault(named[0], []).append(File(named[1], path))
    return found


def has_media(root: Path) -> bool:
    """Return whether there is any sound or video file below a folder."""
    return next(_media(str(root.resolve())), None) is not None


def _media(root: str) -> Iterator[tuple[str, str]]:
    """Yield (path, name without suffix) of every sound or video in and below a folder, also in archives."""
    waiting, seen = [root], {root}
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    stem, _, suffix = entry.name.rpartition(".")
                    if f".{suffix.lower()}" in _MEDIA:
                        yield entry.path, stem
                    elif f".{suffix.lower()}" in archive.SUFFIXES:
                        yield from archive.sounds(entry.path)
                    elif entry.is_dir():
                        # Links to folders are followed, but never in a circle.
                        real = os.path.realpath(entry.path)
                        if real not in seen:
                            seen.add(real)
                            waiting.append(entry.path)
        except OSError as error:
            raise MissingError(f"{folder}: cannot be listed ({error.strerror})") from None


def _suffix(name: str) -> str:
    # pathlib takes ten times as long, which matters with millions of names.
    return "." + name.rpartition(".")[2].lower()


def _file_of(segment: Segment, files: Mapping[str, Sequence[File]]) -> tuple[File | None, str | None]:
    """Return the file of a segment, or the reason why there is none."""
    named = files.get(segment.video_id, [])
    if segment.also:
        named = [*named, *(file for name in segment.also for file in files.get(name, ()))]
    if not named:
        return None, "missing: no file is named after this id"

    def rank(file: File) -> tuple[bool, int, bool, str]:
        """Order files, best first: a start in the name is better than none."""
        return (
            not file.may_start_at(segment.start_s),
            (file.suffix not in _SOUND) + (file.suffix in OTHER_SUFFIXES),
            file.start is None,
            file.path,
        )

    file = named[0] if len(named) == 1 else min(named, key=rank)
    if not file.may_start_at(segment.start_s):
        return None, f"missing: no file starts at {segment.start_s:g} s (found {Path(file.path).name})"
    if file.suffix in OTHER_SUFFIXES:
        return None, f"unsupported suffix {file.suffix!r}; convert to one of {', '.join(audio.SUFFIXES)}"
    return file, None


def _video_of(file: File, named: Sequence[File]) -> str | None:
    """Return the file itself if it is a video, else a video of its name, in any folder."""
    stem, paths = Path(file.path).stem, [file.path, *sorted(one.path for one in named)]
    return next((path for path in paths if _suffix(path) in video.SUFFIXES and Path(path).stem == stem), None)
