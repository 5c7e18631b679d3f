import mmap

import numpy as np
import pytest
import torch

from ajbench.data.clip_set import open_set
from ajbench.evaluation.audit_similarity import scores, usable_clips, wave_of
from ajbench.metrics.audio_fingerprint import fingerprints


def test_fingerprints_are_in_clip_order_in_a_file_that_vanishes_with_them(audit_folders, tmp_path):
    usable = usable_clips("eval", open_set(audit_folders / "eval"), [], lambda n: None, tmp_path / "new")
    assert len(usable.fingerprints) == len(usable.numbers) == 30 and not list((tmp_path / "new").iterdir())
    for row in (0, 17, 29):
        wave = wave_of(usable.clips, usable.numbers[row])
        expected = fingerprints(torch.from_numpy(wave)[None])[0]
        assert np.abs(usable.fingerprints[row] - expected).max() < 1e-3  # half precision
    root = usable.fingerprints[3]
    while isinstance(root, np.ndarray):
        root = root.base
    assert isinstance(root, mmap.mmap)


def test_fingerprints_of_any_length_are_compared_as_if_one_by_one(rng):
    details = [rng.normal(size=(n, 64)).astype(np.float16) for n in (20, 24, 51, 55, 130, 23)]
    like, prominence = scores(details[:3], details[1:])
    assert like.shape == prominence.shape == (3, 5)
    for q, query in enumerate(details[:3]):
        for r, reference in enumerate(details[1:]):
            alone = scores([query], [reference])[0][0, 0]
            assert like[q, r] == pytest.approx(alone, abs=0.06)  # padding has a small effect
    assert like[1, 0] == pytest.approx(1.0, abs=0.1) and like[2, 1] == pytest.approx(1.0, abs=0.1)
