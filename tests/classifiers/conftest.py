import pytest
from hum_and_hiss import make, record

from ajbench.data import shards


@pytest.fixture
def real(tmp_path):
    return make(tmp_path / "real", [record(i) for i in range(30)])


@pytest.fixture
def synthetic(tmp_path, real):
    parents = [real.clip_ids[i] for i in real.split_indices("train")]
    made = [
        record(100 * m + int(p[5:]), clip_id=f"aug-{m}-{p}", split="train", source="synthetic", parent_id=p)
        for m in (1, 2)
        for p in parents
    ]
    return make(tmp_path / "synthetic", made, source="synthetic", train_ids_hash=shards.ids_hash(parents))
