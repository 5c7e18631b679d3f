"""AudioCaps: 10 s clips of AudioSet with captions by people; labels from AudioSet's lists if present.

C. D. Kim et al., "AudioCaps: Generating captions for audios in the wild", NAACL 2019. About 50,000 clips: one
caption per train clip, five per val or test clip. https://github.com/cdjkim/audiocaps

Layout: `train.csv`, `test.csv` and optionally `val.csv` (audiocap_id, youtube_id, start_time, caption; or
`audiocaps_train.csv` …) in the folder or directly below it; the sound files anywhere below, named
`<audiocap_id>` or as described in `ajbench.data.corpora.youtube`.
"""

from collections.abc import Collection
from pathlib import Path

from ajbench.core.errors import MissingError
from ajbench.core.recipe import Data
from ajbench.data.corpora import audioset
from ajbench.data.corpora.splits import corpus_root
from ajbench.data.corpora.youtube import Segment, check_id, find_tables, match_files, parse_seconds
from ajbench.data.manifest import Manifest, Problem, Row, csv_records

SPLITS = {"train": "train", "val": "val", "test": "eval"}
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
LENGTH_S = 10.0

Labels = dict[tuple[str, float], tuple[str, ...]]


def read(data: Data, root: Path | None, need_files: bool = True) -> Manifest:
    """Read AudioCaps below `root`; its test split is eval.

    Each clip, with id `<youtube id>_<start>`, is one row with all its captions. The label set is AudioSet's.
    Labels come from AudioSet's segment lists next to the captions, by id and start (nearly all clips are in
    `unbalanced_train_segments.csv`). If the lists have any of the clips, a clip that they lack is a problem:
    without labels it would count as a negative of every class. Without such a list no clip has labels.

    If `need_files` is false, clips without a sound file are rows too, with an empty path.

    Raises:
        UsageError: no root, a subset or an eval fold, a missing column, or a list that is not CSV.
        MissingError: a list is missing, or the train or the eval split has no sound file.
    """
    root = corpus_root(data, root, "the folder of the CSVs and the audio")
    rows, problems = match_files(root, _listed(root, SPLITS), need_files)
    return Manifest(rows, audioset.label_set(), problems)


def captioned(data: Data, root: Path | None) -> list[Row]:
    """Return the test clips with captions and labels as in `read`; neither audio nor `train.csv` is needed.

    Raises:
        UsageError: no root, a missing column, or a list that is not CSV.
        MissingError: `test.csv` is missing.
    """
    found = _listed(corpus_root(data, root, "the folder of test.csv"), ("test",))
    return [item.row("", item.start_s) for item in found if isinstance(item, Segment)]


def _listed(root: Path, files: Collection[str]) -> list[Segment | Problem]:
    names = [f"{prefix}{name}.csv" for name in SPLITS for prefix in ("", "audiocaps_")]
    found = find_tables(root, (), (*names, audioset.BALANCED, audioset.UNBALANCED, audioset.EVAL))
    listed: list[Segment | Problem] = []
    for name in files:
        split = SPLITS[name]
        path = found.get(f"{name}.csv") or found.get(f"audiocaps_{name}.csv")
        if path:
            listed += _captioned(path, split)
        elif split != "val":
            raise MissingError(f"{root / name}.csv: missing; get it from https://github.com/cdjkim/audiocaps")
    lists = [found[name] for name in (audioset.BALANCED, audioset.UNBALANCED, audioset.EVAL) if name in found]
    wanted = {item.video_id for item in listed if isinstance(item, Segment)}
    if labels := _labels(lists, wanted):
        listed = [_labelled(item, labels) for item in listed]
    return listed


def _captioned(path: Path, split: str) -> list[Segment | Problem]:
    """Return one segment per id and start, with all its captions; its file may have any of their ids."""
    table = str(path)
    records, broken = csv_records(path, COLUMNS)
    clips: dict[str, Segment] = {}
    problems = [Problem(None, table, problem.line, problem.reason, split) for problem in broken]
    for line, cells in records:
        video, number = cells["youtube_id"], cells["audiocap_id"]
        try:
            start_s = parse_seconds(cells["start_time"])
            clip_id = f"{check_id(video)}_{start_s:g}"
        except ValueError as error:
            problems.append(Problem(video, table, line, str(error), split))
            continue
        new = Segment(clip_id, video, start_s, LENGTH_S, (), split, table, line, cells["caption"])
        clip = clips.get(clip_id)
        more = (*clip.more_captions, cells["caption"]) if clip else ()
        clip = clip or new
        clips[clip_id] = clip._replace(also=(*clip.also, number), more_captions=more)
    return [*problems, *clips.values()]


def _labels(lists: list[Path], wanted: set[str]) -> Labels:
    """Return the labels of AudioSet's segments of the wanted videos, by id and start."""
    known = audioset.label_set()
    by_mid = dict(zip(known.mids or (), known.names, strict=True))
    return {
        (item.video_id, item.start_s): item.labels
        for path in lists
        for item in audioset.segments(path, "train", by_mid, {})
        if isinstance(item, Segment) and item.video_id in wanted
    }


def _labelled(item: Segment | Problem, labels: Labels) -> Segment | Problem:
    if isinstance(item, Problem):
        return item
    names = labels.get((item.video_id, item.start_s))
    return item._replace(labels=names) if names else item.problem("not in AudioSet's segment lists")
