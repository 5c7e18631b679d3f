"""FSD50K: 51,197 Freesound clips of 0.3 to 30 s in 200 classes of AudioSet's ontology, labelled by people.

E. Fonseca et al., "FSD50K: an open dataset of human-labeled sound events", TASLP 2022. Each clip under CC0,
CC BY, CC BY-NC or CC Sampling+. https://zenodo.org/records/4060432

Layout: `FSD50K.ground_truth/` with dev.csv, eval.csv and vocabulary.csv; `FSD50K.dev_audio/` and
`FSD50K.eval_audio/` with `<fname>.wav`, or with tars or Parquet shards of these files.
"""

from pathlib import Path

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data import archive
from ajbench.data.audio import SUFFIXES
from ajbench.data.corpora.splits import clip_labels, corpus_root, need_splits, unique_ids
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Problem, Row, csv_records, csv_rows

GROUND_TRUTH = "FSD50K.ground_truth"
VOCABULARY = "vocabulary.csv"
AUDIO = {"dev": "FSD50K.dev_audio", "eval": "FSD50K.eval_audio"}


def read(data: Data, root: Path | None) -> Manifest:
    """Read FSD50K under `root`: the train and val splits of dev, and eval.

    Labels are as published, including the ancestors of each class. Sound files may have any suffix that
    ajbench reads. A line with a mistake or without a file is a problem of its split.

    Raises:
        UsageError: no root, a subset or an eval fold, a missing column, or a malformed vocabulary.
        MissingError: no FSD50K there, or no usable clip of the train or the eval split.
    """
    root = corpus_root(data, root, f"the folder of {GROUND_TRUTH}/")
    truth = root / GROUND_TRUTH
    needed = [truth / name for name in ("dev.csv", "eval.csv", VOCABULARY)]
    for path in (*needed, *(root / name for name in AUDIO.values())):
        if not path.exists():
            raise MissingError(f"{path}: missing; get FSD50K from https://zenodo.org/records/4060432")
    label_set = _vocabulary(truth / VOCABULARY)
    rows: list[Row] = []
    problems: list[Problem] = []
    for part, folder in AUDIO.items():
        here, wrong = _part(truth / f"{part}.csv", (root / folder).resolve(), label_set)
        rows += here
        problems += wrong
    need_splits(rows, problems, root)
    return Manifest(rows, label_set, problems)


def _part(table: Path, audio: Path, label_set: LabelSet) -> tuple[list[Row], list[Problem]]:
    """Read dev.csv, which has a column `split` (train or val), or eval.csv, which has none."""
    dev = table.stem == "dev"
    records, problems = csv_records(table, ("fname", "labels", "mids", *(("split",) if dev else ())))
    files = _sounds(audio)
    by_name = dict(zip(label_set.names, label_set.names, strict=True))
    rows: list[Row] = []
    lines: list[int | None] = []
    for line, cells in records:
        name, split = cells["fname"], cells["split"] if dev else "eval"
        try:
            if dev and split not in ("train", "val"):
                raise ValueError(f"split {split!r} is neither train nor val")
            labels = clip_labels(cells["labels"].split(","), by_name, VOCABULARY)
            mids = [(label_set.mids or ())[label_set.index(label)] for label in labels]
            if list(dict.fromkeys("".join(cells["mids"].split()).split(","))) != mids:
                raise ValueError(f"mids {cells['mids']} disagree with those of the labels, {','.join(mids)}")
            if name not in files:
                raise ValueError(f"missing: not in {audio} with any of {', '.join(SUFFIXES)}")
            path, recording = files[name], f"freesound:{name}"  # files are named by these ids
            rows.append(Row(name, path, labels=labels, split=split, recording=recording))
            lines.append(line)
        except ValueError as error:
            known = split if split in ("train", "val", "eval") else None
            problems.append(Problem(name, str(table), line, str(error), known))
    return unique_ids(rows, lines, problems)


def _vocabulary(path: Path) -> LabelSet:
    """Read lines of `index,label,mid`, without a header."""
    rows = [[cell.strip() for cell in cells] for _, cells in csv_rows(path)]
    in_order = [cells[0] for cells in rows] == [str(k) for k in range(len(rows))]
    if not in_order or any(len(cells) != 3 for cells in rows):
        raise UsageError(f"{path}: expected lines of index, label, mid, with the indices 0, 1, … in order")
    return LabelSet(tuple(cells[1] for cells in rows), tuple(cells[2] for cells in rows))


def _sounds(folder: Path) -> dict[str, str]:
    """Return paths by name without suffix; of several with one name, the first in alphabetical order."""
    found = {}
    for path in sorted(folder.iterdir(), reverse=True):
        if path.suffix.lower() in SUFFIXES:
            found[path.stem] = str(path)
        elif path.suffix.lower() in archive.SUFFIXES:
            found |= {name: sound for sound, name in archive.sounds(str(path))}
    return found
