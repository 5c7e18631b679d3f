"""Time and memory of the commands against the number of clips, and the exponent of each.

    python benchmarks/growth.py [--clips [50 100 1000 10000]] [--audioset DIR] [--out growth.csv]

Clips are WAV files of seeded noise, 0.84 s long, in ten classes, a fifth of them for evaluation. As many are
generated as there are, by a generator of two training steps in two sampling steps, so that the U-Net does not
hide the rest. `audit` compares them with the real clips of the smallest corpus, each with each, so its time
is the product of both numbers. `plan` is the dry run of Table A11 from a list of AudioSet of so many
lines (benchmarks/made_unbalanced.py), and `mixing` the first batch of 256 of so many clips.

Every command is a process of its own. `seconds` is its time, `peak_mb` the kernel's peak resident size of its
largest process; of `mixing`, what it adds. `exponent` is the slope of the logarithm of the time against that
of the clips between this size and the one before, of what both have more than the smallest size: without
imports, and 1 where time is linear. There is none where one of the two takes hardly longer than the smallest.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from made_unbalanced import lines as segment_lines
from mixing_scale import in_process
from prepare_memory import make_corpus
from recorded import processor, record

SECONDS = 0.84
HARDLY = 0.05  # of the time at the smallest size
MIX = "alpha 0.5, M = 1, balanced"  # the one that takes longest
SPLITS = ("balanced_train_segments.csv", "eval_segments.csv")
TINY = (
    "data.corpus=table",
    f"data.duration_s={SECONDS}",
    "data.eval_fold=null",
    "generator.train_steps=2",
    "invert.train_steps=0",
    "synth.prompt=names",
    "synth.strength=0.3",
    "synth.sampler_steps=2",
    "mix.real=all",
    "classifier.train_steps=4",
)
HEADER = ("step", "clips", "seconds", "exponent", "peak_mb", "processor", "cores")

Figures = tuple[float, float]  # seconds, peak MB


def ajbench(*arguments: str | Path, quiet: bool = True) -> list[str]:
    """Return a command line."""
    return [sys.executable, "-m", "ajbench", *map(str, arguments), *(["--quiet"] if quiet else [])]


def measure(command: Sequence[str], accepted: Sequence[int] = (0,)) -> Figures:
    """Run a command; return its seconds and the peak MB of its largest process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in accepted:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def outcome(command: Sequence[str]) -> dict[str, object]:
    """Run a command and return its JSON document."""
    found = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    document: dict[str, object] = json.loads(found.stdout)
    return document


def clip_steps(folder: Path, clips: int, real: Path | None) -> Iterator[tuple[str, Figures, Path]]:
    """Measure every command on so many clips; yield its name, its figures and the store of the real clips.

    `real` is the store that `audit` compares with; None: that of these clips.
    """
    table = make_corpus(folder / "corpus", clips, SECONDS)
    places = ("--recipe", "mini", "--data", table, "--work", folder / "work", "--results", folder / "results")
    keys = (*TINY, f"synth.n={clips}", f"evaluate.doses=[{clips}]", f"mix.dose={clips}")
    prepare = ajbench("prepare", *places, *keys)
    figures = measure(prepare)
    store = Path(str(outcome(prepare)["path"]))
    yield "prepare", figures, store
    subprocess.run(ajbench("train-gen", *places, *keys), check=True)
    synth = ajbench("synth", *places, *keys)
    yield "synth", measure(synth), store
    made = Path(str(outcome(synth)["path"]))
    yield "train-cls", measure(ajbench("train-cls", *places, *keys)), store
    yield "eval-cls", measure(ajbench("eval-cls", *places, *keys)), store
    sets = ("--gen", made, "--ref", store, "--ref-split", "train")
    yield "eval-gen", measure(ajbench("eval-gen", *sets, "--work", folder / "work")), store
    sets = ("--synth", made, "--train", real or store, "--train-split", "train")
    held_out = ("--eval", real or store, "--eval-split", "eval")
    yield "audit", measure(ajbench("audit", *sets, *held_out), accepted=(0, 4)), store


def label_steps(folder: Path, audioset: Path, clips: int) -> Iterator[tuple[str, Figures]]:
    """Measure what needs the labels of so many clips only."""
    # First, as a process begins with the peak memory of the one that starts it.
    setup, _, megabytes = in_process(MIX, clips)
    yield "mixing", (setup, megabytes)
    folder.mkdir()
    for name in SPLITS:
        (folder / name).symlink_to((audioset / name).resolve())
    with (folder / "unbalanced_train_segments.csv").open("w", encoding="utf-8") as file:
        file.write("\n".join(segment_lines(clips)))
    plan = ajbench("run", "tables/a11", "--base", "as20k", "--data", folder, "--dry-run")
    yield "plan", measure(plan)


def with_exponents(found: dict[str, dict[int, Figures]]) -> list[list[object]]:
    """Return the rows of the table."""
    rows: list[list[object]] = []
    for step, sizes in found.items():
        least = min(sizes)
        more = [(clips - least, sizes[clips][0] - sizes[least][0]) for clips in sizes]
        for k, (clips, (seconds, megabytes)) in enumerate(sizes.items()):
            slope = ""
            (n, t), (before, t_before) = more[k], more[k - 1]
            if k > 1 and min(t, t_before) > HARDLY * sizes[least][0]:
                slope = f"{math.log(t / t_before) / math.log(n / before):.2f}"
            rows.append([step, clips, f"{seconds:.2f}", slope, round(megabytes)])
    return rows


def main() -> None:
    """Measure every command at every size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, nargs="*", default=[50, 100, 1_000, 10_000])
    parser.add_argument("--lists", type=int, nargs="+", default=[2_000, 20_000, 200_000, 2_041_789])
    parser.add_argument("--audioset", type=Path, help="folder of AudioSet's lists; without it no labels")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: dict[str, dict[int, Figures]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder, real, smallest = Path(temporary), None, None
        for clips in options.clips:
            for name, figures, store in clip_steps(folder / str(clips), clips, real):
                found.setdefault(name, {})[clips] = figures
                smallest = smallest or store
            real = smallest
        for clips in options.lists if options.audioset else []:
            for name, figures in label_steps(folder / f"list{clips}", options.audioset, clips):
                found.setdefault(name, {})[clips] = figures
    machine = [processor(), len(os.sched_getaffinity(0))]
    rows = [[*row, *machine] for row in with_exponents(found)]
    record(HEADER, rows, len(HEADER) - 2, options.out)


if __name__ == "__main__":
    main()
