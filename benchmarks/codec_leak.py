"""Search the codec's training sounds for clips of an evaluation corpus.

python benchmarks/codec_leak.py TRAINING FOLDER

TRAINING is the folder of `ajbench train-codec` (sounds.i16, sounds.json); FOLDER has audio in ESC-50's
layout. The loudest 1.28 s of each clip slides over every frame of the training sounds as a 64-band log-mel
patch of unit norm; each band's mean is removed, or every steady noise would look like every other. Prints
the highest correlations. `--self-test` first plants ten clips 6 dB down among the training sounds, to show
what a copy scores.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from judge import clips
from torch.nn import functional

from ajbench.core import console
from ajbench.data import audio

FRAMES = 80  # of 256 samples: 1.28 s
BLOCK = 600 * audio.SAMPLE_RATE


def log_mel(wav: torch.Tensor) -> torch.Tensor:
    """Log-mel [64, F] of one wave [n]."""
    return audio.log_mel(wav[None], 1024, 1024, 256, 64, 50.0, 8000.0, floor=1e-4)[0]


def loudest(mel: torch.Tensor) -> torch.Tensor:
    """The patch [64, FRAMES] of most energy."""
    level = functional.avg_pool1d(mel.mean(0)[None, None], FRAMES, 1)[0, 0]
    start = int(level.argmax())
    return mel[:, start : start + FRAMES]


def correlations(mel: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Normalised correlation [P, F − FRAMES + 1] of patches [P, 64, FRAMES] with windows of mel [64, F]."""
    steady = patches - patches.mean(2, keepdim=True)
    steady = steady / steady.flatten(1).norm(dim=1).clamp(min=1e-6)[:, None, None]
    product = functional.conv1d(mel[None], steady)[0]
    ones = torch.ones(mel.shape[0], 1, FRAMES)
    total = functional.conv1d(mel[None], ones, groups=mel.shape[0])[0]
    square = functional.conv1d(mel[None].square(), ones, groups=mel.shape[0])[0]
    return product / (square - total.square() / FRAMES).sum(0).clamp(min=1.0).sqrt()


def main() -> None:
    """Scan and print the ten closest pairs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("training", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    pool = np.memmap(options.training / "sounds.i16", np.int16, "r")
    entries = json.loads((options.training / "sounds.json").read_text())["entries"]
    starts = np.array([entry[2] for entry in entries])
    files = [file for file, _ in clips(options.folder)]
    waves = [audio.read(file) for file in files]
    patches = torch.stack([loudest(log_mel(torch.from_numpy(audio.fit(wav, 80_640)))) for wav in waves])
    best, where = torch.full((len(files),), -1.0), torch.zeros(len(files), dtype=torch.long)
    with torch.no_grad(), console.progress(len(pool) // BLOCK + 1, "scan", "blocks") as advance:
        for first in range(0, len(pool), BLOCK):
            block = np.array(pool[first : first + BLOCK + FRAMES * 256], np.float32) / 32768
            if options.self_test and first == 0:
                for k in range(10):
                    block[k * 160_000 : k * 160_000 + len(waves[k])] = 0.5 * waves[k]
            score, at = correlations(log_mel(torch.from_numpy(block)), patches).max(dim=1)
            better = score > best
            best, where = torch.where(better, score, best), torch.where(better, first + at * 256, where)
            advance(1)
    order = best.argsort(descending=True)
    table = []
    for row in order[:10].tolist():
        entry = entries[int(np.searchsorted(starts, int(where[row]), side="right")) - 1]
        table.append([files[row].name, round(float(best[row]), 3), f"{entry[0]}/{entry[1]}"])
    document = {
        "clips": len(files),
        "above_0.9": int((best > 0.9).sum()),
        "median": round(float(best.median()), 3),
    }
    console.emit(document | {"closest": table}, table=(["clip", "correlation", "training sound"], table))
    console.say(str(document))


if __name__ == "__main__":
    main()
