"""Sets of clips heard for the leak audit, by fingerprint and embedding, and how alike two sets are."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from ajbench.core import console
from ajbench.core.device import device_of
from ajbench.data import audio
from ajbench.data.clip_reader import ahead
from ajbench.data.clip_set import ClipSet
from ajbench.evaluation import protocols
from ajbench.evaluation.compare import Trouble, Which
from ajbench.evaluation.feature_cache import AHEAD, READERS, embed
from ajbench.features.extractor import LazyExtractor
from ajbench.metrics import audio_fingerprint

ALIKE = 1.25  # clips whose lengths differ by less are compared at one length, padded
FRAMES = 2**17  # of clips at once: their spectra take 70 MB
Detail = NDArray[np.float16]  # a fingerprint [T, 64]


@dataclass
class Heard:
    """The usable clips of a set: numbers, fingerprints (on disk), hashes of samples, embeddings [n, d]."""

    clips: ClipSet
    numbers: list[int] = field(default_factory=list)
    details: list[Detail] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    vectors: NDArray[np.float32] | None = None

    @property
    def names(self) -> list[str]:
        """Of the usable clips."""
        return [self.clips.names[n] for n in self.numbers]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these clips alone."""
        self.numbers = [self.numbers[row] for row in rows]
        self.details = [self.details[row] for row in rows]
        self.hashes = [self.hashes[row] for row in rows]


def hear(
    which: Which,
    clips: ClipSet,
    troubles: list[Trouble],
    advance: Callable[[int], None],
    folder: Path | None = None,
) -> Heard:
    """Return the clips of a set that can be heard; the others are added to `troubles`.

    Fingerprints are on disk, in a nameless file in `folder` (None: where temporary files are), which goes
    with them: those of a large corpus are more than memory.
    """

    def listen(number: int) -> tuple[int, NDArray[np.float32] | str]:
        try:
            return number, wave_of(clips, number)
        except audio.AudioError as error:
            return number, error.reason

    heard, lengths = Heard(clips), [0]
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with (
        ThreadPoolExecutor(READERS) as pool,
        tempfile.TemporaryFile(dir=folder) as file,
        torch.inference_mode(),
    ):
        for number, wave in ahead(pool, listen, range(len(clips)), AHEAD):
            advance(1)
            if isinstance(wave, str):
                troubles.append(Trouble(which, clips.names[number], wave))
                continue
            heard.numbers.append(number)
            detail = audio_fingerprint.fingerprints(torch.from_numpy(wave)[None])[0].astype(np.float16)
            file.write(detail.tobytes())
            lengths.append(len(detail))
            heard.hashes.append(xxhash.xxh3_128_hexdigest(np.rint(wave * 32768).astype(np.int32).data))
        if heard.numbers:
            file.flush()
            frames = np.asarray(np.memmap(file, np.float16, "r")).reshape(-1, audio_fingerprint.BANDS)
            heard.details = [frames[start:end] for start, end in pairwise(np.cumsum(lengths))]
    return heard


def wave_of(clips: ClipSet, number: int) -> NDArray[np.float32]:
    """Return a clip's wave [n] at 16 kHz, channels averaged.

    Raises:
        AudioError: there is no sound, or less than 0.25 s of it.
    """
    samples, rate = clips.samples(number)
    wave = protocols.find("ajbench").wave(samples, rate, audio.SAMPLE_RATE)
    if len(wave) < audio.MIN_DURATION_S * audio.SAMPLE_RATE:
        seconds = len(wave) / audio.SAMPLE_RATE
        raise audio.AudioError(f"too short ({seconds:.2f} s; at least {audio.MIN_DURATION_S:g} s)")
    if reason := audio.defect(wave):
        raise audio.AudioError(reason)
    return wave


def embed_all(
    heard: Mapping[Which, Heard], extractor: LazyExtractor, cache: Path, troubles: list[Trouble]
) -> None:
    """Give every set unit embeddings, from which the mean of the real ones is taken."""
    vectors = {}
    with console.progress(sum(len(one.clips) for one in heard.values()), extractor.name, "clips") as advance:
        for which, one in heard.items():
            seen = embed(one.clips, extractor, protocols.find("ajbench"), cache, advance)
            known = {(trouble.set, trouble.clip) for trouble in troubles}
            reasons = {one.clips.names[left.number]: left.reason for left in seen.left_out}
            troubles += [
                Trouble(which, name, why) for name, why in reasons.items() if (which, name) not in known
            ]
            place = {int(number): row for row, number in enumerate(seen.numbers)}
            one.keep([row for row, number in enumerate(one.numbers) if number in place])
            vectors[which] = seen.vectors()[[place[number] for number in one.numbers]]
    real = np.concatenate([vectors["train"], vectors["eval"]])
    mean = real.mean(axis=0) if len(real) else 0.0
    for which, values in vectors.items():
        centred = values - mean
        norm = np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-12)
        heard[which].vectors = (centred / norm).astype(np.float32)


def scores(
    queries: Sequence[Detail], references: Sequence[Detail]
) -> tuple[audio_fingerprint.Scores, audio_fingerprint.Scores]:
    """Return likeness and prominence, float32 [Q, R], of fingerprints [T, 64] of any lengths.

    The shorter of two is slid over the longer; those of about one length go together, a block at a time.
    """
    device = device_of()
    if device.type != "cuda":  # complex products are not everywhere on MPS
        device = torch.device("cpu")
    like = np.empty((len(queries), len(references)), np.float32)
    prominence = np.empty_like(like)
    for mine, theirs in product(_alike(queries), _alike(references)):
        first, second = (
            _stack([some[k] for k in rows]) for some, rows in ((queries, mine), (references, theirs))
        )
        if first.shape[1] <= second.shape[1]:
            found = audio_fingerprint.likeness(first, second, device)
        else:
            one, two = audio_fingerprint.likeness(second, first, device)
            found = one.T, two.T
        like[np.ix_(mine, theirs)], prominence[np.ix_(mine, theirs)] = found
    return like, prominence


def _alike(details: Sequence[Detail]) -> list[list[int]]:
    """Return the places of fingerprints of about one length together, no more at once than memory bears."""
    groups: dict[int, list[int]] = {}
    for place, detail in enumerate(details):
        groups.setdefault(int(np.log(len(detail)) / np.log(ALIKE)), []).append(place)
    parts = []
    for group in groups.values():
        block = max(1, FRAMES // max(len(details[place]) for place in group))
        parts += [group[start : start + block] for start in range(0, len(group), block)]
    return parts


def _stack(details: Sequence[Detail]) -> NDArray[np.float32]:
    longest = max(map(len, details))
    out = np.zeros((len(details), longest, details[0].shape[1]), np.float32)
    for row, detail in zip(out, details, strict=True):
        row[: len(detail)] = detail
    return out


def cut(detail: Detail, length: int) -> Detail:
    """Return the `length` frames of a fingerprint that hold most of it."""
    if len(detail) <= length:
        return detail
    energy = np.square(detail, dtype=np.float32).sum(axis=1)
    total = np.concatenate([[0.0], energy.cumsum()])
    start = int((total[length:] - total[:-length]).argmax())
    return detail[start : start + length]


def cosines(
    one: Heard, rows: Sequence[int], other: Heard
) -> tuple[audio_fingerprint.Scores, audio_fingerprint.Scores]:
    """Return cosines [rows, R] of embeddings, twice: as likeness and as what is measured by."""
    assert one.vectors is not None
    assert other.vectors is not None
    cosines = one.vectors[rows] @ other.vectors.T
    return cosines, cosines
