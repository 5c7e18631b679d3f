"""Several processes that share a synthesis: progress, failures and their exit codes."""

import os
import signal

import pytest
import torch

from ajbench.core import process_pool
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.generation import processes


class Shards:
    """Two shards of three clips, each written as a file."""

    shards = (0, 1)

    def __init__(self, folder):
        self.folder = folder

    def written(self, shard):
        return (self.folder / str(shard)).exists()

    def items(self, shard):
        return range(3)


class Job:
    """A job whose processes do what `acts` says of their rank."""

    def __init__(self, folder, acts=("write", "write")):
        self.out, self.acts, self.shards = folder, acts, Shards(folder)

    def work(self, rank, advance):
        if self.acts[rank] == "refuse":
            raise IntegrityError("plan.parquet: damaged")
        if self.acts[rank] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        (self.out / str(rank)).write_text(str(os.getpid()))


def share(job):
    done = []
    processes.share(job, 2, 0, done.append)
    return sum(done)


def test_processes_share_a_job_and_are_kept_within_a_run(tmp_path):
    assert share(Job(tmp_path)) == 6
    with process_pool.kept():
        pids = []
        for name in "ab":
            (tmp_path / name).mkdir()
            share(Job(tmp_path / name))
            pids.append({(tmp_path / name / str(rank)).read_text() for rank in range(2)})
    assert pids[0] == pids[1] and len(pids[0]) == 2 and str(os.getpid()) not in pids[0]


class OnGPU(Job):
    def work(self, rank, advance):
        (self.out / str(rank % 2)).write_text(os.environ["CUDA_VISIBLE_DEVICES"])


def test_processes_of_a_second_launched_one_take_the_gpus_behind_those_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    processes.share(OnGPU(tmp_path), 2, 2, lambda clips: None)
    assert [(tmp_path / name).read_text() for name in "01"] == ["2", "3"]


@pytest.mark.parametrize(
    ("act", "error", "match"),
    [
        ("refuse", IntegrityError, "plan.parquet: damaged"),
        ("die", MissingError, "a process was killed.*--processes"),
    ],
)
def test_what_stops_a_process_stops_the_job(tmp_path, act, error, match):
    with pytest.raises(error, match=match):
        share(Job(tmp_path, ("write", act)))
