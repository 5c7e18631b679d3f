"""Worker processes: what they keep between tasks, and when they end."""

import os

import pytest

from ajbench.core import cost, process_pool
from ajbench.core.device import WORKERS
from ajbench.core.errors import MissingError


def answers(count, function, *args):
    """Let workers call a function; return their process ids and answers."""
    with process_pool.borrowed(count) as lent:
        for worker in lent:
            worker.give(count, function, *args)
        found = [worker.answer() for worker in lent]
    return [worker.process.pid for worker in lent], found


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def write_settings(path):
    path.write_text(" ".join(os.environ[name] for name in ("OMP_NUM_THREADS", WORKERS)))


def test_kept_workers_do_the_next_task_and_share_the_cores_anew(tmp_path):
    with process_pool.kept():
        first, _ = answers(2, abs, -1)
        assert all(map(alive, first))
        second, _ = answers(1, write_settings, tmp_path / "settings")
        assert set(second) < set(first)
        assert (tmp_path / "settings").read_text() == "1 1"
        with process_pool.kept():
            pass
        assert all(map(alive, first))
        process_pool.end_idle()
        assert not any(map(alive, first))
    third, _ = answers(1, abs, -1)
    assert not any(map(alive, third))


def test_what_a_kept_worker_uses_is_counted_before_it_ends(monkeypatch):
    monkeypatch.setattr(cost, "_workers", {"cpu_s": 0.0, "peak_mb": 0.0})
    with process_pool.kept():
        before = cost.read().cpu_s
        answers(1, sum, range(20_000_000))
        counted = cost.read().cpu_s - before
        answers(1, abs, -1)
        again = cost.read().cpu_s - before
    assert counted > 0.1 and again < 2 * counted  # its first task is not counted again


def test_workers_end_after_an_error_here_and_answer_errors_of_their_own():
    with process_pool.kept():
        with pytest.raises(KeyboardInterrupt), process_pool.borrowed(1) as lent:
            raise KeyboardInterrupt
        assert not lent[0].process.is_alive()
        pids, (answer,) = answers(1, int, "no number")
        assert "ValueError" in answer.error and all(map(alive, pids))


def test_a_worker_that_was_killed_is_not_lent_again():
    with process_pool.kept():
        with process_pool.borrowed(1) as lent:
            pass
        lent[0].process.kill()
        lent[0].process.join()
        again, _ = answers(1, abs, -1)
        assert again[0] != lent[0].process.pid
        with pytest.raises(process_pool.WorkerDied, match="9"):
            answers(1, os._exit, 9)


def write_gpus(path):
    path.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("given", ["4,GPU-ab", None])
def test_workers_take_the_gpus_in_turn(tmp_path, monkeypatch, given, first):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with process_pool.borrowed(3, first=first) as lent:
        for number, worker in enumerate(lent):
            worker.give(3, write_gpus, tmp_path / str(number))
        assert all(worker.answer().error is None for worker in lent)
    found = [(tmp_path / str(number)).read_text() for number in range(3)]
    gpus = ["4", "GPU-ab"] if given else ["0", "1"]
    assert found == [gpus[(first + number) % 2] for number in range(3)]
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == given


def end_abruptly(code):
    os._exit(code)


def test_tasks_are_shared_and_a_killed_worker_is_told(tmp_path):
    done = []
    tasks = [(str(number), (tmp_path / str(number),)) for number in range(4)]
    process_pool.share(write_gpus, tasks, 2, done.append)
    assert sorted(done) == [0, 1, 2, 3] and len(list(tmp_path.iterdir())) == 4
    with pytest.raises(MissingError, match=r"second: .* code 3, .* with less of it"):
        process_pool.share(end_abruptly, [("second", (3,))], 2, done.append, fewer="less of it")
