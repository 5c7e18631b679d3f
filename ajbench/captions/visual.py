"""Visual captions: given in a column, or made of video frames by a captioner of transformers."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ajbench.data.manifest import Row


class Seen(NamedTuple):
    """Captions of a clip's frames.

    Attributes:
        texts: one for each frame, or a single given one.
        times_s: of the frames in their video file; None of a given caption.
    """

    texts: list[str]
    times_s: list[float] | None = None


class Captioner(Protocol):
    """Makes visual captions.

    Attributes:
        about: its `name`, and all that affects captions.
        reads: the column of the manifest that it needs.
    """

    about: dict[str, Any]
    reads: str

    def captions(self, rows: Sequence[Row]) -> list[Seen | None]:
        """Return the captions of each clip; None where there are none."""
        ...


class Given:
    """The visual captions in the clips' column `visual_caption`."""

    reads = "visual_caption"

    def __init__(self) -> None:
        self.about: dict[str, Any] = {"name": "given"}

    def captions(self, rows: Sequence[Row]) -> list[Seen | None]:
        """Return the given caption of each clip."""
        texts = [(row.visual_caption or "").strip() for row in rows]
        return [Seen([text]) if text else None for text in texts]
