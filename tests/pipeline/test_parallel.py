"""Stages in worker processes: order, threads, failures and Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ajbench.core import console, process_pool, recipe
from ajbench.core.errors import MissingError, NumericError
from ajbench.pipeline.parallel import run_in_workers
from ajbench.pipeline.stage import Stage, run_stages, side_by_side

ROOT = Path(__file__).parents[2]


def act(folder, what):
    """Do something quick instead of training."""
    if what == "nan":
        raise NumericError("loss is NaN at step 3")
    if what == "tell":
        console.say("3 of 9 captions are cut")
        console.tally("cut", f"{folder.name}.wav")
    if what == "bug":
        raise ZeroDivisionError("a bug")
    if what == "gone":
        (folder / "shard").read_bytes()
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "slow":
        try:
            (folder / "begun").touch()
            time.sleep(600)
        except KeyboardInterrupt:
            (folder / "saved").touch()
            raise
    (folder / "threads").write_text(os.environ["OMP_NUM_THREADS"])
    (folder / "process").write_text(f"{os.getpid()} {[one.process.is_alive() for one in process_pool._IDLE]}")


def stage(folder, what="write", needs=()):
    do, how = partial(act, folder, what), {"needs": needs, "parallel": True}
    return Stage("train-cls", recipe.load("mini"), folder, "abc" + folder.name, "", do, folder.name, **how)


def test_parallel_stages_run_with_one_thread_each_after_those_they_need(tmp_path):
    # Its function cannot be pickled.
    real = Stage("prepare", recipe.load("mini"), tmp_path / "real", "real", "", lambda: None)
    first = [stage(tmp_path / str(number)) for number in range(3)]
    needing = stage(tmp_path / "needing", needs=(real, first[0]))
    before = os.environ.get("OMP_NUM_THREADS")
    run_stages([real, *first, needing], "cpu", workers=2)
    assert all(one.done() for one in (*first, needing))
    assert {(one.path / "threads").read_text() for one in first} == {"1"}
    assert os.environ.get("OMP_NUM_THREADS") == before
    began = (needing.path / "threads").stat().st_mtime_ns
    assert all(began > (one.path / "DONE").stat().st_mtime_ns for one in first)


def test_a_run_keeps_its_workers_while_they_can_be_used(tmp_path):
    first, second = ([stage(tmp_path / f"{name}{k}") for k in range(2)] for name in ("a", "b"))
    second = [replace(one, name="invert") for one in second]
    made = [replace(stage(tmp_path / name), name=name, parallel=False) for name in ("prepare", "eval-cls")]
    run_stages([*first, made[0], *second, made[1]], "cpu", workers=2)
    of = lambda stages: [(one.path / "process").read_text() for one in stages]  # noqa: E731
    assert set(of(first)) == set(of(second)) and len(set(of(first))) == 2
    assert of(made) == [f"{os.getpid()} [True, True]", f"{os.getpid()} []"]
    assert not process_pool._IDLE


@pytest.mark.parametrize(
    ("stages", "workers", "engine", "here"),
    [(2, 2, "local", False), (2, 1, "local", True), (1, 2, "local", True), (2, 2, "ray", True)],
)
def test_generators_run_here_unless_several_can_run(tmp_path, monkeypatch, stages, workers, engine, here):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # of this process
    made = [replace(stage(tmp_path / str(k)), alone=True, checks=(lambda: None,)) for k in range(stages)]
    run_stages(made, "cpu", workers=workers, engine=engine)
    assert {(one.path / "threads").read_text() for one in made} == {"5" if here else "1"}


def test_messages_of_workers_are_told_with_the_stage_they_are_of(tmp_path, capsys):
    console.configure()
    run_stages([stage(tmp_path / "one", "tell"), stage(tmp_path / "two")], "cpu", workers=2)
    told = capsys.readouterr().err
    assert re.search(r"^train-cls .*one.*: 3 of 9 captions are cut$", told, re.MULTILINE)
    assert "two" not in told
    assert console.take_tallies() == {"cut": ["one.wav"]}


def test_stages_that_may_run_at_the_same_time_are_neighbours(tmp_path):
    def named(name, fold, *needs):
        return replace(stage(tmp_path / f"{name}{fold}", needs=needs), name=name)

    folds = []
    for fold in range(2):
        real = named("prepare", 0)  # shared
        generator = named("train-gen", fold, real)
        tokens = named("invert", fold, real, generator)
        folds.append(named("synth", fold, real, generator, tokens))
    found = [one.path.name for one in side_by_side(folds)]
    assert found == ["prepare0", "train-gen0", "train-gen1", "invert0", "invert1", "synth0", "synth1"]


def test_a_worker_that_dies_before_it_reads_its_stage_is_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # no Python starts with it
    with pytest.raises(MissingError, match=r"\(bad\): .*code 1.*--jobs"):
        run_in_workers([stage(tmp_path / "bad", "write")], 1, "cpu")


@pytest.mark.parametrize(
    ("what", "error", "match"),
    [
        ("nan", NumericError, r"\(bad\): loss is NaN at step 3"),
        ("bug", RuntimeError, "ZeroDivisionError: a bug"),
        ("die", MissingError, "code -9.*--jobs"),
        ("gone", MissingError, r"\(bad\): .*shard: no such file"),
    ],
)
def test_a_stage_that_fails_stops_the_others_after_they_have_saved(tmp_path, what, error, match):
    slow = stage(tmp_path / "slow", "slow")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup; workers must not ignore it
    try:
        with pytest.raises(error, match=match):
            run_in_workers([slow, stage(tmp_path / "bad", what)], 2, "cpu")
    finally:
        signal.signal(signal.SIGINT, before)
    assert not slow.done()
    assert (slow.path / "saved").exists() or not (slow.path / "begun").exists()


def test_ctrl_c_reaches_every_stage_once_and_leaves_saved_state(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import signal, sys
from pathlib import Path
from tests.pipeline.test_parallel import stage
from ajbench.pipeline.parallel import run_in_workers
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run_in_workers([stage(Path(sys.argv[1]) / name, "slow") for name in "ab"], 2, "cpu")
    except KeyboardInterrupt:
        sys.exit(130)""")
    command, environment = [sys.executable, str(script), str(tmp_path)], {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, start_new_session=True, env=os.environ | environment)
    while not all((tmp_path / name / "begun").exists() for name in "ab"):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=600) == 130
    assert all((tmp_path / name / "saved").exists() for name in "ab")


@pytest.mark.slow
def test_a_grid_on_ray_with_a_killed_worker_has_the_same_scores(job_on_ray, tmp_path):
    found = job_on_ray("grid")
    assert (tmp_path / "killed").exists()
    assert found["ray"] == found["local"] and len(found["ray"]) == 2 * 3
    assert found["local resumed"] == [["0"], ["0"], ["0"]]
    assert found["ray resumed"] == [["0"], ["0", "5"], ["0"]]  # from the checkpoint of the dead worker
    assert found["ray commands"] == found["local commands"]


@pytest.mark.slow
def test_a_stage_that_fails_on_ray_raises_what_it_raises_here_and_lets_the_others_save(job_on_ray):
    found = job_on_ray("failures")
    assert found["nan"] == ["NumericError", "nan: loss is NaN at step 3"]
    assert found["bug"][0] == "RuntimeError" and "ZeroDivisionError: a bug" in found["bug"][1]
    assert found["die"][0] == "MissingError" and re.match(r"die: .*--jobs$", found["die"][1])
    assert all(found[f"{what}: the other"] for what in ("nan", "bug", "die"))


@pytest.mark.slow
def test_ctrl_c_ends_a_run_on_ray_after_all_stages_have_saved(ray_settings, tmp_path):
    command = [sys.executable, Path(__file__).with_name("jobs_on_ray.py"), "interrupted", tmp_path]
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | ray_settings | {"PYTHONPATH": paths}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)
    while not all((tmp_path / name / "slow" / "begun").exists() for name in "ab"):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=300)[0].split()[-1] == b"130"
    assert all((tmp_path / name / "slow" / "saved").exists() for name in "ab")
