"""Time and mAP of the esc10 classifiers trained in fp32 and in bf16 on one core of a CPU.

python benchmarks/cpu_precision.py STORE [--seeds 2] [--steps N] [--out FILE.csv]

STORE is the folder that stage prepare of the recipe esc10 writes. taltrans-small (no augmentation) and
ast-tiny (mixup and SpecAugment) are trained on the real clips of its train split with the settings of the
recipe, and scored on its eval split. The two precisions take turns, so that a busy moment of the machine
meets both: compare within a pair, and `cpu_seconds` (processor time) where other programs run as well.
`seconds_step` is the median over the steps of a training, `bf16_flag` the instruction set that multiplies
bf16. Rows are appended one by one; a row that is in the file is not measured again.
"""

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path

import torch
from recorded import cpu_flag, processor, timed

from ajbench import classifiers
from ajbench.classifiers import predict
from ajbench.classifiers.train import train_classifier
from ajbench.core import console, recipe
from ajbench.data.store import ClipStore
from ajbench.metrics.ranking import summary

MODELS = {
    "taltrans-small": ["aug=none"],
    "ast-tiny": ["aug=mx+sp", "lr=1e-3"],
}
HEADER = (
    "model",
    "precision",
    "seed",
    "steps",
    "seconds_step",
    "seconds",
    "cpu_seconds",
    "map",
    "bf16_flag",
    "device",
    "torch",
)


def measure(store: ClipStore, model: str, precision: str, seed: int, steps: int | None) -> dict[str, object]:
    """Train one classifier and return its row."""
    changes = [f"name={model}", f"precision={precision}", *MODELS[model]]
    changes += [f"train_steps={steps}"] if steps else []
    settings = recipe.load("esc10", [f"classifier.{change}" for change in changes])
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "classifier"
        began = time.process_time()
        seconds = timed(
            lambda: train_classifier(settings, store, None, out, seed=seed, fingerprint=precision), "cpu"
        )
        cpu = time.process_time() - began
        with (out / "metrics.csv").open() as file:
            each = [float(row["seconds"]) for row in csv.DictReader(file)]
        held_out = store.split_indices("eval")
        scores = predict(classifiers.load(out), store, held_out)
    value = summary(scores, store.targets()[held_out])["map"]
    figures = (f"{statistics.median(each):.4f}", f"{seconds:.1f}", f"{cpu:.1f}", f"{value:.4f}")
    found = (model, precision, seed, len(each), *figures, cpu_flag(), processor(), torch.__version__)
    return dict(zip(HEADER, found, strict=True))


def main() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, help="optimiser steps; default: those of the recipe")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    store = ClipStore.open(options.store)
    done: set[tuple[str, ...]] = set()
    if options.out.exists():
        with options.out.open(newline="") as file:
            done = {tuple(row[name] for name in HEADER[:3]) for row in csv.DictReader(file)}
    else:
        options.out.write_text(",".join(HEADER) + "\n")
    for seed in range(options.seeds):
        for model in MODELS:
            turns = ("fp32", "bf16") if seed % 2 == 0 else ("bf16", "fp32")
            for precision in turns:
                if (model, precision, str(seed)) in done:
                    continue
                row = measure(store, model, precision, seed, options.steps)
                with options.out.open("a", newline="") as file:
                    csv.DictWriter(file, HEADER, lineterminator="\n").writerow(row)
                console.say(" ".join(f"{key}={value}" for key, value in row.items()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
