"""The end of a synthesis: what the shards' notes say, put together, and the store closed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ajbench import console
from ajbench import store as stores
from ajbench.errors import NumericError
from ajbench.generator import tally
from ajbench.generator.folder import GeneratorInfo
from ajbench.generator.job import Job, remove_strays
from ajbench.generator.plan import split_of
from ajbench.manifest import Problem


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
    failed = [item for note in notes for item in note[tally.RETRIES]]
    cut = sum(note["cut"] for note in notes)
    for name in ("quarantine.csv", *tally.COLUMNS, "store.json"):
        remove_strays(job.out, name)
    stores.write_quarantine(job.out, problems)
    tally.write(job.out, tally.RETRIES, failed)
    for name in (tally.STATISTICS, tally.TIMING):
        tally.write(job.out, name, [note[name] for note in notes])
    if len(problems) == job.n:
        stores.discard(job.out)
        raise NumericError(
            f"{job.out}: none of {job.n} results is usable ({problems[0].reason}); train the "
            "generator longer or lower synth.guidance"
        )
    mended = len({item["clip_id"] for item in failed}) - len(problems)
    if mended:
        console.say(f"synth: {mended} of {job.n} clips needed another seed: {job.out / tally.RETRIES}")
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
