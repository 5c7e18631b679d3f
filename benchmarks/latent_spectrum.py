"""How a codec's latents spread over directions, and how noise affects them under each whitening.

python benchmarks/latent_spectrum.py STORE [--out FILE.csv]

STORE is a real clip store (a finished `prepare-…` of `ajbench run esc10`). One row per principal component of
the train split's latents: its share of the variance, its variance in the grid under both whitenings, and its
signal-to-noise ratio there at strength 0.6, where every direction receives the same noise.
"""

import argparse
import csv
from pathlib import Path

import torch

from ajbench import codec as codecs
from ajbench.codec.whitening import Whitening
from ajbench.core import console
from ajbench.data.store import ClipStore
from ajbench.generation.unet import noise_schedule

STRENGTH = 0.6
SHOWN = (0, 1, 2, 5, 10, 20, 40, 80, 127)


def main() -> None:
    """Print the rows and write all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    store = ClipStore.open(options.store)
    latents = codecs.load(store.meta.codec).latents(store.codes(store.split_indices("train")))
    frames = latents.transpose(1, 2).flatten(0, 1).double()
    natural = torch.linalg.eigvalsh(frames.T.cov()).flip(0)
    bar = noise_schedule().alphas_cumprod[round(STRENGTH * 1000) - 1].item()
    columns = {"share": natural / natural.sum()}
    for kind in ("channel", "pca"):
        grid = Whitening.fit([latents], kind).grid(latents).flatten(2).transpose(1, 2).flatten(0, 1).double()
        columns[kind] = torch.linalg.eigvalsh(grid.T.cov()).flip(0)
        columns[f"{kind}_snr_db"] = 10 * (columns[kind] * bar / (1 - bar)).log10()
    table = torch.stack(list(columns.values()), 1).tolist()
    header = ["component", *columns]
    rows = [[number, *(float(f"{value:.4g}") for value in row)] for number, row in enumerate(table)]
    console.emit(
        [dict(zip(header, row, strict=True)) for row in rows], table=(header, [rows[i] for i in SHOWN])
    )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
