"""Pieces of YouTube videos as a corpus lists them → rows with files, and problems for those without."""

import gc
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from ajbench.core import console
from ajbench.core.errors import MissingError
from ajbench.data import audio
from ajbench.data.corpora.splits import need_splits
from ajbench.data.corpora.youtube import File, find
from ajbench.data.manifest import Problem, Row

CLIP_S = 12.0  # a longer file is a whole video: clips last 10 s, cutting at key frames may add 2
PROBED = 200  # files without a start in their name that are looked into before all are taken alike
PROBES_AT_ONCE = 8

_SOUND = frozenset(audio.SUFFIXES)


class Segment(NamedTuple):
    """A piece of a video as a corpus lists it; its file may also be named one of `also`."""

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

    def problem(self, reason: str) -> Problem:
        """Say why this segment is left out."""
        return Problem(self.clip_id, self.table, self.line, reason, self.split)


def collect(
    root: Path, listed: Iterable[Segment | Problem], sounds: bool = True
) -> tuple[list[Row], list[Problem]]:
    """Find the file of every listed segment below `root`, and where in it the segment begins.

    A file whose name tells a start is that piece, cut out. One that is named by the id alone may also be the
    whole video: `whole_videos` says. A segment without a file, or listed before, becomes a problem of the
    split in which it was expected. Without `sounds` no file is looked for, and every segment is a row without
    a path: for plans, which only ask what is listed.

    Returns:
        Rows in listed order, problems by table and line.

    Raises:
        MissingError: a folder cannot be listed, or no clip is left in the train or the eval split.
    """
    # No rubbish is made here, and looking for it among millions of rows took 40 % of the time.
    with _no_garbage_collection():
        segments, problems = _once(listed)
        rows = _placed(segments, root, problems) if sounds else [_row(segment, "") for segment in segments]
    if not rows:
        reason = f"; first problem, line {problems[0].line}: {problems[0].reason}" if problems else ""
        raise MissingError(f"{root}: no file of the {len(segments)} clips listed{reason}")
    need_splits(rows, root)
    return rows, sorted(problems, key=lambda problem: (problem.path, problem.line or 0))


def _once(listed: Iterable[Segment | Problem]) -> tuple[list[Segment], list[Problem]]:
    """Part segments from problems; a clip that is listed again is one."""
    first: dict[str, Segment] = {}
    problems: list[Problem] = []
    for item in listed:
        if isinstance(item, Problem):
            problems.append(item)
        elif (before := first.setdefault(item.clip_id, item)) is not item:
            place = f"line {before.line} of {Path(before.table).name}"
            problems.append(item.problem(f"clip id {item.clip_id!r} occurs twice; first used in {place}"))
    return list(first.values()), problems


def _placed(segments: Sequence[Segment], root: Path, problems: list[Problem]) -> list[Row]:
    """Return the rows of the segments that have a file; the others are added to `problems`."""
    files = find(root, {name for segment in segments for name in (segment.video_id, *segment.also)})
    paths: list[str] = []  # "": no file
    bare: list[bool] = []
    for segment in segments:
        path, is_bare, reason = _file_of(segment, files)
        if reason:
            problems.append(segment.problem(reason))
        paths.append(path)
        bare.append(is_bare and segment.start_s > 0)
    del files
    whole = whole_videos(
        list(compress(paths, bare)), [segment.start_s for segment in compress(segments, bare)]
    )
    return [
        _row(segment, path, segment.start_s if path in whole else 0.0)
        for segment, path in zip(segments, paths, strict=True)
        if path
    ]


def _row(segment: Segment, path: str, start_s: float = 0.0) -> Row:
    return Row(
        clip_id=segment.clip_id,
        path=path,
        start_s=start_s,
        duration_s=segment.duration_s,
        labels=segment.labels,
        split=segment.split,
        caption=segment.caption,
    )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def whole_videos(paths: Sequence[str], starts: Sequence[float]) -> frozenset[str]:
    """Return which files, all named by the id alone, are whole videos rather than clips cut to the segment.

    Most downloaders cut, and opening millions of files takes hours. So up to `PROBED` headers decide for all
    files where they agree; where they do not, every header is read. A file longer than `CLIP_S` is whole.
    Files that cannot be read have no say.

    Args:
        paths: files of segments that begin after 0 s.
        starts: where those begin, seconds.
    """
    # A video shorter than CLIP_S would pass for a clip; where a segment starts later there is none.
    telling = [path for path, start in zip(paths, starts, strict=True) if start >= CLIP_S] or paths
    # Drawn, as every n-th may be of one kind, but the same in every run.
    sample = random.Random(0).sample(telling, min(PROBED, len(telling)))
    kinds = {_is_whole(path) for path in sample} - {None}
    if len(kinds) < 2:
        return frozenset(paths if kinds == {True} else ())
    with (
        ThreadPoolExecutor(PROBES_AT_ONCE) as pool,
        console.progress(len(paths), "look at lengths", "files") as advance,
    ):
        whole = set()
        for path, is_whole in zip(paths, pool.map(_is_whole, paths), strict=True):
            if is_whole:
                whole.add(path)
            advance(1)
    return frozenset(whole)


def _file_of(segment: Segment, files: Mapping[str, Sequence[File]]) -> tuple[str, bool, str | None]:
    """Return a segment's path ("" for none), whether its name tells no start, and why there is none."""
    named = files.get(segment.video_id, [])
    if segment.also:
        named = [*named, *(file for name in segment.also for file in files.get(name, ()))]
    if not named:
        return "", False, "missing: no file is named by this id"
    file = named[0] if len(named) == 1 else min(named, key=lambda file: _rank(file, segment))
    if not file.starts_at(segment.start_s):
        return "", False, f"missing: another start than {segment.start_s:g} s ({file.name})"
    if file.suffix not in _SOUND:
        return "", False, f"not read: suffix {file.suffix!r}; convert to one of {', '.join(audio.SUFFIXES)}"
    return file.path, file.start is None, None


def _rank(file: File, segment: Segment) -> tuple[bool, bool, bool, str]:
    """Order the files of one segment, best first and the same in every run; what tells its start is surer."""
    return not file.starts_at(segment.start_s), file.suffix not in _SOUND, file.start is None, file.path


def _is_whole(path: str) -> bool | None:
    try:
        rate, _, frames = audio.probe(path)
    except audio.AudioError:
        return None
    return frames > CLIP_S * rate
