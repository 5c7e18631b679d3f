import pytest
from fakes import fit_hum, hum_recipe, hum_record, hum_store

from ajbench.data import shards


@pytest.fixture(scope="session")
def hum_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hum")


@pytest.fixture(scope="session")
def real(hum_folder):
    """20 train clips and 10 eval clips."""
    return hum_store(hum_folder / "real", [hum_record(i) for i in range(30)])


@pytest.fixture(scope="session")
def synthetic(hum_folder, real):
    """Two synthetic clips of every train clip."""
    parents = [real.clip_ids[i] for i in real.split_indices("train")]
    made = [
        hum_record(
            100 * m + int(p[5:]), clip_id=f"aug-{m}-{p}", split="train", source="synthetic", parent_id=p
        )
        for m in (1, 2)
        for p in parents
    ]
    meta = {"source": "synthetic", "train_ids_hash": shards.ids_hash(parents)}
    return hum_store(hum_folder / "synthetic", made, **meta)


@pytest.fixture(scope="session")
def plain(hum_folder, real):
    """The folder of a classifier trained by `hum_recipe()` on real clips."""
    return fit_hum(hum_recipe(), real, None, hum_folder / "plain")
