"""Files named by a video's id alone: whole videos, or clips cut from them?"""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress

from ajbench.core import console
from ajbench.data import archive, audio

CLIP_S = 12.0  # a longer file is a whole video: clips last 10 s, and cutting at key frames may add 2 s
PROBED = 200  # headers that are read to decide
THREADS = 8


def whole_videos(paths: Sequence[str], starts: Sequence[float]) -> frozenset[str]:
    """Return which files, all named by the id alone, are whole videos rather than clips cut to the segment.

    Most downloaders cut, and opening millions of files takes hours. So up to `PROBED` headers decide for all
    files if they agree; otherwise every header is read. A file longer than `CLIP_S` is a whole video.
    Unreadable files are ignored.

    Args:
        paths: files of segments that start after 0 s.
        starts: start of each segment in s.
    """
    # A video shorter than CLIP_S looks like a clip, unless its segment starts later than that.
    telling = [path for path, start in zip(paths, starts, strict=True) if start >= CLIP_S] or paths
    # At random, since every n-th file may be of one kind; with a fixed seed, so that all runs agree.
    sample = random.Random(0).sample(telling, min(PROBED, len(telling)))
    kinds = {_is_whole(path) for path in sample} - {None}
    if len(kinds) < 2:
        return frozenset(paths if kinds == {True} else ())
    whole = []
    progress = console.progress(len(paths), "read lengths", "files")
    with ThreadPoolExecutor(THREADS) as pool, progress as advance:
        for is_whole in pool.map(_is_whole, paths):
            whole.append(bool(is_whole))
            advance(1)
    return frozenset(compress(paths, whole))


def _is_whole(path: str) -> bool | None:
    try:
        with archive.local(path) as file:
            rate, _, frames = audio.probe(file)
    except audio.AudioError:
        return None
    return frames > CLIP_S * rate
