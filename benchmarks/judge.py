"""How often the AudioSet tagger mn04 predicts the right one of ESC-10's ten categories.

python benchmarks/judge.py FOLDER: originals in ESC-50's layout (`meta/esc50.csv`, `audio/`), or any folder
with one sub-folder of clips per category. Weights: in the folder AJBENCH_WEIGHTS.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ajbench import features
from ajbench.core import console
from ajbench.core.device import Array
from ajbench.core.errors import MissingError
from ajbench.data import audio
from ajbench.features.class_mapping import ESC50
from ajbench.features.extractor import Extractor

# In alphabetical order, which is the order of the indices.
ESC10_TO_AUDIOSET = {
    name: ESC50[name]
    for name in (
        *("chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog"),
        *("helicopter", "rain", "rooster", "sea_waves", "sneezing"),
    )
}
CATEGORIES = tuple(ESC10_TO_AUDIOSET)


def rank_esc10(wavs: Array, judge: Extractor) -> np.ndarray:
    """Return the category index, int64 [B], that mn04 ranks first for clips wavs [B, n] at 16 kHz."""
    logits, column = judge.logits(wavs), {name: i for i, name in enumerate(judge.labels)}
    scores = [logits[:, [column[name] for name in names]].max(axis=1) for names in ESC10_TO_AUDIOSET.values()]
    return np.argmax(scores, axis=0)


def clips(folder: Path) -> list[tuple[Path, int]]:
    """Return (file, category index) of the ESC-10 clips in a folder.

    Raises:
        MissingError: it has neither `meta/esc50.csv` nor a subfolder named after a category.
    """
    table = folder / "meta" / "esc50.csv"
    if table.is_file():
        with table.open(newline="") as file:
            found = [
                (folder / "audio" / Path(row["filename"]).name, CATEGORIES.index(row["category"]))
                for row in csv.DictReader(file)
                if row["esc10"] == "True"
            ]
    else:
        found = [
            (file, i) for i, name in enumerate(CATEGORIES) for file in sorted((folder / name).glob("*.*"))
        ]
    if not found:
        raise MissingError(f"{folder}: no meta/esc50.csv and no subfolder of {', '.join(CATEGORIES)}")
    return found


def accuracy(folder: Path, judge: Extractor, duration_s: float = 5.04, batch: int = 16) -> np.ndarray:
    """Return the confusion matrix [requested, predicted] of a folder's clips, fitted to `duration_s`."""
    confusion = np.zeros((len(CATEGORIES),) * 2, np.int64)
    for part in _batched(clips(folder), batch):
        wavs = np.stack([audio.fit(audio.read(file), audio.clip_samples(duration_s)) for file, _ in part])
        asked = np.array([category for _, category in part])
        np.add.at(confusion, (asked, rank_esc10(wavs, judge)), 1)
    return confusion


def _batched(items: list[tuple[Path, int]], size: int) -> Iterator[list[tuple[Path, int]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def main() -> None:
    """Measure one folder and print the accuracy per category."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    confusion = accuracy(parser.parse_args().folder, features.load("mn04"))
    share = np.diag(confusion) / confusion.sum(axis=1).clip(1)
    rows: list[list] = [
        [name, int(n), float(s)] for name, n, s in zip(CATEGORIES, confusion.sum(axis=1), share, strict=True)
    ]
    rows.append(["all", int(confusion.sum()), float(np.trace(confusion) / confusion.sum())])
    console.emit(
        {"recognised": {name: s for name, _, s in rows}}, table=(["category", "clips", "recognised"], rows)
    )


if __name__ == "__main__":
    main()
