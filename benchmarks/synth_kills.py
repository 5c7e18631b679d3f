"""Kill a synthesis at random moments, restart it, and compare it byte by byte with an undisturbed run.

python benchmarks/synth_kills.py WORK [--recipe esc10] [--data DIR] [--n 64] [--kills 10] [--out FILE.csv]
                                      [--clips 2000] [--set KEY=VALUE …]

WORK holds the recipe's finished prepare, train-gen and invert (the work folder of a run). `ajbench synth`
runs as a user would run it: once undisturbed, then with one and with two processes, each time ended by
SIGKILL (the whole process group) at moments drawn over the length of an undisturbed run, and restarted.

With --clips that many clips are made instead: by one process, by two, by three independent ones of which one
is killed at a random moment three times (and another started), and by Ray, with one worker killed. The sound
does not matter here, so for synth_kills_2000.csv the generator was trained for 30 steps: prepare,
train-gen, invert and this script had generator.train_steps=30 generator.warmup_steps=5 invert.train_steps=0
synth.sampler_steps=4 synth.strength=0.4. All ran on one core, so the seconds are not comparable.
"""

import argparse
import csv
import hashlib
import importlib.util
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ajbench.core import console

DEATHS = 3
SHARDS = 64  # about as many with --clips


def start(options: argparse.Namespace, work: Path, *more: str) -> subprocess.Popen:
    """Start the command in its own process group."""
    n = options.clips or options.n
    size = max(1, options.clips // SHARDS) if options.clips else 8
    data = ["--data", str(options.data)] if options.data else []
    command = [
        *(sys.executable, "-m", "ajbench", "synth", "--recipe", options.recipe, "--work", str(work), *data),
        *("--quiet", f"synth.n={n}", f"synth.shard_size={size}", *options.set, *more),
    ]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def digests(work: Path, recipe: str) -> dict[str, str]:
    """Return the hash of every file of a finished store, except records of times."""
    store = next(path for path in (work / recipe).glob("synth-*") if (path / "store.json").exists())
    names = ("store.json", "plan.parquet", "quarantine.csv", "retries.csv", "statistics.csv")
    kept = [*store.glob("*.arrow"), *(store / name for name in names)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def home(source: Path, folder: Path, recipe: str) -> Path:
    """Return a work folder that shares the finished stages of `source` up to the tokens."""
    (folder / recipe).mkdir(parents=True)
    for kind in ("prepare", "train-gen", "invert"):
        for stage in (source / recipe).glob(f"{kind}-*"):
            (folder / recipe / stage.name).symlink_to(stage.resolve())
    return folder


def end(job: subprocess.Popen) -> None:
    """Wait for a job that is not killed."""
    if job.wait():
        raise SystemExit(f"a run ended with {job.returncode}")


def again_and_again(
    options: argparse.Namespace, work: Path, processes: int, took: float, expected: dict[str, str]
) -> tuple[Path, int]:
    """Kill and restart `options.kills` times; return the folder of the last store and the number of kills."""
    draw, kills, folder = random.Random(processes), 0, work
    while True:
        job = start(options, work, "--processes", str(processes))
        if kills < options.kills:
            try:
                job.wait(draw.uniform(0, took))
            except subprocess.TimeoutExpired:
                os.killpg(job.pid, signal.SIGKILL)
                kills += 1
        if job.wait() not in (0, -signal.SIGKILL):
            raise SystemExit(f"a run ended with {job.returncode}")
        if job.returncode == 0 and kills >= options.kills:
            return work, kills
        if job.returncode == 0:  # finished before its kill: the remaining kills go to a new store
            if digests(work, options.recipe) != expected:
                return work, kills
            work = home(options.work, folder.with_name(f"{folder.name}-{kills}"), options.recipe)


def three_of_which_one_dies(options: argparse.Namespace, work: Path, took: float) -> int:
    """Let three commands share a store; kill one of them and start another, three times."""
    draw, kills = random.Random(3), 0
    jobs = [start(options, work) for _ in range(3)]
    while kills < DEATHS:
        time.sleep(draw.uniform(0, took / 3 / DEATHS))
        running = [job for job in jobs if job.poll() is None]
        if not running:
            break
        victim = draw.choice(running)
        os.killpg(victim.pid, signal.SIGKILL)
        if victim.wait() == -signal.SIGKILL:
            kills += 1
            jobs.append(start(options, work))
        jobs.remove(victim)
    for job in jobs:
        end(job)
    return kills


def ray_of_which_one_dies(options: argparse.Namespace, work: Path, took: float) -> int:
    """Let two Ray workers make a store; kill one of them while it works."""
    job = start(options, work, "--engine", "ray", "--processes", "2")
    draw, due = random.Random(4), None
    while job.poll() is None:
        workers = _workers_of(job.pid)
        if workers and due is None:
            due = time.monotonic() + draw.uniform(0, took / 4)
        if workers and due is not None and time.monotonic() >= due:
            os.kill(draw.choice(workers), signal.SIGKILL)
            end(job)
            return 1
        time.sleep(0.05)
    end(job)
    return 0


def _workers_of(driver: int) -> list[int]:
    """Return the child processes of `driver` that run a task, by the name that Ray gives them (Linux)."""
    parents: dict[int, int] = {}
    busy = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, line = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        if line.startswith(b"ray::_make"):
            busy.append(int(folder.name))
    return [pid for pid in busy if driver in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    found: set[int] = set()
    while pid in parents and pid not in found:
        found.add(pid)
        pid = parents[pid]
    return found


def many(options: argparse.Namespace, took: float) -> list[tuple[str, Callable[[Path], int]]]:
    """Return the set-ups of `--clips`: functions of a work folder that return the number of kills."""

    def two(work: Path) -> int:
        end(start(options, work, "--processes", "2"))
        return 0

    ways = [
        ("2 processes", two),
        ("3 on their own", lambda work: three_of_which_one_dies(options, work, took)),
    ]
    if importlib.util.find_spec("ray"):
        return [*ways, ("Ray, 2 workers", lambda work: ray_of_which_one_dies(options, work, took))]
    console.say("Ray is not installed, so not measured; pip install 'ajbench[ray]'")
    return ways


def main() -> None:
    """Run, kill, compare; exit with 1 where a byte differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--recipe", default="esc10")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument(
        "--clips", type=int, help="generate this many in four set-ups; 2000 takes hours on a CPU"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys that the stages in WORK were run with"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        whole = home(options.work, Path(folder) / "whole", options.recipe)
        began = time.monotonic()
        end(start(options, whole))
        took = time.monotonic() - began
        expected = digests(whole, options.recipe)
        rows.append(["1 process", 0, len(expected), len(expected), round(took, 1)])

        def compare(what: str, work: Path, kills: int, began: float) -> None:
            found = digests(work, options.recipe)
            equal = sum(found.get(name) == digest for name, digest in expected.items())
            rows.append([what, kills, len(found), equal, round(time.monotonic() - began, 1)])

        if options.clips:
            for number, (what, way) in enumerate(many(options, took)):
                work = home(options.work, Path(folder) / f"way-{number}", options.recipe)
                began = time.monotonic()
                compare(what, work, way(work), began)
        else:
            for processes in (1, 2):
                work = home(options.work, Path(folder) / str(processes), options.recipe)
                began = time.monotonic()
                compare(
                    f"{processes} killed",
                    *again_and_again(options, work, processes, took, expected),
                    began,
                )
    header = ["processes", "kills", "files", "identical", "seconds"]
    console.emit([dict(zip(header, row, strict=True)) for row in rows], table=(header, rows))
    if options.out:
        with options.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    if any(row[2] != row[3] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
