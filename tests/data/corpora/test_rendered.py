"""Paths of videos that a corpus renders, and of files."""

import pytest
from fakes import mp4_frames

from ajbench.data.corpora.rendered import video_source


@pytest.mark.parametrize("path", ["mini:0:3:5:1", "avdigits:0:12:1_anna_0:1"])
def test_a_rendered_video_is_its_content(path):
    content = video_source(path)
    assert isinstance(content, bytes) and len(mp4_frames(content)[0]) == 8


@pytest.mark.parametrize("path", ["/videos/a.mp4", "minis/a.mp4"])
def test_a_file_is_its_path(path):
    assert video_source(path) == path
