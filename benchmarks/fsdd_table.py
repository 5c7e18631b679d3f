"""A table of the free spoken digit dataset, for the corpus `table`: ten digits, six speakers, five folds.

python benchmarks/fsdd_table.py RECORDINGS > fsdd.csv

RECORDINGS is the folder of `7_jackson_32.wav`: digit, speaker, number of the recording (0 to 49). A fold has
ten recordings of each digit by each speaker, so every speaker is in all folds.
"""

import csv
import sys
from pathlib import Path

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PER_FOLD = 10

if __name__ == "__main__":
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(("path", "fold", "labels"))
    for path in sorted(Path(sys.argv[1]).resolve().glob("*.wav")):
        digit, _, number = path.stem.split("_")
        lines.writerow((path, int(number) // PER_FOLD + 1, DIGITS[int(digit)]))
