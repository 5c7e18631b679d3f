"""What becomes of results that are no sound, of a plan that was changed, and of a disk that is full."""

import csv
import json
import resource
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fakes import SMALL_LABELS, FakeCodec, make_generator, make_store, make_tokens, small_recipe

from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.files import seed_for
from ajbench.data import store as stores
from ajbench.data.verify import verify
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.synthesize import synthesize
from ajbench.generation.worker import BAD_GUIDE, Job

torch.set_num_threads(1)
N = 14


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("retries")
    make_generator(home / "generator", make_store(home / "real"))
    make_tokens(home / "tokens")
    return home


@pytest.fixture(scope="module")
def real(home):
    return stores.ClipStore.open(home / "real")


@pytest.fixture(scope="module")
def make(home, real):
    """make(out, store=real, codec=FakeCodec(), fingerprint="f", seed=None, **synth) -> store"""

    def run(out, store=real, codec=None, fingerprint="f", seed=None, **synth):
        recipe = small_recipe(synth={"n": N, "sampler_steps": 3} | synth)
        tokens = home / "tokens" if recipe.synth.prompt == "tokens" else None
        given = {"fingerprint": fingerprint, "codec": codec or FakeCodec(), "seed": seed}
        return synthesize(recipe, store, home / "generator", tokens, out, **given)

    return run


@pytest.fixture(scope="module")
def made(make, home):
    return make(home / "made")


@pytest.fixture
def broken(monkeypatch):
    """broken({seed: value}): the generator gives grids full of this value for these seeds."""
    plain = AudioJourneyPipeline.grids

    def breaks(values):
        def grids(self, prompts, guide, seeds, *rest):
            found = plain(self, prompts, guide, seeds, *rest)
            for k, seed in enumerate(seeds):
                if seed in values:
                    found[k] = values[seed]
            return found

        monkeypatch.setattr(AudioJourneyPipeline, "grids", grids)

    return breaks


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_failed_clip_gets_the_seed_of_its_attempt_and_the_others_keep_their_bytes(
    made, make, broken, tmp_path, home, real
):
    ids = made.clip_ids
    once, twice, never = ids[1], ids[4], ids[7]
    seeds = {(name, k): seed_for(0, name, *([k] if k else [])) for name in ids for k in range(3)}
    bad = [(once, 0), (twice, 0), (twice, 1), *((never, k) for k in range(3))]
    # A grid that is finite, and whose latents are not.
    broken({seeds[key]: torch.nan for key in bad} | {seeds[once, 0]: 3e38})
    found = make(tmp_path / "s")
    assert found.clip_ids == [name for name in ids if name != never]
    for clip in found:
        attempt = {once: 1, twice: 2}.get(clip.clip_id, 0)
        assert clip.seed == seeds[clip.clip_id, attempt]
        same = made[ids.index(clip.clip_id)]
        alike = np.array_equal(clip.codes, same.codes) and found.flac(clip.index) == made.flac(same.index)
        assert alike == (not attempt)
    listed = table(tmp_path / "s" / "retries.csv")
    assert sorted((row["clip_id"], int(row["attempt"])) for row in listed) == sorted(bad)
    assert all(int(row["seed"]) == seeds[row["clip_id"], int(row["attempt"])] for row in listed)
    assert {row["reason"] for row in listed} == {"not finite (latents)"}
    (lost,) = table(tmp_path / "s" / "quarantine.csv")
    assert (lost["clip_id"], lost["reason"]) == (never, "not finite (latents); 3 seeds tried")
    assert sum(int(row["retries"]) for row in table(tmp_path / "s" / "statistics.csv")) == 1 + 2 + 2
    assert found.meta.extra["mended"] == 2 and verify(found.path)["clips"] == N - 1

    # Other companions, the same bits: alone in its batch, by the plan's row with that seed.
    rows = pq.read_table(found.path / "plan.parquet").to_pylist()
    section = small_recipe(synth={"n": N, "sampler_steps": 3}).synth
    job = Job(section, real, home / "generator", home / "tokens", tmp_path, FakeCodec(), 1, N, 0, "")
    (alone,) = job.generate(job.load(0), [rows[1] | {"seed": seeds[once, 1]}])
    assert np.array_equal(alone[0]["codes"], found[1].codes)


def test_without_retries_one_seed_is_all(made, make, broken, tmp_path):
    broken({seed_for(0, made.clip_ids[2]): torch.nan})
    assert len(make(tmp_path / "s", retries=0)) == N - 1
    (row,) = table(tmp_path / "s" / "quarantine.csv")
    assert row["reason"] == "not finite (latents)"


class Deaf(FakeCodec):
    """Gives latents that are not finite for the codes of one clip."""

    def __init__(self, codes):
        super().__init__()
        self.bad = np.asarray(codes)

    def latents(self, codes):
        found = super().latents(codes)
        found[[np.array_equal(one, self.bad) for one in np.asarray(codes)]] = torch.nan
        return found


def test_a_guide_that_is_not_finite_spoils_its_own_clips_only(made, make, real, tmp_path):
    parent = made[3].parent_id
    codes = real.codes([real.clip_ids.index(parent)])[0]
    found = make(tmp_path / "s", codec=Deaf(codes))
    lost = [clip.clip_id for clip in made if clip.parent_id == parent]
    assert found.clip_ids == [name for name in made.clip_ids if name not in lost] and lost
    rows = table(tmp_path / "s" / "retries.csv")
    assert [row["clip_id"] for row in rows] == lost  # another seed would not help
    assert {row["reason"] for row in rows} == {BAD_GUIDE}
    for clip in found:
        assert np.array_equal(clip.codes, made[made.clip_ids.index(clip.clip_id)].codes)


class Loud(FakeCodec):
    """Silent where the first code is even, twice as loud where it is odd."""

    def decode(self, codes):
        return super().decode(codes) * torch.as_tensor(codes[:, 0, 0].astype(np.int64) % 2 * 2)[:, None]


def test_statistics_are_those_of_the_clips(make, tmp_path):
    found = make(tmp_path / "s", codec=Loud(), n=12, retries=1)
    failed = table(tmp_path / "s" / "retries.csv")
    lost = {row["clip_id"] for row in table(tmp_path / "s" / "quarantine.csv")}
    assert failed and all(row["reason"].startswith("silent") for row in failed)
    assert lost == {row["clip_id"] for row in failed if row["attempt"] == "1"}
    ids = pq.read_table(found.path / "plan.parquet")["clip_id"].to_pylist()
    lines = table(tmp_path / "s" / "statistics.csv")
    assert [(row["shard"], row["planned"]) for row in lines] == [("0", "6"), ("1", "6")]
    for number, line in enumerate(lines):
        mine = ids[number * 6 : number * 6 + 6]
        waves = found.audio([found.clip_ids.index(name) for name in mine if name not in lost])
        peaks = np.abs(waves).max(axis=1)
        silent = [row for row in failed if row["clip_id"] in mine]
        retries = sum(row["attempt"] == "0" for row in silent)
        assert (int(line["kept"]), int(line["retries"])) == (len(waves), retries)
        assert float(line["peak_max"]) == pytest.approx(peaks.max(), abs=1e-4)
        assert float(line["peak_mean"]) == pytest.approx(peaks.mean(), abs=1e-4)
        assert float(line["rms_db"]) == pytest.approx(10 * np.log10((waves**2).mean()), abs=0.01)
        assert float(line["silent_share"]) == pytest.approx(len(silent) / (6 + retries), abs=1e-5)
        assert float(line["clipped_share"]) == 0
    for row in table(tmp_path / "s" / "timing.csv"):
        assert float(row["clips_per_s"]) == pytest.approx(6 / float(row["seconds"]), rel=0.05)


def test_classes_without_a_guide_are_made_from_noise(make, real, tmp_path, capsys):
    """A label that no clip has: from noise at strength 1, the others from guides at 0.6."""
    wider = stores.ClipStore(real.path, real.meta.model_copy(update={"labels": [*SMALL_LABELS, "Never"]}))
    synth = {"plan": "random-classes", "prompt": "names", "unguided": "noise", "n": 20}
    found = make(tmp_path / "s", wider, **synth)
    assert "1 class (Never)" in capsys.readouterr().err
    assert found.meta.extra["unguided"] == {"what": "noise", "classes": ["Never"]}
    noise = [clip for clip in found if clip.labels == ["Never"]]
    assert noise and all((c.parent_id, c.strength) == (None, 1.0) for c in noise)
    assert all(c.strength == 0.6 and c.parent_id for c in found if c.labels != ["Never"])
    every = make(tmp_path / "n", wider, **synth | {"strength": 1.0})
    for clip in noise:
        assert np.array_equal(clip.codes, every[every.clip_ids.index(clip.clip_id)].codes)
    make(tmp_path / "l", wider, **synth | {"unguided": "leave_out"})
    assert "left out" in capsys.readouterr().err


@pytest.fixture
def cut(make, tmp_path, monkeypatch):
    """A job that ended after its first shard."""
    plain = Job.make

    def failing(self, pipeline, shard, *rest):
        if shard:
            raise RuntimeError("cut")
        plain(self, pipeline, shard, *rest)

    monkeypatch.setattr(Job, "make", failing)
    with pytest.raises(RuntimeError, match="cut"):
        make(tmp_path / "s")
    monkeypatch.setattr(Job, "make", plain)
    return tmp_path / "s"


def test_a_plan_that_was_changed_on_disk_is_refused(cut, make, made):
    path = cut / "plan.parquet"
    content = path.read_bytes()
    plan = pq.read_table(path)
    seeds = plan["seed"].to_pylist()[:-1]
    pq.write_table(plan.set_column(7, plan.schema.field("seed"), pa.array([*seeds, 1])), path)
    with pytest.raises(IntegrityError, match=r"plan\.parquet") as info:
        make(cut)
    assert info.value.exit_code == 5
    path.unlink()  # what is gone is drawn again
    assert make(cut).clip_ids == made.clip_ids and path.read_bytes() == content
    assert verify(cut)["clips"] == N
    pq.write_table(plan.slice(1), path)
    with pytest.raises(IntegrityError, match=r"plan\.parquet"):
        verify(cut)


def test_two_recipes_or_seeds_in_one_store_are_refused(cut, make, made):
    for change in ({"fingerprint": "other", "guidance": 3.0}, {"seed": 1}):
        with pytest.raises(IntegrityError, match=r"fingerprint|plan\.parquet") as info:
            make(cut, **change)
        assert info.value.exit_code == 5
    assert make(cut).clip_ids == made.clip_ids


def test_settings_may_change_by_a_word_but_the_plan_may_not(cut, home, real):
    settings = json.loads((cut / ".claims" / "settings.json").read_text())
    assert settings.keys() == {"threads", "device", "torch", "micro_batch", "plan"}
    recipe = small_recipe(synth={"n": N, "sampler_steps": 3})
    about = {"fingerprint": "f", "codec": FakeCodec(), "allow_inexact": True, "seed": 5}
    with pytest.raises(IntegrityError, match=r"plan\.parquet"):
        synthesize(recipe, real, home / "generator", home / "tokens", cut, **about)


def test_a_full_disk_leaves_no_half_shard_and_the_job_goes_on(make, made, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(MissingError, match=r"part-00000.arrow: cannot write .*; make space") as info:
            make(tmp_path / "s")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert info.value.exit_code == 3 and "\n" not in str(info.value)
    left = {path.name for path in (tmp_path / "s").iterdir()}
    assert left == {".claims", "plan.parquet"}
    found = make(tmp_path / "s")
    for entry in made.meta.shards:
        assert (found.path / entry.file).read_bytes() == (made.path / entry.file).read_bytes()
    assert replace(made[0], store=None) == replace(found[0], store=None)
