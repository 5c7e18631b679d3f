"""What `ajbench estimate` says after a small part of a run, beside what the whole run then takes.

    python benchmarks/forecast.py [--recipe mini] [--data DIR] [--out forecast.csv] [KEY=VALUE ...]

The small part has half of the steps or fewer, a third of the clips, and one seed (PART). Then come
`estimate`, and the run. Seconds of a stage are those of all its trainings, syntheses or clips, one after
another; those of `whole run` are on the clock, from the command to its report. What the small part has
finished is in neither.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recorded import processor, record

PART = (
    *("generator.train_steps=60", "invert.train_steps=10", "synth.n=48", "classifier.train_steps=50"),
    *("evaluate.doses=[48]", "evaluate.seeds=[0]", "evaluate.controls=[]"),
)
HEADER = ("recipe", "stage", "units", "estimated_s", "measured_s", "ratio", "processor", "cores")


def ajbench(*arguments: str) -> str:
    """Run a command and return what it prints."""
    command = [sys.executable, "-m", "ajbench", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def spent(path: str) -> float:
    """Return the seconds that a finished stage took in all its processes."""
    info = json.loads(Path(path, "run.json").read_text(encoding="utf-8"))
    return float(info["seconds"]) * int(info.get("processes", 1))


def compare(recipe: str, more: list[str], work: str) -> list[tuple[Any, ...]]:
    """Run the small part, estimate, run the whole; return rows of HEADER without the machine."""
    words = [recipe, *more, "--work", work, "--results", f"{work}/results"]
    ajbench("run", *words, *PART, "--quiet")
    said = json.loads(ajbench("estimate", *words, "--json"))
    assert not said["unknown"], f"no rate of {said['unknown']}"
    left = [
        stage for stage in json.loads(ajbench("run", *words, "--dry-run", "--json"))["stages"]
        if stage["state"] == "todo"
    ]  # fmt: skip
    began = time.monotonic()
    ajbench("run", *words, "--quiet")
    whole = time.monotonic() - began
    rows: list[tuple[Any, ...]] = []
    for line in said["stages"]:
        measured = sum(spent(stage["path"]) for stage in left if stage["stage"] == line["stage"])
        rows.append((line["stage"], int(line["units"]), 3600 * line["device_hours"], measured))
    rows.append(("whole run", "", 3600 * said["hours"], whole))
    return [
        (recipe, stage, units, f"{estimated:.1f}", f"{measured:.1f}", f"{estimated / measured:.2f}")
        for stage, units, estimated, measured in rows
    ]


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--data")
    parser.add_argument("--out", type=Path)
    parser.add_argument("more", nargs="*", metavar="KEY=VALUE")
    asked = parser.parse_args()
    more = [*asked.more, *(["--data", asked.data] if asked.data else [])]
    with tempfile.TemporaryDirectory() as work:
        rows = compare(asked.recipe, more, work)
    machine = (processor(), len(os.sched_getaffinity(0)))
    record(HEADER, [row + machine for row in rows], 6, asked.out)


if __name__ == "__main__":
    main()
