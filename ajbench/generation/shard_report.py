"""The reports of a synthesis: statistics of each shard, rejected seeds, and times."""

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
# Times and processes differ between runs, so they have their own file; the other files are deterministic.
COLUMNS = {
    RETRIES: ("clip_id", "attempt", "seed", "reason"),
    STATISTICS: (
        *("shard", "planned", "kept", "peak_max", "peak_mean", "rms_db"),
        *("silent_share", "clipped_share", "retries", "fidelity_mean"),
    ),
    TIMING: ("shard", "seconds", "clips_per_s", "process"),
}


@dataclass(frozen=True)
class Attempt:
    """A seed whose result was rejected; attempt 0 is the plan's seed."""

    clip_id: str
    attempt: int
    seed: int
    reason: str


def peak_and_power(wave: NDArray[np.float32]) -> tuple[float, float]:
    """Return peak and mean square of a waveform [n], full scale 1."""
    return float(np.abs(wave).max()), float(np.square(wave, dtype=np.float64).mean())


def statistics(
    shard: int,
    planned: int,
    levels: Sequence[tuple[float, float]],
    failed: Sequence[Attempt],
    retries: int,
    *,
    candidates: int = 1,
    fidelity: Sequence[float] = (),
) -> dict[str, Any]:
    """Return a shard's line of `statistics.csv`.

    Args:
        shard: its number.
        planned: clips in the plan.
        levels: peak and mean square of each clip kept (see `peak_and_power`).
        failed: rejected seeds.
        retries: results made because all earlier ones were rejected.
        candidates: results made of every planned clip in any case.
        fidelity: of the clips kept, if they were judged.

    Returns:
        Peaks (full scale 1) and RMS (dB of full scale, over all samples) of the clips kept, None if there
        are none; the shares of silent and of clipped results among all results.
    """
    peaks, squares = np.array(levels, np.float64).reshape(-1, 2).T
    results = planned * candidates + retries

    def share(word: str) -> float:
        return round(sum(item.reason.startswith(word) for item in failed) / results, 6)

    return {
        "shard": shard,
        "planned": planned,
        "kept": len(levels),
        "peak_max": round(peaks.max(), 5) if len(levels) else None,
        "peak_mean": round(peaks.mean(), 5) if len(levels) else None,
        "rms_db": round(10 * np.log10(squares.mean()), 3) if len(levels) else None,
        "silent_share": share("silent"),
        "clipped_share": share("clipped"),
        "retries": retries,
        "fidelity_mean": round(float(np.mean(fidelity)), 5) if len(fidelity) else None,
    }


def rejected(failed: Iterable[Attempt], kept: Mapping[str, Any], split: str) -> list[Problem]:
    """Return the clips for which no seed was usable, with the reason of the last one."""
    reasons: dict[str, list[str]] = {}
    for item in failed:
        reasons.setdefault(item.clip_id, []).append(item.reason)
    return [
        Problem(clip_id, "", None, last + (f"; {len(earlier) + 1} seeds tried" if earlier else ""), split)
        for clip_id, (*earlier, last) in reasons.items()
        if clip_id not in kept
    ]


def write(folder: Path, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write one of the CSV files into `folder`, whole or not at all."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS[name], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    atomic_write(folder / name, buffer.getvalue())
