"""The complete check of a store."""

import json

import numpy as np
import pandas as pd
import pytest

from ajbench.core.errors import IntegrityError
from ajbench.data import shards
from ajbench.data.manifest import Problem
from ajbench.data.verify import verify

from .conftest import FRAMES, SIZES, build


def test_verify_reports_the_content(folder):
    problems = [
        Problem("x", "/sounds/x.wav", 7, "silent (peak 0)"),
        Problem(None, "/sounds/y,z.wav", None, 'odd "name"'),
    ]
    shards.write_quarantine(folder, problems, {"/sounds/x.wav": "ab" * 32})
    report = json.loads(json.dumps(verify(folder)))
    assert [shard["clips"] for shard in report["shards"]] == list(SIZES)
    expected = {"clips": 8, "quarantined": 2, "codec": "fake", "source": "real", "classes": 3}
    assert report == report | expected | {"splits": {"eval": 2, "train": 6}}
    table = pd.read_csv(folder / "quarantine.csv")
    assert list(table) == ["clip_id", "path", "line", "reason", "sha256"]
    assert table["sha256"].tolist()[0] == "ab" * 32
    assert table["path"].tolist() == ["/sounds/x.wav", "/sounds/y,z.wav"]


@pytest.mark.parametrize(
    "text", [b"clip_id,reason\n\xff,x\n", b"clip_id\nx\n", b"clip_id,reason\nx\n", b"\xff"]
)
def test_a_damaged_list_of_rejected_clips_is_named(folder, text):
    (folder / "quarantine.csv").write_bytes(text)
    with pytest.raises(IntegrityError, match=r"quarantine\.csv: .*; make the store again"):
        verify(folder)


@pytest.mark.parametrize(
    ("changes", "meta_changes", "reason"),
    [
        ({5: {"clip_id": "clip-0"}}, {}, r"clip ids: 1 clip\b"),
        ({6: {"codes": np.full((8, FRAMES), 1024, np.uint16)}}, {}, r"part-00002\.arrow: code 1024"),
        ({2: {"label_ids": [0]}, 3: {"label_ids": [1]}}, {}, r"part-00000\.arrow: .* 2 clips"),
        ({}, {"counts": {"train": {"kept": 6}, "eval": {"kept": 3}}}, "split eval.*3"),
    ],
)
def test_verify_finds_what_checksums_cannot(tmp_path, changes, meta_changes, reason):
    with pytest.raises(IntegrityError, match=reason):
        verify(build(tmp_path / "s", SIZES, changes, **meta_changes))
