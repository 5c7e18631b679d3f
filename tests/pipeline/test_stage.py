"""A stage's folder, lock and state, and the one function that runs stages."""

import shutil
import threading
import time
from functools import partial

import pytest
import torch
from fakes import free_port, join_launch, launch

from ajbench.core import recipe, run_dir
from ajbench.core.errors import MissingError, NumericError, UsageError
from ajbench.core.files import lock
from ajbench.core.run_dir import RunDir
from ajbench.pipeline.stage import LONGEST_WAIT, Stage, in_order, lacking, run_stages, unfinished


def stage(folder, do=lambda: None, name="prepare", **more):
    return Stage(name, recipe.load("mini"), folder, folder.name, "1 clip", do, **more)


def test_a_stage_runs_once_and_again_with_force(tmp_path):
    runs = []
    one = stage(tmp_path / "one", lambda: runs.append(1), what="probe")
    assert run_stages([one], "cpu") == ["prepare (probe)"]
    assert run_stages([one], "cpu") == []
    assert run_stages([one], "cpu", force=True) == ["prepare (probe)"]
    assert len(runs) == 2
    assert one.need() == tmp_path / "one"
    assert one.folder.info()["device"] == "cpu"
    for setting, used in (("auto", "fp32"), ("bf16", "bf16")):
        run_stages([stage(tmp_path / "one", precision=setting)], "cpu", force=True)
        assert one.folder.info()["precision"] == used


def test_a_stage_that_follows_its_needs_is_done_again_after_them(tmp_path, monkeypatch):
    times = iter(f"t{n}" for n in range(20))
    monkeypatch.setattr(run_dir, "_now", lambda: next(times))
    first = stage(tmp_path / "first", name="train-cls")
    others = [stage(tmp_path / f"{follows}", needs=(first,), follows=follows) for follows in (True, False)]
    follower, other = others
    assert run_stages([first, *others], "cpu") and all(one.done() for one in others)
    run_stages([first], "cpu", force=True)
    assert not follower.done() and other.done()
    assert run_stages([first, *others], "cpu") == ["prepare"] and follower.done()
    shutil.rmtree(first.path)  # to save space
    assert follower.done()


def test_a_stage_gives_its_gpu_memory_back(tmp_path, monkeypatch):
    freed, folder = [], tmp_path / "one"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append((folder / "work").exists()))
    run_stages([stage(folder, lambda: (folder / "work").touch())], "cpu")
    assert freed == [True]


def test_a_stage_that_fails_is_not_finished(tmp_path):
    def fail():
        raise NumericError("NaN")

    with pytest.raises(NumericError):
        run_stages([stage(tmp_path / "one", fail)], "cpu")
    assert not stage(tmp_path / "one").done()
    assert run_stages([stage(tmp_path / "one")], "cpu")


def test_a_stage_whose_needs_are_not_finished_makes_nothing(tmp_path):
    first = stage(tmp_path / "first")
    second = stage(tmp_path / "second", name="synth", needs=(first,))
    with pytest.raises(MissingError, match="ajbench prepare"):
        run_stages([second], "cpu")
    assert not list(tmp_path.iterdir())
    assert [one.name for one in in_order([second, first])] == ["prepare", "synth"]
    assert run_stages(in_order([second]), "cpu") == ["prepare", "synth"]


def test_two_processes_do_not_run_one_stage(tmp_path):
    with lock(tmp_path / ".one.lock"), pytest.raises(MissingError, match=r"\.one\.lock"):
        run_stages([stage(tmp_path / "one")], "cpu")


def test_processes_that_share_a_stage_all_end_and_one_finishes_it(tmp_path):
    def do():
        # For the files this is another process that does the same work at the same time.
        assert not stage(tmp_path / "one").done()
        inner.run("cpu")

    inner = stage(tmp_path / "one", shared=True)
    assert run_stages([stage(tmp_path / "one", do, shared=True)], "cpu")
    assert inner.done()
    assert inner.folder.info()["sessions"] == 2


def wait_together(rank, processes, port, folder):
    join_launch(rank, processes, port)
    run_stages([stage(folder, name="train-gen", distributed=True)], "cpu")
    group = torch.distributed.group.WORLD._get_backend(torch.device("cpu"))
    assert group.options._timeout == LONGEST_WAIT


def test_launched_processes_wait_for_each_other_for_days(tmp_path):
    launch(wait_together, (2, free_port(), tmp_path / "one"))
    assert LONGEST_WAIT.days >= 1 and stage(tmp_path / "one", name="train-gen").done()


def test_a_stage_of_one_process_is_not_launched_in_several(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        UsageError, match=r"eval-gen: .*train-codec, train-gen, invert, synth, train-cls or train-av"
    ):
        run_stages([stage(tmp_path / "one", name="eval-gen")], "cpu")


def test_a_disk_that_is_full_at_the_end_of_a_shared_stage_ends_it(tmp_path, monkeypatch):
    def full(self, record):
        raise MissingError("DONE: no space left")

    monkeypatch.setattr(RunDir, "finish", full)
    with pytest.raises(MissingError, match="no space"):
        run_stages([stage(tmp_path / "one", shared=True)], "cpu")


def test_missing_weights_and_a_full_disk_are_found_before_any_work(tmp_path):
    def check():
        raise MissingError("weights.pt")

    small = stage(tmp_path / "small")
    for problem, match in (({"checks": (check,)}, "weights.pt"), ({"disk_mb": 1e12}, "MB needed")):
        with pytest.raises(MissingError, match=match):
            run_stages([small, stage(tmp_path / "large", **problem)], "cpu")
    assert not list(tmp_path.iterdir())


def test_everything_that_stages_lack_is_listed_once(tmp_path):
    def missing(name):
        raise MissingError(name)

    checks = [partial(missing, name) for name in ("codec.pt", "encoder.pt", "clips")]
    made = [stage(tmp_path / name, checks=tuple(checks[:n])) for name, n in (("one", 2), ("two", 3))]
    assert lacking(made) == ["codec.pt", "encoder.pt", "clips"]


def test_unfinished_needs_are_found_without_those_of_finished_stages(tmp_path):
    deep = stage(tmp_path / "deep")
    done = stage(tmp_path / "done", needs=(deep,))
    open_ = stage(tmp_path / "open", needs=(done,))
    last = stage(tmp_path / "last", needs=(open_, done))
    run_stages([deep, done], "cpu")
    shutil.rmtree(deep.path)  # as on a machine that has the stores alone
    assert unfinished([last]) == [open_, last]


def test_a_stage_that_waits_is_done_once_by_whoever_is_first(tmp_path, capsys):
    calls = []

    def do():
        calls.append(1)
        time.sleep(0.3)

    def run():
        run_stages([stage(tmp_path / "one", do, waits=True)], "cpu")

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1] and stage(tmp_path / "one").done()
    assert "another process does it; waiting" in capsys.readouterr().err
