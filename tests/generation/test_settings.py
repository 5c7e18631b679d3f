"""Interrupted syntheses: changed plans and settings are refused, and a full disk leaves no half shard."""

import json
import resource
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fakes import flip_in, small_recipe, stopped_at

from ajbench.core.errors import IntegrityError, MissingError
from ajbench.data.verify import verify
from ajbench.generation import settings
from ajbench.generation.worker import Job

from .conftest import N_SYNTHETIC


@pytest.fixture
def cut(generate, tmp_path):
    """The folder of a synthesis that ended after its first shard."""
    with stopped_at(Job, "make", 2):
        generate(tmp_path / "s")
    assert [path.name for path in (tmp_path / "s").glob("part-*.arrow")] == ["part-00000.arrow"]
    return tmp_path / "s"


def test_a_changed_plan_is_refused(cut, generate, made):
    path = cut / "plan.parquet"
    content = path.read_bytes()
    plan = pq.read_table(path)
    seeds = plan["seed"].to_pylist()[:-1]
    pq.write_table(plan.set_column(7, plan.schema.field("seed"), pa.array([*seeds, 1])), path)
    with pytest.raises(IntegrityError, match=r"plan\.parquet") as info:
        generate(cut)
    assert info.value.exit_code == 5
    path.unlink()  # a missing plan is drawn again
    assert generate(cut).clip_ids == made.clip_ids and path.read_bytes() == content
    assert verify(cut)["clips"] == N_SYNTHETIC
    pq.write_table(plan.slice(1), path)
    with pytest.raises(IntegrityError, match=r"plan\.parquet"):
        verify(cut)


def test_another_recipe_or_seed_in_one_store_is_refused(cut, generate, made):
    for change in ({"fingerprint": "other", "guidance": 3.0}, {"seed": 1}):
        with pytest.raises(IntegrityError, match=r"other|plan\.parquet") as info:
            generate(cut, **change)
        assert info.value.exit_code == 5
    with pytest.raises(IntegrityError, match=r"plan\.parquet"):
        generate(cut, seed=5, allow_inexact=True)
    assert generate(cut).clip_ids == made.clip_ids


def test_other_settings_must_be_allowed_explicitly(cut, generate, made):
    began = json.loads((cut / ".claims" / "settings.json").read_text())
    assert began.keys() == {"threads", "device", "torch", "micro_batch", "plan", "seal"}
    with pytest.raises(IntegrityError, match="threads 1 → 2"):
        generate(cut, threads=2)
    found = generate(cut, threads=2, allow_inexact=True)
    assert found.clip_ids == made.clip_ids and torch.get_num_threads() == 1


def test_damaged_settings_are_named(cut, generate):
    path = cut / ".claims" / "settings.json"
    flip_in(path, '"micro_batch": 4')
    for text in (path.read_text(), "{", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(IntegrityError, match=r"settings\.json: damaged .*; use --force"):
            generate(cut)


def test_the_kind_of_gpu_and_the_precision_are_settings(monkeypatch):
    section = small_recipe().synth
    assert settings.exact(section, 2).keys() == {"threads", "device", "torch", "micro_batch"}
    monkeypatch.setattr(settings, "device_of", lambda rank: torch.device("cuda", rank))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    found = settings.exact(section, 2)
    assert (found["device"], found["precision"]) == ("cuda GPU 0", "bf16")
    assert "precision" not in settings.exact(section.model_copy(update={"precision": "fp32"}), 2)


def test_a_full_disk_leaves_no_half_shard_and_the_job_can_continue(generate, made, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(MissingError, match=r"part-00000\.arrow") as info:
            generate(tmp_path / "s")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert info.value.exit_code == 3 and "\n" not in str(info.value)
    assert {path.name for path in (tmp_path / "s").iterdir()} == {".claims", "plan.parquet"}
    found = generate(tmp_path / "s")
    for entry in made.meta.shards:
        assert (found.path / entry.file).read_bytes() == (made.path / entry.file).read_bytes()
    assert replace(made[0], store=None) == replace(found[0], store=None)
