"""The leak rule: what was fitted on a recording must not make training data for a test on that recording."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from ajbench.core.documents import read_array
from ajbench.core.errors import IntegrityError
from ajbench.core.files import replacing
from ajbench.data.store import ClipStore

HEARD = "train_split.npy"  # beside a classifier: what `heard` returns of the train split


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


def heard(ids: Iterable[str], recordings: Iterable[str]) -> NDArray[np.uint64]:
    """Return hashes of clips and of their recordings, sorted: 16 bytes a clip, for millions of them."""
    named = [*(f"clip {one}" for one in ids), *(f"recording {one}" for one in recordings)]
    return np.unique(np.array([_hash(one) for one in named], np.uint64))


def write_heard(folder: Path, store: ClipStore, init: str | None = None) -> None:
    """Write `train_split.npy` beside a classifier, with that of the classifier that it started from.

    Raises:
        IntegrityError: the latter is damaged.
    """
    train = store.split_indices("train")
    known = heard(*([column[i] for i in train] for column in (store.clip_ids, store.recordings)))
    if init and (Path(init) / HEARD).is_file():
        known = np.union1d(known, _read(Path(init) / HEARD))
    with replacing(folder / HEARD) as copy, copy.open("wb") as file:
        np.save(file, known, allow_pickle=False)


def refuse_heard(path: Path, held_out: Mapping[str, str]) -> None:
    """Refuse a classifier that was made with a train split that has an eval clip or a recording of one.

    Others, such as those of the hub, do not say what they were trained on, and pass.

    Args:
        path: folder of the classifier.
        held_out: id of each eval clip → its recording.

    Raises:
        IntegrityError: it was, or what it says of its train split is damaged.
    """
    if not (path / HEARD).is_file():
        return
    known = _read(path / HEARD)
    clips, recordings = (
        np.isin([_hash(f"{kind} {one}") for one in names], known)
        for kind, names in (("clip", [*held_out]), ("recording", [*held_out.values()]))
    )
    leaked = [clip for clip, found in zip(held_out, clips | recordings, strict=True) if found]
    if leaked:
        raise IntegrityError(
            f"{path}: made with a train split that has recordings of {len(leaked)} of the {len(held_out)} "
            f"evaluation clips (such as {leaked[0]}); use one of this fold"
        )


def _read(path: Path) -> NDArray[np.uint64]:
    try:
        known = read_array(path)
        if known.dtype != np.uint64 or known.ndim != 1:
            raise ValueError(f"{known.dtype}, {known.ndim} dimensions")
    except ValueError as error:
        raise IntegrityError(f"{path}: damaged ({error}); train the classifier again") from None
    return known


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode(errors="surrogateescape"))
