"""Clips by what a table may call them: their id, or the name of their file."""

from collections.abc import Iterable, Iterator
from pathlib import PurePath

from ajbench.data.audio import SUFFIXES


class ClipNames:
    """Finds the clip that a cell such as `parent_id` names.

    Args:
        clips: (id, file as far as it is known) of each clip.
    """

    def __init__(self, clips: Iterable[tuple[str, str | None]]) -> None:
        self._files = dict(clips)
        self._named: dict[str, str | None] = {}  # by path, with and without suffix; None: of several clips
        self._bare: dict[str, str | None] = {}  # by name without folders

    def find(self, written: str | None) -> str | None:
        """Return the id of the clip with this id, or else with this file; None if none or several.

        A name without folders, and one with folders for a clip whose id has none, need not have the same
        folders as the clip.
        """
        if written is None or written in self._files:
            return written
        if not self._named:  # most tables have ids
            for clip_id, file in self._files.items():
                for text in {clip_id, *_forms(file or "")}:
                    _note(self._named, text, clip_id)
                    _note(self._bare, PurePath(text).name, clip_id)
        parts = PurePath(written).parts
        tails = ["/".join(parts[start:]) for start in range(1, len(parts) - 1)]
        for form in (form for tail in (written, *tails) for form in _forms(tail)):
            if found := self._named.get(form):
                return found
        for form in _forms(PurePath(written).name):
            if (found := self._bare.get(form)) and (len(parts) == 1 or "/" not in found):
                return found
        return None


def _note(names: dict[str, str | None], name: str, clip_id: str) -> None:
    names[name] = clip_id if names.get(name, clip_id) == clip_id else None


def _forms(file: str) -> Iterator[str]:
    """Yield the name of a file, and the same without the suffix of a sound."""
    yield file
    path = PurePath(file)
    if path.suffix.lower() in SUFFIXES:
        yield path.with_suffix("").as_posix()
