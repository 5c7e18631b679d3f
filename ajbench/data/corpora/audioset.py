"""AudioSet: 10 s clips of YouTube videos in 527 classes, from the official lists and your own download.

J. F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP 2017. 22,160
balanced train, 2,041,789 unbalanced train and 20,371 eval segments (CC BY 4.0; the ontology CC BY-SA 4.0).
https://research.google.com/audioset

Layout: `balanced_train_segments.csv` and/or `unbalanced_train_segments.csv`, and `eval_segments.csv`, in the
folder or directly below it; the sound files anywhere below, named as described in
`ajbench.data.corpora.youtube`. Without any of these lists, `ajbench.data.corpora.audioset_shards`.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from ajbench.core.documents import read_json
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import audioset_shards
from ajbench.data.corpora.splits import corpus_root
from ajbench.data.corpora.youtube import Segment, check_id, find_tables, match_files, parse_seconds
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Problem, csv_records, csv_rows, read_label_set

BALANCED, UNBALANCED = "balanced_train_segments.csv", "unbalanced_train_segments.csv"
EVAL = "eval_segments.csv"
PARTS = {BALANCED: "balanced", UNBALANCED: "unbalanced", EVAL: "eval"}
SUBSETS = {"balanced": (BALANCED,), "unbalanced": (UNBALANCED,), "full": (BALANCED, UNBALANCED)}
CLIP_S = 10.0  # of nearly all segments
LABELS, ONTOLOGY = "class_labels_indices.csv", "ontology.json"
SOURCE = "https://research.google.com/audioset/download.html"


class Sound(NamedTuple):
    """A class of the ontology: `parents` are mids; `restrictions` may contain abstract and blacklist."""

    name: str
    parents: tuple[str, ...]
    restrictions: tuple[str, ...]
    description: str


@cache
def label_set() -> LabelSet:
    """Return AudioSet's 527 classes with their mids, in the order of its models' outputs."""
    return read_label_set(Path(__file__).with_name("audioset_labels.csv"))


@cache
def ontology() -> Mapping[str, Sound]:
    """Return the ontology's 632 classes by mid; 105 of them are not among the 527."""
    records, _ = csv_records(Path(__file__).with_name("audioset_ontology.csv"))
    return {
        cells["mid"]: Sound(
            cells["name"],
            tuple(filter(None, cells["parents"].split(";"))),
            tuple(filter(None, cells["restrictions"].split(";"))),
            cells["description"],
        )
        for _, cells in records
    }


@cache
def described() -> Mapping[str, str]:
    """Return the text "name : description" of each class of the ontology, by its name (Table A6)."""
    return {sound.name: f"{sound.name} : {sound.description}" for sound in ontology().values()}


def read(data: Data, root: Path | None, need_files: bool = True) -> Manifest:
    """Read AudioSet below `root`: train by `data.subset` (balanced, unbalanced, full = both), and eval.

    Clip ids are video ids. Segments whose file is missing, as videos vanish from YouTube, are problems of
    their split, so that the counts show how much of AudioSet this copy has. A segment with a label outside
    the label set is a problem too: its other labels alone would be wrong. The label set has all 527 classes,
    or those of a `class_labels_indices.csv` next to the lists.

    Of both sets, the rows name theirs (balanced, unbalanced), so that `mix.real=balanced` finds it.

    If `need_files` is false, clips without a sound file are rows too, with an empty path.

    Without any list, Parquet shards say which clips and labels there are; what they lack is not counted.

    Raises:
        UsageError: no root, an unknown subset, an eval fold, or a list that is not CSV.
        MissingError: a list is missing, or the train or the eval split has no sound file.
    """
    root = corpus_root(data, root, "the folder of the segment CSVs and the audio", tuple(SUBSETS))
    names = SUBSETS[data.subset or "balanced"]
    found = find_tables(root, (), (BALANCED, UNBALANCED, EVAL, LABELS, ONTOLOGY), SOURCE)
    stored = audioset_shards.find(root) if found.keys().isdisjoint(PARTS) else {}
    if not stored:
        find_tables(root, [name for name in (*names, EVAL) if name != UNBALANCED], (), SOURCE)
    if not stored and UNBALANCED in names and UNBALANCED not in found:
        raise MissingError(
            f"{root / UNBALANCED}: missing; get it from {SOURCE}, or use the recipe as20k-self, which needs "
            "the balanced list only"
        )
    labels = read_label_set(found[LABELS]) if LABELS in found else label_set()
    if labels.mids is None:
        raise UsageError(f"{found[LABELS]}: column 'mid' is missing; AudioSet's lists name classes by mid")
    outside = _names(found[ONTOLOGY]) if ONTOLOGY in found else {m: s.name for m, s in ontology().items()}
    by_mid = dict(zip(labels.mids, labels.names, strict=True))
    several = len(names) > 1

    def segments_of(name: str) -> Iterator[Segment | Problem]:
        split, part = ("eval", None) if name == EVAL else ("train", PARTS[name] if several else None)
        if stored:
            return _in_shards(root, stored, PARTS[name], split, by_mid, outside, part)
        return segments(found[name], split, by_mid, outside, part)

    every = chain.from_iterable(map(segments_of, (*names, EVAL)))
    rows, problems = match_files(root, every, need_files)
    return Manifest(rows, labels, problems)


def segments(
    path: Path,
    split: str,
    by_mid: Mapping[str, str],
    outside: Mapping[str, str],
    subset: str | None = None,
) -> Iterator[Segment | Problem]:
    """Yield the segments of a list: `YTID, start_seconds, end_seconds, "mid,mid"` after # lines.

    Args:
        path: the CSV.
        split: of all segments.
        by_mid: mid → name, of the label set.
        outside: mid → name, of classes outside the label set, for messages.
        subset: of all segments; None if the corpus is not divided.

    Raises:
        UsageError: not UTF-8, or not CSV.
    """
    table = str(path)
    known: dict[str, tuple[str, ...]] = {}  # most combinations of labels are frequent and share one tuple
    for line, cells in csv_rows(path):
        try:
            if len(cells) < 4:
                raise ValueError(f"cells: {len(cells)} in the row; expected YTID, start, end, labels")
            mids = ",".join(cells[3:])  # in one pair of quotes, or without
            if mids not in known:
                known[mids] = _labels(mids.split(","), by_mid, outside)
            video, start, end = check_id(cells[0].strip()), parse_seconds(cells[1]), parse_seconds(cells[2])
            if end <= start:
                raise ValueError(f"end {end:g} s is not after start {start:g} s")
            duration = end - start
            yield Segment(
                video, video, start, duration, known[mids], split, table, line, None, (), (), subset
            )
        except ValueError as error:
            yield Problem(cells[0].strip(), table, line, str(error), split)


def _in_shards(
    root: Path,
    shards: Mapping[str, list[Path]],
    part: str,
    split: str,
    by_mid: Mapping[str, str],
    outside: Mapping[str, str],
    subset: str | None,
) -> Iterator[Segment | Problem]:
    """Yield the segments of a part of AudioSet that its shards hold; other arguments as in `segments`.

    Raises:
        MissingError: there is no shard of this part.
        UsageError: a shard cannot be read, or lacks a column.
    """
    if part not in shards:
        raise MissingError(
            f"{root}: Parquet shards of {', '.join(shards)}, none of {part}; put them into "
            f"{root / audioset_shards.FOLDERS[part]}, or get the segment lists from {SOURCE}"
        )
    known = {**by_mid, **{name: name for name in by_mid.values()}}
    for path in shards[part]:
        for row in audioset_shards.rows(path):
            try:
                about = CLIP_S, _labels(row.labels, known, outside), split, str(path), row.line
                more = None, (), (), subset
                yield Segment(check_id(row.video_id), row.video_id, row.start_s, *about, *more)
            except ValueError as error:
                yield Problem(row.video_id, str(path), row.line, str(error), split)


def _labels(mids: Iterable[str], by_mid: Mapping[str, str], outside: Mapping[str, str]) -> tuple[str, ...]:
    names = []
    for mid in filter(None, map(str.strip, mids)):
        if mid not in by_mid:
            if mid in outside:
                what = f"is {outside[mid]!r}, a class of the ontology outside the label set's {len(by_mid)}"
            else:
                what = f"is neither one of the label set's {len(by_mid)} classes nor in the ontology"
            raise ValueError(f"mid {mid} {what}")
        names.append(by_mid[mid])
    if not names:
        raise ValueError("labels is empty")
    return tuple(dict.fromkeys(names))


def _names(path: Path) -> dict[str, str]:
    try:
        return {entry["id"]: entry["name"] for entry in read_json(path)}
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path}: not AudioSet's ontology (a list of classes with id and name)") from None
