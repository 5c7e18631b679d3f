"""Source X of a mix: synthetic clips made elsewhere are audited, judged and written as a store."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ajbench.core import console, memory
from ajbench.core.console import counted
from ajbench.core.errors import IntegrityError, MissingError, NumericError, UsageError
from ajbench.core.files import atomic_write
from ajbench.core.sealed_json import read_sealed, write_sealed
from ajbench.data import audio, shards
from ajbench.data.clip_set import ClipSet, ahead, open_set
from ajbench.data.external_clips import ExternalClips
from ajbench.data.manifest import Problem
from ajbench.data.shard_job import ShardJob, discard, open_job
from ajbench.data.store import ClipStore, require_codec
from ajbench.pipeline import changed_files
from ajbench.pipeline.given_models import pool_identity
from ajbench.pipeline.inputs import corpus_identity
from ajbench.pipeline.stage import Stage, store_mb

if TYPE_CHECKING:
    from ajbench.codec import Codec
    from ajbench.generation.fidelity import Judge
    from ajbench.pipeline.recipe_stages import Pipeline

NAME = "X"  # of the set in rows.csv
BATCH = 8  # clips that are encoded together, always as many: codes depend on the size of the batch
SHARD_CLIPS = 256
READERS, READ_AHEAD = 2, 32
AUDIT, PAGE = "audit.json", "audit.html"
Found = dict[str, Any]


def read(pipeline: "Pipeline") -> ExternalClips:
    """Return the clips of --synthetic.

    Raises:
        UsageError: none are given, or as `external_clips.read`.
    """
    source = pipeline.places.synthetic
    if source is None:
        raise UsageError("mix.source=X: name the synthetic clips with --synthetic DIR")
    return source.read(pipeline.manifest, pipeline.recipe.data)


def audit_stage(pipeline: "Pipeline") -> Stage:
    """Clips from elsewhere and real clips → what they repeat of the eval split (leaks) and the train split.

    The stage ends with an error if there are leaks, unless these are allowed.
    """
    external, prepared, source = pipeline.external, pipeline.prepare, pipeline.places.synthetic
    allowed = source is not None and source.allow_leaks
    identity: list[Any] = [*_identity(external)]
    if external.strangers:  # parents outside the corpus, which may be of an eval clip's recording
        identity.append(list(external.clips.parents))
    key, path = pipeline.place("audit", prepared.fingerprint, *identity, *(["leaks"] if allowed else []))
    if changed := changed_files.since_recorded(_files(external), path):
        key, path = pipeline.place("audit", key, changed)

    def do() -> None:
        changed_files.record(_files(external), path)
        audit_clips(external, prepared.path, path, pipeline.places.work / "features", allowed)

    amount = counted(len(external), "clip")
    return Stage("audit", pipeline.recipe, path, key, amount, do, what=NAME, needs=(prepared,))


def import_stage(pipeline: "Pipeline", judge: Stage) -> Stage:
    """Clips from elsewhere → a synthetic clip store like that of `synth`, with the fidelity of each clip.

    Args:
        pipeline: stages of the recipe.
        judge: the training of the classifier that scores the clips.
    """
    external, prepared, audited = pipeline.external, pipeline.prepare, audit_stage(pipeline)
    # Whether leaks are allowed changes no clip.
    key, path = pipeline.place("import", prepared.fingerprint, judge.fingerprint, *_identity(external))
    if changed := changed_files.since_recorded(_files(external), path):
        key, path = pipeline.place("import", key, changed)

    def do() -> None:
        from ajbench.generation.fidelity import Judge

        real = ClipStore.open(prepared.path)
        changed_files.record(_files(external), path)
        import_clips(external, real, path, fingerprint=key, judge=Judge("reference", judge.path, real.meta))

    about: dict[str, Any] = {"needs": (prepared, audited, judge), "what": NAME, "shared": True}
    about["disk_mb"] = store_mb(pipeline.recipe, len(external))
    return Stage("import", pipeline.recipe, path, key, counted(len(external), "clip"), do, **about)


def _files(external: ExternalClips) -> dict[str, Path]:
    clips = external.clips  # of a store, the checksums of its shards are in `_identity`
    return {} if clips.is_store else dict(zip(clips.names, clips.files, strict=True))


def _identity(external: ExternalClips) -> list[str]:
    return [
        corpus_identity(external.manifest),
        *([pool_identity(external.path)] if external.clips.is_store else ()),
    ]


def audit_clips(external: ExternalClips, real: Path, out: Path, cache: Path, allow_leaks: bool) -> None:
    """Compare clips from elsewhere with the real ones; write `audit.json`, `leaks.csv` and `audit.html`.

    Args:
        external: the clips.
        real: the real clip store.
        out: folder of the stage.
        cache: folder for fingerprints during the audit.
        allow_leaks: whether clips that repeat eval clips are accepted.

    Raises:
        NumericError: clips repeat eval clips, and leaks are not allowed.
        IntegrityError: their generator was compared with another eval split, and leaks are not allowed.
        MissingError: there are too few clips for an audit, and leaks are not allowed.
    """
    from ajbench.evaluation.audit import audit_sets
    from ajbench.evaluation.audit_findings import COLUMNS
    from ajbench.reporting import audit_page
    from ajbench.reporting.formats import to_csv

    other = _other_eval_split(external, ClipStore.open(real, verify=False))
    if other and not allow_leaks:
        raise IntegrityError(
            f"--synthetic {external.path}: {other}; run synth on this fold, or add --allow-leaks, which "
            "marks the results"
        )
    sets = external.clips, open_set(real, "train"), open_set(real, "eval")
    try:
        found = audit_sets(*sets, cache=cache, allow_partial=True)
    except MissingError as error:
        if not allow_leaks:
            raise MissingError(f"{error}; or go on without an audit: --allow-leaks") from None
        sentence = f"not audited: {error}"
        write_sealed(out / AUDIT, {"leaks": None, "sentences": [sentence]})
        console.say(f"audit of {NAME}: {sentence}")
        return
    sentences, leaks = [*found.sentences(), *([other] if other else [])], found.tally("leak")
    for sentence in sentences:
        console.say(f"audit of {NAME}: {sentence}")
    atomic_write(out / "leaks.csv", to_csv([one.row() for one in found.of("leak")], columns=COLUMNS))
    audit_page.render(found, sets, out / PAGE)
    if leaks.holds and not allow_leaks:
        example = found.of("leak")[0]
        reason = sentences[0] if leaks.sure else leaks.sentence("synthetic", "eval")
        raise NumericError(
            f"--synthetic {external.path}: {reason}; for example, {example.clip} and {example.match}; "
            f"remove the clips listed in {out / 'leaks.csv'}, choose other folds (evaluate.folds, or "
            "data.eval_fold if that has none), or add --allow-leaks, which marks the results"
        )
    repeated = leaks.sure + leaks.weak if leaks.holds else 0
    document = {"leaks": repeated or (None if other else 0), "sentences": sentences}
    write_sealed(out / AUDIT, document | {"counts": found.counts()}, indent=1)


def _other_eval_split(external: ExternalClips, real: ClipStore) -> str:
    """Return that a store of clips was made for another eval split of the same classes, in words, or "".

    Not of one whose parents are all of another corpus.
    """
    if not external.clips.is_store:
        return ""
    store = ClipStore.open(external.path, verify=False)
    made, parents = store.meta, {*store.column("parent_id")} - {None}
    if not made.eval_ids_hash or made.labels != real.meta.labels:
        return ""
    if made.eval_ids_hash == shards.ids_hash(real.held_out()) or (parents and not parents & {*real.clip_ids}):
        return ""
    return "made for another eval split than this; its generator may have heard evaluation clips"


def audited(stage: Stage) -> Found | None:
    """Return what the audit of the external clips that a stage reads has found; None if it reads none.

    Keys: `leaks`, the number of clips that repeat eval clips, None if they were not compared; `sentences`.

    Raises:
        IntegrityError: what the audit has written is damaged.
    """
    path = next((need.path for need in in_needs(stage) if need.name == "audit" and need.done()), None)
    if path is None:
        return None
    return read_sealed(path / AUDIT, "delete its folder and run again", keys=("leaks", "sentences"))


def fidelity(store: Path) -> str:
    """Return in words how surely the reference classifier predicts the labels of imported clips."""
    scores = np.array(ClipStore.open(store, verify=False).column("fidelity"), np.float64)
    low = counted(int((scores <= 0.5).sum()), "clip")
    return f"mean fidelity {scores.mean():.2f} by the reference classifier, at most 0.5 for {low}"


def in_needs(stage: Stage) -> list[Stage]:
    """Return the stages that a stage reads, and what the import of external clips among them needs."""
    return [one for need in stage.needs for one in (need, *(need.needs if need.name == "import" else ()))]


def import_clips(
    external: ExternalClips,
    real: ClipStore,
    out: Path,
    *,
    fingerprint: str,
    judge: "Judge | None" = None,
    codec: "Codec | None" = None,
) -> ClipStore:
    """Write clips from elsewhere as a synthetic store with the codec, length and classes of the real one.

    Clips that are silent, clipped, shorter than 0.25 s or unreadable, and byte-level duplicates, are listed
    in `quarantine.csv` with those that have no class.

    Args:
        external: the clips.
        real: the store of real clips.
        out: folder of the new store.
        fingerprint: of everything that affects the store; a folder with another fingerprint is refused.
        judge: scores the clips; None: they have no fidelity.
        codec: use this instance instead of loading the one of `real`.

    Raises:
        MissingError: no clip is usable.
        IntegrityError: another codec, or the folder belongs to another job.
    """
    if open_job(out, fingerprint):
        return ClipStore.open(out)
    from ajbench import codec as codecs
    from ajbench.core.device import device_of
    from ajbench.evaluation.audit_similarity import wave_of

    codec = codec or codecs.load(real.meta.codec, device_of(), real.meta.codec_hash)
    require_codec(real, codec.name, codec.weights_hash)
    clips, rows, label_set = external.clips, external.manifest.rows, external.manifest.label_set
    samples, job = real.meta.clip_samples, ShardJob(out, len(rows), SHARD_CLIPS)
    known = _columns(clips)
    first: dict[str, int] = {}
    for number, digest in enumerate(clips.keys):
        first.setdefault(digest, number)

    def read(number: int) -> tuple[int, NDArray[np.float32] | None, str | None]:
        original = first[clips.keys[number]]
        if original != number:
            return number, None, f"byte-level duplicate of {clips.names[original]}"
        try:
            wave = audio.fit(wave_of(clips, number), samples)
        except audio.AudioError as error:
            return number, None, error.reason
        return number, wave, audio.defect(wave)

    def records(batch: list[tuple[int, NDArray[np.float32]]]) -> list[dict[str, Any]]:
        memory.need_reserve()
        flac = [audio.flac_encode(wave) for _, wave in batch]
        waves = np.zeros((BATCH, samples), np.float32)
        for wave, data in zip(waves, flac, strict=False):
            wave[:] = audio.flac_decode(data)
        ids = [[label_set.index(name) for name in rows[number].labels] for number, _ in batch]
        requested = ids + [[]] * (BATCH - len(batch))
        scores = judge(waves, requested) if judge else [None] * len(batch)
        encoded = codec.encode(waves)
        return [
            {name: values[number] for name, values in known.items()}
            | _of_row(external, number)
            | {"label_ids": mine, "audio": data, "codes": codes, "fidelity": score}
            for (number, _), mine, data, codes, score in zip(batch, ids, flac, encoded, scores, strict=False)
        ]

    def make(shard: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        made: list[dict[str, Any]] = []
        batch: list[tuple[int, NDArray[np.float32]]] = []
        problems: list[list[str]] = []
        for number, wave, reason in ahead(pool, read, job.items(shard), READ_AHEAD):
            if wave is None or reason:
                problems.append([clips.names[number], rows[number].path, reason or ""])
            else:
                batch.append((number, wave))
            if len(batch) == BATCH:
                made += records(batch)
                batch = []
            advance(1)
        return made + (records(batch) if batch else []), {"problems": problems}

    with ThreadPoolExecutor(READERS) as pool, console.progress(job.n, "import") as advance:
        job.run(make, advance)
    job.close(lambda notes: _finish(external, real, out, fingerprint, notes))
    return ClipStore.open(out)


def _of_row(external: ExternalClips, number: int) -> dict[str, Any]:
    """Return the columns of a clip that its row has."""
    row = external.manifest.rows[number]
    about = {"clip_id": row.clip_id, "path": row.path, "start_s": 0.0, "labels": row.labels}
    return about | {
        "split": "train",
        "source": "synthetic",
        "parent_id": row.parent_id,
        "caption": row.caption,
    }


def _columns(clips: ClipSet) -> dict[str, list[Any]]:
    """Return what a store says of how its clips were made; nothing for files."""
    names = ("seed", "strength", "guidance", "steps", "generator")
    return {name: clips.column(name) for name in names} if clips.is_store else {}


def _finish(
    external: ExternalClips, real: ClipStore, out: Path, fingerprint: str, notes: list[Mapping[str, Any]]
) -> None:
    """Write quarantine.csv and close the store."""
    unusable = [
        Problem(name, path, None, reason) for note in notes for name, path, reason in note["problems"]
    ]
    problems = [*external.manifest.problems, *unusable]
    shards.write_quarantine(out, problems)
    kept, total = len(external) - len(unusable), len(external) + len(external.manifest.problems)
    if not kept:
        discard(out)
        raise MissingError(f"--synthetic {external.path}: no usable clip; see {out / 'quarantine.csv'}")
    counts = {"expected": total, "found": total, "decoded": kept, "kept": kept}
    changes: dict[str, Any] = {"fingerprint": fingerprint, "shards": [], "source": "synthetic"}
    changes |= {"counts": {"train": counts}, "extra": {"external": True}}
    whole = shards.assemble(out, real.meta.model_copy(update=changes))
    shards.finish(out, whole)
    if problems:
        console.say(
            f"import: {counted(kept, 'clip')} kept, {len(problems)} left out: see {out / 'quarantine.csv'}"
        )
