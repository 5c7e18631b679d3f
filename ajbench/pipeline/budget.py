"""How large a run of someone's clips may be to end within a time.

Seconds were measured on two cores of an AMD EPYC, with clips of 5.04 s; they are scaled by the length of the
clips and the speed of the machine.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from ajbench.core.device import default_workers
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Recipe
from ajbench.core.schema import Classifier
from ajbench.data import audio
from ajbench.pipeline import grid

MODEL, PRESET = "taltrans-small", "tiny"
CLIP_S = 5.04
BATCH = 16  # clips of a training step
CLASSIFIER_STEP = 0.14  # one thread
GENERATOR_STEP = 0.7  # preset tiny
INVERT_STEP = 0.5
SAMPLER_STEP = 0.014  # one clip
PREPARED = 0.035  # one clip
MEASURED = 0.022  # one clip, by features and classifier
BASELINES = 3  # sets of as many clips as are generated
GENERATION, CLASSIFIERS = ("generator", "class tokens", "synthesis"), "classifiers"  # parts of a run
SHORT = 0.35  # part of a step's time that does not depend on the length of clips
SLOWEST = 3.0  # a machine that was busy for a moment is not slower than that
START = 8.0  # of a stage: import of torch, models
SYNTHESIS_SHARE = 0.25  # most of the budget that clips are generated in
USED = 0.75  # of the budget: estimates are rough


@dataclass(frozen=True)
class Sizes:
    """Sizes of a run."""

    generator_steps: int
    classifier_steps: int
    models: int
    n_doses: int
    seeds: int
    per_real: float = 2.0  # synthetic clips per real train clip
    synthetic_only: bool = False
    sampler_steps: int = 16
    doses: tuple[int, ...] = ()
    folds: tuple[int, ...] = ()
    # None: as a made recipe has them
    mixes: int | None = None  # of a classifier
    clips: int | None = None
    token_steps: int | None = None

    @property
    def n(self) -> int:
        """Synthetic clips."""
        return max(self.doses, default=0) if self.clips is None else self.clips

    @property
    def invert_steps(self) -> int:
        """Steps of the class tokens."""
        return max(10, self.generator_steps // 8) if self.token_steps is None else self.token_steps


@dataclass(frozen=True)
class Training:
    """The training of a classifier."""

    steps: int
    step_s: float  # one thread
    batch: int  # clips of a step

    def seconds(self, evaluated: int) -> float:
        """Return its seconds, with those of the scores of so many clips."""
        return self.steps * self.step_s + evaluated * self.step_s / (2 * self.batch)


# From the most to the least that is worth running; a verdict takes three seeds.
LEVELS = (
    Sizes(25600, 4800, 2, 3, 5, synthetic_only=True),
    Sizes(12800, 2400, 2, 3, 5, synthetic_only=True),
    Sizes(6400, 1200, 2, 3, 5, synthetic_only=True),
    Sizes(3200, 600, 2, 3, 5, synthetic_only=True),
    Sizes(1600, 300, 2, 3, 5, synthetic_only=True),
    Sizes(1600, 300, 2, 3, 3, synthetic_only=True),
    Sizes(1000, 300, 2, 2, 3, synthetic_only=True),
    Sizes(800, 300, 1, 2, 3),
    Sizes(600, 200, 1, 2, 3),
    Sizes(500, 200, 1, 2, 3, 1.0),
    Sizes(400, 200, 1, 1, 3, 1.0),
    Sizes(300, 150, 1, 1, 3, 1.0),
    Sizes(200, 100, 1, 1, 3, 1.0, sampler_steps=12),
    Sizes(130, 80, 1, 1, 3, 0.5, sampler_steps=12),
    Sizes(80, 60, 1, 1, 3, 0.5, sampler_steps=10),
    Sizes(40, 40, 1, 1, 3, 0.25, sampler_steps=8),
    Sizes(40, 40, 1, 1, 2, 0.25, sampler_steps=8),
    Sizes(20, 20, 1, 1, 1, 0.25, sampler_steps=8),
)
POOLED = 13  # levels up to which several folds are preferred to more steps in one
LEAST = 40  # clips or recordings of one fold below which folds are preferred to any number of steps
FEW = 500  # clips up to which all folds are evaluated; of more, only where a fold has few recordings


def measured_speed(duration_s: float, classes: int) -> float:
    """Return how many times as long as on that machine a training step takes here."""
    from ajbench.pipeline.estimates import step_seconds

    settings, samples = Classifier(name=MODEL), audio.clip_samples(duration_s)
    found = min(step_seconds(settings, classes, samples) for _ in range(3))
    return round(min(found / (CLASSIFIER_STEP * duration_s / CLIP_S), SLOWEST), 2)


def choose(
    about: Mapping[str, Any], budget: float, speed: float, firm: bool = True, generate: bool = True
) -> Sizes:
    """Return the largest sizes that fit a budget, in seconds.

    Args:
        about: numbers of clips (`clips`, `train`, `eval`) and of `classes`, `folds`, `recordings` of each,
            `duration_s`.
        budget: in seconds.
        speed: as of `measured_speed`.
        firm: refuse a budget that cannot be kept, rather than exceed it.
        generate: whether clips are generated, rather than taken from elsewhere.

    Raises:
        UsageError: nothing fits the budget, and it is firm.
    """
    least = min(about["eval"], fmean(about["recordings"] or [LEAST]))
    pooled = len(LEVELS) if least < LEAST else POOLED
    # A fold of one recording has no variance that is known, and so no verdict.
    able = 1 < len(about["folds"]) <= 10 and min(about["recordings"]) > 1
    folds = tuple(about["folds"]) if able and (about["clips"] <= FEW or least < LEAST) else ()
    made_in = SYNTHESIS_SHARE * budget if generate else math.inf
    tried = [
        _fitted(level, about, made_in, speed, folds) for level in LEVELS[:pooled] if folds and level.seeds > 2
    ]
    tried += [_fitted(level, about, made_in, speed) for level in LEVELS]
    times = [sum(_parts(one, about, speed, generate).values()) for one in tried]
    for one, seconds in zip(tried, times, strict=True):
        if seconds <= USED * budget:
            return one
    least = 60 * math.ceil(min(times) / USED / 60)
    if firm:
        preparing = PREPARED * about["clips"] * _scale(about, speed)
        share = f", preparing them alone {span(preparing)}" if preparing > budget / 4 else ""
        raise UsageError(
            f"--budget {span(budget)}: these clips need at least {span(least)}{share}; give more time or "
            "fewer clips"
        )
    return next(one for one in reversed(tried) if one.seeds >= 3)


def seconds_of(
    recipe: Recipe, about: Mapping[str, Any], speed: float, generate: bool = True
) -> dict[str, float | None]:
    """Return the seconds of each part of a run, of any arms and controls; arguments as of `choose`.

    Steps of other classifiers than those that `choose` plans are timed. Of other generators there are no
    measurements: their parts are None, and so is that of classifiers whose package or weights are missing.
    """
    evaluate = recipe.evaluate
    models = grid.models(recipe)
    sizes = Sizes(
        recipe.generator.train_steps,
        recipe.classifier.train_steps or 1,
        len(models),
        len(evaluate.doses),
        len(evaluate.seeds),
        synthetic_only=evaluate.synthetic_only,
        sampler_steps=recipe.synth.sampler_steps,
        doses=evaluate.doses,
        folds=evaluate.folds,
        mixes=len(grid.columns(recipe)),
        clips=recipe.synth.n if generate else None,
        token_steps=recipe.invert.train_steps,
    )
    unknown = GENERATION if recipe.generator.preset != PRESET else ()
    try:
        trainings = [_training(model, sizes, about, speed) for model in models]
    except MissingError:
        trainings, unknown = [], (*unknown, CLASSIFIERS)
    parts = _parts(sizes, about, speed, generate, trainings)
    return {name: None if name in unknown else seconds for name, seconds in parts.items()}


def _training(model: Classifier, sizes: Sizes, about: Mapping[str, Any], speed: float) -> "Training":
    steps, batch = model.steps(about["train"] + max(sizes.doses, default=0)), model.batch_size
    if model.name == MODEL and not model.options:
        return Training(steps, CLASSIFIER_STEP * _scale(about, speed) * batch / BATCH, batch)
    from ajbench.pipeline.estimates import step_seconds

    samples = audio.clip_samples(about["duration_s"])
    return Training(steps, step_seconds(model, about["classes"], samples), batch)


def budget_seconds(text: str) -> int:
    """Return the seconds of a budget such as 90s, 30m, 2h or 1h30m.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?", text.strip().lower().replace(" ", ""))
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if total := hours * 3600 + minutes * 60 + seconds:
        return total
    raise UsageError(f"--budget {text}: expected a time, such as 90s, 30m, 2h or 1h30m")


def span(seconds: float) -> str:
    """Return a time in words: 40 s, 12 min, 1.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _fitted(
    level: Sizes, about: Mapping[str, Any], made_in: float, speed: float, folds: tuple[int, ...] = ()
) -> Sizes:
    """Return a level with steps that the clips deserve, doses, and folds.

    `made_in`: the most seconds in which clips are generated, in all folds.
    """
    train = max(1, about["train"])
    one = level.sampler_steps * SAMPLER_STEP * _scale(about, speed)
    most = made_in / one / max(1, len(folds))
    steps = min(level.generator_steps, max(600, 80 * train // BATCH))
    trained = min(level.classifier_steps, max(200, 30 * train // BATCH))
    seen = trained * BATCH // 2  # more than that, half of what a classifier draws, would be made for nothing
    n = max(8, int(min(round(level.per_real * train), most, seen)))
    doses = tuple(sorted({max(4, n >> shift) for shift in range(level.n_doses)}))
    return replace(level, generator_steps=steps, classifier_steps=trained, doses=doses, folds=folds)


def _scale(about: Mapping[str, Any], speed: float) -> float:
    # A step takes some time however short its clips are.
    return float(speed * (SHORT + (1 - SHORT) * about["duration_s"] / CLIP_S))


def _parts(
    sizes: Sizes,
    about: Mapping[str, Any],
    speed: float,
    generate: bool = True,
    trainings: Sequence[Training] = (),
) -> dict[str, float]:
    """Return the seconds of each part; `trainings`: of each classifier on one mix, by default of `MODEL`."""
    scale, folds = _scale(about, speed), max(1, len(sizes.folds))
    # Generated, real and baseline clips: as many as are generated through the codec, shuffled and as noise.
    measured = sizes.n + about["train"] + about["eval"] + BASELINES * min(sizes.n, about["train"])
    mixes = sizes.mixes or 1 + len(sizes.doses) + sizes.synthetic_only
    usual = Training(sizes.classifier_steps, CLASSIFIER_STEP * scale, BATCH)
    trainings = trainings or [usual] * sizes.models
    of_each = folds * sizes.seeds * mixes
    cells = max(1, of_each * len(trainings))
    trained = of_each * sum(START / 2 * speed + one.seconds(about["eval"]) for one in trainings)
    start = START * speed
    parts = {
        "prepare": folds * start / 2 + PREPARED * about["clips"] * folds * scale,
        "generator": folds * (start + sizes.generator_steps * GENERATOR_STEP * scale),
        "class tokens": folds * (start + sizes.invert_steps * INVERT_STEP * scale),
        "synthesis": folds * (start + sizes.n * sizes.sampler_steps * SAMPLER_STEP * scale),
        CLASSIFIERS: trained / min(cells, default_workers()),
        "evaluation": folds * (start + measured * MEASURED * scale),
    }
    used = (name for name in parts if generate or name not in GENERATION)
    return {name: round(parts[name], 1) for name in used}
