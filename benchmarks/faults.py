"""Disturb commands of ajbench, run them again, and compare what they leave with an undisturbed run.

python benchmarks/faults.py [--tries 20] [--others 3] [--seed 0] [--only PATTERN] [--faults PATTERN]
                            [--out FILE.csv]

Every command runs on a corpus of 24 small sounds (train-av: 32 rendered clips), in a child that is forked
after the libraries are imported. A disturbance is drawn by seed, command and number: SIGKILL of the process
group at an instant of the command's run, a full disk, a folder that becomes read-only, an input that
vanishes, a flipped bit in a shard, checkpoint or note, file times and a clock that jump, two runs at once,
little memory, a worker killed. Then the same command runs undisturbed, and every byte that it leaves is
compared, except times, durations, costs and locks. A case ends as

same        the disturbed command went on to its end, or a second one did; all bytes are those expected
refused     exit code 2 to 5 and one line that names the file, folder, lock or process; after the disturbance
            was undone, the same command left the expected bytes
lost        something is missing, or the same command cannot go on
different   other bytes, or files too many
traceback   any other end: a traceback, a crash, more than one line, a line that does not say where
hang        300 s without end

One row per command and fault; --tries is the number of kills, --others that of every other fault. FILE.csv
keeps the rows of other commands and faults, so that commands can be measured one by one. A disk is full, and
a folder read-only, by a tmpfs if this process may mount one; the column `how` says so. Exits with 1 if
anything ended in one of the last four. The try of a fault is repeated with `--first NUMBER`.
"""

import argparse
import csv
import random
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import faults_cases as cases
import faults_ground
from faults_folders import may_mount
from hostile_runs import run

from ajbench.core import console

CASES = {
    "kill": cases.kill,
    "full disk": cases.full_disk,
    "read-only folder": cases.read_only,
    "vanished input": cases.vanished,
    "flipped bit, shard": cases.flipped_shard,
    "flipped bit, checkpoint": cases.flipped_checkpoint,
    "flipped bit, note": cases.flipped_note,
    "clock": cases.clock,
    "two at once": cases.twice,
    "little memory": cases.little_memory,
    "dead worker": cases.dead_worker,
}
COLUMNS = ["command", "fault", "how", "tries", *cases.ENDS]


def undisturbed(name: str, ground: faults_ground.Ground, seed: int, output: Path) -> cases.Try:
    """Run a command twice without a disturbance.

    Returns:
        What its tries have in common.

    Raises:
        RuntimeError: it fails, or does not leave the same bytes twice.
    """
    command, seen = faults_ground.COMMANDS[name], []
    for _ in range(2):
        ground.reset(command.after)
        before = sum(path.stat().st_size for path in ground.place.rglob("*") if path.is_file())
        began = time.monotonic()
        done = run(command.arguments, ground.place, faults_ground.LIMIT_S, output=str(output))
        took = time.monotonic() - began
        if done.code:
            raise RuntimeError(f"{name}: {done.text[-500:]}")
        seen.append(faults_ground.contents(ground.place, command.outputs))
    if seen[0] != seen[1]:
        other = [path for path in seen[0] if seen[0][path] != seen[1].get(path)]
        raise RuntimeError(f"{name}: two undisturbed runs differ in {other[:5]}")
    after = sum(path.stat().st_size for path in ground.place.rglob("*") if path.is_file())
    return cases.Try(name, command, ground, random.Random(seed), took, seen[1], after - before, output)


def how(fault: str) -> str:
    """Return by what a disk is full or a folder read-only here."""
    if fault == "full disk":
        return "tmpfs" if may_mount() else "RLIMIT_FSIZE"
    if fault == "read-only folder":
        return "tmpfs" if may_mount() else "modes"
    return {"little memory": "RLIMIT_AS", "kill": "SIGKILL", "dead worker": "SIGKILL"}.get(fault, "")


def tried(common: cases.Try, fault: str, numbers: range, seed: int) -> Counter[str]:
    """Disturb a command once for each number; return how often it ended how."""
    ends: Counter[str] = Counter()
    for number in numbers:
        rng = random.Random(f"{seed} {common.name} {fault} {number}")
        end = CASES[fault](cases.replace(common, rng=rng))
        ends[end] += 1
        if end in cases.FAULTS:
            console.say(f"{end}: {common.name}, {fault}, number {number}")
    return ends


def write(path: Path, row: dict[str, Any]) -> None:
    """Put a row into the CSV in place of the one of the same command and fault, in a fixed order."""
    rows = {(row["command"], row["fault"]): row}
    if path.exists():
        with path.open(newline="") as file:
            rows = {(one["command"], one["fault"]): one for one in csv.DictReader(file)} | rows
    places = [(name, fault) for name in faults_ground.COMMANDS for fault in CASES]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[place] for place in places if place in rows)


def main() -> None:
    """Disturb every command, and write the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=20, help="kills of each command")
    parser.add_argument("--others", type=int, default=3, help="tries of every other fault")
    parser.add_argument("--first", type=int, default=0, help="number of the first try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="pattern of the commands")
    parser.add_argument("--faults", default="", help="pattern of the faults")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    faults_ground.import_libraries()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place, keep = Path(folder, "place"), Path(folder, "keep")
        place.mkdir()
        keep.mkdir()
        ground = faults_ground.Ground(place, keep)
        for name in faults_ground.COMMANDS:
            if not re.search(options.only, name):
                continue
            common = undisturbed(name, ground, options.seed, Path(folder, "output.txt"))
            for fault in CASES:
                if not re.search(options.faults, fault):
                    continue
                count = options.tries if fault == "kill" else options.others
                began = time.monotonic()
                numbers = range(options.first, options.first + count)
                ends = tried(common, fault, numbers, options.seed)
                seconds = round(time.monotonic() - began)
                if tries := sum(ends[end] for end in cases.ENDS):
                    counts = {end: ends[end] for end in cases.ENDS}
                    rows.append({"command": name, "fault": fault, "how": how(fault), "tries": tries} | counts)
                    console.say(f"{name}, {fault}: {dict(ends)}, {seconds} s")
                    if options.out:
                        write(options.out, rows[-1])
    console.emit({"rows": rows}, table=(COLUMNS, [[*row.values()] for row in rows]))
    raise SystemExit(any(row[end] for row in rows for end in cases.FAULTS))


if __name__ == "__main__":
    main()
