"""The leak rule: what was fitted on a recording must not make training data for a test on that recording."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ajbench.core.errors import IntegrityError


def refuse_leak(
    path: Path, ids: Sequence[str], recordings: Sequence[str], held_out: Mapping[str, str]
) -> None:
    """Refuse a model that was trained on an eval clip, or on another clip of the recording of one.

    Args:
        path: of the model, for the message.
        ids: of its training clips.
        recordings: of each of them.
        held_out: id of each eval clip → its recording.

    Raises:
        IntegrityError: it was, or its training clips are unknown.
    """
    if not ids or len(ids) != len(recordings):
        raise IntegrityError(
            f"{path}: does not name its training clips and their recordings, which may be evaluation clips; "
            "train it again"
        )
    known, sources = set(ids), set(recordings)
    leaked = sorted(clip for clip, source in held_out.items() if clip in known or source in sources)
    if not leaked:
        return
    clip, source = leaked[0], held_out[leaked[0]]
    own = clip if clip in known else ids[recordings.index(source)]
    raise IntegrityError(
        f"{path}: trained on recordings of {len(leaked)} of the {len(held_out)} evaluation clips (such as "
        f"{clip}, cut like train clip {own} from {source}); use one trained on this fold's train split, or "
        "train one with data.leave_out=FILE, a list of the evaluation clips"
    )
