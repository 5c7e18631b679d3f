"""Precision, and the memory of a GPU."""

import os
import threading
import weakref

import pytest
import torch

from ajbench.core import device as module
from ajbench.core.device import full_fp32, readers, release_gpu_memory, resolve_precision


@pytest.mark.parametrize(("device", "auto"), [("cpu", "fp32"), ("mps", "fp32"), ("cuda", "bf16")])
def test_auto_is_bf16_on_cuda_alone_and_a_named_precision_is_kept(device, auto):
    assert resolve_precision("auto", device) == auto
    assert [resolve_precision(name, device) for name in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_full_fp32_holds_within_its_block_alone_also_after_an_error(monkeypatch):
    monkeypatch.setattr(
        torch.backends.cudnn, "allow_tf32", True
    )  # torch's default, which rounds convolutions

    def tf32():
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = tf32()
    assert before[0]
    for error in (None, ValueError):
        try:
            with full_fp32():
                assert tf32() == (False, False)
                if error:
                    raise error
        except ValueError:
            pass
        assert tf32() == before


def test_full_fp32_of_one_thread_outlasts_that_of_another(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    inside, leave = threading.Event(), threading.Event()

    def other():
        with full_fp32():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with full_fp32():
        leave.set()
        thread.join()
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32


class Cycle:
    def __init__(self):
        self.own = self


def test_gpu_memory_of_finished_work_is_given_back(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(kept() is None))
    for used in (False, True):
        kept = weakref.ref(Cycle())
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda used=used: used)
        release_gpu_memory()
    assert emptied == [True]


@pytest.mark.parametrize("shared_with", ["LOCAL_WORLD_SIZE", module.WORKERS])
def test_decoding_has_the_cores_of_a_process(monkeypatch, shared_with):
    for cores, processes, expected in ((1, 1, 2), (2, 1, 2), (16, 1, 16), (192, 8, 24), (96, 1, 32)):
        monkeypatch.setattr(module.os, "sched_getaffinity", lambda _, n=cores: range(n), raising=False)
        monkeypatch.setenv(shared_with, str(processes))
        assert readers() == expected


@pytest.mark.parametrize(
    ("line", "files", "limit"),
    [
        ("0::/slurm/job_7/step", {"slurm/job_7/memory.max": "7000000", "memory.max": "max"}, 7_000_000),
        ("0::/", {"memory.max": "9000000"}, 9_000_000),
        ("4:memory:/job", {"memory/job/memory.limit_in_bytes": "5000000"}, 5_000_000),
        ("4:cpu:/job", {"memory.max": "1"}, None),
        ("0::/", {"memory.max": "max"}, None),
    ],
)
def test_the_memory_of_a_process_is_its_share_of_the_jobs_limit(tmp_path, monkeypatch, line, files, limit):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.delenv(module.WORKERS, raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    (tmp_path / "own").write_text(f"{line}\n")
    machine = module.memory_share(tmp_path / "none", tmp_path / "no file")
    assert machine == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert module.memory_share(tmp_path, tmp_path / "own") == (limit or machine)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv(module.WORKERS, "2")
    assert module.memory_share(tmp_path, tmp_path / "own") == (limit or machine) // 8
