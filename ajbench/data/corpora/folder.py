"""Your own clips in folders: `<class>/<files>`, or the same inside `train/`, `val/` and `eval/`."""

from collections.abc import Iterator
from pathlib import Path

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.audio import SUFFIXES
from ajbench.data.corpora.splits import check_keys, hashed_fold, need_splits, split_by_fold, unique_ids
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import SPLIT_NAMES, Manifest, Problem, Row


def read(data: Data, root: Path | None) -> Manifest:
    """Read every sound file under `root`, labelled by its class folder; deeper folders belong to that class.

    Where every folder in `root` is named as a split (train, val, eval; also valid, validation, test), those
    are the splits. Otherwise five folds are made from a hash of the file name's stem, whatever its class and
    suffix, and `data.eval_fold` (default: the last) is evaluated. Files that start with a dot are passed
    over; any other that is no sound by its suffix, or lies outside a class folder, is listed as a problem.

    Raises:
        UsageError: no root, a subset, an eval fold that holds no clip, or an eval fold beside split folders.
        MissingError: no such folder, no clips in it, or split folders without train or eval.
    """
    if root is None:
        raise UsageError("corpus folder: say where it lies with --data DIR (one folder per class)")
    check_keys(data, folds=True)
    if not root.is_dir():
        raise MissingError(f"{root}: no such folder; expected one folder per class")
    root = root.resolve()
    tops = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    has_splits = bool(tops) and all(name in SPLIT_NAMES for name in tops)
    if has_splits and data.eval_fold is not None:
        raise UsageError(
            f"data.eval_fold={data.eval_fold}: {root} has split folders ({', '.join(tops)}), not folds"
        )

    rows, problems = [], []
    for path in _files(root):
        parts = path.relative_to(root).parts
        clip_id = "/".join((*parts[:-1], path.stem))
        inside = parts[1:] if has_splits else parts
        if len(inside) < 2:
            problems.append(Problem(clip_id, str(path), None, "not read: lies outside a class folder"))
            continue
        split = SPLIT_NAMES[parts[0]] if has_splits else "train"
        fold = None if has_splits else hashed_fold(path.stem)
        if path.suffix.lower() not in SUFFIXES:
            reason = f"not read: suffix {path.suffix!r}; allowed: {', '.join(SUFFIXES)}"
        elif not path.is_file():
            reason = "missing: a link to a file that is not there"
        else:
            rows.append(Row(clip_id, str(path), labels=(inside[0],), split=split, fold=fold))
            continue
        problems.append(Problem(clip_id, str(path), None, reason, split, fold))
    if not rows:
        raise MissingError(f"{root}: no clips; expected <class>/<file> with one of {', '.join(SUFFIXES)}")
    if not has_splits:
        rows, problems = split_by_fold(rows, problems, data.eval_fold)
    need_splits(rows, root)
    rows, repeated = unique_ids(rows, [None] * len(rows))
    return Manifest(rows, LabelSet.from_names(row.labels[0] for row in rows), problems + repeated)


def _files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    # Unlike rglob this follows links to folders (class folders often are), though never in a circle.
    above |= {folder.resolve()}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:
            yield from _files(path, above)
