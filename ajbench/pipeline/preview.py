"""What a synthesis will make and take, told before it begins, if need be from a corpus' lists alone."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ajbench.core.recipe import Recipe, Synth
from ajbench.data.shards import StoreMeta
from ajbench.data.store import ClipStore
from ajbench.generation.plan import ListedClips, plan, unguided

if TYPE_CHECKING:
    from ajbench.codec import Codec
    from ajbench.generation.checkpoint import GeneratorInfo


def preview(section: Synth, clips: ListedClips) -> dict[str, Any]:
    """Return what the plan holds, in numbers.

    Args:
        section: the recipe's synth section.
        clips: of the train split.

    Returns:
        clips, shards, micro_batches; classes: used, asked (how many), unguided (names); labels_a_clip (number
        → clips); guides: clips with one, holding an asked class, different; from_noise.

    Raises:
        UsageError: as `plan`.
    """
    table = plan(section, clips, {name: name for name in clips.names})
    labels = table["label_ids"].to_pylist()
    places = {place: row for row, place in enumerate(clips.places.tolist())}
    held = clips.labels()
    parents = table["parent"].to_pylist()
    guides = [
        (places[parent], row) for parent, row in zip(parents, labels, strict=True) if parent is not None
    ]
    guided = section.strength < 1
    numbers = np.bincount([len(row) for row in labels])
    used = {k for row in labels for k in row}
    return {
        "clips": len(table),
        "shards": -(-len(table) // section.shard_size),
        "micro_batches": -(-len(table) // section.micro_batch),
        "classes": {
            "used": len(used),
            "asked": section.classes or len(clips.names),
            "unguided": unguided(section, clips),
            "unguided_are": section.unguided,
        },
        "labels_a_clip": {str(k): int(n) for k, n in enumerate(numbers) if n},
        "guides": {
            "clips": len(guides) if guided else 0,
            "holding_an_asked_class": sum(not {*held[i]}.isdisjoint(row) for i, row in guides)
            if guided
            else 0,
            "different": len({i for i, _ in guides}) if guided else 0,
        },
        "from_noise": len(table) - len(guides) if guided else len(table),
    }


def estimate(
    recipe: Recipe,
    store: ClipStore | None,
    generator_dir: Path,
    tokens_dir: Path | None = None,
    *,
    processes: int = 1,
    threads: int = 1,
    codec: "Codec | None" = None,
    judge_weights: Path | None = None,
) -> dict[str, float]:
    """Return the seconds that a synthesis would take, by one micro-batch made after another that warms up.

    Args:
        recipe: its `synth` section is used.
        store: real clips, to which generator and tokens must belong; None where there are none yet.
        generator_dir: a trained generator.
        tokens_dir: its class tokens; None: names stand for them, which takes as long.
        processes: that share the work, each as fast as this one.
        threads: of torch, in each.
        codec: an instance to use instead of loading the generator's.
        judge_weights: of `synth.judge`, where it is a trained classifier.

    Raises:
        IntegrityError: generator or tokens do not belong to the store.
        MissingError: generator, tokens or a codec's weights are not there.
    """
    from ajbench.generation import checkpoint as folders
    from ajbench.generation.synthesize import inputs
    from ajbench.generation.worker import Job, use_threads

    section = recipe.synth
    info = inputs(section, store, generator_dir, tokens_dir)[0] if store else folders.read_info(generator_dir)
    paths = generator_dir, tokens_dir, Path()
    job = Job(section, _Noise(info), *paths, codec, threads, section.n, 0, "", judge_weights)
    row = {
        "parent": 0,
        "prompt": f"The sound of {info.labels[0]}",
        "label_ids": [0],
        "labels": [info.labels[0]],
    }
    rows: list[Mapping[str, Any]] = [
        row | {"clip_id": f"syn-{k}", "parent_id": None, "caption": None, "seed": k}
        for k in range(min(section.n, section.micro_batch))
    ]
    with use_threads(threads):
        models = job.load(0)
        took = []
        for _ in range(2):
            began = time.perf_counter()
            for _ in job.generate(models, [dict(row) for row in rows]):
                pass
            took.append(time.perf_counter() - began)
    return {
        "seconds": round(took[-1] * -(-section.n // section.micro_batch) * section.candidates / processes, 1)
    }


class _Noise:
    """Guides of random codes, in place of a store: what is sampled takes as long whatever it begins from."""

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
