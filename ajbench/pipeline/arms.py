"""The store of augmented clips, source A of a mix: what generated clips at the same dose compete with."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ajbench.core import memory
from ajbench.core.console import counted, progress
from ajbench.core.files import seed_for
from ajbench.core.recipe import Recipe
from ajbench.data import audio, real_clips, shards, wave_chain
from ajbench.data.rounds import rounds
from ajbench.data.shard_job import ShardJob, open_job
from ajbench.data.store import COLUMNS, ClipStore, require_codec
from ajbench.pipeline.given_models import pool_identity
from ajbench.pipeline.stage import Stage, store_mb

if TYPE_CHECKING:
    from ajbench.codec import Codec
    from ajbench.pipeline.recipe_stages import Pipeline

BATCH = 8  # clips that are encoded together, always as many: codes depend on the size of the batch
SHARD_CLIPS = 256
SAMPLE = 8  # clips that an estimate makes


class ClipSubset(NamedTuple):
    """Clips of a store, by their indices."""

    store: ClipStore
    indices: NDArray[np.int64]

    def wave(self, k: int) -> NDArray[np.float32]:
        """Return the audio of clip k of them."""
        return self.store.audio([self.indices[k]])[0]


@dataclass(frozen=True)
class AugmentSource:
    """Where the clips that a recipe augments come from: its store, and that of the pool if it is another."""

    recipe: Recipe
    store: Path
    other: Path | None

    def sets(self) -> tuple[ClipSubset, ClipSubset]:
        """Open the stores; return the clips to augment and those that may be mixed in."""
        recipe, real = self.recipe, ClipStore.open(self.store)
        found = real_clips.chosen(recipe.mix.with_real, real)
        few = chosen = ClipSubset(real, found)
        if recipe.synth.classes == "tail":
            few = ClipSubset(real, found[real_clips.in_tail(recipe.mix, real)[found]])
        if recipe.generator.pool == "real":
            return few, chosen
        store = ClipStore.open(self.other) if self.other else real
        return few, ClipSubset(store, store.split_indices("train"))


def augment_stage(pipeline: "Pipeline") -> Stage:
    """Real clips of the recipe → store of augmented clips, as many as are generated."""
    recipe, prepared = pipeline.recipe, pipeline.prepare
    n, seed, other = recipe.synth.n, recipe.synth.seed, recipe.generator.other_store
    pool = pool_identity(other) if other else recipe.generator.pool
    tail = ["tail"] if recipe.synth.classes == "tail" else []
    inputs = prepared.fingerprint, pool, *recipe.mix.drawn, *tail
    key, path = pipeline.place("augment", wave_chain.SETTINGS, n, seed, *inputs)

    source = AugmentSource(recipe, prepared.path, other)

    def estimate() -> dict[str, Any]:
        clips, backgrounds = source.sets()
        augmented(clips, 0, backgrounds, 0)  # loads the library
        start = time.perf_counter()
        for k in range(SAMPLE):
            augmented(clips, k % len(clips.indices), backgrounds, k)
        return {"seconds": round((time.perf_counter() - start) / SAMPLE * n, 3)}

    do = partial(augment, source, path, n=n, seed=seed, fingerprint=key)
    about: dict[str, Any] = {"seed": seed, "needs": (prepared,), "shared": True, "checks": (wave_chain.need,)}
    about |= {"disk_mb": store_mb(recipe, n), "estimate": estimate, "parallel": True, "alone": True}
    return Stage("augment", recipe, path, key, counted(n, "clip"), do, **about)


def augment(source: AugmentSource, out: Path, *, n: int, seed: int, fingerprint: str) -> None:
    """Make the store of augmented clips of a recipe; a worker process can call it."""
    augment_clips(*source.sets(), out, n=n, seed=seed, fingerprint=fingerprint)


def augment_clips(
    clips: ClipSubset,
    backgrounds: ClipSubset,
    out: Path,
    *,
    n: int,
    seed: int,
    fingerprint: str,
    codec: "Codec | None" = None,
) -> ClipStore:
    """Augment real clips in turn (`ajbench.data.rounds`) and write the results as a store.

    Augmentation j of clip X has the id `aug-X-j`, the parent X and its labels. It depends on (seed, id) and
    on the backgrounds only.

    Args:
        clips: real train clips of a classifier.
        backgrounds: clips that may be mixed in: the generator's pool, which the clips of source G come from.
        out: folder of the new store.
        n: clips to make.
        seed: of the run.
        fingerprint: of everything that affects the store; a folder with another fingerprint is refused.
        codec: use this instance instead of loading the one of `clips`.

    Raises:
        MissingError: the library audiomentations is not installed.
        IntegrityError: another codec, or the folder belongs to another job.
    """
    if open_job(out, fingerprint):
        return ClipStore.open(out)
    from ajbench import codec as codecs
    from ajbench.core.device import device_of, use_threads

    maker, real = wave_chain.need(), clips.store
    codec = codec or codecs.load(real.meta.codec, device_of(), real.meta.codec_hash)
    require_codec(real, codec.name, codec.weights_hash)
    places = rounds(real.sparse_targets()[clips.indices], n, seed)
    columns = {name: real.column(name) for name in COLUMNS}
    job = ShardJob(out, n, SHARD_CLIPS)

    def record(item: int) -> dict[str, Any]:
        place = int(places[item])
        values = {name: column[clips.indices[place]] for name, column in columns.items()}
        clip_id = f"aug-{values['clip_id']}-{item // len(clips.indices)}"
        own = seed_for(seed, clip_id)
        about = {"clip_id": clip_id, "parent_id": values["clip_id"], "source": "augmented"}
        flac = audio.flac_encode(augmented(clips, place, backgrounds, own))
        return values | about | {"seed": own, "generator": maker, "audio": flac}

    def make(shard: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        records: list[dict[str, Any]] = []
        items = job.items(shard)
        for start in range(0, len(items), BATCH):
            batch = [record(item) for item in items[start : start + BATCH]]
            waves = np.zeros((BATCH, real.meta.clip_samples), np.float32)
            for wave, values in zip(waves, batch, strict=False):
                wave[:] = audio.flac_decode(values["audio"])
            memory.need_reserve()
            encoded = codec.encode(waves)
            records += [values | {"codes": codes} for values, codes in zip(batch, encoded, strict=False)]
            advance(len(batch))
        return records, {}

    # Codes may depend on the number of threads; sets of several folds and draws are made side by side.
    one_thread = use_threads(1) if device_of().type == "cpu" else nullcontext()
    with one_thread, progress(job.n, "augment") as advance:
        job.run(make, advance)
    changes: dict[str, Any] = {"fingerprint": fingerprint, "shards": [], "source": "synthetic"}
    changes |= {"counts": {"train": dict.fromkeys(("expected", "found", "decoded", "kept"), n)}}
    changes |= {"extra": {"augmented_by": maker}}
    job.close(lambda notes: shards.finish(out, real.meta.model_copy(update=changes)))
    return ClipStore.open(out)


def augmented(clips: ClipSubset, k: int, backgrounds: ClipSubset, seed: int) -> NDArray[np.float32]:
    """Return an augmentation of clip k, float32 [clip_samples]."""
    return wave_chain.augment(clips.wave(k), seed, len(backgrounds.indices), backgrounds.wave)
