"""VGGSound: 10 s clips of YouTube videos in 309 classes, one per clip, whose source is visible.

H. Chen et al., "VGGSound: A large-scale audio-visual dataset", ICASSP 2020. About 200,000 clips, CC BY 4.0.
https://www.robots.ox.ac.uk/~vgg/data/vggsound

Layout: `vggsound.csv` (YouTube id, start in seconds, label, train or test; no header) in the folder or
directly below it; the sound files anywhere below, named `<id>_<start in six digits>` or as described in
`ajbench.data.corpora.youtube`.
"""

from collections.abc import Iterator
from pathlib import Path

from ajbench.core.recipe import Data
from ajbench.data.corpora.splits import corpus_root
from ajbench.data.corpora.youtube import Segment, check_id, find_tables, match_files, parse_seconds
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import SPLIT_NAMES, Manifest, Problem, csv_rows

TABLE = "vggsound.csv"
SOURCE = "https://www.robots.ox.ac.uk/~vgg/data/vggsound"
LENGTH_S = 10.0


def read(data: Data, root: Path | None, need_files: bool = True) -> Manifest:
    """Read VGGSound below `root`; its test split is eval.

    Clip ids are `<id>_<start in six digits>`, since a video may have several clips. The label set has all
    labels of the list, sorted, including those of missing clips. A clip without a file is a problem.

    If `need_files` is false, clips without a sound file are rows too, with an empty path.

    Raises:
        UsageError: no root, a subset or an eval fold, or a list that is not CSV.
        MissingError: the list is missing, or the train or the eval split has no sound file.
    """
    root = corpus_root(data, root, f"the folder of {TABLE} and the audio")
    listed = list(_segments(find_tables(root, (TABLE,), source=SOURCE)[TABLE]))
    rows, problems = match_files(root, listed, need_files)
    names = (name for item in listed if isinstance(item, Segment) for name in item.labels)
    return Manifest(rows, LabelSet.from_names(names), problems)


def _segments(path: Path) -> Iterator[Segment | Problem]:
    table = str(path)
    for line, cells in csv_rows(path):
        video, start, label, written = (*map(str.strip, cells), "", "", "", "")[:4]
        split = SPLIT_NAMES.get(written)
        try:
            if len(cells) != 4:
                raise ValueError(f"cells: {len(cells)} in the row; expected id, start, label, split")
            if split is None:
                raise ValueError(f"split {written!r} is neither train nor test")
            if not label:
                raise ValueError("label is empty")
            start_s = parse_seconds(start)
            clip_id = f"{check_id(video)}_{int(start_s):06d}"
            yield Segment(clip_id, video, start_s, LENGTH_S, (label,), split, table, line)
        except ValueError as error:
            yield Problem(video, table, line, str(error), split)
