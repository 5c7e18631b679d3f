"""Synthesis: make a plan, then generate its shards in any number of processes into a synthetic clip store.

A clip is a function of (run seed, clip id), the generator and the plan's row. Micro-batches are always full
(padded): a clip's bits do not depend on the other clips in its batch, but they may depend on its size.
`ajbench.data.shard_job` resumes interrupted runs; they end with the same bytes.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ajbench import codec as codecs
from ajbench.core import console, ray_tasks
from ajbench.core.errors import IntegrityError, NumericError, UsageError
from ajbench.core.recipe import Recipe, Synth
from ajbench.core.run_dir import local_rank, world
from ajbench.data import shards
from ajbench.data.manifest import Problem
from ajbench.data.shard_job import POLL_S, claimed, discard, open_job
from ajbench.data.store import ClipStore, require_codec
from ajbench.generation import checkpoint as folders
from ajbench.generation import processes as local
from ajbench.generation import ray_workers, settings, shard_report
from ajbench.generation.plan import UNGUIDED, ListedClips, class_list, plan, split_of, unguided
from ajbench.generation.prompts import truncated, with_tokens
from ajbench.generation.worker import Job, remove_strays


def synthesize(
    recipe: Recipe,
    store: ClipStore,
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
    engine: ray_tasks.Engine = "local",
    judge_weights: Path | None = None,
) -> ClipStore:
    """Generate the clips of the recipe's plan, or those that are still missing, into the store `out`.

    Results that are silent, clipped or not finite are replaced with up to `synth.retries` other seeds (each
    rejected seed is in `retries.csv`); clips that still fail are listed in `quarantine.csv` and are missing
    from the store. Any number of processes, of this call and of others on the same folder, share the shards;
    of those that `torchrun` launched, the first closes the store.

    Args:
        recipe: its `synth` section is used, and `mix.real` where guides come from those clips.
        store: real clips; guides come from its train split, or from the part in `mix.real`.
        generator_dir: a trained generator.
        tokens_dir: its class tokens or LoRA; None if neither is used.
        out: folder of the synthetic store.
        fingerprint: of everything that affects the store; a folder with another fingerprint is refused.
        processes: number of generating processes; 1 is this one. With Ray: workers at a time on this machine.
        threads: torch threads per process.
        seed: of the run; None is the recipe's.
        allow_inexact: continue even if threads, device type or versions differ from those the job began with.
        codec: an instance to use instead of loading the generator's.
        engine: `local` processes, or `ray` with one task per shard.
        judge_weights: of `synth.judge`, if it is a trained classifier.

    Raises:
        IntegrityError: the generator was trained on recordings of the store's evaluation clips (the leak
            rule) or belongs to another codec or clip length, or the folder belongs to another job or plan.
        MissingError: generator, tokens, the codec's weights or Ray are missing, or the disk is full.
        NumericError: no result was usable.
        UsageError: there cannot be as many clips of each real clip, as `mix.mode=alpha` needs.
    """
    first = world()[1] == 0
    if not open_job(out, fingerprint):
        if engine == "ray":
            ray_tasks.need()
        section = recipe.synth
        seed = section.seed if seed is None else seed
        info, tokens = inputs(section, store, generator_dir, tokens_dir)
        exact = settings.exact(section, threads)
        mix, captions = recipe.mix if recipe.guides_are_real else None, section.plan == "captions"
        clips = ListedClips.of_store(store, split_of(section), mix=mix, captions=captions)
        clips = clips.with_tail(recipe.mix)
        without = unguided(section, clips)
        if without:
            console.say(f"synth: {class_list(without)} without a train clip: {UNGUIDED[section.unguided]}")
        of_each = recipe.mix.mode == "alpha" and recipe.mix.alpha and recipe.mix.source == "G"
        if of_each and section.n % (real := len(clips.clip_ids)):
            raise UsageError(
                f"synth.n={section.n}: mix.mode=alpha needs as many clips of each of the {real} real clips; "
                f"choose a multiple, such as {real * max(1, round(section.n / real))}"
            )
        table = plan(section, clips, tokens, seed)
        with claimed(out, "settings"):
            closed = (out / "store.json").exists()  # another process may have finished meanwhile
            known = "" if closed else settings.begin(out, table, exact, allow_inexact)
        paths = generator_dir, tokens_dir, out
        job = Job(section, store, *paths, codec, threads, len(table), seed, known, judge_weights)
        with console.progress(job.n, "synth") as advance:
            if closed:
                pass
            elif engine == "ray":
                ray_workers.share(job, processes, None if allow_inexact else exact, advance)
            elif processes == 1:
                job.work(local_rank(), advance)
            else:
                local.share(job, processes, processes * local_rank(), advance)
        while not (first or job.shards.closed):
            time.sleep(POLL_S)
        job.shards.close(lambda notes: _finish(job, store, notes, fingerprint, info, exact, without))
    return ClipStore.open(out, verify=first)


def inputs(
    section: Synth, store: ClipStore, generator_dir: Path, tokens_dir: Path | None
) -> tuple[folders.GeneratorInfo, dict[str, str] | None]:
    """Return what is known about the generator, and the class tokens in `tokens_dir` (label → token).

    Raises:
        IntegrityError: generator or tokens do not fit the store.
        MissingError: one of them is missing.
        UsageError: the negative prompt names a class token that there is not.
    """
    info = folders.read_info(generator_dir)
    require_codec(store, info.codec, info.codec_hash)
    if info.clip_samples != store.meta.clip_samples:
        raise IntegrityError(
            f"{generator_dir}: makes clips of {info.clip_samples} samples, those of {store.path} have "
            f"{store.meta.clip_samples}; use the same data.duration_s"
        )
    folders.refuse_leak(generator_dir, info, store)
    tokens: Mapping[str, str] = {}
    if tokens_dir is not None or (generator_dir / folders.TOKENS).exists():
        known, _ = folders.read_tokens(tokens_dir or generator_dir)
        if tokens_dir is not None or known.lora_rank:  # an exported generator's LoRA is always applied
            folders.refuse_leak(tokens_dir or generator_dir, known, store)
        tokens = known.tokens
    with_tokens(section.negative, tokens, "synth.negative")
    return info, None if tokens_dir is None else dict(tokens)


def _finish(
    job: Job,
    store: ClipStore,
    notes: list[dict[str, Any]],
    fingerprint: str,
    info: folders.GeneratorInfo,
    exact: Mapping[str, Any],
    without: Sequence[str],
) -> None:
    """Combine the notes of all shards into quarantine and reports, and close the store.

    Args:
        job: whose shards are all written.
        store: of the real clips.
        notes: of the shards.
        fingerprint: of the store.
        info: of the generator.
        exact: the settings that bits depend on.
        without: classes without a train clip.

    Raises:
        NumericError: no result was usable.
    """
    problems = [Problem(**item) for note in notes for item in note["problems"]]
    failed = [item for note in notes for item in note[shard_report.RETRIES]]
    cut = sum(note["cut"] for note in notes)
    for name in ("quarantine.csv", *shard_report.COLUMNS, "store.json"):
        remove_strays(job.out, name)
    shards.write_quarantine(job.out, problems)
    shard_report.write(job.out, shard_report.RETRIES, failed)
    for name in (shard_report.STATISTICS, shard_report.TIMING):
        shard_report.write(job.out, name, [note[name] for note in notes])
    if len(problems) == job.n:
        discard(job.out)
        raise NumericError(
            f"{job.out}: none of {job.n} results is usable ({problems[0].reason}); train the "
            "generator longer or lower synth.guidance"
        )
    mended = len({item["clip_id"] for item in failed}) - len(problems)
    if mended:
        console.say(f"synth: {mended} of {job.n} clips needed another seed: {job.out / shard_report.RETRIES}")
    if problems:
        console.say(f"synth: {len(problems)} of {job.n} clips rejected: {job.out / 'quarantine.csv'}")
    if cut:
        console.say(f"synth: {truncated(cut, job.n, info.max_tokens)}")
    counts = dict.fromkeys(("expected", "found", "decoded"), job.n) | {"kept": job.n - len(problems)}
    real = store.meta
    meta = shards.StoreMeta(
        codec=info.codec,
        codec_hash=info.codec_hash,
        hop=real.hop,
        clip_samples=real.clip_samples,
        labels=real.labels,
        mids=real.mids,
        counts={split_of(job.section): counts},
        fingerprint=fingerprint,
        source="synthetic",
        train_ids_hash=shards.ids_hash(store.clip_ids[i] for i in store.split_indices("train")),
        eval_ids_hash=shards.ids_hash(store.held_out()),
        extra={
            "plan": job.section.plan,
            "plan_xxh3": job.plan_hash,
            "generator": info.fingerprint,
            "frames": info.frames,
            "prompts_cut": cut,
            "mended": mended,
            "unguided": {"what": job.section.unguided, "classes": list(without)},
            **exact,
        },
    )
    shards.finish(job.out, meta)
