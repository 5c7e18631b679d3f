"""What a stage used: time, CPU time, memory, disk, energy counters."""

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from ajbench.core import cost


def test_cpu_time_is_that_of_the_process_and_its_children():
    before = cost.read()
    subprocess.run([sys.executable, "-c", "sum(k * k for k in range(3_000_000))"], check=True)
    ends = time.process_time() + 0.1
    while time.process_time() < ends:
        pass
    found = cost.used(before, "cpu")
    assert found["cpu_seconds"] > 0.15 and found["seconds"] > 0
    assert "gpu_seconds" not in found and found["peak_memory_mb"] > 20


def test_workers_that_do_not_end_are_counted(monkeypatch):
    monkeypatch.setattr(cost, "_workers", {"cpu_s": 0.0, "peak_mb": 0.0})
    before = cost.read()
    cost.count_worker(7.5, 1e6)
    cost.count_worker(1.5, 10)
    found = cost.used(before, "cpu")
    assert 9 <= found["cpu_seconds"] < 10 and found["peak_memory_mb"] == 1e6


def test_waiting_takes_time_but_no_cpu_time():
    before = cost.read()
    time.sleep(0.3)
    found = cost.used(before, "cpu")
    assert found["seconds"] >= 0.3 > 0.2 > found["cpu_seconds"]


@pytest.fixture
def counters(tmp_path, monkeypatch):
    """count(package, microjoules) sets the counter of a processor package."""

    def count(package, microjoules):
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "energy_uj").write_text(f"{microjoules}\n")

    monkeypatch.setattr(cost, "RAPL", tmp_path)
    return count


def test_energy_is_the_sum_of_the_packages_without_their_parts(counters):
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        counters(name, 5_000_000)
    before = cost.read()
    assert before.joules == {"intel-rapl:0": 5.0, "intel-rapl:1": 5.0}
    counters("intel-rapl:0", 7_000_000)
    counters("intel-rapl:1", 8_500_000)
    assert cost.used(before, "cpu")["energy_j"] == 5.5
    counters("intel-rapl:1", 1_000_000)  # wrapped
    assert "energy_j" not in cost.used(before, "cpu")


def test_energy_that_lacks_the_gpu_is_left_out(counters, monkeypatch):
    counters("intel-rapl:0", 5_000_000)
    gpu = {}
    monkeypatch.setattr(cost, "_gpu_joules", lambda: gpu)
    before = cost.read()
    assert "energy_j" in cost.used(before, "cpu")
    assert "energy_j" not in cost.used(before, "cuda")  # NVIDIA's library is not installed
    gpu = {"gpu0": 7.0}
    assert "energy_j" not in cost.used(before, "cuda") and "energy_j" not in cost.used(before, "cpu")
    before = cost.read()
    gpu = {"gpu0": 9.5}
    assert cost.used(before, "cuda")["energy_j"] == 2.5


def test_the_gpu_is_counted_before_torch_uses_it(monkeypatch):
    library = types.ModuleType("pynvml")
    library.NVMLError = RuntimeError
    library.nvmlInit, library.nvmlDeviceGetCount = (lambda: None), (lambda: 2)
    library.nvmlDeviceGetHandleByIndex = lambda k: k
    library.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 1500 * (handle + 1)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert cost._gpu_joules() == {"gpu0": 1.5, "gpu1": 3.0}


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset on Linux only")
def test_memory_is_that_of_the_stage(monkeypatch):
    monkeypatch.setattr(cost, "_workers", {"cpu_s": 0.0, "peak_mb": 0.0})
    cost.count_worker(0, 1e6)
    many = b"x" * 300_000_000
    before = cost.read()
    high = cost.used(before, "cpu")["peak_memory_mb"]
    assert high == 1e6 and many
    del many
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

    def child(size_mb):
        code = f"x = bytearray(b'x' * {int(size_mb * 2**20)})"
        subprocess.run([sys.executable, "-c", code], check=True)

    child(resident + 300)
    assert cost.used(cost.start(), "cpu")["peak_memory_mb"] < resident + 150
    before = cost.start()
    child(resident + 400)
    assert cost.used(before, "cpu")["peak_memory_mb"] > resident + 400


def test_a_machine_without_counters_has_no_energy(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "RAPL", tmp_path / "none")
    assert "energy_j" not in cost.used(cost.read(), "cpu")


def test_links_are_no_disk_space(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a").write_bytes(bytes(2_000_000))
    (tmp_path / "b").symlink_to(tmp_path / "deep/a")
    assert cost.disk_mb(tmp_path) == 2.0


def test_two_sessions_are_added():
    one = {"seconds": 2.5, "cpu_seconds": 4.0, "energy_j": 10.0, "peak_memory_mb": 300.0}
    other = {"seconds": 1.0, "cpu_seconds": 0.5, "energy_j": 2.0, "peak_memory_mb": 200.0}
    assert cost.added(one, other) == {
        "seconds": 3.5,
        "cpu_seconds": 4.5,
        "energy_j": 12.0,
        "peak_memory_mb": 300.0,
    }
    assert cost.added({}, other) == other
    gpu = other | {"gpu_seconds": 1.0, "gpu_peak_memory_mb": 7.0}
    assert cost.added(one, gpu).items() >= {"gpu_seconds": 1.0, "gpu_peak_memory_mb": 7.0}.items()
    assert cost.added(gpu, one)["gpu_seconds"] == 1.0
    for some in (one, other):  # a part of the energy is not the energy
        less = {name: value for name, value in some.items() if name != "energy_j"}
        assert "energy_j" not in cost.added(less, other) and "energy_j" not in cost.added(other, less)
