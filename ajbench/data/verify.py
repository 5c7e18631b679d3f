"""A complete check of a finished clip store."""

from pathlib import Path
from typing import Any

from ajbench.core import console, files
from ajbench.core.errors import IntegrityError
from ajbench.data import shards
from ajbench.data.store import ClipStore, verify_checksum

CLIPS_AT_ONCE = 64


def verify(path: Path | str) -> dict[str, Any]:
    """Check everything in a finished store: `ajbench verify STORE`.

    Every checksum is computed again and every clip is decoded. Clip ids must be unique, codes below 1024,
    label ids consistent with label names, the clips of each split as many as `store.json` counts, and the
    plan of a synthetic store unchanged.

    Returns:
        A report: path, version, source, codec, fingerprint, clips, splits (split → clips), classes, shards
        (file, clips, xxh3 and bytes of each), quarantined.

    Raises:
        MissingError: there is no finished store.
        IntegrityError: something is wrong; the message lists what.
    """
    path = Path(path)
    meta, quarantine = shards.read_meta(path), shards.read_quarantine(path)
    for entry in meta.shards:
        verify_checksum(path / entry.file, entry.xxh3)
    store = ClipStore(path, meta)
    splits = store.column("split")
    counts = {name: splits.count(name) for name in sorted(set(splits))}
    if faults := _faults(store, counts):
        raise IntegrityError(f"{path}: {'; '.join(faults)}")
    with console.progress(len(store), "verify") as advance:
        for start in range(0, len(store), CLIPS_AT_ONCE):
            clips = range(start, min(start + CLIPS_AT_ONCE, len(store)))
            store.audio(clips)
            advance(len(clips))
    return {
        "path": str(path),
        "version": meta.version,
        "source": meta.source,
        "codec": meta.codec,
        "fingerprint": meta.fingerprint,
        "clips": len(store),
        "splits": counts,
        "classes": len(meta.labels),
        "shards": [
            {**entry.model_dump(), "bytes": (path / entry.file).stat().st_size} for entry in meta.shards
        ],
        # Of clips without their video there is a line too, although they are in the store.
        "quarantined": sum(not row["reason"].startswith(shards.OF_VIDEO) for row in quarantine),
    }


def _faults(store: ClipStore, counts: dict[str, int]) -> list[str]:
    faults = []
    if repeated := len(store) - len(set(store.clip_ids)):
        faults.append(f"repeated clip ids: {console.counted(repeated, 'clip')}")
    known = store.meta.labels
    for entry, shard in zip(store.meta.shards, store.mapped, strict=True):
        if shard.codes.max(initial=0) >= shards.ENTRIES:
            faults.append(f"{entry.file}: code {shard.codes.max()} (must be below {shards.ENTRIES})")
        names = shard.table.column("labels").to_pylist()
        ids = shard.table.column("label_ids").to_pylist()
        wrong = sum(
            [known[i] if 0 <= i < len(known) else None for i in row] != of
            for row, of in zip(ids, names, strict=True)
        )
        if wrong:
            faults.append(
                f"{entry.file}: label ids disagree with the labels in {console.counted(wrong, 'clip')}"
            )
    for split, numbers in store.meta.counts.items():
        found, kept = counts.get(split, 0), numbers.get("kept", 0)
        if found != kept:
            faults.append(f"split {split}: {console.counted(found, 'clip')}, store.json says {kept}")
    checksum, plan = store.meta.extra.get("plan_xxh3"), store.path / "plan.parquet"
    if checksum and not (plan.exists() and files.checksum(plan) == checksum):
        faults.append(f"{plan.name}: missing, or changed after the clips were made")
    return faults
