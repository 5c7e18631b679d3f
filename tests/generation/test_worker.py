"""Rejected results: retries with other seeds, bad guides, and the statistics of shards."""

import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fakes import FakeCodec, small_recipe

from ajbench.core.files import seed_for
from ajbench.data.verify import verify
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.worker import BAD_GUIDE, Job

from .conftest import N_SYNTHETIC, read_csv


@pytest.fixture
def broken(monkeypatch):
    """broken({seed: value}): for these seeds, the generator returns grids filled with this value."""
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


def test_a_rejected_clip_gets_the_seed_of_its_attempt_and_the_others_keep_their_bytes(
    made, generate, broken, tmp_path, generator, tokens, real
):
    ids = made.clip_ids
    once, twice, never = ids[1], ids[4], ids[7]
    seeds = {(name, k): seed_for(0, name, *([k] if k else [])) for name in ids for k in range(3)}
    bad = [(once, 0), (twice, 0), (twice, 1), *((never, k) for k in range(3))]
    # The grid of (once, 0) is finite, but its latents are not.
    broken({seeds[key]: torch.nan for key in bad} | {seeds[once, 0]: 3e38})
    found = generate(tmp_path / "s")
    assert found.clip_ids == [name for name in ids if name != never]
    for clip in found:
        attempt = {once: 1, twice: 2}.get(clip.clip_id, 0)
        assert clip.seed == seeds[clip.clip_id, attempt]
        same = made[ids.index(clip.clip_id)]
        alike = np.array_equal(clip.codes, same.codes) and found.flac(clip.index) == made.flac(same.index)
        assert alike == (not attempt)
    listed = read_csv(tmp_path / "s" / "retries.csv")
    assert sorted((row["clip_id"], int(row["attempt"])) for row in listed) == sorted(bad)
    assert all(int(row["seed"]) == seeds[row["clip_id"], int(row["attempt"])] for row in listed)
    assert {row["reason"] for row in listed} == {"not finite (latents)"}
    (lost,) = read_csv(tmp_path / "s" / "quarantine.csv")
    assert lost["clip_id"] == never and "3 seeds" in lost["reason"] and "not finite" in lost["reason"]
    assert sum(int(row["retries"]) for row in read_csv(tmp_path / "s" / "statistics.csv")) == 1 + 2 + 2
    assert found.meta.extra["mended"] == 2 and verify(found.path)["clips"] == N_SYNTHETIC - 1

    # Alone in its batch, the retried clip has the same bits.
    rows = pq.read_table(found.path / "plan.parquet").to_pylist()
    section = small_recipe(synth={"n": N_SYNTHETIC, "sampler_steps": 3}).synth
    job = Job(section, real, generator, tokens, tmp_path, FakeCodec(), 1, N_SYNTHETIC, 0, "")
    ((_, (alone,)),) = job.generated(job.load(0), [[rows[1] | {"seed": seeds[once, 1]}]])
    assert np.array_equal(alone[0]["codes"], found[1].codes)


def test_clips_are_checked_and_compressed_while_the_next_ones_are_sampled(
    made, generator, tokens, real, monkeypatch, tmp_path
):
    rows = pq.read_table(made.path / "plan.parquet").to_pylist()
    section = small_recipe(synth={"n": N_SYNTHETIC, "sampler_steps": 3}).synth
    job = Job(section, real, generator, tokens, tmp_path, FakeCodec(), 1, N_SYNTHETIC, 0, "")
    sampled, finish, sample = threading.Semaphore(0), Job.finish, Job.sample

    def waits(self, models, part, given):
        assert sampled.acquire(timeout=600) and sampled.acquire(timeout=600)
        sampled.release()
        return finish(self, models, part, given)

    def counted(self, models, part):
        found = sample(self, models, part)
        sampled.release()
        return found

    monkeypatch.setattr(Job, "finish", waits)
    monkeypatch.setattr(Job, "sample", counted)
    results = job.generated(job.load(0), [rows[:2], rows[2:4]])
    part, first = next(results)
    assert part == rows[:2] and [record["clip_id"] for record, _ in first] == made.clip_ids[:2]
    sampled.release()
    part, second = next(results)
    assert part == rows[2:4] and [record["clip_id"] for record, _ in second] == made.clip_ids[2:4]


def test_without_retries_one_seed_is_tried(made, generate, broken, tmp_path):
    broken({seed_for(0, made.clip_ids[2]): torch.nan})
    assert len(generate(tmp_path / "s", retries=0)) == N_SYNTHETIC - 1
    (row,) = read_csv(tmp_path / "s" / "quarantine.csv")
    assert row["reason"] == "not finite (latents)"


class OddCodec(FakeCodec):
    """Has latents that are not finite for the codes of one clip."""

    def __init__(self, codes):
        super().__init__()
        self.bad = np.asarray(codes)

    def latents(self, codes):
        found = super().latents(codes)
        found[[np.array_equal(one, self.bad) for one in np.asarray(codes)]] = torch.nan
        return found


def test_a_guide_that_is_not_finite_affects_only_its_own_clips(made, generate, real, tmp_path):
    parent = made[3].parent_id
    found = generate(tmp_path / "s", codec=OddCodec(real.codes([real.clip_ids.index(parent)])[0]))
    lost = [clip.clip_id for clip in made if clip.parent_id == parent]
    assert found.clip_ids == [name for name in made.clip_ids if name not in lost] and lost
    rows = read_csv(tmp_path / "s" / "retries.csv")
    assert [row["clip_id"] for row in rows] == lost  # not retried, as another seed would not help
    assert {row["reason"] for row in rows} == {BAD_GUIDE}
    for clip in found:
        assert np.array_equal(clip.codes, made[made.clip_ids.index(clip.clip_id)].codes)


class LoudCodec(FakeCodec):
    """Decodes silence if the first code is even, and twice the level if it is odd."""

    def decode(self, codes):
        return super().decode(codes) * torch.as_tensor(codes[:, 0, 0].astype(np.int64) % 2 * 2)[:, None]


def test_silent_results_are_listed_and_not_replaced(made, generate, broken, tmp_path):
    broken({seed_for(0, made.clip_ids[4]): torch.nan})
    found = generate(tmp_path / "s", codec=LoudCodec(), retries=0)
    silent = {clip.clip_id for clip in made if clip.codes[0, 0] % 2 == 0} - {made.clip_ids[4]}
    assert 1 < len(silent) < N_SYNTHETIC - 2
    reasons = {row["clip_id"]: row["reason"] for row in read_csv(tmp_path / "s" / "quarantine.csv")}
    assert set(reasons) == silent | {made.clip_ids[4]} and "not finite" in reasons[made.clip_ids[4]]
    assert all("silent" in reasons[name] for name in silent)
    assert found.clip_ids == [name for name in made.clip_ids if name not in reasons]
    counts = dict.fromkeys(("expected", "found", "decoded"), N_SYNTHETIC)
    assert found.meta.counts["train"] == counts | {"kept": N_SYNTHETIC - len(reasons)}


def test_statistics_are_those_of_the_clips(generate, tmp_path):
    found = generate(tmp_path / "s", codec=LoudCodec(), n=12, retries=1)
    failed = read_csv(tmp_path / "s" / "retries.csv")
    lost = {row["clip_id"] for row in read_csv(tmp_path / "s" / "quarantine.csv")}
    assert failed and all(row["reason"].startswith("silent") for row in failed)
    assert lost == {row["clip_id"] for row in failed if row["attempt"] == "1"}
    ids = pq.read_table(found.path / "plan.parquet")["clip_id"].to_pylist()
    lines = read_csv(tmp_path / "s" / "statistics.csv")
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
    for row in read_csv(tmp_path / "s" / "timing.csv"):
        assert float(row["clips_per_s"]) == pytest.approx(6 / float(row["seconds"]), rel=0.05)
