"""Sampler set-up at AudioSet's full size: 2.1 million clips, 527 classes, 2.4 labels per clip, long-tailed.

    python benchmarks/mixing_scale.py

Each mix is set up in a process of its own: from clip ids, sparse targets and parents to the first batch of
256. Writes benchmarks/mixing_scale.csv: seconds of set-up (weights, plan, first batch), milliseconds of a
later batch, and the peak memory of the process beyond its imports.
"""

import multiprocessing
import resource
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from recorded import processor, record
from scipy import sparse

from ajbench.core.recipe import Mix
from ajbench.data import mixing

REAL, CLASSES, BATCH = 2_100_000, 527, 256
MIXES = {
    "real, balanced": Mix(balanced=True),
    "+80kG, balanced": Mix(dose=80_000, balanced=True),
    "alpha 0.5, M = 1, balanced": Mix(mode="alpha", alpha=0.5, balanced=True),
}


def corpus(clips: int, rng: np.random.Generator) -> sparse.csr_array:
    """Long-tailed targets: label k of a clip follows a power law over the classes."""
    share = 1 / np.arange(1, CLASSES + 1)
    sizes = 1 + rng.poisson(1.4, clips)
    ids = rng.choice(CLASSES, sizes.sum(), p=share / share.sum()).astype(np.int32)
    ends = np.concatenate([[0], sizes.cumsum()])
    found = sparse.csr_array((np.ones(len(ids), np.float32), ids, ends), shape=(clips, CLASSES))
    found.sum_duplicates()
    found.data[:] = 1.0
    return found


def peak_mb() -> float:
    """Return the largest resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, pipe: Connection, real: int = REAL) -> None:
    """Set up one mix of so many real clips, and send its time and memory."""
    before = peak_mb()
    rng = np.random.default_rng(0)
    mix = MIXES[name]
    real_ids = [f"Y{i:010d}" for i in range(real)]
    made = real if mix.mode == "alpha" else mix.dose
    parents = [real_ids[i % real] for i in range(made)]
    targets = corpus(real + made, rng)
    start = time.perf_counter()
    plan = mixing.plan(mix, real_ids, parents, targets, seed=0)
    first = mixing.batch(plan.order, plan.epoch_size, BATCH, 0)
    setup = time.perf_counter() - start
    times = []
    for index in range(1, 101):
        start = time.perf_counter()
        mixing.batch(plan.order, plan.epoch_size, BATCH, index)
        times.append(time.perf_counter() - start)
    assert len(first) == BATCH
    pipe.send((round(setup, 2), round(1e3 * statistics.median(times), 4), round(peak_mb() - before)))


def in_process(name: str, real: int = REAL) -> tuple[float, float, int]:
    """Return what `measure` sends from a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=measure, args=(name, theirs, real))
    process.start()
    theirs.close()
    found: tuple[float, float, int] = ours.recv()
    process.join()
    return found


def main() -> None:
    """Measure every mix."""
    rows = []
    for name in MIXES:
        setup, later, megabytes = in_process(name)
        rows.append([name, REAL, setup, later, megabytes, processor()])
    header = ["mix", "real_clips", "setup_s", "batch_ms", "peak_mb", "processor"]
    record(header, rows, len(header), Path(__file__).with_suffix(".csv"))


if __name__ == "__main__":
    main()
