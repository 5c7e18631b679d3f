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
    lengths = 20, 24, 51, 55, 129, 134, 110, 130, 23, 110, 105
    details = [rng.normal(size=(n, 64)).astype(np.float16) for n in lengths]
    details[6] = details[4][6:116]  # a cut: beside 5, neither longer than 4 nor of its length
    details[9][-53:] = details[4][:53]  # an overlap of less than half
    queries, references = details[:7] + details[9:], details[1:9]
    found = scores(queries, references)
    for q, query in enumerate(queries):
        for r, reference in enumerate(references):
            alone = scores([query], [reference])
            for all_, one in zip(found, alone, strict=True):
                assert all_[q, r] == pytest.approx(one[0, 0], abs=2e-5), (q, r)
    assert found[0][1, 0] == pytest.approx(1.0, abs=0.01) and found[0][6, 3] > 0.98 > 0.5 > found[0][7, 3]
