"""Your own clips in folders: `<class>/<files>`, or the same inside `train/`, `val/` and `eval/`.

Files are sounds, or videos with sound; a video next to a sound of the same name is the video of that clip.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.audio import SUFFIXES
from ajbench.data.corpora.recordings import in_name
from ajbench.data.corpora.splits import corpus_root, hashed_fold, need_splits, split_by_fold, unique_ids
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import SPLIT_NAMES, Manifest, Problem, Row
from ajbench.data.video import SUFFIXES as VIDEO_SUFFIXES
from ajbench.data.video import is_video


def read(data: Data, root: Path | None) -> Manifest:
    """Read every sound file under `root`; its label is its class folder, at any depth.

    If every folder in `root` is named after a split (train, val, eval; also valid, validation, test), those
    are the splits; if every one is named after a fold (fold1, fold 2, …), those are the folds. Otherwise the
    hash of the file name without suffix, or of the recording in it, gives one of five folds, whatever the
    class, and `data.eval_fold` (default: the last) is evaluated. A clip is a
    recording of its own unless `data.recording_from` is set. Files that start with a dot are skipped; a file
    with another suffix, without a recording in its name, or outside a class folder is a problem.

    Raises:
        UsageError: no root, a subset, an eval fold without clips, or an eval fold although there are split
            folders.
        MissingError: no such folder, no clips in it, or no train or eval split.
    """
    root = corpus_root(data, root, "one folder per class", folds=True)
    if not root.is_dir():
        raise MissingError(f"{root}: no such folder; expected one folder per class")
    root = root.resolve()
    tops = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    has_splits = bool(tops) and all(name in SPLIT_NAMES for name in tops)
    folds = fold_numbers(tops)
    if has_splits and data.eval_fold is not None:
        raise UsageError(
            f"data.eval_fold={data.eval_fold}: {root} has split folders ({', '.join(tops)}), not folds"
        )

    rows, problems = [], []
    files = list(_files(root))
    videos = {path.with_suffix(""): path for path in files if is_video(path)}
    sounds = {path.with_suffix("") for path in files if path.suffix.lower() in SUFFIXES}
    for path in files:
        video = videos.get(path.with_suffix(""))
        if path == video and path.with_suffix("") in sounds:
            continue
        parts = path.relative_to(root).parts
        clip_id = "/".join((*parts[:-1], path.stem))
        inside = parts[1:] if has_splits or folds else parts
        if len(inside) < 2:
            problems.append(Problem(clip_id, str(path), None, "not in a class folder"))
            continue
        split = SPLIT_NAMES[parts[0]] if has_splits else "train"
        fold = None
        try:
            recording = in_name(data, path.stem)
            fold = folds.get(parts[0]) or (None if has_splits else hashed_fold(recording or path.stem))
            if path.suffix.lower() not in (*SUFFIXES, *VIDEO_SUFFIXES):
                known = ", ".join((*SUFFIXES, *VIDEO_SUFFIXES))
                raise ValueError(f"unsupported suffix {path.suffix!r}; convert to one of {known}")
            if not path.is_file():
                raise ValueError("missing: broken link")
            row = Row(clip_id, str(path), 0.0, None, (inside[0],), split, fold, recording=recording)
            rows.append(replace(row, video=str(video)) if video else row)
        except ValueError as error:
            known_split = split if has_splits else None  # folds have none yet
            problems.append(Problem(clip_id, str(path), None, str(error), known_split, fold))
    if not has_splits:
        rows, problems = split_by_fold(rows, problems, data.eval_fold)
    need_splits(rows, problems, root, f"<class>/<file> with one of {', '.join(SUFFIXES)}")
    rows, problems = unique_ids(rows, [None] * len(rows), problems)
    return Manifest(rows, LabelSet.from_names(row.labels[0] for row in rows), problems)


def fold_numbers(folders: Sequence[str]) -> dict[str, int]:
    """Return the fold of each folder if all are named after one: fold1, fold 2, …; otherwise nothing."""
    found = [re.fullmatch(r"(?:fold|split|cv)[ _-]*(\d+)", name.lower()) for name in folders]
    numbers = {name: int(match[1]) for name, match in zip(folders, found, strict=True) if match}
    start = 0 if 0 not in numbers.values() else 1
    return {name: n + start for name, n in numbers.items()} if len(numbers) == len(folders) else {}


def _files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    # Unlike rglob this follows links to folders, which class folders often are, but never in a circle.
    above |= {folder.resolve()}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:
            yield from _files(path, above)
