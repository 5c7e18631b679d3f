"""The clips that the page of Table A8 shows."""

import numpy as np

from ajbench.data.labels import Scores
from ajbench.reporting import fusion_page


def test_without_a_video_the_picture_is_never_right():
    targets = np.eye(2, dtype=np.uint8)[[0, 0, 1]]
    right, wrong = np.eye(2, dtype=np.float32)[[0, 0, 1]], np.eye(2, dtype=np.float32)[[1, 1, 0]]
    about = {
        "targets": targets,
        "clip_ids": ["a", "b", "c"],
        "labels": ("dog", "rain"),
        "recordings": ["a", "b", "c"],
    }
    scores = {
        name: Scores(scores=found, **about) for name, found in (("A", wrong), ("V", right), ("A+V", wrong))
    }
    seen = np.array([True, False, True])
    found = fusion_page.choose(scores, np.array([0.2, 0.5, 0.9]), np.array([7, 8, 9]), seen)
    assert {(one.kind, one.index, one.score) for one in found} == {
        (kind, index, score) for kind in ("lost", "video") for index, score in ((7, 0.2), (9, 0.9))
    }
    scores["A+V"] = scores["A"] = scores["V"]
    entailed = np.array([1.0, 1.0, np.nan])  # the last has a video, but no caption
    found = {one.index: one for one in fusion_page.choose(scores, entailed, np.arange(3), seen)}
    assert found[1].kind == "right" and [found[n].score for n in range(3)] == [1.0, None, None]
