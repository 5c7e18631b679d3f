"""The end of a synthesis: what the shards' notes say, put together, and the store closed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ajbench.core import console
from ajbench.core.errors import NumericError
from ajbench.data import store as stores
from ajbench.data.manifest import Problem
from ajbench.generation import shard_report
from ajbench.generation.checkpoint import GeneratorInfo
from ajbench.generation.plan import split_of
from ajbench.generation.worker import Job, remove_strays


def close(
    job: Job, fingerprint: str, info: GeneratorInfo, exact: Mapping[str, Any], unguided: Sequence[str]
) -> None:
    """Write quarantine, retries, statistics and times of a job whose shards are all made; close its store.

    Args:
        job: the caller alone closes it.
        fingerprint: of the store.
        info: of the generator.
        exact: what bits depend on besides.
        unguided: classes without a guide, of which `synth.unguided` decided.

    Raises:
        NumericError: no result was usable.
    """
    notes = [json.loads(job.note(shard).read_text()) for shard in job.shards]
    problems = [Problem(**item) for note in notes for item in note["problems"]]
    failed = [item for note in notes for item in note[shard_report.RETRIES]]
    cut = sum(note["cut"] for note in notes)
    for name in ("quarantine.csv", *shard_report.COLUMNS, "store.json"):
        remove_strays(job.out, name)
    stores.write_quarantine(job.out, problems)
    shard_report.write(job.out, shard_report.RETRIES, failed)
    for name in (shard_report.STATISTICS, shard_report.TIMING):
        shard_report.write(job.out, name, [note[name] for note in notes])
    if len(problems) == job.n:
        stores.discard(job.out)
        raise NumericError(
            f"{job.out}: none of {job.n} results is usable ({problems[0].reason}); train the "
            "generator longer or lower synth.guidance"
        )
    mended = len({item["clip_id"] for item in failed}) - len(problems)
    if mended:
        console.say(f"synth: {mended} of {job.n} clips needed another seed: {job.out / shard_report.RETRIES}")
    if problems:
        console.say(f"synth: {len(problems)} of {job.n} results left out: {job.out / 'quarantine.csv'}")
    if cut:
        console.say(f"synth: {cut} of {job.n} prompts are longer than generator.max_tokens, and were cut")
    made = dict.fromkeys(("expected", "found", "decoded"), job.n) | {"kept": job.n - len(problems)}
    meta = job.store.meta
    stores.finish(
        job.out,
        stores.StoreMeta(
            codec=info.codec,
            codec_hash=info.codec_hash,
            hop=meta.hop,
            clip_samples=meta.clip_samples,
            labels=meta.labels,
            mids=meta.mids,
            counts={split_of(job.section): made},
            fingerprint=fingerprint,
            source="synthetic",
            train_ids_hash=stores.ids_hash(info.train_ids),
            extra={
                "plan": job.section.plan,
                "plan_xxh3": job.plan_hash,
                "generator": info.fingerprint,
                "frames": info.frames,
                "prompts_cut": cut,
                "mended": mended,
                "unguided": {"what": job.section.unguided, "classes": list(unguided)},
                **exact,
            },
        ),
    )
