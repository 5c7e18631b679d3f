"""Run by tests in a process of its own: jobs shared by two workers of Ray, of which one is killed.

`python jobs_on_ray.py JOB FOLDER` prints a JSON object with what each way of doing the job has made.
"""

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import ray
import soundfile
from fakes import FakeCodec, hum_recipe, hum_record, hum_store, store_digests

from ajbench.core import console
from ajbench.core.errors import AjbenchError, NumericError
from ajbench.core.files import sha256
from ajbench.core.recipe import CodecSection, Data, Recipe, load
from ajbench.pipeline.cell_training import Inputs, train_and_score
from ajbench.pipeline.prepare import prepare
from ajbench.pipeline.stage import Stage, run_stages
from ajbench.training.state import State

STEP = 5  # whose checkpoint the killed training has written


class Deadly(FakeCodec):
    """Kills its process, once, at the third batch of it."""

    def __init__(self, killed):
        super().__init__()
        self.killed, self.batches = killed, 0

    def encode(self, wav):
        self.batches += 1
        if self.batches == 3 and not self.killed.exists():
            die(self.killed)
        return super().encode(wav)


def die(killed):
    killed.write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


def prepared(home):
    """Prepare a corpus with a duplicate in another shard and a short file, here and on Ray."""
    rng = np.random.default_rng(3)
    for k in range(60):
        path = home / "corpus" / ("eval" if k % 3 == 2 else "train") / "ab"[k % 2] / f"{k:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.5, 0.5, 2000 if k == 40 else 6720), 16_000)
    first, other = (home / "corpus" / name for name in ("train/a/00.wav", "train/b/57.wav"))
    other.write_bytes(first.read_bytes())
    recipe = Recipe(name="r", data=Data(corpus="folder", duration_s=0.42), codec=CodecSection(name="tiny"))
    found = {}
    for name, codec in (("local", FakeCodec()), ("ray", Deadly(home / "killed"))):
        how = {"codec": codec, "shard_clips": 20, "engine": name}
        prepare(recipe, home / "corpus", home / name, fingerprint="abc", **how)
        found[name] = store_digests(home / name)
        found[f"{name} tallies"] = console.take_tallies()
    return found


def train(home, log, killed, *arguments, **how):
    """Train a cell; the first process that writes the checkpoint of `STEP` is killed."""
    resume, save = State.resume, State.save

    def logged(state, folder):
        first = resume(state, folder)
        with log.open("a") as file:
            file.write(f"{first}\n")
        return first

    def save_and_die(state, folder, step):
        save(state, folder, step)
        if killed and step == STEP and not killed.exists():
            die(killed)

    with patch.object(State, "resume", logged), patch.object(State, "save", save_and_die):
        train_and_score(*arguments, **how)


def cells(home, name, killed=None):
    recipe = hum_recipe()
    for seed in (0, 1, 2):
        out = home / name / f"cell-{seed}"
        about = home, home / f"{name}-{seed}.log", killed if seed == 1 else None, recipe
        do = partial(train, *about, Inputs(home / "real", seed), out=out, fingerprint=f"f{seed}")
        more = {"seed": seed, "parallel": True}
        yield Stage("train-cls", recipe, out, f"f{seed}", "", do, f"seed {seed}", **more)


def grid(home):
    """Train three cells, in processes of this machine and on Ray."""
    hum_store(home / "real", [hum_record(i) for i in range(18)])
    found = {}
    for name, killed in (("local", None), ("ray", home / "killed")):
        stages = list(cells(home, name, killed))
        run_stages(stages, "cpu", workers=2, engine=name)
        found[name] = {
            str(path.relative_to(home / name)): sha256(path)
            for stage in stages
            for path in (stage.path / "scores.npz", stage.path / "model.safetensors")
        }
        found[f"{name} resumed"] = [(home / f"{name}-{seed}.log").read_text().split() for seed in (0, 1, 2)]
        found[f"{name} commands"] = [stage.folder.info()["command"] for stage in stages]
    return found


def act(folder, what):
    if what == "nan":
        raise NumericError("loss is NaN at step 3")
    if what == "bug":
        raise ZeroDivisionError("a bug")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        (folder / "begun").touch()
        while True:  # Ray does not interrupt one long sleep
            time.sleep(0.05)
    except KeyboardInterrupt:
        (folder / "saved").touch()
        raise


def acting(home, what):
    do = partial(act, home / what, what)
    return Stage("train-cls", load("mini"), home / what, what, "", do, what, parallel=True)


def failures(home):
    """Run a stage that fails beside one that does not end; return what is raised."""
    found = {}
    for what in ("nan", "bug", "die"):
        slow = acting(home / what, "slow")
        try:
            run_stages([slow, acting(home / what, what)], "cpu", workers=2, engine="ray")
        except (AjbenchError, RuntimeError) as error:
            found[what] = [type(error).__name__, str(error)]
        begun, saved = (slow.path / "begun").exists(), (slow.path / "saved").exists()
        found[f"{what}: the other"] = not slow.done() and (saved or not begun)
    return found


def interrupted(home):
    """Run two stages until Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run_stages([acting(home / name, "slow") for name in "ab"], "cpu", workers=2, engine="ray")
    except KeyboardInterrupt:
        return 130
    return 0


JOBS = {job.__name__: job for job in (prepared, grid, failures, interrupted)}

if __name__ == "__main__":
    console.configure(quiet=True)
    ray.init(num_cpus=2, object_store_memory=1 << 27, include_dashboard=False, log_to_driver=False)
    answer = JOBS[sys.argv[1]](Path(sys.argv[2]))
    sys.stdout.write("\n" + json.dumps(answer))
