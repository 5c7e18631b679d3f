"""How long a recipe takes on several machines, from the rates of finished stages or of benchmarks/gpu.py."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from ajbench.core import documents
from ajbench.core import recipe as recipes
from ajbench.core.errors import AjbenchError, MissingError, UsageError
from ajbench.core.recipe import Recipe
from ajbench.core.run_dir import RunDir
from ajbench.generation.shard_report import TIMING
from ajbench.pipeline.stage import Stage, batches, needed_mb

DISTRIBUTED_LOSS = 0.1  # of the speed of a training that several devices share


@dataclass(frozen=True)
class Site:
    """The machines of a run.

    Attributes:
        machines: that share a file system.
        gpus: of each; 0: its cores.
        workers: classifiers that a machine without GPUs trains at a time.
        loss: share of the speed that a training loses if several devices share it.
    """

    machines: int = 1
    gpus: int = 0
    workers: int = 1
    loss: float = DISTRIBUTED_LOSS

    @property
    def devices(self) -> int:
        """GPUs of all machines, or the machines themselves."""
        return self.machines * max(1, self.gpus)

    @property
    def slots(self) -> int:
        """Classifiers that train at a time."""
        return self.machines * (self.gpus or self.workers)


@dataclass(frozen=True)
class Rate:
    """The seconds that a unit of a stage takes, and those that the stage takes to start and end."""

    unit: float
    start: float = 0.0


@dataclass(frozen=True)
class Line:
    """What the stages of one name take.

    Attributes:
        stage: its name.
        stages: how many of them are to do.
        units: steps, clips, classifiers or sets in them.
        device_hours: hours of one device after another; None where the rate of one of them is unknown.
        wall_hours: hours until the last of them is finished.
        source: where the rate comes from.
    """

    stage: str
    stages: int
    units: float
    device_hours: float | None
    wall_hours: float | None
    source: str


def units(stage: str, amount: str, recipe: Recipe) -> float:
    """Return how many clips, steps or classifiers a stage has.

    It is the last number of its amount, 1600 of `4 candidates, 1,600 steps`; for eval-gen times the clips of
    a set.
    """
    number = float(re.findall(r"\d[\d,]*", amount)[-1].replace(",", ""))
    return number * recipe.synth.n if stage == "eval-gen" else number


def kind(stage: str, recipe: Recipe) -> str:
    """Return what stages have in common that take the same time for a unit."""
    generator, synth, model = recipe.generator, recipe.synth, recipe.classifier
    network = generator.init or generator.preset, generator.gradient_checkpointing
    sampling = synth.sampler, synth.sampler_steps, synth.strength, synth.guidance, synth.candidates
    own: dict[str, tuple[Any, ...]] = {
        "train-gen": (*network, generator.batch_size, generator.precision),
        "invert": (*network, recipe.invert.batch_size, recipe.invert.lora_rank),
        "synth": (*network, *sampling, synth.judge is not None),
        "train-cls": (model.name, model.options, model.aug, model.batch_size, model.precision),
        "eval-gen": (recipe.evaluate.features,),
        "eval-cls": (recipe.evaluate.bootstrap,),
    }
    # Candidates of a head are no clips, which its trainings count.
    name = "train-cls" if stage == "tune" and not model.features else stage
    about = own.get("train-cls" if name == "tune" else name, ())
    return json.dumps([name, recipe.codec.name, recipe.data.duration_s, *about], default=str)


def of_finished(home: Path, device: str | None = None) -> dict[str, Rate]:
    """Return rates by kind: the median over the finished stages of a recipe's folder.

    What a stage takes to start and end is told apart where it kept the times of its steps or shards. Stages
    that were interrupted do not count, as some of their work was done twice.

    Args:
        home: the recipe's folder in the work folder.
        device: count only stages that ran on it, `cpu` or `cuda`; None: on any.
    """
    found: dict[str, list[Rate]] = {}
    for done in sorted(home.glob("*/DONE")):
        info = RunDir(done.parent, "", "").info()
        where = str(info.get("device", "")).partition(":")[0]
        if info.get("sessions") != 1 or "amount" not in info or device not in (None, where):
            continue
        path = done.parent / "recipe.yaml"
        try:  # of a table of another recipe, such as tables/a11 --base esc10, the keys are those of that
            keys = {key: value for key, value in documents.read_yaml(path).items() if key != "table"}
            recipe = recipes.load(str(path), tree=keys)
        except UsageError:
            continue  # of a version with other keys
        name, processes = str(info["stage"]), int(info.get("processes", 1))
        seconds, number = float(info["seconds"]) * processes, units(name, info["amount"], recipe)
        busy = min(seconds, _busy(done.parent, number, processes) or seconds)
        found.setdefault(kind(name, recipe), []).append(Rate(busy / number, seconds - busy))
    return {
        name: Rate(median(one.unit for one in rates), median(one.start for one in rates))
        for name, rates in found.items()
    }


def _busy(folder: Path, number: float, processes: int) -> float | None:
    """Return the seconds of all steps of a training, or of the shards of a synthesis; None if not known."""
    steps, shards = folder / "metrics.csv", folder / TIMING
    try:
        if steps.exists():
            seconds = [float(row["seconds"]) for row in _records(steps)]
            return sum(seconds) * processes if len(seconds) == number else None
        if shards.exists():
            found = [(float(row["seconds"]), row["process"]) for row in _records(shards)]
            return sum(seconds for seconds, _ in found) / len({process for _, process in found})
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, csv.Error):
        return None  # of another version
    return None


def _records(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def of_benchmark(path: Path, stages: Sequence[Stage]) -> dict[str, Rate]:
    """Return rates by kind, from the table that benchmarks/gpu.py wrote on a GPU.

    The best rate of a model counts: trainings and synthesis in bf16.

    Raises:
        MissingError: there is no such file.
        UsageError: it is not such a table, or has no rates.
    """
    try:
        rates = [row for row in _records(path) if row.get("clips_per_second") and row.get("work")]
        speeds = [(row["model"], row["precision"], float(row["clips_per_second"])) for row in rates]
    except OSError as error:
        raise MissingError(f"--rates {path}: {error.strerror}") from None
    except (ValueError, KeyError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"--rates {path}: not the CSV of benchmarks/gpu.py ({reason}); make it anew"
        ) from None
    if not rates:
        raise UsageError(f"--rates {path}: no clips_per_second; give the CSV of benchmarks/gpu.py on a GPU")

    def best(work: str, model: str | None = None) -> float | None:
        fitting = (own for row, own in zip(rates, speeds, strict=True) if row["work"].startswith(work))
        found = (rate for name, precision, rate in fitting if precision == "bf16" and model in (None, name))
        return max(found, default=None)

    found: dict[str, Rate] = {}
    for stage in stages:
        recipe, clips = stage.recipe, 1
        rate = None
        if stage.name == "train-gen":
            rate, clips = best("training step", "generator"), recipe.generator.batch_size
        elif stage.name in ("train-cls", "tune"):
            rate, clips = best("training step", recipe.classifier.name), recipe.classifier.batch_size
        elif stage.name == "synth":
            how = recipe.synth
            rate = best(f"synthesis, {how.sampler} {how.sampler_steps}, strength {how.strength:g}")
            clips = how.candidates
        if rate:
            found[kind(stage.name, recipe)] = Rate(clips / rate)
    return found


def lines(stages: Sequence[Stage], rates: Mapping[str, Rate], site: Site, source: str) -> list[Line]:
    """Return what the stages that are left take, a line for each name in the order of a run.

    A run goes through its stages in order. Clips are prepared and generated, and a generator is trained, by
    all devices together; classifiers train next to each other, each on one device, in the order of the grid;
    everything else runs on one device.

    Args:
        stages: of a run, in order.
        rates: on one device, by kind.
        site: the machines.
        source: of the rates, for the lines.
    """
    todo = [stage for stage in stages if not stage.done()]
    found: dict[str, Line] = {}
    for batch in batches(todo):
        seconds = [_seconds(stage, rates) for stage in batch]
        known = [one for one in seconds if one is not None]
        whole = len(known) == len(seconds)
        first = batch[0]
        last = found.setdefault(first.name, Line(first.name, 0, 0.0, 0.0, 0.0, source))
        hours = sum(start + work for start, work in known) / 3600 if whole else None
        wall = _wall(first, known, site) / 3600 if whole else None
        found[first.name] = replace(
            last,
            stages=last.stages + len(batch),
            units=last.units + sum(_units(stage) for stage in batch),
            device_hours=_sum(last.device_hours, hours),
            wall_hours=_sum(last.wall_hours, wall),
            source=last.source if whole else "not known",
        )
    return list(found.values())


def total(found: Sequence[Line], stages: Sequence[Stage], site: Site, price: float | None) -> dict[str, Any]:
    """Return hours, device hours, disk space and price of what is left; without stages of unknown rate.

    Where no rate is known, neither hours nor a price are: None.

    Args:
        found: of `lines`.
        stages: of the run.
        site: the machines.
        price: of an hour of one device; all are paid for until the end.
    """
    hours = sum(line.wall_hours or 0.0 for line in found)
    device_hours = sum(line.device_hours or 0.0 for line in found)
    nothing = bool(found) and all(line.wall_hours is None for line in found)
    about: dict[str, Any] = {
        "machines": site.machines,
        "gpus": site.gpus,
        "hours": None if nothing else round(hours, 3),
        "device_hours": None if nothing else round(device_hours, 3),
        "disk_mb": round(needed_mb(stage for stage in stages if not stage.done()), 1),
        "unknown": [line.stage for line in found if line.wall_hours is None],
    }
    if price is None:
        return about
    return about | {"price": None if nothing else round(hours * site.devices * price, 2)}


def spent(stages: Sequence[Stage]) -> float:
    """Return the device hours that the finished stages of a run took, each as if alone on its device."""
    known = [stage.folder.info() for stage in stages if stage.done()]
    seconds = (float(info.get("seconds", 0)) * int(info.get("processes", 1)) for info in known)
    return sum(seconds) / 3600


def _seconds(stage: Stage, rates: Mapping[str, Rate]) -> tuple[float, float] | None:
    """Return what a stage takes to start and end, and what its units take; None if that is not known."""
    rate = rates.get(kind(stage.name, stage.recipe))
    return None if rate is None else (rate.start, rate.unit * _units(stage))


def _units(stage: Stage) -> float:
    return units(stage.name, stage.amount, stage.recipe)


def _wall(first: Stage, seconds: Sequence[tuple[float, float]], site: Site) -> float:
    """Return how long a batch of `stage.batches` takes: a free device takes the next of its stages.

    `seconds`: of each, to start and end, and for its units, which devices may share.
    """
    parallel = first.parallel and not (first.alone and (site.gpus or len(seconds) == 1))
    speed = 1.0
    if first.shared and not parallel:
        speed = site.devices
    elif first.distributed and not parallel:
        speed = 1 + (site.devices - 1) * (1 - site.loss)
    free = [0.0] * (site.slots if parallel else 1)
    for start, work in seconds:
        free[free.index(min(free))] += start + work / speed
    return max(free)


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def point_price(price: float, results: Path, recipe: Recipe) -> tuple[float, float] | None:
    """Return the gain that the last finished run measured, in points of mAP, and the price of one of them.

    `price`: of the whole run, with what is finished.

    It is that of the primary comparison, if one is declared; else the largest of those with a verdict. None
    if there are no results, or they measured no gain.
    """
    from ajbench.core.rows import read_rows
    from ajbench.pipeline.results_folder import counted_fingerprints
    from ajbench.reporting import current_rows
    from ajbench.reporting.verdict import answers

    try:
        rows = read_rows(results / "rows.csv")
    except AjbenchError:
        return None
    found = answers(current_rows.select(rows, recipe, counted_fingerprints(results)), recipe)
    found = [answer for answer in found if answer.primary] or [answer for answer in found if answer.judged]
    gain = max((answer.delta for answer in found), default=0.0)
    return (gain, price / gain) if gain > 0 else None
