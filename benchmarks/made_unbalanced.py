"""Write a made list of AudioSet's unbalanced set: 2,041,789 lines, with random ids.

`ajbench run tables/a11 --base as20k --data DIR --dry-run` plans from it. Half of the clips have Music,
and half Speech, as in the official list; the other classes follow a power law, in the order of the label set.

    python benchmarks/made_unbalanced.py DIR/unbalanced_train_segments.csv
"""

import string
import sys
from pathlib import Path

import numpy as np

from ajbench.data.corpora.audioset import label_set

CLIPS = 2_041_789
LETTERS = np.array(list(string.ascii_letters + string.digits + "-_"))


def lines(n: int, seed: int = 0) -> list[str]:
    """Return n lines of a segment list with one to four classes each."""
    rng = np.random.default_rng(seed)
    mids = np.array(label_set().mids)
    share = 1 / np.arange(2, len(mids) + 2)
    drawn = rng.choice(len(mids), (n, 2), p=share / share.sum())
    common = [label_set().index(name) for name in ("Music", "Speech")]
    has = rng.random((n, 2)) < 0.5
    ids = LETTERS[rng.integers(len(LETTERS), size=(n, 11))].view("U11").ravel()
    made = []
    for name, own, extra in zip(ids.tolist(), drawn.tolist(), has.tolist(), strict=True):
        classes = dict.fromkeys([*(c for c, there in zip(common, extra, strict=True) if there), *own])
        made.append(f'{name}, 30.000, 40.000, "{",".join(mids[c] for c in classes)}"')
    return made


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(["# made by benchmarks/made_unbalanced.py", *lines(CLIPS)]) + "\n")
