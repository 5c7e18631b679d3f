"""The ground of benchmarks/faults.py: a small corpus, the commands, and what each of them leaves."""

import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hostile_runs
import numpy as np
import soundfile

RATE = 16_000
SAMPLES = 13_440  # 0.84 s
CLASSES = ("Bell", "Engine", "Rain")
CLIPS_OF_CLASS = 8
SHARD_CLIPS = 6  # a store of real clips has several shards, so that a kill finds some written
RECIPE = """extends: mini
name: small
data: {corpus: folder, duration_s: 0.84}
generator: {train_steps: 6, batch_size: 2, warmup_steps: 1, checkpoint_every: 2}
invert: {train_steps: 6, batch_size: 2, checkpoint_every: 2}
synth: {n: 12, sampler_steps: 2, micro_batch: 2, shard_size: 3, strength: 0.3, guidance: 1, prompt: tokens}
classifier: {train_steps: 12, warmup_steps: 1, batch_size: 4, checkpoint_every: 3, specaug_time: 16}
mix: {real: all}
evaluate:
  models: [{name: taltrans-small, aug: none}]
  doses: [4]
  controls: []
  pools: []
  seeds: [0]
  synthetic_only: false
  bootstrap: 100
  probes: {}
"""
WITH_VIDEO = """extends: mini-av
name: small-av
data: {n_clips: 32, duration_s: 0.84}
fusion: {train_steps: 12, batch_size: 4, warmup_steps: 1, checkpoint_every: 3, width: 16}
classifier: {train_steps: 6, warmup_steps: 1, batch_size: 4, checkpoint_every: 2, specaug_time: 16}
evaluate: {seeds: [0], bootstrap: 100}
"""
# Of run.json: what depends on the moment, the machine's load, the working copy or the number of attempts.
OF_ATTEMPT = {
    "started", "finished", "sessions", "seconds", "cpu_seconds", "gpu_seconds", "peak_memory_mb", "disk_mb",
    "git", "command", "threads", "read", "seal",
}  # fmt: skip
LIMIT_S = 300.0  # of processor time of a command, or of waiting without using any
CPU = ("--device", "cpu")
COST = re.compile(rb'<h2 id="cost">.*(?=<h2 id="made">)', re.DOTALL)
TIMES = {"metrics.csv": ("seconds",), "rows.csv": ("time", "seconds", "git")}
UNCOUNTED = ("timing.csv", hostile_runs.OUTPUT)


@dataclass(frozen=True)
class Command:
    """A command of ajbench as it is run here.

    Attributes:
        arguments: of the command line, in the folder of the ground.
        after: commands that must be finished before it.
        outputs: folders that it writes to, as patterns in the folder of the ground.
    """

    arguments: tuple[str, ...]
    after: tuple[str, ...]
    outputs: tuple[str, ...]


def _stage(name: str, *after: str, more: tuple[str, ...] = ()) -> Command:
    return Command((name, "--recipe", "small.yaml", "--data", "corpus", *CPU, *more), after, ("work",))


COMMANDS = {
    "prepare": _stage("prepare"),
    "train-gen": _stage("train-gen", "prepare"),
    "invert": _stage("invert", "prepare", "train-gen"),
    "synth": _stage("synth", "prepare", "train-gen", "invert"),
    "train-cls": _stage("train-cls", "prepare", "train-gen", "invert", "synth", more=("mix.dose=4",)),
    "train-av": Command(("train-av", "--recipe", "small-av.yaml", *CPU), ("prepare-av",), ("work",)),
    "caption": Command(
        ("caption", "--recipe", "small.yaml", "--data", "corpus", "--out", "captions", "--chunk", "4"),
        (),
        ("captions",),
    ),
    "eval-gen": _stage("eval-gen", "prepare", "train-gen", "invert", "synth", "reference"),
    "run": Command(("run", "small.yaml", "--data", "corpus", "--jobs", "1", *CPU), (), ("work", "results")),
}
_EARLIER = COMMANDS | {
    "prepare-av": Command(("prepare", "--recipe", "small-av.yaml", *CPU), (), ("work",)),
    "reference": Command(("run", "small.yaml", "--data", "corpus", "--cell", "1", *CPU), (), ("work",)),
}


def import_libraries() -> None:
    """Import what the commands import, once for all children, so that a kill hits work and not imports."""
    import accelerate  # noqa: F401
    import diffusers  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import scipy.linalg  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import transformers  # noqa: F401

    import ajbench.cli.app
    import ajbench.generation.worker
    import ajbench.pipeline.parallel
    import ajbench.pipeline.prepare as real_clips
    import ajbench.pipeline.recipe_stages
    import ajbench.pipeline.results_folder  # noqa: F401

    defaults = real_clips.prepare.__kwdefaults__
    assert defaults and "shard_clips" in defaults
    defaults["shard_clips"] = SHARD_CLIPS


def write_corpus(folder: Path) -> None:
    """Write the sounds of three classes, and the recipes, into `folder`."""
    rng = np.random.default_rng(0)
    seconds = np.arange(SAMPLES) / RATE
    for number, name in enumerate(CLASSES):
        (folder / "corpus" / name).mkdir(parents=True)
        for clip in range(CLIPS_OF_CLASS):
            tone = np.sin(2 * np.pi * (200 + 300 * number + 20 * clip) * seconds)
            wave = 0.3 * tone + 0.05 * rng.normal(size=SAMPLES)
            path = folder / "corpus" / name / f"{name.lower()}-{clip}.wav"
            soundfile.write(path, wave, RATE, subtype="PCM_16")
    (folder / "small.yaml").write_text(RECIPE)
    (folder / "small-av.yaml").write_text(WITH_VIDEO)


class Ground:
    """Folders in which some commands are finished, made once and copied for every try.

    Args:
        place: where commands run, always the same, as some outputs contain paths.
        keep: where the folders are kept.
    """

    def __init__(self, place: Path, keep: Path) -> None:
        self.place, self._keep = place, keep
        self._made: dict[tuple[str, ...], Path] = {}

    def reset(self, after: tuple[str, ...]) -> None:
        """Make `place` a folder in which exactly these commands are finished.

        Raises:
            RuntimeError: one of them fails.
        """
        if after not in self._made:
            if after:
                self.reset(after[:-1])
                done = hostile_runs.run(_EARLIER[after[-1]].arguments, self.place, LIMIT_S)
                if done.code:
                    raise RuntimeError(f"{after[-1]}: {done.text[-500:]}")
            else:
                empty(self.place)
                write_corpus(self.place)
            self._made[after] = self._keep / f"after-{len(self._made)}"
            shutil.copytree(self.place, self._made[after])
        empty(self.place)
        shutil.copytree(self._made[after], self.place, dirs_exist_ok=True)


def empty(folder: Path) -> None:
    """Delete what is in a folder."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def contents(place: Path, outputs: tuple[str, ...]) -> dict[str, str]:
    """Return a hash of what is in every file of the output folders, without times, durations and costs.

    Locks and the output of the command do not count. Whatever else lies there does, also a partial file.
    """
    found = {}
    for path in _files(place, outputs):
        data = path.read_bytes()
        if path.name == "run.json":
            data = json.dumps(_lasting(json.loads(data))).encode()
        elif path.name == "index.html":
            data = COST.sub(b"", data)
        elif columns := TIMES.get(path.name):
            data = _without(data, columns)
        found[str(path.relative_to(place))] = hashlib.sha256(data).hexdigest()
    return found


def _files(place: Path, outputs: tuple[str, ...]) -> Iterator[Path]:
    for name in outputs:
        yield from (p for p in sorted((place / name).rglob("*")) if _counts(p))


def _counts(path: Path) -> bool:
    return path.is_file() and path.suffix != ".lock" and path.name not in UNCOUNTED


def _lasting(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_lasting(one) for one in tree]
    if isinstance(tree, dict):
        return {key: _lasting(value) for key, value in tree.items() if key not in OF_ATTEMPT}
    return tree


def _without(data: bytes, columns: tuple[str, ...]) -> bytes:
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    return json.dumps([{k: v for k, v in row.items() if k not in columns} for row in rows]).encode()
