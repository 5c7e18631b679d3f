"""What the codec costs a classifier: accuracy on originals and on decoded clips of ESC-10's fold 5.

python benchmarks/codec_classifier.py ESC10 WORK [--seeds 3] [--out FILE.csv]

Trains taltrans-small (recipe esc10, mixup and SpecAugment) on folds 1 to 4, once on originals and once on
decoded clips, and scores both versions of fold 5. WORK receives the decoded clips and the classifiers;
finished parts are reused.
"""

import argparse
import csv
import shutil
from pathlib import Path

import numpy as np
import torch

from ajbench import classifiers, codec
from ajbench.classifiers import predict
from ajbench.classifiers.train import train_classifier
from ajbench.core import console, recipe
from ajbench.data import audio
from ajbench.data.store import ClipStore
from ajbench.metrics.ranking import summary
from ajbench.pipeline.prepare import prepare

KINDS = ("original", "decoded")


def decode_corpus(source: Path, target: Path) -> None:
    """Decode every clip of a corpus in ESC-50's layout from its codes; write WAV files of the same stem."""
    if (target / "meta").is_dir():
        return
    network = codec.load("tiny")
    (target / "audio").mkdir(parents=True, exist_ok=True)
    files = sorted((source / "audio").iterdir())
    with console.progress(len(files), "decode") as advance:
        for file in files:
            wav = audio.fit(audio.read(file), audio.clip_samples(5.04))
            heard = network.decode(network.encode(wav[None]))[0].numpy()
            audio.write(target / "audio" / f"{file.stem}.wav", heard)
            advance(1)
    shutil.copytree(source / "meta", target / "meta")


def main() -> None:
    """Train and score; print one row per training set, evaluation set and seed, and the means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    settings = recipe.load("esc10", ["classifier.name=taltrans-small", "classifier.aug=mx+sp"])
    decode_corpus(options.folder, options.work / "decoded-clips")
    roots = {"original": options.folder, "decoded": options.work / "decoded-clips"}
    stores = {}
    for kind, root in roots.items():
        place = options.work / f"{kind}-store"
        prepare(settings, root, place, fingerprint=kind)
        stores[kind] = ClipStore.open(place)
    held_out = {kind: store.split_indices("eval") for kind, store in stores.items()}
    rows = []
    for seed in range(options.seeds):
        for trained in KINDS:
            place = options.work / f"{trained}-{seed}"
            train_classifier(settings, stores[trained], None, place, seed=seed, fingerprint=trained)
            classifier = classifiers.load(place)
            for heard in KINDS:
                scores = predict(classifier, stores[heard], held_out[heard])
                figures = summary(scores, stores[heard].targets()[held_out[heard]])
                rows.append([seed, trained, heard, round(figures["accuracy"], 4), round(figures["map"], 4)])
    header = ["seed", "trained_on", "heard", "accuracy", "map"]
    for trained in KINDS:
        for heard in KINDS:
            mine = np.array([row[3:] for row in rows if row[1:3] == [trained, heard]])
            rows.append(["mean", trained, heard, *np.round(mine.mean(axis=0), 4).tolist()])
    console.emit([dict(zip(header, row, strict=True)) for row in rows], table=(header, rows))
    if options.out:
        with options.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
