"""VGGSound: 10 s pieces of YouTube videos, each of one of 309 classes whose source is in the picture.

H. Chen et al., "VGGSound: A large-scale audio-visual dataset", ICASSP 2020. About 200,000 clips, CC BY 4.0.
https://www.robots.ox.ac.uk/~vgg/data/vggsound

Layout: `vggsound.csv` (YouTube id, start in seconds, label, train or test; no header) in the folder or in one
right below it; the sound files anywhere below: `<id>_<start in six digits>`, or as
`ajbench.data.corpora.youtube` says.
"""

from collections.abc import Iterator
from pathlib import Path

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora.segments import Segment, collect
from ajbench.data.corpora.splits import check_keys
from ajbench.data.corpora.youtube import check_id, seconds, tables
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import SPLIT_NAMES, Manifest, Problem, csv_rows

TABLE = "vggsound.csv"
LENGTH_S = 10.0


def read(data: Data, root: Path | None, sounds: bool = True) -> Manifest:
    """Read VGGSound below `root`; its test split is eval.

    A clip is called `<id>_<start in six digits>`, as there may be several of a video. The label set is all
    labels of the list, sorted, whether or not a clip of theirs is there. A clip without a file is a problem.

    Raises:
        UsageError: no root, a subset or an eval fold, or a list that is no CSV.
        MissingError: no list there, or no sound file of the train or the eval split.
    """
    if root is None:
        raise UsageError(
            f"corpus vggsound: say where it lies with --data DIR (the folder of {TABLE} and audio)"
        )
    check_keys(data)
    found = tables(root, (TABLE,))
    if TABLE not in found:
        raise MissingError(
            f"{root / TABLE}: missing; get it from https://www.robots.ox.ac.uk/~vgg/data/vggsound"
        )
    listed = list(_segments(found[TABLE]))
    rows, problems = collect(root, listed, sounds)
    names = (name for item in listed if isinstance(item, Segment) for name in item.labels)
    return Manifest(rows, LabelSet.from_names(names), problems)


def listed(data: Data, root: Path | None) -> Manifest:
    """Return what the lists below `root` hold, whether or not its sound is there; paths are empty."""
    return read(data, root, sounds=False)


def _segments(path: Path) -> Iterator[Segment | Problem]:
    table = str(path)
    for line, cells in csv_rows(path):
        video, start, label, written = (*map(str.strip, cells), "", "", "", "")[:4]
        split = SPLIT_NAMES.get(written)
        try:
            if len(cells) != 4:
                raise ValueError(f"{len(cells)} cells in the row; expected id, start, label, split")
            if split is None:
                raise ValueError(f"split {written!r} is neither train nor test")
            if not label:
                raise ValueError("label is empty")
            start_s = seconds(start)
            clip_id = f"{check_id(video)}_{int(start_s):06d}"
            yield Segment(clip_id, video, start_s, LENGTH_S, (label,), split, table, line)
        except ValueError as error:
            yield Problem(video, table, line, str(error), split)
