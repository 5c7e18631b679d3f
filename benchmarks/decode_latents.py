"""Does it matter whether generated latents are decoded as they are, or after another quantisation?

python benchmarks/decode_latents.py GENERATOR [--clips 200] > benchmarks/decode_latents.csv

GENERATOR is the folder of a generator of ESC-10 (`ajbench train-gen --recipe esc10-shots --data ESC50`).
From noise, prompted by class names, 16 steps, guidance 4: the same latents are decoded both ways. mn04 (in
AJBENCH_WEIGHTS) says how often the requested category comes first; the difference is on the same clips.
"""

import argparse
import csv
import sys

import numpy as np
from judge import CATEGORIES, rank_esc10

from ajbench import features
from ajbench.core import console
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.prompts import sound_of, spoken
from ajbench.metrics.intervals import t_interval

AT_ONCE = 20

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("generator")
    parser.add_argument("--clips", type=int, default=200)
    given = parser.parse_args()
    pipeline, judge = AudioJourneyPipeline.from_pretrained(given.generator), features.load("mn04")
    codec, wanted = pipeline.codec, np.arange(given.clips) % len(CATEGORIES)
    right: dict[str, list[np.ndarray]] = {"latents": [], "codes": []}
    for start in range(0, given.clips, AT_ONCE):
        part = wanted[start : start + AT_ONCE]
        prompts = [sound_of([spoken(CATEGORIES[c])]) for c in part]
        seeds = list(range(start, start + len(part)))
        grids = pipeline.grids(prompts, None, seeds, 1.0, 4.0, 16, "dpmsolver++")
        latents = pipeline.whitening.latents(grids)
        waves = {
            "latents": codec.decode_latents(latents),
            "codes": codec.decode(codec.quantize(latents)),
        }
        for name, wave in waves.items():
            right[name].append(rank_esc10(wave.cpu().numpy(), judge) == part)
        console.say(f"{start + len(part)} of {given.clips}")
    hits = {name: np.concatenate(parts).astype(float) for name, parts in right.items()}
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(("what", "clips", "value", "ci_low", "ci_high"))
    for name, values in (*hits.items(), ("latents minus codes", hits["latents"] - hits["codes"])):
        spread = values.var(ddof=1) / len(values), len(values) - 1
        lines.writerow((name, len(values), *(f"{end:.4f}" for end in t_interval(values.mean(), [spread]))))
