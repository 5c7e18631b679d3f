"""Which files, named by a video's id alone, are whole videos."""

import pytest

from ajbench.core import console
from ajbench.data import audio
from ajbench.data.corpora import whole_videos


@pytest.fixture
def lengths(monkeypatch):
    """lengths({path: seconds, or None if unreadable}) -> list that the paths of opened files are added to."""
    console.configure(quiet=True)
    opened = []

    def make(known):
        def probe(path):
            opened.append(path)
            if known[path] is None:
                raise audio.AudioError("unreadable", path)
            return 1000, 1, round(1000 * known[path])

        monkeypatch.setattr(audio, "probe", probe)
        return opened

    yield make
    console.configure()


@pytest.mark.parametrize(("seconds", "whole"), [(10.0, False), (11.9, False), (12.1, True), (300.0, True)])
def test_a_sample_of_headers_decides_for_all_files_without_a_start(lengths, seconds, whole):
    paths = [f"{k}.wav" for k in range(10_000)]
    opened = lengths({path: None if k % 100 == 0 else seconds for k, path in enumerate(paths)})
    found = whole_videos.whole_videos(paths, [30.0] * len(paths))
    assert found == frozenset(paths if whole else ())
    assert len(opened) == whole_videos.PROBED


def test_all_headers_are_read_if_some_disagree(lengths):
    paths = [f"{k}.wav" for k in range(1000)]
    known = {path: 60.0 if k % 5 else 10.0 for k, path in enumerate(paths)}
    known["7.wav"] = None
    lengths(known)
    found = whole_videos.whole_videos(paths, [30.0] * len(paths))
    assert found == {path for path in paths if known[path] == 60.0}


def test_a_short_video_is_recognised_by_a_later_start(lengths):
    lengths({"a": 11.0, "b": 95.0})
    assert whole_videos.whole_videos(["a", "b"], [1.0, 85.0]) == {"a", "b"}
    lengths({"a": 11.0})
    assert whole_videos.whole_videos(["a"], [1.0]) == frozenset()
    lengths({"a": None})  # unreadable
    assert whole_videos.whole_videos(["a"], [30.0]) == whole_videos.whole_videos([], []) == frozenset()
