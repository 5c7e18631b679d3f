"""A table of kitchen20, for the corpus `table`: twenty kitchen sounds, five folds by source.

python benchmarks/kitchen20_table.py AUDIO > kitchen20.csv

AUDIO is the folder of the sounds, in any format that ajbench reads (`0-101477-A-3.wav`). The folds are ours
(`kitchen20_folds.csv`): no Freesound recording is in two of them, and classes are even; in the folds that
kitchen20 comes with, 68 recordings are. Six clips that repeat others byte by byte are left out.
"""

import csv
import sys
from pathlib import Path

FOLDS = Path(__file__).with_name("kitchen20_folds.csv")

if __name__ == "__main__":
    files = {path.stem: path for path in Path(sys.argv[1]).resolve().iterdir()}
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(("path", "fold", "labels", "recording"))
    with FOLDS.open(encoding="utf-8", newline="") as file:
        for clip, fold, labels, recording in list(csv.reader(file))[1:]:
            lines.writerow((files[clip], fold, labels, recording))
