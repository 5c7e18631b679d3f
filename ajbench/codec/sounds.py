"""The sounds that the codec `tiny` is trained on, and the segments that are cut from them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ajbench.core import console
from ajbench.core.console import counted
from ajbench.core.documents import IDS_BYTES
from ajbench.core.errors import MissingError
from ajbench.core.files import sync, walk
from ajbench.core.sealed_json import read_sealed, write_sealed
from ajbench.data import audio
from ajbench.data.corpora import mini

SEGMENT = 64 * audio.HOP
LONGEST_S = 60.0
SHOWN = 3  # files that are named
MIXED, DULL, PACED = 0.25, 0.15, 0.4  # shares of segments that are changed


@dataclass(frozen=True)
class Sounds:
    """All training sounds in one memory-mapped int16 file at 16 kHz; a group is one source of sounds."""

    samples: NDArray[np.int16]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    groups: NDArray[np.int64]

    def draw(self, rng: np.random.Generator, count: int, share: NDArray[np.float64]) -> NDArray[np.float32]:
        """Cut `count` segments [count, SEGMENT] at random places, with changes; `share` weights sounds.

        Some are faster or slower, some mixed with another sound, some without their high frequencies; levels
        are spread over 24 dB.
        """
        segments, others = (self._cut(rng, count, share) for _ in range(2))
        quieter = 10 ** (rng.uniform(-20.0, 0.0, (count, 1)) / 20)
        segments += (rng.random((count, 1)) < MIXED) * quieter * others
        dull = np.flatnonzero(rng.random(count) < DULL)
        spectrum = np.fft.rfft(segments[dull])
        spectrum *= np.arange(spectrum.shape[1]) < rng.uniform(0.3, 0.9, (len(dull), 1)) * spectrum.shape[1]
        segments[dull] = np.fft.irfft(spectrum)
        peak = np.maximum(np.abs(segments).max(axis=1, keepdims=True), 0.01)  # silence stays silence
        level = 10 ** (rng.uniform(-24.0, 0.0, (count, 1)) / 20)
        return (segments / peak * level).astype(np.float32)

    def _cut(self, rng: np.random.Generator, count: int, share: NDArray[np.float64]) -> NDArray[np.float64]:
        picks = np.searchsorted(np.cumsum(share), rng.random(count) * share.sum(), side="right")
        out = np.zeros((count, SEGMENT))
        for row, pick in enumerate(picks):
            length = int(self.lengths[pick])
            pace = rng.uniform(0.75, 1.33) if rng.random() < PACED else 1.0
            need = round(SEGMENT * pace)
            # up to a quarter of a segment of silence before or after, so that onsets and ends are learned
            offset = int(rng.integers(-need // 4, max(1, length - 3 * need // 4)))
            first, last = max(0, offset), min(length, offset + need)
            piece = np.zeros(need)
            start = self.starts[pick]
            piece[first - offset : last - offset] = self.samples[start + first : start + last]
            out[row] = (
                piece if need == SEGMENT else np.interp(np.arange(SEGMENT) * pace, np.arange(need), piece)
            )
        return out / np.maximum(np.abs(out).max(axis=1, keepdims=True), 300.0)


def gather(folders: Sequence[Path], out: Path, *, mini_clips: int, mini_seed: int) -> Sounds:
    """Decode every sound under `folders` (a group per sub-folder) and `mini_clips` rendered ones into `out`.

    Of sounds over a minute the middle minute is used; files that cannot be read are told and left out.

    Raises:
        MissingError: nothing to train on, or no sound in the folders can be read.
        IntegrityError: what an earlier call has written into `out` is damaged.
    """
    index, pool = out / "sounds.json", out / "sounds.i16"
    if not index.exists():
        out.mkdir(parents=True, exist_ok=True)
        entries: list[tuple[str, str, int, int]] = []
        refused, total = list[str](), 0
        partial = pool.with_suffix(".tmp")
        with partial.open("wb") as file:
            for group, name, wav in _decode(list(_list(folders)), mini_clips, mini_seed):
                if isinstance(wav, str):
                    refused.append(f"{name} ({wav})")
                    continue
                file.write((np.clip(wav, -1, 1) * 32767).astype(np.int16).tobytes())
                entries.append((group, name, total, len(wav)))
                total += len(wav)
        some = f": {', '.join(refused[:SHOWN])}{', …' if len(refused) > SHOWN else ''}" if refused else ""
        if len(entries) <= (mini_clips if folders else 0):
            places = ", ".join(map(str, folders)) or "the mini corpus"
            raise MissingError(f"no sounds to train on in {places}{some}")
        if refused:
            console.say(f"train-codec: {counted(len(refused), 'file')} left out{some}")
        sync([partial])
        partial.replace(pool)
        write_sealed(index, {"refused": refused, "entries": entries})
    table = read_sealed(index, "delete it and run again", IDS_BYTES, keys=("entries",))
    groups, _, starts, lengths = zip(*table["entries"], strict=True)
    numbers = np.unique(groups, return_inverse=True)[1]
    return Sounds(np.memmap(pool, np.int16, "r"), np.array(starts), np.array(lengths), numbers)


def sampling_share(sounds: Sounds) -> NDArray[np.float64]:
    """Weight sounds by √length within their group and groups by √(total length), so that none dominates."""
    lengths = np.minimum(sounds.lengths, 20 * audio.SAMPLE_RATE).astype(np.float64)
    totals = np.bincount(sounds.groups, lengths)
    inside = np.sqrt(lengths)
    return inside / np.bincount(sounds.groups, inside)[sounds.groups] * np.sqrt(totals)[sounds.groups]


def _list(folders: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    for folder in folders:
        if not folder.is_dir():
            raise MissingError(f"{folder}: no such folder of sounds")
        for path in walk(folder):
            if path.suffix.lower() in audio.SUFFIXES and path.is_file():
                yield path.relative_to(folder).parts[0], path


def _decode(
    files: list[tuple[str, Path]], mini_clips: int, mini_seed: int
) -> Iterator[tuple[str, str, NDArray[np.float32] | str]]:
    def read(item: tuple[str, Path]) -> tuple[str, str, NDArray[np.float32] | str]:
        group, path = item
        try:
            rate, _, frames = audio.probe(path)
            start_s = max(0.0, frames / rate / 2 - LONGEST_S / 2)
            return group, path.name, audio.read(path, start_s=start_s, duration_s=LONGEST_S)
        except audio.AudioError as error:
            return group, path.name, error.reason

    def render(index: int) -> tuple[str, str, NDArray[np.float32] | str]:
        return "mini", f"mini:{mini_seed}:{index}", mini.render(mini_seed, index)[0]

    with (
        ThreadPoolExecutor(2) as pool,
        console.progress(len(files) + mini_clips, "decode", "sounds") as advance,
    ):
        tasks: tuple[tuple[Callable, Iterable], ...] = ((read, files), (render, range(mini_clips)))
        for function, items in tasks:
            for result in pool.map(function, items):
                yield result
                advance(1)
