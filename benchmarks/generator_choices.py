"""What whitening and prediction are worth: short trainings on ESC-10, heard by a classifier of real clips.

python benchmarks/generator_choices.py ESC10 JUDGE WORK [--steps 300] [--n 80] [--out FILE.csv]

JUDGE is the folder of a classifier trained on real clips of folds 1 to 4 (a finished `train-cls-…` of
`ajbench run esc10`). For each choice a generator is trained for `--steps` and makes `--n` clips from plain
class names at strength 0.6 and from noise; a row says how often the judge ranks the asked class first, the
standard deviation of the waves beside that of the guides, and the share of the latents' variance in their
first principal component. Results that are clipped all through are left out. WORK keeps what is made.
"""

import argparse
import csv
from itertools import product
from pathlib import Path

import numpy as np
import torch

from ajbench import classifiers, console, recipe, synthesize
from ajbench import codec as codecs
from ajbench.errors import NumericError
from ajbench.metrics.features import of_store
from ajbench.stages import Pipeline, Places
from ajbench.store import ClipStore


def first_component(store: ClipStore) -> float:
    """Return the share of the train latents' variance that lies in one direction."""
    latents = codecs.load(store.meta.codec).latents(store.codes(store.split_indices("train")))
    frames = latents.transpose(1, 2).flatten(0, 1).double()
    variance = torch.linalg.eigvalsh(frames.T.cov())
    return float(variance[-1] / variance.sum())


def heard(store: ClipStore, judge: classifiers.Classifier) -> tuple[float, float]:
    """Return how often an asked class is ranked first, and the standard deviation of the waves."""
    indices, targets = np.arange(len(store)), store.targets().astype(bool)
    waves = list(of_store(store, indices, 16))
    first = np.concatenate([judge.predict(wav).argmax(1).numpy() for wav in waves])
    return float(targets[indices, first].mean()), float(np.concatenate(waves).std())


def main() -> None:
    """Train, sample and judge every choice; print and write a row each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("judge", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--n", type=int, default=80)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    judge, rows = classifiers.load(options.judge), []
    for whitening, prediction in product(("channel", "pca"), ("epsilon", "v_prediction")):
        chosen = [f"codec.whitening={whitening}", f"generator.prediction={prediction}"]
        short = [f"generator.train_steps={options.steps}", "generator.ema_decay=0.99", "synth.prompt=names"]
        row: list[object] = [whitening, prediction, options.steps]
        for strength in (0.6, 1.0):
            more = [f"synth.strength={strength}", f"synth.n={options.n}", "evaluate.doses=[]"]
            settings = recipe.load("esc10", [*chosen, *short, *more])
            pipeline = Pipeline(settings, Places(options.folder, options.work))
            pipeline.prepare.run("cpu")
            pipeline.train_gen.run("cpu")
            real, stage = ClipStore.open(pipeline.prepare.path), pipeline.synth()
            try:
                made = synthesize.synthesize(
                    settings,
                    real,
                    pipeline.generator,
                    None,
                    stage.path,
                    fingerprint=stage.fingerprint,
                    processes=2,
                )
                share, deviation = heard(made, judge)
            except NumericError:  # clipped all through, every one
                share, deviation = 0.0, float("nan")
            row += [round(share, 3), round(deviation, 4)]
        train = real.split_indices("train")
        guides = np.concatenate(list(of_store(real, train, 16)))
        rows.append([*row, round(float(guides.std()), 4), round(first_component(real), 3)])
    header = ["whitening", "prediction", "steps", "heard_at_0.6", "std_at_0.6", "heard_from_noise"]
    header += ["std_from_noise", "std_real", "first_component"]
    console.emit([dict(zip(header, row, strict=True)) for row in rows], table=(header, rows))
    if options.out:
        with options.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
