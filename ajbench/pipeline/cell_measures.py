"""Trained classifiers → their measurements, kept: on AudioSet, resampling takes half a minute each."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ajbench.core import process_pool
from ajbench.core.device import cores, memory_share
from ajbench.core.documents import parse_json, read_arrays
from ajbench.core.errors import IntegrityError
from ajbench.core.files import replacing
from ajbench.data.labels import Scores, load_scores
from ajbench.evaluation.classification import Measured, measure
from ajbench.metrics.bootstrap import Resampled
from ajbench.metrics.intervals import Interval

REVISION = 1  # to be raised when the same scores would have other measurements
Clips = tuple[tuple[str, ...], ...]  # ids, recordings and class names
MEMORY = 1 << 30  # bytes of a process that measures a training of AudioSet
WORTH = 5e9  # clips × classes × resamples; fewer take less time than the start of worker processes


@dataclass(frozen=True)
class How:
    """What is measured besides the scores: see `classification.measure`."""

    tail: tuple[int, ...]
    resamples: int


def measure_all(
    files: Sequence[Path], how: How, cache: Path, advance: Callable[[int], None], workers: int | None = None
) -> list[Measured]:
    """Return the measurements of trainings, from the cache where they are in it.

    Args:
        files: the `scores.npz` of each.
        how: they are measured.
        cache: folder that keeps them by the content of the file and `how`.
        advance: called with the number of trainings that are done.
        workers: processes, if there is much to do; None: one per core, as far as memory allows.

    Raises:
        MissingError, IntegrityError: of `load_scores`; or a file of the cache is damaged.
    """
    cache.mkdir(parents=True, exist_ok=True)
    clips: list[Clips] = []
    places: list[Path] = []
    todo: dict[Path, Path] = {}
    size = 0
    for file in files:
        scores = load_scores(file)
        same = [one for one in clips[-1:] if one == _clips(scores)]  # names of all trainings take memory
        clips.append(same[0] if same else _clips(scores))
        places.append(cache / f"{_key(scores, how)}.npz")
        if not places[-1].exists():
            todo[places[-1]] = file
            size += scores.scores.size * how.resamples
    advance(len(files) - len(todo))
    if len(todo) > 1 and size > WORTH:
        tasks = [(f"eval-cls ({file.parent.name})", (file, how, place)) for place, file in todo.items()]
        count = workers or max(1, min(cores(), memory_share() // MEMORY))
        fewer = "fewer processes (`ajbench run --jobs`)"
        process_pool.share(_measure, tasks, count, lambda number: advance(1), fewer=fewer)
    else:
        for place, file in todo.items():
            _measure(file, how, place)
            advance(1)
    return [_read(place, one) for place, one in zip(places, clips, strict=True)]


def _clips(scores: Scores) -> Clips:
    return scores.clip_ids, scores.recordings, scores.labels


def _key(scores: Scores, how: How) -> str:
    """Return the name of a cached file; training again may give other scores under the same fingerprint."""
    names = json.dumps([REVISION, asdict(how), *_clips(scores), scores.scores.dtype.str])
    found = xxhash.xxh3_128(names.encode())
    for values in (scores.scores, scores.targets):
        found.update(np.ascontiguousarray(values).data)
    return found.hexdigest()


def _measure(file: Path, how: How, place: Path) -> None:
    measured = measure(load_scores(file), tail=how.tail, resamples=how.resamples)
    about: dict[str, Any] = {"values": measured.values, "intervals": measured.intervals}
    about["compared"] = {name: (one.value, one.recordings) for name, one in measured.resampled.items()}
    draws: dict[str, Any] = {name: one.draws for name, one in measured.resampled.items()}
    with replacing(place) as partial, partial.open("wb") as out:
        np.savez(out, about=np.array(json.dumps(about)), **draws)


def _read(place: Path, clips: Clips) -> Measured:
    try:
        found = read_arrays(place)
        about = parse_json(str(found["about"]))
        compared = {
            name: Resampled(value, found[name], recordings)
            for name, (value, recordings) in about["compared"].items()
        }
        intervals = {name: Interval(*ends) for name, ends in about["intervals"].items()}
        return Measured(clips, about["values"], compared, intervals)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{place}: not readable ({error}); delete it and run again") from None
