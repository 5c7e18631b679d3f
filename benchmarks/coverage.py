"""How often ajbench's intervals cover, and how often its tests err, in simulations with a known truth.

python benchmarks/coverage.py [--only SCENARIO] [--out FILE.csv]

Scenarios are in coverage_*.py, one file per theme. Each draws new data in every repetition, from fixed
seeds, and calls the same functions as the commands do. `covered` is the share of repetitions in which the
interval contains the truth; for a test, the share in which it rejects a true hypothesis, and `nominal` is its
level. `before` is the share with the method that ajbench used earlier, if it was measured. Two processes.
"""

import argparse
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import coverage_audit
import coverage_classifiers
import coverage_folds
import coverage_power
import coverage_sets
from recorded import record

from ajbench.core import console

HEADER = ("scenario", "setting", "nominal", "covered", "repetitions", "before")
Row = tuple[str, str, float, float, int, float | str]  # `before` is "" where unknown
Job = Callable[[], list[Row]]  # may run in another process: functools.partial of a function of a module

# A theme: name of a scenario → its jobs, each with its own seed.
THEMES: list[dict[str, list[Job]]] = [
    coverage_classifiers.SCENARIOS,
    coverage_folds.SCENARIOS,
    coverage_power.SCENARIOS,
    coverage_audit.SCENARIOS,
    coverage_sets.SCENARIOS,
]


def call(job: Job) -> list[Row]:
    """Run a job in a process of the pool."""
    return job()


def main() -> None:
    """Run all scenarios, or one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scenarios = {name: jobs for theme in THEMES for name, jobs in theme.items()}
    parser.add_argument("--only", choices=scenarios)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jobs = [job for name, mine in scenarios.items() if options.only in (None, name) for job in mine]
    rows: list[Row] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn) as pool, console.progress(len(jobs), "coverage", "jobs") as advance:
        for found in pool.map(call, jobs):
            rows += found
            advance(1)
    record(HEADER, rows, len(HEADER), options.out)


if __name__ == "__main__":
    main()
