"""Time of `ajbench prepare` while other programs use some of the cores, by how OpenMP's threads wait.

    python benchmarks/busy_core.py [--clips 100] [--rounds 3] [--out busy_core.csv]

`ajbench` sets OMP_WAIT_POLICY=PASSIVE: threads that wait for each other sleep. ACTIVE is a busy loop, as
without it. `busy` is the number of processes that count meanwhile. Medians of the rounds, which take turns.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recorded import processor, record

POLICIES = ("PASSIVE", "ACTIVE")


def count() -> None:
    """Use a core."""
    number = 0
    while True:
        number += 1


def seconds(policy: str, clips: int) -> float:
    """Return the time of one prepare."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "ajbench",
            "prepare",
            f"data.n_clips={clips}",
            "--work",
            folder,
            "-q",
        ]
        start = time.perf_counter()
        environment = os.environ | {"OMP_WAIT_POLICY": policy}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> None:
    """Measure both policies with and without another program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cores, rows = len(os.sched_getaffinity(0)), []
    for busy in sorted({0, max(1, cores // 2), cores}):
        others = [multiprocessing.Process(target=count, daemon=True) for _ in range(busy)]
        for other in others:
            other.start()
        turns = [[seconds(policy, options.clips) for policy in POLICIES] for _ in range(options.rounds)]
        for other in others:
            other.kill()
        for policy, times in zip(POLICIES, zip(*turns, strict=True), strict=True):
            rows.append([busy, policy, options.clips, round(statistics.median(times), 1), processor(), cores])
    record(("busy", "policy", "clips", "seconds", "processor", "cores"), rows, 4, options.out)


if __name__ == "__main__":
    main()
