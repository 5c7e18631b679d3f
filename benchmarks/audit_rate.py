"""CPU time of the parts of `ajbench audit`, and the hours of 80,000 synthetic and 20,000 real clips.

python benchmarks/audit_rate.py ESC10 [--queries 500] [--references 1000] [--clips 40] [--rounds 5]
                                      [--out FILE.csv]

Clips of 10.08 s are cut from ESC-10 recordings in random order. Measured, each with one thread and as the
median of the rounds: reading a clip and computing its fingerprint; comparing a pair of fingerprints (each
round with other clips); standout of a pair; comparing the waveforms of a pair, which is counted once for each
synthetic clip (its guide) and for one in ten (the nearest eval clip). Times are CPU times, which other load
on the machine changes less than wall time. Pairs are compared, and clips read, on all cores; standouts and
waveforms on one: `hours` is for two cores.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recorded import processor, record

from ajbench.core import console
from ajbench.data import audio
from ajbench.data.clip_set import open_set
from ajbench.evaluation.audit_similarity import scores, usable_clips, waveform_match
from ajbench.metrics.standout import spread, standout

SYNTHETIC, REAL, CORES = 80_000, 20_000, 2
SAMPLES = audio.clip_samples(10.08)


def cut(waves: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return 10.08 s of recordings in random order, from a random place."""
    joined = np.concatenate([waves[k] for k in rng.permutation(len(waves))[:4]])
    return np.roll(joined, rng.integers(len(joined)))[:SAMPLES]


def cpu(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Return the CPU time of one call in seconds, and what it returned."""
    began = time.process_time()
    found = call(*arguments)
    return time.process_time() - began, found


def measure(waves: list[np.ndarray], options: argparse.Namespace) -> dict[str, float]:
    """Return the CPU seconds of each part for one clip, pair or comparison."""
    rng = np.random.default_rng(0)
    taken: dict[str, list[float]] = {"read": [], "compare": [], "standout": [], "waveform": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.clips):
            audio.write(Path(folder) / f"{number}.flac", cut(waves, rng))
        clips = open_set(Path(folder))
        for number in range(options.rounds):
            taken["read"].append(cpu(usable_clips, "synth", clips, [], lambda n: None)[0] / len(clips))
            shapes = [(n, 1 + SAMPLES // audio.HOP, 64) for n in (options.queries, options.references)]
            sets = [list(rng.normal(0, 0.1, shape).astype(np.float16)) for shape in shapes]
            pairs = options.queries * options.references
            seconds, (_, prominence) = cpu(scores, *sets)
            taken["compare"].append(seconds / pairs)
            columns = spread(prominence.T)
            taken["standout"].append(cpu(standout, prominence, columns)[0] / pairs)
            pair = [[clips.samples(k % len(clips))[0].mean(axis=1)] for k in (number, number + 1)]
            taken["waveform"].append(cpu(waveform_match, *pair)[0])
            console.say(f"round {number + 1} of {options.rounds}")
    return {part: statistics.median(values) for part, values in taken.items()}


def table(seconds: dict[str, float], rounds: int) -> list[dict[str, Any]]:
    """Return one row per part, and their sum."""
    times = {"read": SYNTHETIC + REAL, "compare": SYNTHETIC * REAL, "standout": SYNTHETIC * REAL}
    times["waveform"] = SYNTHETIC + SYNTHETIC // 10
    rows = []
    for part, each in seconds.items():
        cores = CORES if part in ("read", "compare") else 1
        hours = each * times[part] / cores / 3600
        rows.append({"part": part, "cpu_us": f"{each * 1e6:.3g}", "times": times[part], "cores": cores})
        rows[-1] |= {"hours": f"{hours:.3f}", "rounds": rounds}
    total = sum(float(row["hours"]) for row in rows)
    return [*rows, {"part": "all", "cpu_us": "", "times": "", "cores": CORES, "hours": f"{total:.2f}"}]


def main() -> None:
    """Measure and write one row per part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--references", type=int, default=1000)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    waves = [audio.read(path) for path in sorted((options.folder / "audio").iterdir())[: 2 * options.clips]]
    where = {"device": processor(), "torch": torch.__version__, "numpy": np.__version__}
    rows = [row | where for row in table(measure(waves, options), options.rounds)]
    header = list(rows[0])
    record(header, [[row.get(key, "") for key in header] for row in rows], len(header) - 3, options.out)


if __name__ == "__main__":
    main()
