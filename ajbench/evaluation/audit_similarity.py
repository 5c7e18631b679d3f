"""What the leak audit compares: fingerprints, sample hashes and embeddings of clips, and their scores."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from ajbench.core import console
from ajbench.core.device import device_of, readers
from ajbench.data import audio
from ajbench.data.clip_set import ClipSet, ahead
from ajbench.evaluation import long_clips, protocols
from ajbench.evaluation.feature_cache import AHEAD, embed
from ajbench.evaluation.long_clips import Pieces
from ajbench.evaluation.set_pair import SkippedClip, Which
from ajbench.features.extractor import LazyExtractor
from ajbench.metrics import audio_fingerprint
from ajbench.metrics.audio_fingerprint import Scores, Sliding

LENGTH_RATIO = 1.25  # clips whose lengths differ by less are zero-padded and compared in one block
BLOCK_FRAMES = 2**17  # frames of one block of references: the spectra take up to 140 MB
QUERY_FRAMES = 4 * BLOCK_FRAMES  # of queries, whose spectra are kept while they meet all references
Fingerprint = NDArray[np.float16]  # [T, 64]
Waves = list[NDArray[np.float32]] | Pieces  # of a clip


@dataclass
class UsableClips:
    """The clips of a set that can be compared."""

    clips: ClipSet  # the whole set
    numbers: list[int] = field(default_factory=list)  # of the usable clips in it, [n]
    fingerprints: list[Fingerprint] = field(default_factory=list)  # in a memory-mapped file
    hashes: list[str] = field(default_factory=list)  # of the samples, rounded to 16 bits
    vectors: NDArray[np.float32] | None = None  # unit embeddings [n, d], if there is an extractor

    @property
    def names(self) -> list[str]:
        """Names of the usable clips."""
        return [self.clips.names[n] for n in self.numbers]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all but the given usable clips."""
        self.numbers = [self.numbers[row] for row in rows]
        self.fingerprints = [self.fingerprints[row] for row in rows]
        self.hashes = [self.hashes[row] for row in rows]


def usable_clips(
    which: Which,
    clips: ClipSet,
    skipped: list[SkippedClip],
    advance: Callable[[int], None],
    folder: Path | None = None,
) -> UsableClips:
    """Return the fingerprints and hashes of a set's usable clips; append the others to `skipped`.

    The fingerprints of a large corpus exceed memory. They live in an unnamed file in `folder` (None: the
    system's temporary folder), which vanishes with them.
    """

    def read(number: int) -> tuple[int, Waves | str]:
        try:
            return number, waves_of(clips, number)
        except audio.AudioError as error:
            return number, error.reason

    usable, lengths, threads = UsableClips(clips), [0], readers()
    try:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        folder = None
    with (
        ThreadPoolExecutor(threads) as pool,
        tempfile.TemporaryFile(dir=folder) as file,
        torch.inference_mode(),
    ):
        for number, waves in ahead(pool, read, range(len(clips)), AHEAD * threads):
            advance(1)
            if isinstance(waves, str):
                skipped.append(SkippedClip(which, clips.names[number], waves))
                continue
            found = fingerprint_of(waves).astype(np.float16)
            digest = xxhash.xxh3_128()
            for wave in waves:
                digest.update(np.rint(wave * 32768).astype(np.int32).data)
            file.write(found.tobytes())
            lengths.append(len(found))
            usable.numbers.append(number)
            usable.hashes.append(digest.hexdigest())
        if usable.numbers:
            file.flush()
            frames = np.asarray(np.memmap(file, np.float16, "r")).reshape(-1, audio_fingerprint.BANDS)
            usable.fingerprints = [frames[start:end] for start, end in pairwise(np.cumsum(lengths))]
    return usable


def fingerprint_of(waves: Waves) -> NDArray[np.float32]:
    """Return the spectral detail of a clip, float32 [T, 64]."""
    if isinstance(waves, Pieces):
        return audio_fingerprint.fingerprint_of_pieces(waves)
    return audio_fingerprint.fingerprints(torch.from_numpy(waves[0])[None])[0]


def waves_of(clips: ClipSet, number: int) -> Waves:
    """Return a clip as mono waves [n] at 16 kHz: one, or the pieces of a clip of more than two minutes.

    Raises:
        AudioError: the clip is silent, damaged or shorter than 0.25 s.
    """
    if not long_clips.is_long(clips, number):
        return [wave_of(clips, number)]
    pieces = Pieces(clips, number, protocols.find("ajbench"), audio.SAMPLE_RATE)
    long_clips.check(pieces)
    return pieces


def wave_of(clips: ClipSet, number: int) -> NDArray[np.float32]:
    """Return a clip as a mono wave [n] at 16 kHz; of a clip of more than two minutes, the first.

    Raises:
        AudioError: the clip is silent, damaged or shorter than 0.25 s.
    """
    protocol = protocols.find("ajbench")
    if long_clips.is_long(clips, number):
        wave = next(iter(Pieces(clips, number, protocol, audio.SAMPLE_RATE)))
    else:
        samples, rate = clips.samples(number)
        wave = protocol.wave(samples, rate, audio.SAMPLE_RATE)
    if len(wave) < audio_fingerprint.MIN_DURATION_S * audio.SAMPLE_RATE:
        seconds = len(wave) / audio.SAMPLE_RATE
        raise audio.AudioError(
            f"too short ({seconds:.2f} s; at least {audio_fingerprint.MIN_DURATION_S:g} s)"
        )
    if reason := audio.defect(wave):
        raise audio.AudioError(reason)
    return wave


def waveform_match(first: Waves, second: Waves) -> tuple[float, float]:
    """Return (correlation, residual) of two clips, as `audio_fingerprint.waveform_match`.

    Of two long clips, the loudest minute of the first is compared with the second.
    """
    if not isinstance(first, Pieces) and not isinstance(second, Pieces):
        return audio_fingerprint.waveform_match(first[0], second[0])
    if not isinstance(second, Pieces):
        first, second = second, first
    excerpt = long_clips.loudest(first) if isinstance(first, Pieces) else first[0]
    return long_clips.waveform_match(excerpt, second)


def embed_all(
    sets: Mapping[Which, UsableClips], extractor: LazyExtractor, cache: Path, skipped: list[SkippedClip]
) -> None:
    """Add unit embeddings to every set, centred on the mean of the real clips."""
    vectors = {}
    with console.progress(sum(len(one.clips) for one in sets.values()), extractor.name, "clips") as advance:
        for which, one in sets.items():
            seen = embed(one.clips, extractor, protocols.find("ajbench"), cache, advance)
            known = {(one.set, one.clip) for one in skipped}
            unusable = [
                SkippedClip(which, one.clips.names[clip.number], clip.reason) for clip in seen.left_out
            ]
            skipped += [clip for clip in unusable if (clip.set, clip.clip) not in known]
            place = {int(number): row for row, number in enumerate(seen.numbers)}
            one.keep([row for row, number in enumerate(one.numbers) if number in place])
            vectors[which] = seen.vectors()[[place[number] for number in one.numbers]]
    real = np.concatenate([vectors["train"], vectors["eval"]])
    mean = real.mean(axis=0) if len(real) else 0.0
    for which, values in vectors.items():
        centred = values - mean
        norm = np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-12)
        sets[which].vectors = (centred / norm).astype(np.float32)


def scores(queries: Sequence[Fingerprint], references: Sequence[Fingerprint]) -> tuple[Scores, Scores]:
    """Return likeness and prominence, both float32 [Q, R], of fingerprints [T, 64] of any lengths.

    The shorter of two fingerprints slides over the longer, a query over a reference of the same length. Those
    of similar length are compared in blocks, which do not change the scores of a pair.
    """
    device = device_of() if device_of().type == "cuda" else torch.device("cpu")  # MPS lacks complex products
    like = np.empty((len(queries), len(references)), np.float32)
    prominence = np.empty_like(like)
    last: list[int] = []
    for mine, theirs in _blocks(queries, references):
        second = _stack([references[k] for k in theirs])
        if max(len(queries[k]) for k in mine) <= min(len(references[k]) for k in theirs):
            if mine != last:
                first, last = Sliding(_stack([queries[k] for k in mine]), device), mine
            found = audio_fingerprint.likeness(first, second)
        else:
            one, two = audio_fingerprint.likeness(second, _stack([queries[k] for k in mine]), device)
            found = one.T, two.T
        like[np.ix_(mine, theirs)], prominence[np.ix_(mine, theirs)] = found
    return like, prominence


def _blocks(
    queries: Sequence[Fingerprint], references: Sequence[Fingerprint]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield pairs of blocks of queries and references that together cover all pairs.

    Clips of a block have similar lengths, and either no query is longer than a reference, or all queries are.
    It is smaller where many short clips meet a long one, because spectra have the length of that.
    """
    of_query, of_reference = (np.array([len(one) for one in some]) for some in (queries, references))
    alike = product(_alike(queries), _alike(references))
    for mine, theirs in (part for pair in alike for part in _directed(*pair, of_query, of_reference)):
        longest = max(*(len(queries[k]) for k in mine), *(len(references[k]) for k in theirs))
        parts = (
            [block[k : k + size] for k in range(0, len(block), size)]
            for block, size in (
                (mine, QUERY_FRAMES // longest or 1),
                (theirs, BLOCK_FRAMES // longest or 1),
            )
        )
        yield from product(*parts)


def _directed(
    mine: list[int], theirs: list[int], of_query: NDArray[np.int64], of_reference: NDArray[np.int64]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield parts of two blocks in which no query is longer than a reference, or all queries are.

    `of_query`, `of_reference`: the lengths of all.
    """
    if not mine or not theirs:
        return
    ours, others = of_query[mine], of_reference[theirs]
    if ours.max() <= others.min() or ours.min() > others.max():
        yield mine, theirs
        return
    every = np.unique(np.concatenate([ours, others]))
    middle = every[(len(every) - 1) // 2]  # below the largest
    for some, part in product((ours <= middle, ours > middle), (others <= middle, others > middle)):
        queries, references = (
            [place for place, kept in zip(block, chosen, strict=True) if kept]
            for block, chosen in ((mine, some), (theirs, part))
        )
        yield from _directed(queries, references, of_query, of_reference)


def _alike(fingerprints: Sequence[Fingerprint]) -> list[list[int]]:
    """Return the positions of fingerprints in groups of similar length."""
    groups: dict[int, list[int]] = {}
    for place, one in enumerate(fingerprints):
        groups.setdefault(int(np.log(len(one)) / np.log(LENGTH_RATIO)), []).append(place)
    return list(groups.values())


def _stack(fingerprints: Sequence[Fingerprint]) -> NDArray[np.float32]:
    longest = max(map(len, fingerprints))
    out = np.zeros((len(fingerprints), longest, fingerprints[0].shape[1]), np.float32)
    for row, one in zip(out, fingerprints, strict=True):
        row[: len(one)] = one
    return out


def loudest_part(fingerprint: Fingerprint, length: int) -> Fingerprint:
    """Return the `length` consecutive frames of a fingerprint with the most energy."""
    if len(fingerprint) <= length:
        return fingerprint
    energy = np.square(fingerprint, dtype=np.float32).sum(axis=1)
    total = np.concatenate([[0.0], energy.cumsum()])
    start = int((total[length:] - total[:-length]).argmax())
    return fingerprint[start : start + length]


def cosines(queries: UsableClips, rows: Sequence[int], references: UsableClips) -> tuple[Scores, Scores]:
    """Return the cosines [len(rows), R] of embeddings, as likeness and as prominence."""
    assert queries.vectors is not None
    assert references.vectors is not None
    found = queries.vectors[rows] @ references.vectors.T
    return found, found
