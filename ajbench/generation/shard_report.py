"""What a synthesis tells of itself: each shard's statistics, each seed that failed, and how long it took."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ajbench.core.files import atomic_write
from ajbench.data.manifest import Problem

RETRIES, STATISTICS, TIMING = "retries.csv", "statistics.csv", "timing.csv"
# Times and processes differ from run to run, so they have a file of their own; the others never do.
COLUMNS = {
    RETRIES: ("clip_id", "attempt", "seed", "reason"),
    STATISTICS: (
        "shard",
        "planned",
        "kept",
        "peak_max",
        "peak_mean",
        "rms_db",
        "silent_share",
        "clipped_share",
        "retries",
        "fidelity_mean",
    ),
    TIMING: ("shard", "seconds", "clips_per_s", "process"),
}


@dataclass(frozen=True)
class Attempt:
    """A seed with which a clip came to nothing; attempt 0 is the plan's own seed."""

    clip_id: str
    attempt: int
    seed: int
    reason: str


def levels(wave: NDArray[np.float32]) -> tuple[float, float]:
    """Return peak and mean square of a wave [n], full scale 1."""
    return float(np.abs(wave).max()), float(np.square(wave, dtype=np.float64).mean())


def statistics(
    shard: int,
    planned: int,
    heard: Sequence[tuple[float, float]],
    failed: Sequence[Attempt],
    retries: int,
    *,
    candidates: int = 1,
    fidelity: Sequence[float] = (),
) -> dict[str, Any]:
    """Return a shard's line of `statistics.csv`.

    Args:
        shard: its number.
        planned: clips that it should have.
        heard: `levels` of those that it has.
        failed: seeds that came to nothing.
        retries: results made because all before were unusable.
        candidates: results made of each planned clip anyhow.
        fidelity: of the clips kept, where they were judged.

    Returns:
        Peaks (full scale 1) and RMS (dB of full scale, over all samples) of the clips kept, None where there
        are none; shares, among all results, of those that were silent or clipped all through.
    """
    peaks, squares = np.array(heard, np.float64).reshape(-1, 2).T
    results = planned * candidates + retries

    def share(word: str) -> float:
        return round(sum(item.reason.startswith(word) for item in failed) / results, 6)

    return {
        "shard": shard,
        "planned": planned,
        "kept": len(heard),
        "peak_max": round(peaks.max(), 5) if len(heard) else None,
        "peak_mean": round(peaks.mean(), 5) if len(heard) else None,
        "rms_db": round(10 * np.log10(squares.mean()), 3) if len(heard) else None,
        "silent_share": share("silent"),
        "clipped_share": share("clipped"),
        "retries": retries,
        "fidelity_mean": round(float(np.mean(fidelity)), 5) if len(fidelity) else None,
    }


def left_out(failed: Iterable[Attempt], kept: Mapping[str, Any], split: str) -> list[Problem]:
    """Return the clips of which no seed was usable, with the reason of the last."""
    tried: dict[str, list[Attempt]] = {}
    for item in failed:
        tried.setdefault(item.clip_id, []).append(item)
    return [
        Problem(
            clip_id,
            "",
            None,
            items[-1].reason + (f"; {len(items)} seeds tried" if len(items) > 1 else ""),
            split,
        )
        for clip_id, items in tried.items()
        if clip_id not in kept
    ]


def write(folder: Path, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write one of the CSV files into `folder`, whole or not at all."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS[name], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    atomic_write(folder / name, buffer.getvalue())
