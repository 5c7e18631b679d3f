"""Your own clips in folders: `<class>/<files>`, or the same inside folders of splits or of folds.

The class may be in the files' names instead.

Files are sounds, or videos with sound; a video next to a sound of the same name is the video of that clip.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import composed, printable, walk
from ajbench.core.recipe import Data
from ajbench.data.audio import SUFFIXES
from ajbench.data.corpora import fold_names
from ajbench.data.corpora.recordings import in_name
from ajbench.data.corpora.splits import (
    corpus_root,
    hashed_fold,
    need_splits,
    split_by_fold,
    split_folders,
    splits_named,
    unique_ids,
    with_eval,
    with_every_class,
)
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Problem, Row
from ajbench.data.reasons import NOT_SOUND
from ajbench.data.video import SUFFIXES as VIDEO_SUFFIXES
from ajbench.data.video import is_video

KNOWN = (*SUFFIXES, *VIDEO_SUFFIXES)
NO_CLASS = "no class in the name"  # a reason; the name follows in parentheses


def read(data: Data, root: Path | None) -> Manifest:
    """Read every sound file under `root`; its label is its class folder, at any depth, or in its name.

    If every folder in `root` that has sounds is named after a split (train, val, eval, test, dev, …, in any
    case, also `train_set`) or after a fold (fold1, fold_a, Session2, …), the class folders are inside these;
    splits may be inside the class folders too. Without an eval split, the val split is evaluated. Without
    splits and folds, the hash of the file's name without suffix, or of the recording in it, gives one of five
    folds, whatever the class, unless a class would be missing from one (`with_every_class`), and
    `data.eval_fold` (default: the last) is evaluated. A clip is a recording of its own unless
    `data.recording_from` is set. With `data.label_from`, the class is in the file's name, and folders are
    those of splits and folds only. Names that start with a dot are skipped; a file with another suffix,
    without a class or recording in its name, or outside a class folder is a problem.

    Raises:
        UsageError: no root, a subset, an eval fold without clips, an eval fold although there are split
            folders, or folders of splits or folds beside other folders.
        MissingError: no such folder, no clips in it, or no train or eval split.
    """
    root = corpus_root(data, root, "one folder per class", folds=True)
    if not root.is_dir():
        raise MissingError(f"{root}: no such folder; expected one folder per class")
    root = root.resolve()
    files = walk(root)
    below = {path: path.relative_to(root).parts for path in files}
    depths: dict[str, set[int]] = {}  # of the sounds in each folder of `root`
    for path, parts in below.items():
        if len(parts) > 1 and _is_known(path):
            depths.setdefault(parts[0], set()).add(len(parts))
    deep = data.label_from is not None or any(max(found) > 2 for found in depths.values())
    splits, numbers = division(depths, deep)
    _refuse_mixed(root, depths, splits, numbers)
    splits = splits if len(splits) == len(depths) else {}
    sounding = [parts for path, parts in below.items() if _is_known(path)]
    inner = {} if splits or numbers else inner_splits(sounding)
    divided = bool(splits or numbers or inner)
    if data.label_from is not None and not divided:
        _refuse_unused(root, {name for parts in sounding for name in parts[:-1]})
    if (splits or inner) and data.eval_fold is not None:
        raise UsageError(
            f"data.eval_fold={data.eval_fold}: {root} has split folders ({', '.join(splits or inner)}), "
            "not folds"
        )

    rows, problems, units = [], [], []
    videos = {path.with_suffix(""): path for path in files if is_video(path)}
    sounds = {path.with_suffix("") for path in files if path.suffix.lower() in SUFFIXES}
    for path, parts in below.items():
        video = videos.get(path.with_suffix(""))
        if path == video and path.with_suffix("") in sounds:
            continue
        clip_id = "/".join((*parts[:-1], path.stem))
        inside = parts[1:] if splits or numbers else parts
        if missing := _missing_folder(data, parts, inside, divided, bool(inner)):
            reason = missing if _is_known(path) else _not_sound(path)
            problems.append(Problem(printable(clip_id), printable(str(path)), None, reason))
            continue
        split, fold = splits.get(parts[0]), numbers.get(parts[0])
        if inner and inside[1] in inner:
            split, inside = inner[inside[1]], (inside[0], *inside[2:])
        if data.label_from is None:
            label, inside = composed(inside[0]), inside[1:]
        try:
            names = path.stem, *(["/".join((*inside[:-1], path.stem))] if inside[1:] else [])
            if data.label_from is not None and _is_known(path):
                label = _class_in(data.label_from, names)
            recording = in_name(data, *names)
            if not splits and not inner and not numbers:
                fold = hashed_fold(composed(recording or path.stem))
            if not _is_known(path):
                raise ValueError(_not_sound(path))
            if not path.is_file():
                raise ValueError("missing: broken link")
            if printable(str(path)) != str(path):
                raise ValueError("its name is not UTF-8; rename it")
            row = Row(clip_id, str(path), 0.0, None, (label,), split or "train", fold, recording=recording)
            rows.append(replace(row, video=str(video)) if video else row)
            units.append(recording or PurePath(*inside).with_suffix("").as_posix())
        except ValueError as error:
            where = printable(clip_id), printable(str(path))
            problems.append(Problem(*where, None, printable(str(error)), split, fold))
    if not splits and not inner and not numbers:
        rows = with_every_class(rows, units)
    if splits or inner:
        rows, problems = with_eval(rows, problems)
    else:
        rows, problems = split_by_fold(rows, problems, data.eval_fold)
    kind = (
        "<class>/<file>"
        if data.label_from is None
        else f"files whose names fit --label {data.label_from} (data.label_from)"
    )
    need_splits(rows, problems, root, f"{kind} with one of {', '.join(SUFFIXES)}")
    rows, problems = unique_ids(rows, [None] * len(rows), problems)
    return Manifest(rows, LabelSet.from_names(row.labels[0] for row in rows), problems)


def division(names: Collection[str], deep: bool) -> tuple[dict[str, str], dict[str, int]]:
    """Return folder → split and folder → fold of folders with sounds.

    Args:
        names: of the folders.
        deep: whether there are sounds in folders inside these, or classes are in the files' names. If not,
            names that only resemble those of splits and folds (`Part 1`, `set_a`) are those of classes.
    """
    splits, numbers = split_folders(names), fold_names.of_folders(names)
    if not deep and len(splits_named(names)) < len(names) and not fold_names.are_plain(names):
        return {}, {}
    return splits, numbers


def inner_splits(parts: Iterable[Sequence[str]]) -> dict[str, str]:
    """Return folder → split if all sounds are in `<class>/<split>/`, and not all in the same split.

    Args:
        parts: of the paths of sounds below the root.
    """
    inside = {one[1] if len(one) > 2 else "" for one in parts}
    splits = split_folders(inside)
    return splits if len(splits) == len(inside) and len({*splits.values()}) > 1 else {}


def _class_in(pattern: str, names: Sequence[str]) -> str:
    found = (re.search(pattern, name) for name in names)
    if label := next((match[1] for match in found if match and match[1]), None):
        return composed(label)
    raise ValueError(f"{NO_CLASS} ({names[-1]!r}; --label, or data.label_from: {pattern})")


def _missing_folder(
    data: Data, parts: Sequence[str], inside: Sequence[str], divided: bool, inner: bool
) -> str | None:
    """Return in which kind of folder a file would have to be, if it is in none."""
    if data.label_from is None:
        where = " inside the folder of its split or fold" if divided else ""
        return f"not in a class folder{where}" if len(inside) < 2 else None
    return "not in a folder of a split or fold" if divided and len(parts) < 2 + inner else None


def _refuse_unused(root: Path, folders: Collection[str]) -> None:
    """Refuse folders of splits or folds that do not hold every sound, where no folder is a class.

    Raises:
        UsageError: there are such folders.
    """
    splits = split_folders(folders)
    named = sorted(name for name in folders if name in splits or fold_names.of_folders([name]))
    if len({splits.get(name, name) for name in named}) > 1:
        raise UsageError(
            f"{root}: folders are named after splits or folds ({', '.join(named)}), but not every sound is "
            "in one, at the first or second level; move or rename folders"
        )


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in KNOWN


def _not_sound(path: Path) -> str:
    return f"{NOT_SOUND} ({path.suffix!r}; convert sounds to one of {', '.join(KNOWN)})"


def _refuse_mixed(
    root: Path, depths: Mapping[str, set[int]], splits: Mapping[str, str], numbers: Mapping[str, int]
) -> None:
    """Refuse class folders inside folders of splits or folds beside other folders, which may be classes.

    Args:
        root: of the corpus.
        depths: folder → at which depths it has sounds; 2: directly in it.
        splits: folder → split.
        numbers: folder → fold.

    Raises:
        UsageError: there are such folders.
    """
    named = [name for name in depths if name in splits or fold_names.of_folders([name])]
    kinds = {splits.get(name, name) for name in named}
    other = [name for name in depths if name not in named]
    if other and len(kinds) > 1 and all(min(depths[name]) > 2 for name in named):
        raise UsageError(
            f"{root}: {', '.join(named)} look like splits or folds with class folders inside, {other[0]} "
            "does not; move it out of the folder, or give it a name that starts with a dot"
        )
