"""ESC-50 and its ten-class subset ESC-10: environmental sounds of 5 s in five official folds.

K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015. 2,000 clips (ESC-10:
400), CC BY-NC 3.0 (ESC-10: CC BY 3.0). https://github.com/karolpiczak/ESC-50

Layout: `meta/esc50.csv` (filename, fold, target, category, esc10, src_file, take) and `audio/`.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from ajbench.core.errors import MissingError
from ajbench.core.recipe import Data
from ajbench.data.corpora.splits import corpus_root, need_splits, split_by_fold, unique_ids
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Problem, Row, csv_records

FOLDS = (1, 2, 3, 4, 5)


def read(data: Data, root: Path | None) -> Manifest:
    """Read ESC-50 under `root`; with `data.subset: esc10` only the clips of ESC-10.

    The official folds are kept: clips cut from one recording share a fold. Fold `data.eval_fold` (default:
    the last) is the eval split. Labels are in the order of the corpus' target numbers. A .wav file may be
    an .ogg file instead, and the reverse.

    Raises:
        UsageError: no root, an unknown subset, a missing column, or an eval fold without clips.
        MissingError: no ESC-50 there, or no usable clip.
    """
    root = corpus_root(data, root, "the folder of meta/esc50.csv and audio/", ("esc10",), folds=True)
    table, audio = root / "meta" / "esc50.csv", root / "audio"
    for path in (table, audio):
        if not path.exists():
            raise MissingError(f"{path}: missing; ESC-50 is a folder with meta/esc50.csv and audio/")
    esc10 = data.subset == "esc10"
    records, problems = csv_records(
        table, ["filename", "fold", "target", "category", *(["esc10"] if esc10 else [])]
    )
    # If a target (or category) occurs in several pairs, the most frequent is right; most_common is stable.
    pairs = Counter((cells["target"], cells["category"]) for _, cells in records)
    ranked = [pair for pair, _ in reversed(pairs.most_common())]
    category_of = dict(ranked)
    target_of = {category: target for target, category in ranked}
    on_disk = {path.name for path in audio.iterdir()}

    rows, lines = [], []
    for line, cells in records:
        if esc10 and cells["esc10"].lower() in ("false", "0"):
            continue
        target, category = cells["target"], cells["category"]
        fold = int(cells["fold"]) if cells["fold"] in map(str, FOLDS) else None
        name = _present(cells["filename"], on_disk)
        reason = None
        if esc10 and cells["esc10"].lower() not in ("true", "1"):
            reason = f"esc10 {cells['esc10']!r} is neither True nor False"
        elif fold is None:
            reason = f"fold {cells['fold']!r} is none of {FOLDS[0]} to {FOLDS[-1]}"
        elif not target.isdecimal():
            reason = f"target {target!r} is not a number"
        elif target_of[category] != target:
            reason = f"target {target} disagrees with {category!r}, {target_of[category]} elsewhere"
        elif category_of[target] != category:
            reason = f"{category!r} disagrees with target {target}, {category_of[target]!r} elsewhere"
        elif name is None:
            reason = f"{cells['filename']}: not in {audio}"
        clip_id = Path(cells["filename"]).stem
        if reason:
            problems.append(Problem(clip_id, str(table), line, reason, fold=fold))
        else:
            recording = f"freesound:{cells['src_file']}" if cells.get("src_file") else None
            about: dict[str, Any] = {"labels": (category,), "fold": fold, "recording": recording}
            rows.append(Row(clip_id, str((audio / str(name)).resolve()), **about))
            lines.append(line)
    rows, problems = split_by_fold(rows, problems, data.eval_fold)
    need_splits(rows, problems, table)
    rows, problems = unique_ids(rows, lines, problems)
    names = sorted({row.labels[0] for row in rows}, key=lambda category: int(target_of[category]))
    return Manifest(rows, LabelSet(tuple(names)), problems)


def _present(name: str, on_disk: set[str]) -> str | None:
    stem = Path(name).stem
    return next((found for found in (name, f"{stem}.wav", f"{stem}.ogg") if found in on_disk), None)
