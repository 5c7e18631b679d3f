"""Give ajbench inputs from a stranger, and count tracebacks, crashes, hangs and memory.

python benchmarks/hostile.py [--n 500] [--seed 0] [--only PATTERN] [--out FILE.csv]

Recipes, options, stores, classifiers, generators, text encoders, captions, codecs, answers of a language
model, sounds, tables, archives, folders and names of classes are drawn by a seed, each with something wrong,
and given to a command that reads them. Each command runs in a child that is forked after the libraries are
imported, with 20 s of processor time (or of waiting; `LIMITS_S` has the exceptions) and 2 GB of resident
memory, its workers included. It must end well, or with one line and an exit code of 2 to 5. Before that,
inputs of every kind with nothing wrong must be read to the end, by every command that the kind is given to.
One row per kind: inputs, how many ended with which exit code, faults, the longest time and the largest
memory. Exits with 1 if there is a fault; each is printed with its number, by which `--first` repeats it.
"""

import argparse
import csv
import itertools
import random
import re
import tempfile
from collections import Counter
from pathlib import Path

import hostile_folders
import hostile_given
import hostile_recipes
import hostile_runs
import hostile_sounds

from ajbench.core import console

RECIPE = """extends: mini
name: ground
data: {n_clips: 60, duration_s: 0.84}
generator: {train_steps: 1, batch_size: 4, warmup_steps: 0}
synth: {n: 4, sampler_steps: 2, shard_size: 2, micro_batch: 2, prompt: names}
invert: {train_steps: 0}
classifier: {train_steps: 2, batch_size: 4, warmup_steps: 0}
evaluate: {doses: [4], controls: [], seeds: [0], pools: [], primary: null}
mix: {real: all}
"""
KINDS = hostile_recipes.KINDS | hostile_folders.KINDS | hostile_given.KINDS | hostile_sounds.KINDS
# A codec's first step needs the latents of 64 batches, a whole run the imports of several processes.
LIMITS_S = {
    "folder: sounds of a codec": 90.0,
    "names: classes of a run": 180.0,
    "options: odd place for output": 180.0,
}
UNHARMED = 12  # draws of a kind, of which each command line of another shape is run
FAULTS = ("traceback", "crash", "hang", "memory", "not one line")


def make_ground(folder: Path) -> None:
    """Make a small store, generator, synthetic store and classifier, which the inputs are copies of.

    Raises:
        RuntimeError: a stage fails.
    """
    (folder / "r.yaml").write_text(RECIPE)
    hostile_folders.GROUND = folder
    for stage in ("prepare", "train-gen", "invert", "synth", "train-cls"):
        done = hostile_runs.run([stage, "--recipe", "r.yaml"], folder, limit_s=600)
        if done.code:
            raise RuntimeError(f"{stage}: {done.text[-500:]}")
    store = str(hostile_folders.made("prepare"))
    captions = ["caption", "--store", store, "--out", "captions", "--backend", "template"]
    done = hostile_runs.run(captions, folder)
    if done.code:
        raise RuntimeError(f"caption: {done.text[-500:]}")


def read_unharmed(names: list[str]) -> None:
    """Run inputs of every kind with nothing wrong, with each command that reads them.

    Raises:
        RuntimeError: one does not end well: the kind would say nothing of what it is meant to harm.
    """
    ran = set()
    for name, number in itertools.product(names, range(UNHARMED)):
        with tempfile.TemporaryDirectory(prefix="unharmed-") as place:
            arguments = KINDS[name](Path(place), random.Random(f"unharmed {name} {number}"), harm=False)
            reader = "recipe" if name in hostile_recipes.HARMED else name
            shape = reader, arguments[0], *(one for one in arguments if one.startswith("--"))
            if shape in ran:
                continue
            ran.add(shape)
            done = hostile_runs.run(arguments, Path(place), LIMITS_S.get(name, hostile_runs.LIMIT_S))
        # Without results, `tables` ends where it would read them.
        if done.fault or (done.code and not (arguments[0] == "tables" and "rows.csv" in done.text)):
            raise RuntimeError(f"{name}, unharmed: {' '.join(arguments)}: {done.code} {done.text[-500:]}")


def import_libraries() -> None:
    """Import what commands import, once for all children; nothing that starts threads."""
    import diffusers  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import transformers  # noqa: F401

    import ajbench.cli.app
    import ajbench.generation.worker
    import ajbench.pipeline.recipe_stages  # noqa: F401


def draw(seed: int, number: int, names: list[str]) -> tuple[str, random.Random]:
    """Return the kind of input `number`, and what it is drawn with; kinds take turns."""
    return names[number % len(names)], random.Random(f"{seed} {number}")


def run(seed: int, numbers: range, names: list[str]) -> list[tuple[str, int, hostile_runs.Outcome]]:
    """Run the inputs of these numbers; return (kind, number, outcome) of each."""
    found = []
    for number in numbers:
        kind, rng = draw(seed, number, names)
        with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as place:
            folder = Path(place)
            arguments = KINDS[kind](folder, rng)
            done = hostile_runs.run(arguments, folder, LIMITS_S.get(kind, hostile_runs.LIMIT_S))
            if (folder / "ran").exists():
                done = hostile_runs.Outcome(
                    1, "", done.seconds, done.peak_mb, "Traceback: a stranger's code ran"
                )
        found.append((kind, number, done))
        if done.fault:
            shown = " ".join(one[:60] for one in arguments)
            console.say(f"{done.fault}: {number} ({kind}): {shown}: {done.text.strip()[-300:]}")
    return found


def rows_of(found: list[tuple[str, int, hostile_runs.Outcome]]) -> list[dict[str, object]]:
    """Return one row per kind."""
    rows = []
    for kind in dict.fromkeys(kind for kind, _, _ in found):
        ends = [done for name, _, done in found if name == kind]
        codes = Counter(done.code for done in ends if not done.fault)
        faults = Counter(done.fault for done in ends)
        rows.append({
            "kind": kind,
            "inputs": len(ends),
            "exit_codes": " ".join(f"{code}:{count}" for code, count in sorted(codes.items())),
            **{fault.replace(" ", "_"): faults[fault] for fault in FAULTS},
            "seconds": f"{max(done.seconds for done in ends):.1f}",
            "peak_mb": round(max(done.peak_mb for done in ends)),
        })  # fmt: skip
    return rows


def main() -> None:
    """Draw the inputs, run them, and write the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="pattern of the kinds to draw; changes the numbers")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = [name for name in KINDS if re.search(options.only, name)]
    import_libraries()
    with tempfile.TemporaryDirectory() as place:
        make_ground(Path(place))
        read_unharmed(names)
        found = run(options.seed, range(options.first, options.first + options.n), names)
    rows = rows_of(found)
    console.emit({"kinds": rows}, table=([*rows[0]], [[*row.values()] for row in rows]))
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    raise SystemExit(any(done.fault for _, _, done in found))


if __name__ == "__main__":
    main()
