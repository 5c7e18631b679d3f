"""Preparing a corpus with Ray: the same store, even if a worker is killed, and the same remarks."""

import pytest


@pytest.mark.slow
def test_prepare_on_ray_with_a_killed_worker_writes_the_same_store(job_on_ray, tmp_path):
    found = job_on_ray("prepared")
    assert (tmp_path / "killed").exists()
    assert found["ray"] == found["local"] and len(found["ray"]) == 3 + 2
    (remark,) = found["local tallies"]
    assert remark.startswith("shorter") and found["ray tallies"] == found["local tallies"]
