"""What a linear probe keeps of classes after the codec: kitchen20 and spoken digits, on mn04's embeddings.

python benchmarks/codec_probe.py FOLDER [FOLDER ...] [--codec tiny ...] [--recordings 20] [--out FILE.csv]

FOLDER has `clips.csv` (columns path, labels, fold), or `recordings/` with <digit>_<speaker>_<number>.wav
(free-spoken-digit-dataset), of which the first --recordings of each speaker and digit are used, in five
folds by number. In every fold a logistic regression is fitted to originals of the other folds and applied to
originals and to decoded clips; beside it, one that is fitted to decoded clips. Intervals: 95 %, over clips
(Wilson).
mn04, an AudioSet model that no part of the codec was trained with, is in the folder AJBENCH_WEIGHTS.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ajbench import codec, features
from ajbench.core import console
from ajbench.data import audio

FOLDS = 5
STRENGTH = 0.01  # inverse of the regression's penalty, on standardised embeddings


def clips(folder: Path, recordings: int) -> tuple[list[Path], np.ndarray, np.ndarray, float]:
    """Return files, class names, folds and the length in seconds to which clips are cut or padded."""
    table = folder / "clips.csv"
    if table.is_file():
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        files = [folder / row["path"] for row in rows]
        return files, np.array([row["labels"] for row in rows]), np.array([row["fold"] for row in rows]), 5.04
    named = {file: file.stem.split("_") for file in sorted((folder / "recordings").glob("*.wav"))}
    named = {file: parts for file, parts in named.items() if int(parts[2]) < recordings}
    digits, numbers = (np.array([parts[i] for parts in named.values()]) for i in (0, 2))
    return list(named), digits, numbers.astype(int) % FOLDS, 1.26


def embeddings(files: list[Path], seconds: float, network: codec.Codec | None, what: str) -> np.ndarray:
    """Return mn04's embeddings [n, d] of clips, decoded from codes if there is a codec."""
    judge, found = features.load("mn04"), []
    with console.progress(len(files), what, "clips") as advance:
        for file in files:
            wave = audio.fit(audio.read(file), audio.clip_samples(seconds))[None]
            found.append(judge.features(wave if network is None else network.decode(network.encode(wave)))[0])
            advance(1)
    return np.stack(found)


def accuracy(
    fitted_to: np.ndarray, applied_to: np.ndarray, classes: np.ndarray, folds: np.ndarray
) -> tuple[float, float, float]:
    """Return the share that probes of the other folds classify right, and its interval, in percent."""
    right = 0
    for fold in np.unique(folds):
        mine = folds == fold
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=500))
        probe.fit(fitted_to[~mine], classes[~mine])
        right += int((probe.predict(applied_to[mine]) == classes[mine]).sum())
    n, z = len(classes), 1.96
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return 100 * share, 100 * (centre - half), 100 * (centre + half)


def main() -> None:
    """Measure and print; write one row per corpus, codec and training of the probe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--codec", nargs="+", default=["tiny"])
    parser.add_argument("--recordings", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    header = ("corpus", "clips", "classes", "codec", "probe_of", "accuracy", "ci_low", "ci_high")
    rows: list[list[object]] = []
    for folder in options.folders:
        files, classes, folds, seconds = clips(folder, options.recordings)
        about = [folder.name, len(files), len(np.unique(classes))]
        originals = embeddings(files, seconds, None, f"{folder.name}: originals")
        figures = [("none", "originals", accuracy(originals, originals, classes, folds))]
        for name in options.codec:
            network = codec.load(name)
            decoded = embeddings(files, seconds, network, f"{folder.name}: {name}")
            figures.append((name, "originals", accuracy(originals, decoded, classes, folds)))
            figures.append((name, "decoded", accuracy(decoded, decoded, classes, folds)))
        rows += [[*about, name, of, *(f"{value:.1f}" for value in three)] for name, of, three in figures]
    console.emit([dict(zip(header, row, strict=True)) for row in rows], table=(header, rows))
    if options.out:
        with options.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
