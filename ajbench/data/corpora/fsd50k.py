"""FSD50K: 51,197 Freesound clips of 0.3 to 30 s in 200 classes of AudioSet's ontology, labelled by people.

E. Fonseca et al., "FSD50K: an open dataset of human-labeled sound events", TASLP 2022. Each clip under CC0,
CC BY, CC BY-NC or CC Sampling+. https://zenodo.org/records/4060432

Layout: `FSD50K.ground_truth/` with dev.csv, eval.csv and vocabulary.csv; `FSD50K.dev_audio/` and
`FSD50K.eval_audio/` with `<fname>.wav`.
"""

from pathlib import Path

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.core.registry import suggest
from ajbench.data.audio import SUFFIXES
from ajbench.data.corpora.splits import check_keys, need_splits, unique_ids
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Problem, Row, csv_records, csv_rows

GROUND_TRUTH = "FSD50K.ground_truth"
AUDIO = {"dev": "FSD50K.dev_audio", "eval": "FSD50K.eval_audio"}


def read(data: Data, root: Path | None) -> Manifest:
    """Read FSD50K under `root`: dev's own train and val splits, and eval.

    Labels are as published: those of a class' ancestors are among them. A clip that is there with another
    suffix than .wav is taken. What is missing or wrong in a line is a problem of its split.

    Raises:
        UsageError: no root, a subset or an eval fold, a column missing, or a vocabulary that is none.
        MissingError: no FSD50K there, or no usable clip of the train or the eval split.
    """
    if root is None:
        raise UsageError(f"corpus fsd50k: say where it lies with --data DIR (the folder of {GROUND_TRUTH}/)")
    check_keys(data)
    truth = root / GROUND_TRUTH
    needed = [truth / name for name in ("dev.csv", "eval.csv", "vocabulary.csv")]
    for path in (*needed, *(root / name for name in AUDIO.values())):
        if not path.exists():
            raise MissingError(f"{path}: missing; get FSD50K from https://zenodo.org/records/4060432")
    label_set = _vocabulary(truth / "vocabulary.csv")
    rows: list[Row] = []
    problems: list[Problem] = []
    for part, folder in AUDIO.items():
        here, wrong = _part(truth / f"{part}.csv", (root / folder).resolve(), label_set)
        rows += here
        problems += wrong
    if not rows:
        first = f"; first problem, line {problems[0].line}: {problems[0].reason}" if problems else ""
        raise MissingError(f"{root}: no usable clip{first}")
    need_splits(rows, root)
    return Manifest(rows, label_set, problems)


def _part(table: Path, audio: Path, label_set: LabelSet) -> tuple[list[Row], list[Problem]]:
    """Read dev.csv, whose lines say train or val, or eval.csv, whose lines do not say eval."""
    dev = table.stem == "dev"
    records, problems = csv_records(table, ("fname", "labels", "mids", *(("split",) if dev else ())))
    files = _sounds(audio)
    rows: list[Row] = []
    lines: list[int | None] = []
    for line, cells in records:
        name, split = cells["fname"], cells["split"] if dev else "eval"
        try:
            if dev and split not in ("train", "val"):
                raise ValueError(f"split {split!r} is neither train nor val")
            labels = _labels(cells, label_set)
            if name not in files:
                raise ValueError(f"missing: not in {audio} with any of {', '.join(SUFFIXES)}")
            rows.append(Row(name, str(audio / files[name]), labels=labels, split=split))
            lines.append(line)
        except ValueError as error:
            known = split if split in ("train", "val", "eval") else None
            problems.append(Problem(name, str(table), line, str(error), known))
    rows, repeated = unique_ids(rows, lines)
    return rows, sorted(problems + repeated, key=lambda problem: problem.line or 0)


def _vocabulary(path: Path) -> LabelSet:
    """Read `index,label,mid` lines, which have no header."""
    rows = [[cell.strip() for cell in cells] for _, cells in csv_rows(path)]
    if any(len(cells) != 3 for cells in rows) or [cells[0] for cells in rows] != [
        str(k) for k in range(len(rows))
    ]:
        raise UsageError(f"{path}: expected lines of index, label, mid, with the indices 0, 1, … in order")
    return LabelSet(tuple(cells[1] for cells in rows), tuple(cells[2] for cells in rows))


def _labels(cells: dict[str, str], label_set: LabelSet) -> tuple[str, ...]:
    names = tuple(filter(None, map(str.strip, cells["labels"].split(","))))
    if not names:
        raise ValueError("labels is empty")
    for name in names:
        if name not in label_set:
            raise ValueError(f"label {name!r} is not in vocabulary.csv{suggest(name, label_set.names)}")
    mids = ",".join((label_set.mids or ())[label_set.index(name)] for name in names)
    if "".join(cells["mids"].split()) != mids:
        raise ValueError(f"mids {cells['mids']} disagree with the labels', {mids}")
    return tuple(dict.fromkeys(names))


def _sounds(folder: Path) -> dict[str, str]:
    """File names by stem; of several the first by name."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return {Path(name).stem: name for name in reversed(names)}
