"""Estimates of amount, disk and time, made before any work: what a dry run shows.

Times are extrapolated: from finished runs of the same classifier, from a few training steps on noise, or from
one micro-batch of a synthesis.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ajbench.core import console
from ajbench.core.errors import MissingError
from ajbench.core.recipe import Recipe
from ajbench.core.schema import Classifier
from ajbench.data import audio
from ajbench.data.shards import StoreMeta
from ajbench.data.store import ClipStore
from ajbench.pipeline import classifier_stages, fold_stages, given_models
from ajbench.pipeline.stage import Stage, free_mb, needed_mb
from ajbench.pipeline.tuning import tunings

if TYPE_CHECKING:
    from ajbench.codec import Codec
    from ajbench.generation.checkpoint import GeneratorInfo
    from ajbench.pipeline.recipe_stages import Pipeline

SLOW_S = 0.5  # a classifier that takes longer for one clip is timed on one or two clips only


def describe(work: Path, stages: Sequence[Stage]) -> dict[str, Any]:
    """Return the state, amount and disk space of stages, and the disk space of all that are not finished."""
    todo = [stage for stage in stages if not stage.done()]
    return {
        "recipe": stages[0].recipe.name,
        "stages": [
            {
                "stage": stage.name,
                "what": stage.what,
                "state": "todo" if stage in todo else "done",
                "amount": stage.amount,
                "disk_mb": stage.disk_mb,
                "fingerprint": stage.fingerprint,
                "path": stage.path,
            }
            for stage in stages
        ],
        "todo": len(todo),
        "disk_mb": round(needed_mb(todo), 1),
        "disk_free_mb": round(free_mb(work), 1),
    }


def estimate(stage: Stage) -> dict[str, Any]:
    """Return what one batch of a stage shows, such as its seconds; nothing if no batch can be run yet.

    Weights that are missing are named under `missing`; a plan can be shown without them.
    """
    if stage.estimate is None or stage.done() or not all(needed.done() for needed in stage.needs):
        return {}
    try:
        return stage.estimate()
    except MissingError as error:
        return {"seconds": None, "missing": str(error)}


def describe_grid(pipeline: "Pipeline") -> dict[str, Any]:
    """Return the clips of a recipe, and number, steps, disk space and time of the classifiers of its grid.

    Cells are numbered from 1, as `--cell` takes them. Disk space is what remains; during training a
    classifier takes about nine times as much for its two checkpoints. With `evaluate.tune`, `tunings` has the
    choices of keys, whose trainings count in steps and hours; before them a cell has the most steps possible.
    """
    from ajbench.pipeline.catalogue import parameters

    classes = len(pipeline.manifest.label_set)
    samples = audio.clip_samples(pipeline.recipe.data.duration_s)
    stages = fold_stages.named(pipeline, classifier_stages.grid_stages(pipeline))
    of_fold = {one.recipe.data.eval_fold: one for one in pipeline.folds}
    choices = fold_stages.named(pipeline, tunings(pipeline))

    def steps_of(stage: Stage, settings: Classifier) -> int:
        mix, fold = stage.recipe.mix, of_fold[stage.recipe.data.eval_fold]
        return settings.steps(mix.epoch_size(fold.real_clips(mix)))

    steps = [steps_of(stage, stage.recipe.classifier) for stage in stages]
    candidates = [pipeline.recipe.candidates_of(stage.recipe.classifier) for stage in choices]
    known: dict[Any, list[float]] = {}
    per_clip: dict[Any, float] = {}  # of a model: it does not depend on the batch
    done = [stage.done() for stage in stages]
    for stage, n, finished in zip(stages, steps, done, strict=True):
        # The time of one that was interrupted includes what was done twice.
        if finished and int((info := stage.folder.info()).get("sessions", 1)) == 1:
            known.setdefault(_kind(stage.recipe.classifier), []).append(info["seconds"] / n)
    trained = [*(stage.recipe.classifier for stage in stages), *(one for mine in candidates for one in mine)]
    unknown = {_kind(settings): settings for settings in trained if _kind(settings) not in known}
    with console.progress(len(unknown), "time", "classifiers") as advance:
        for kind, settings in unknown.items():
            model = settings.name, repr(settings.options)
            if model not in per_clip:
                per_clip[model] = step_seconds(settings, classes, samples) / settings.batch_size
            known[kind] = [per_clip[model] * settings.batch_size]
            advance(1)
    names = {stage.recipe.classifier.name for stage in stages}
    megabytes = {name: round(4e-6 * parameters(name, classes), 1) for name in names}
    cells: list[dict[str, Any]] = [
        {
            "cell": number,
            "what": stage.what,
            "state": "done" if finished else "todo",
            "steps": n,
            "disk_mb": megabytes[stage.recipe.classifier.name],
            "seconds": round(median(known[_kind(stage.recipe.classifier)]) * n, 1),
        }
        for number, (stage, n, finished) in enumerate(zip(stages, steps, done, strict=True), start=1)
    ]
    tuned: list[dict[str, Any]] = []
    for stage, mine in zip(choices, candidates, strict=True):
        numbers = [steps_of(stage, one) for one in mine]
        seconds = sum(median(known[_kind(one)]) * n for one, n in zip(mine, numbers, strict=True))
        state = "done" if stage.done() else "todo"
        tuned.append(
            {"what": stage.what, "state": state, "steps": sum(numbers), "seconds": round(seconds, 1)}
        )
    todo = [cell for cell in cells if cell["state"] == "todo"]
    trainings = [*todo, *(choice for choice in tuned if choice["state"] == "todo")]
    return {
        "recipe": pipeline.recipe.name,
        **sizes_of(pipeline),
        "cells": cells,
        **({"tunings": tuned} if tuned else {}),
        "todo": len(todo),
        "steps": sum(training["steps"] for training in trainings),
        "disk_mb": round(sum(cell["disk_mb"] for cell in todo), 1),
        "hours": round(sum(training["seconds"] for training in trainings) / 3600, 2),
    }


def sizes_of(pipeline: "Pipeline") -> dict[str, int]:
    """Return the numbers of clips in the generator's pool, of real clips and of the eval split."""
    real, generator = pipeline.real_clips(pipeline.recipe.mix.with_real), pipeline.recipe.generator
    if pipeline.places.generator:
        pool = given_models.pool_size(pipeline.places.generator)
    elif generator.other_store:
        pool = len(ClipStore.open(generator.other_store, verify=False).split_indices("train"))
    else:
        pool = real if generator.pool == "real" else len(pipeline.manifest.split("train"))
    return {
        "pool": pool,
        "real": real,
        "eval": sum(len(one.manifest.split("eval")) for one in pipeline.folds),
    }


def step_seconds(settings: Classifier, classes: int, clip_samples: int) -> float:
    """Return the seconds of one training step of `settings.batch_size` clips on one thread (or the GPU).

    Front end, forward and backward pass are timed on a few clips of noise and scaled to the batch. The one
    step of a head is its fit, timed on features of noise.
    """
    import torch
    from torch.nn import functional

    from ajbench import classifiers
    from ajbench.core.device import device_of, resolve_precision

    device = device_of()
    bf16 = device.type == "cuda" and resolve_precision(settings.precision, device.type) == "bf16"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = classifiers.build(settings.name, classes, **settings.model_options(clip_samples))
        if settings.features:
            x, y = np.random.default_rng(0).normal(size=(500, 256)), np.eye(classes)[np.arange(500) % classes]
            start = time.perf_counter()
            module.fit(x, y, np.ones(500), settings.loss)  # type: ignore[operator]
            return time.perf_counter() - start
        module = module.to(device).train()
        most = 8 if device.type == "cpu" else 32  # a GPU is not filled by less
        wav = torch.randn(min(most, settings.batch_size), clip_samples, device=device) * 0.1

    def timed(clips: int) -> float:
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, bf16):
            logits = module(wav[:clips])
        functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / clips

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in training
    try:
        normalised = any(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules())
        seconds = timed(2 if normalised else 1)  # batch norm needs two clips
        if device.type != "cpu":
            timed(len(wav))  # the first calls on a GPU load and choose kernels
        if seconds < SLOW_S or device.type != "cpu":
            seconds = min(timed(len(wav)) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    return seconds * settings.batch_size


def synthesis_seconds(
    recipe: Recipe,
    store: ClipStore | None,
    generator_dir: Path,
    tokens_dir: Path | None = None,
    *,
    processes: int = 1,
    threads: int = 1,
    codec: "Codec | None" = None,
    judge_weights: Path | None = None,
) -> float:
    """Return the seconds that a synthesis would take, extrapolated from its second micro-batch.

    Args:
        recipe: its `synth` section is used.
        store: real clips that generator and tokens must belong to; None if there are none yet.
        generator_dir: a trained generator.
        tokens_dir: its class tokens; None: plain names take their place, which takes as long.
        processes: that share the work, each as fast as this one.
        threads: of torch, in each.
        codec: an instance to use instead of loading the generator's.
        judge_weights: of `synth.judge`, if it is a trained classifier.

    Raises:
        IntegrityError: generator or tokens do not belong to the store.
        MissingError: generator, tokens or a codec's weights are missing.
    """
    from ajbench.core.device import use_threads
    from ajbench.generation import checkpoint
    from ajbench.generation.synthesize import inputs
    from ajbench.generation.worker import Job

    section = recipe.synth
    if store:
        info = inputs(section, store, generator_dir, tokens_dir)[0]
    else:
        info = checkpoint.read_info(generator_dir)
    paths = generator_dir, tokens_dir, Path()
    job = Job(section, _NoiseGuides(info), *paths, codec, threads, section.n, 0, "", judge_weights)
    prompt = {"prompt": f"The sound of {info.labels[0]}", "caption": None}
    label = {"labels": [info.labels[0]], "label_ids": [0], "parent": 0, "parent_id": None}
    rows: list[Mapping[str, Any]] = [
        {"clip_id": f"syn-{k}", "seed": k, **prompt, **label}
        for k in range(min(section.n, section.micro_batch))
    ]
    with use_threads(threads):
        models = job.load(0)
        for _ in range(2):  # the first warms up
            began = time.perf_counter()
            for _ in job.generated(models, [[dict(row) for row in rows]]):
                pass
            seconds = time.perf_counter() - began
    shards, batches = section.shards, section.micro_batches * section.candidates
    return round(seconds * batches / min(processes, shards), 1)


class _NoiseGuides:
    """Guides of random codes in place of a store: sampling takes as long whatever it starts from."""

    def __init__(self, info: "GeneratorInfo") -> None:
        self.meta = StoreMeta(
            codec=info.codec,
            codec_hash=info.codec_hash,
            clip_samples=info.clip_samples,
            labels=list(info.labels),
            fingerprint="",
        )
        self._frames = info.frames

    def codes(self, indices: ArrayLike) -> NDArray[np.uint16]:
        shape = (len(np.asarray(indices)), 8, self._frames)
        return np.random.default_rng(0).integers(0, 1024, shape).astype(np.uint16)


def _kind(settings: Classifier) -> tuple[Any, ...]:
    return settings.name, settings.batch_size, repr(sorted(settings.options.items())), settings.aug
