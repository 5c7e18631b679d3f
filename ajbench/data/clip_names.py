"""Clips by what a table may call them: their id, or the name of their file."""

from collections.abc import Iterable, Iterator
from pathlib import PurePath


class ClipNames:
    """Finds the clip that a cell such as `parent_id` names.

    Args:
        clips: (id, file as far as it is known) of each clip.
    """

    def __init__(self, clips: Iterable[tuple[str, str | None]]) -> None:
        self._files = dict(clips)
        self._by_form: dict[str, str | None] = {}  # None: of several clips

    def find(self, written: str | None) -> str | None:
        """Return the id of the clip with this id, or else with this file name; None if none or several."""
        if written is None or written in self._files:
            return written
        if not self._by_form:  # most tables have ids
            for clip_id, file in self._files.items():
                for form in {*_forms(clip_id), *_forms(file or "")}:
                    same = self._by_form.get(form, clip_id) == clip_id
                    self._by_form[form] = clip_id if same else None
        return next((found for form in _forms(written) if (found := self._by_form.get(form))), None)


def _forms(text: str) -> Iterator[str]:
    """Yield a path, the same without suffix, and both without folders."""
    path = PurePath(text)
    if path.name:
        short = path.with_suffix("")
        yield from (path.as_posix(), short.as_posix(), path.name, short.name)
