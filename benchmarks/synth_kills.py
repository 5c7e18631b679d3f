"""Kill a synthesis at random instants, again and again, and compare what it ends with, byte by byte.

python benchmarks/synth_kills.py WORK [--recipe esc10] [--data DIR] [--n 64] [--kills 10] [--out FILE.csv]

WORK holds the recipe's finished prepare, train-gen and invert (a run's work folder). `ajbench synth` is run
as a user would: once undisturbed, then with one and with two processes, each time ended by SIGKILL (the
whole process group) at instants drawn over an undisturbed run's length, and started again.
"""

import argparse
import csv
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ajbench import console


def start(options: argparse.Namespace, work: Path, processes: int) -> subprocess.Popen:
    """Start the command in a process group of its own."""
    data = ["--data", str(options.data)] if options.data else []
    command = [
        *(sys.executable, "-m", "ajbench", "synth", "--recipe", options.recipe, "--work", str(work), *data),
        *("--processes", str(processes), "--quiet", f"synth.n={options.n}", "synth.shard_size=8"),
    ]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def digests(work: Path, recipe: str) -> dict[str, str]:
    """Return the hash of every file that a finished store keeps, but for the record of when it ran."""
    store = next(path for path in (work / recipe).glob("synth-*") if (path / "store.json").exists())
    kept = [*store.glob("*.arrow"), store / "store.json", store / "quarantine.csv"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def home(source: Path, folder: Path, recipe: str) -> Path:
    """Return a work folder that shares the finished stages of `source` up to the tokens."""
    (folder / recipe).mkdir(parents=True)
    for kind in ("prepare", "train-gen", "invert"):
        for stage in (source / recipe).glob(f"{kind}-*"):
            (folder / recipe / stage.name).symlink_to(stage.resolve())
    return folder


def main() -> None:
    """Run, kill, compare; exit code 1 where a byte differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--recipe", default="esc10")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    draw, rows = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder:
        whole = home(options.work, Path(folder) / "whole", options.recipe)
        began = time.monotonic()
        if start(options, whole, 1).wait():
            raise SystemExit("the undisturbed run failed")
        took = time.monotonic() - began
        expected = digests(whole, options.recipe)
        rows.append([1, 0, len(expected), len(expected), round(took, 1)])
        for processes in (1, 2):
            work, kills = home(options.work, Path(folder) / str(processes), options.recipe), 0
            began = time.monotonic()
            while True:
                job = start(options, work, processes)
                if kills < options.kills:
                    try:
                        job.wait(draw.uniform(0, took))
                    except subprocess.TimeoutExpired:
                        os.killpg(job.pid, signal.SIGKILL)
                        kills += 1
                if job.wait() not in (0, -signal.SIGKILL):
                    raise SystemExit(f"a run ended with {job.returncode}")
                if job.returncode == 0 and kills >= options.kills:
                    break
                if job.returncode == 0:  # done before its kill: what is left of them goes to a new store
                    same = digests(work, options.recipe) == expected
                    if not same:
                        break
                    work = home(options.work, Path(folder) / f"{processes}-{kills}", options.recipe)
            found = digests(work, options.recipe)
            equal = sum(found.get(name) == digest for name, digest in expected.items())
            rows.append([processes, kills, len(found), equal, round(time.monotonic() - began, 1)])
    header = ["processes", "kills", "files", "identical", "seconds"]
    console.emit([dict(zip(header, row, strict=True)) for row in rows], table=(header, rows))
    if options.out:
        with options.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    if any(row[2] != row[3] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
