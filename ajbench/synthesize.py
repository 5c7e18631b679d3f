"""Synthesis: a plan first, then its shards, in as many processes as wanted, into a synthetic clip store.

A clip is a function of (run seed, clip id), the generator and the plan's row. Work runs in micro-batches
that are always full (padded), as a clip's bits do not depend on its companions but may on the size of the
batch. A shard is written whole or not at all, so a run that was killed goes on with the missing ones and
ends with the same bytes.
"""

import contextlib
import io
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from accelerate import PartialState

from ajbench import codec as codecs
from ajbench import console
from ajbench import store as stores
from ajbench.errors import IntegrityError, MissingError
from ajbench.generator import folder as folders
from ajbench.generator.job import PLAN, POLL_S, Job, remove_strays, use_threads
from ajbench.generator.plan import plan
from ajbench.recipe import Recipe, Synth
from ajbench.run import atomic_write

__all__ = ["estimate", "plan", "synthesize"]


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
) -> stores.ClipStore:
    """Generate the clips of the recipe's plan, or what is still missing of them, into the store `out`.

    Results that are silent, clipped all through or not finite are left out, listed in `quarantine.csv`, and
    not replaced. Any number of processes, of this call and of others on the same folder, share the shards.

    Args:
        recipe: its `synth` section is used.
        store: real clips; guides come from its train split.
        generator_dir: a trained generator.
        tokens_dir: its class tokens; None where prompts need none.
        out: the synthetic store's folder.
        fingerprint: of everything that bears on the store; another one is refused in the same folder.
        processes: that generate; 1 is this one.
        threads: of torch, in each.
        seed: of the run; None is the recipe's.
        allow_inexact: go on although threads, device kind or versions differ from those the job began with.
        codec: an instance to use instead of loading the generator's.

    Raises:
        IntegrityError: the generator was trained on clips that the store evaluates on (the leak rule),
            belongs to another codec or clip length, or the folder to another job.
        MissingError: generator, tokens or a codec's weights are not there.
        NumericError: no result was usable.
    """
    if stores.open_job(out, fingerprint):
        return stores.ClipStore.open(out)
    section = recipe.synth
    info, tokens = _inputs(section, store, generator_dir, tokens_dir)
    exact = {
        "threads": threads,
        "device": PartialState().device.type,
        "torch": torch.__version__,
        "micro_batch": section.micro_batch,
    }
    with _claimed(out, "settings"):
        _require_same(out / stores.CLAIMS / "settings.json", exact, allow_inexact)
        remove_strays(out, PLAN)
        table = plan(section, store, tokens, seed)
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        atomic_write(out / PLAN, buffer.getvalue())
    job = Job(section, store, generator_dir, tokens_dir, out, codec, threads, len(table))
    with console.progress(len(table), "synth") as advance:
        if processes == 1:
            job.work(0, advance)
        else:
            _share(job, processes, advance)
    if not job.closed:
        with _claimed(out, "finish"):
            if not job.closed:
                job.close(fingerprint, info, exact)
    return stores.ClipStore.open(out)


def estimate(
    recipe: Recipe,
    store: stores.ClipStore,
    generator_dir: Path | None = None,
    tokens_dir: Path | None = None,
    *,
    processes: int = 1,
    threads: int = 1,
    codec: "codecs.Codec | None" = None,
) -> dict[str, Any]:
    """Return what a synthesis would take: clips, shards, bytes (as the real clips take), seconds.

    Seconds come from one micro-batch made after another that warms up; None without a generator.
    """
    section = recipe.synth
    size = sum((store.path / entry.file).stat().st_size for entry in store.meta.shards) / max(1, len(store))
    batches = -(-section.n // section.micro_batch)
    seconds = None
    if generator_dir is not None:
        _, tokens = _inputs(section, store, generator_dir, tokens_dir)
        table = plan(section.model_copy(update={"n": min(section.n, section.micro_batch)}), store, tokens)
        job = Job(section, store, generator_dir, tokens_dir, store.path, codec, threads, len(table))
        with use_threads(threads):
            pipeline = job.load(0)
            took = [_timed(lambda: job.generate(pipeline, table.to_pylist())) for _ in range(2)]
        seconds = round(took[-1] * batches / processes, 1)
    return {
        "clips": section.n,
        "shards": -(-section.n // section.shard_size),
        "micro_batches": batches,
        "bytes": round(size * section.n),
        "seconds": seconds,
    }


def _inputs(
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
        return info, None
    known, _ = folders.read_tokens(tokens_dir)
    folders.refuse_leak(tokens_dir, known.train_ids, store)
    return info, known.tokens


def _require_same(path: Path, exact: Mapping[str, Any], allow_inexact: bool) -> None:
    if path.exists() and not allow_inexact:
        began = json.loads(path.read_text())
        if other := [f"{k} {began.get(k)} → {v}" for k, v in exact.items() if began.get(k) != v]:
            raise IntegrityError(
                f"{path.parent.parent}: begun with other settings ({', '.join(other)}), which changes "
                "bits; use those, or --allow-inexact"
            )
    if not path.exists():
        atomic_write(path, json.dumps(exact))


def _share(job: Job, processes: int, advance: Callable[[int], None]) -> None:
    """Let `processes` others do the job, and report what they have finished."""
    context = multiprocessing.get_context("spawn")
    done = 0
    with ProcessPoolExecutor(processes, context, initializer=_end_with_parent) as pool:
        running: set[Future[None]] = {pool.submit(job.work, rank, _nothing) for rank in range(processes)}
        while running:
            finished, running = wait(running, timeout=POLL_S)
            for future in finished:
                try:
                    future.result()
                except BrokenProcessPool:
                    raise MissingError(
                        f"{job.out}: a process was killed, most likely for want of memory; run "
                        "again with fewer --processes"
                    ) from None
            ready = sum(job.note(shard).exists() for shard in job.shards)
            now = min(job.n, ready * job.section.shard_size)
            advance(now - done)
            done = now


def _nothing(n: int) -> None:
    """Report no progress: the parent does."""


def _end_with_parent() -> None:
    """End this process when its parent has gone, even by a kill that left it no time to say so."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _claimed(folder: Path, name: str) -> Iterator[None]:
    while (held := stores.claim(folder, name)) is None:
        time.sleep(POLL_S)
    with held:
        yield


def _timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    list(function())
    return time.perf_counter() - start
