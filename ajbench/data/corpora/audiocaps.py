"""AudioCaps: 10 s pieces of AudioSet with captions by people; AudioSet's labels if its lists are there.

C. D. Kim et al., "AudioCaps: Generating captions for audios in the wild", NAACL 2019. About 50,000 clips, one
caption for each of train, five for each of val and test. https://github.com/cdjkim/audiocaps

Layout: `train.csv`, `test.csv` and perhaps `val.csv` (audiocap_id, youtube_id, start_time, caption; also as
`audiocaps_train.csv` …) in the folder or in one right below it; the sound files anywhere below, named
`<audiocap_id>` or as `ajbench.data.corpora.youtube` says.
"""

from pathlib import Path

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import audioset
from ajbench.data.corpora.segments import Segment, collect
from ajbench.data.corpora.splits import check_keys
from ajbench.data.corpora.youtube import check_id, seconds, tables
from ajbench.data.manifest import Manifest, Problem, csv_records

SPLITS = {"train": "train", "val": "val", "test": "eval"}
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
LENGTH_S = 10.0

Labels = dict[tuple[str, float], tuple[str, ...]]


def read(data: Data, root: Path | None, sounds: bool = True) -> Manifest:
    """Read AudioCaps below `root`; its test split is eval.

    A clip, called `<youtube id>_<start>`, is one row with the first of its captions in the order of the list;
    the others are not used. The label set is AudioSet's. Labels come from those of AudioSet's segment lists
    that lie beside the captions (nearly all clips are in `unbalanced_train_segments.csv`), by id and start:
    where they know any clip, one that they do not know is a problem, for without labels it would count as a
    clip in which nothing is heard. Where they know none, or are not there, no clip has labels.

    Raises:
        UsageError: no root, a subset or an eval fold, a column missing, or a list that is no CSV.
        MissingError: no list there, or no sound file of the train or the eval split.
    """
    if root is None:
        raise UsageError(
            "corpus audiocaps: say where it lies with --data DIR (the folder of the CSVs and audio)"
        )
    check_keys(data)
    names = [f"{prefix}{name}.csv" for name in SPLITS for prefix in ("", "audiocaps_")]
    found = tables(root, (*names, audioset.BALANCED, audioset.UNBALANCED, audioset.EVAL))
    listed: list[Segment | Problem] = []
    for name, split in SPLITS.items():
        path = found.get(f"{name}.csv") or found.get(f"audiocaps_{name}.csv")
        if path:
            listed += _captioned(path, split)
        elif split != "val":
            raise MissingError(f"{root / name}.csv: missing; get it from https://github.com/cdjkim/audiocaps")
    lists = [found[name] for name in (audioset.BALANCED, audioset.UNBALANCED, audioset.EVAL) if name in found]
    wanted = {item.video_id for item in listed if isinstance(item, Segment)}
    labels = _labels(lists, wanted)
    rows, problems = collect(root, (_labelled(item, labels) for item in listed) if labels else listed, sounds)
    return Manifest(rows, audioset.label_set(), problems)


def listed(data: Data, root: Path | None) -> Manifest:
    """Return what the lists below `root` hold, whether or not its sound is there; paths are empty."""
    return read(data, root, sounds=False)


def _captioned(path: Path, split: str) -> list[Segment | Problem]:
    """One segment for each id and start, with the first caption; the ids of all of them may name its file."""
    table = str(path)
    records, broken = csv_records(path, COLUMNS)
    clips: dict[str, Segment] = {}
    problems = [Problem(None, table, problem.line, problem.reason, split) for problem in broken]
    for line, cells in records:
        video, number = cells["youtube_id"], cells["audiocap_id"]
        try:
            start_s = seconds(cells["start_time"])
            clip_id = f"{check_id(video)}_{start_s:g}"
        except ValueError as error:
            problems.append(Problem(video, table, line, str(error), split))
            continue
        first = clips.get(clip_id)
        also = (*(first.also if first else ()), number)
        line, caption = (first.line, first.caption) if first else (line, cells["caption"])
        clips[clip_id] = Segment(clip_id, video, start_s, LENGTH_S, (), split, table, line, caption, also)
    return [*problems, *clips.values()]


def _labels(lists: list[Path], wanted: set[str]) -> Labels:
    """Labels of AudioSet's segments of the wanted videos, by id and start."""
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
    return (
        item._replace(labels=names) if names else item.problem("in none of AudioSet's lists that are there")
    )
