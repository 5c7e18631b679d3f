"""Synthesis: a plan first, then its shards, in as many processes as wanted, into a synthetic clip store.

A clip is a function of (run seed, clip id), the generator and the plan's row. Work runs in micro-batches
that are always full (padded), as a clip's bits do not depend on its companions but may on the size of the
batch. A shard is written whole or not at all, so a run that was killed goes on with the missing ones and
ends with the same bytes.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ajbench import codec as codecs
from ajbench.core import console
from ajbench.core.errors import IntegrityError
from ajbench.core.recipe import Recipe, Synth
from ajbench.core.run_dir import local_rank, world
from ajbench.data import store as stores
from ajbench.generation import checkpoint as folders
from ajbench.generation import processes as local
from ajbench.generation import ray_workers, settings
from ajbench.generation.closing import close
from ajbench.generation.plan import UNGUIDED, ListedClips, plan, split_of, told, unguided
from ajbench.generation.worker import POLL_S, Job

__all__ = ["Engine", "ListedClips", "inputs", "plan", "synthesize"]

Engine = Literal["local", "ray"]


def synthesize(
    recipe: Recipe,
    store: stores.ClipStore,
    generator_dir: Path,
    tokens_dir: Path | None,
    out: Path,
    *,
    fingerprint: str,
    processes: int = 1,
    threads: int = 1,
    seed: int | None = None,
    allow_inexact: bool = False,
    codec: "codecs.Codec | None" = None,
    engine: Engine = "local",
    judge_weights: Path | None = None,
) -> stores.ClipStore:
    """Generate the clips of the recipe's plan, or what is still missing of them, into the store `out`.

    Results that are silent, clipped all through or not finite are tried again with `synth.retries` other
    seeds (each that failed is in `retries.csv`), then left out, listed in `quarantine.csv`, and not replaced.
    Any number of processes, of this call and of others on the same folder, share the shards; of those that
    `torchrun` launched, the first closes the store.

    Args:
        recipe: its `synth` section is used.
        store: real clips; guides come from its train split.
        generator_dir: a trained generator.
        tokens_dir: its class tokens or LoRA; None where neither is needed.
        out: the synthetic store's folder.
        fingerprint: of everything that bears on the store; another one is refused in the same folder.
        processes: that generate; 1 is this one. Of Ray: how many at a time on this machine.
        threads: of torch, in each.
        seed: of the run; None is the recipe's.
        allow_inexact: go on although threads, device kind or versions differ from those the job began with.
        codec: an instance to use instead of loading the generator's.
        engine: `local` processes, or `ray` tasks, a shard each.
        judge_weights: of `synth.judge`, where it is a trained classifier.

    Raises:
        IntegrityError: the generator was trained on clips that the store evaluates on (the leak rule),
            belongs to another codec or clip length, or the folder to another job or plan.
        MissingError: generator, tokens, a codec's weights or Ray are not there, or the disk is full.
        NumericError: no result was usable.
    """
    first = world()[1] == 0
    if not stores.open_job(out, fingerprint):
        if engine == "ray":
            ray_workers.need()
        section = recipe.synth
        seed = section.seed if seed is None else seed
        info, tokens = inputs(section, store, generator_dir, tokens_dir)
        exact = settings.exact(section, threads)
        clips = ListedClips.of_store(store, split_of(section), captions=section.plan == "captions")
        without = unguided(section, clips)
        if without:
            console.say(f"synth: {told(without)} without a train clip as guide: {UNGUIDED[section.unguided]}")
        table = plan(section, clips, tokens, seed)
        with _claimed(out, "settings"):
            over = (out / "store.json").exists()  # since it was looked for
            known = "" if over else settings.begin(out, table, exact, allow_inexact)
        paths = generator_dir, tokens_dir, out
        job = Job(section, store, *paths, codec, threads, len(table), seed, known, judge_weights)
        with console.progress(job.n, "synth") as advance:
            if over:
                pass
            elif engine == "ray":
                ray_workers.share(job, processes, None if allow_inexact else exact, advance)
            elif processes == 1:
                job.work(local_rank(), advance)
            else:
                local.share(job, processes, processes * local_rank(), advance)
        while not (first or job.closed):
            time.sleep(POLL_S)
        if not job.closed:
            with _claimed(out, "finish"):
                if not job.closed:
                    close(job, fingerprint, info, exact, without)
        stores.open_job(out, fingerprint)  # clears what was claimed after the store had been closed
    return stores.ClipStore.open(out, verify=first)


def inputs(
    section: Synth, store: stores.ClipStore, generator_dir: Path, tokens_dir: Path | None
) -> tuple[folders.GeneratorInfo, dict[str, str] | None]:
    """Read what is known of generator and tokens, and refuse what does not fit the store."""
    info = folders.read_info(generator_dir)
    stores.require_codec(store, info.codec, info.codec_hash)
    if info.clip_samples != store.meta.clip_samples:
        raise IntegrityError(
            f"{generator_dir}: makes clips of {info.clip_samples} samples, those of {store.path} have "
            f"{store.meta.clip_samples}; use the same data.duration_s"
        )
    folders.refuse_leak(generator_dir, info.train_ids, store)
    if tokens_dir is None:
        if (generator_dir / folders.TOKENS).exists():  # exported: LoRA is heard without being asked for
            known, _ = folders.read_tokens(generator_dir)
            folders.refuse_leak(generator_dir, known.train_ids if known.lora_rank else (), store)
        return info, None
    known, _ = folders.read_tokens(tokens_dir)
    folders.refuse_leak(tokens_dir, known.train_ids, store)
    return info, known.tokens


@contextlib.contextmanager
def _claimed(folder: Path, name: str) -> Iterator[None]:
    while (held := stores.claim(folder, name)) is None:
        time.sleep(POLL_S)
    with held:
        yield
