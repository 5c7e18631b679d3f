"""Corpus → real clip store: every file is read, defects are listed, the rest is cut to length and encoded.

The unit of work is a shard of consecutive manifest rows. A shard that is done stays done: a run that was
killed goes on with the missing ones, and several processes on one folder share them. None of that changes the
bytes.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ajbench import codec as codecs
from ajbench.codec.whitening import Kind, Whitening
from ajbench.core import console, registry
from ajbench.core.device import device_of
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import atomic_write
from ajbench.core.recipe import Recipe
from ajbench.data import audio, store
from ajbench.data.clip_reader import Heard, ahead, hear
from ajbench.data.duplicates import duplicates
from ajbench.data.manifest import Manifest, Problem, Row

# The codec is always given this many waves, zeros if need be: a clip's codes depend on the size of its batch
# (another size, other roundings) but not on its companions.
ENCODE_BATCH = 8
LATENT_BATCH = 64  # clips at once when whitening is fitted
READ_AHEAD = 4 * ENCODE_BATCH
# Threads that read: half the cores, as the codec wants the others, and few enough that waves wait for it.
READERS = max(2, min(8, (os.cpu_count() or 1) // 2))
SAMPLE = 16  # clips that an estimate prepares
COUNTED = ("expected", "found", "decoded", "kept")
UNASSIGNED = "unassigned"  # in the counts: what the corpus reader left out without knowing its split
POLL_S = 0.2


def prepare(
    recipe: Recipe,
    root: Path | None,
    out: Path,
    *,
    fingerprint: str,
    workers: int = READERS,
    manifest: Manifest | None = None,
    codec: codecs.Codec | None = None,
    link: bool = False,
    shard_clips: int = store.SHARD_CLIPS,
) -> store.StoreMeta:
    """Read a corpus and write its clip store, or what is still missing of it.

    Left out, and listed in `quarantine.csv`: what the corpus reader could not use, files that are missing,
    unreadable, too short, silent, not finite or clipped all through, and byte-level duplicates (the same
    bytes, start and duration) of an earlier row. Audio is kept as 16-bit FLAC; the codes are those of that
    FLAC.

    Args:
        recipe: its `data` and `codec` sections are used.
        root: the corpus' folder or file; None for `mini`.
        out: the store's folder.
        fingerprint: of everything that bears on the store; another one is refused in the same folder.
        workers: threads that read files.
        manifest: the corpus, where it has been read already.
        codec: use this one instead of the recipe's.
        link: keep where each clip's file is instead of its audio.
        shard_clips: manifest rows per shard.

    Returns:
        The store's metadata. `counts` has, for each split, how many clips the corpus lists (`expected`), are
        there (`found`), are usable sound (`decoded`) and are in the store (`kept`: without duplicates);
        `extra.source_rates` how many of these came at which sample rate.

    Raises:
        MissingError: no clip is left in the train or the eval split; nothing but quarantine.csv stays.
        IntegrityError: the folder belongs to a run with another fingerprint.
        UsageError: a clip gives no whole number of columns of 21 frames with this codec.
    """
    if store.open_job(out, fingerprint):
        return store.ClipStore.open(out).meta
    if manifest is None:
        manifest = registry.resolve("corpus", recipe.data.corpus)(recipe.data, root)
    _require_splits(recipe, Counter(row.split for row in manifest.rows), "the corpus lists none")
    codec = codec or codecs.load(recipe.codec.name, device_of())
    n, frames = _geometry(recipe, codec)
    with ThreadPoolExecutor(workers) as pool:
        firsts = _firsts(manifest.rows, out, pool)
        job = _Job(recipe, manifest, codec, out, n, link, shard_clips, pool, firsts)
        job.write_shards()
    while not store.open_job(out, fingerprint):
        if held := store.claim(out, "finish"):
            with held:
                if not store.open_job(out, fingerprint):
                    return job.close(fingerprint, frames)
        else:
            time.sleep(POLL_S)
    return store.ClipStore.open(out).meta


def estimate(
    recipe: Recipe, manifest: Manifest, *, workers: int = READERS, codec: codecs.Codec | None = None
) -> dict[str, Any]:
    """Return what preparing a corpus would take: clips, readers, bytes, seconds.

    Up to 16 clips, spread over the corpus, are prepared in a temporary folder.

    Raises:
        MissingError: the codec's weights are not on this machine.
        UsageError: a clip gives no whole number of columns of 21 frames with this codec.
    """
    codec = codec or codecs.load(recipe.codec.name, device_of())
    n, _ = _geometry(recipe, codec)
    clips = len(manifest.rows)
    stride = max(1, -(-clips // SAMPLE))
    # The first clips that a process prepares take longer; others than those that are timed, whose files a
    # second reading would find in memory.
    first, some = (
        Manifest(rows, manifest.label_set)
        for rows in (manifest.rows[stride // 2 :: stride][:ENCODE_BATCH], manifest.rows[::stride])
    )
    with TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        for part in (first, some):
            job = _Job(recipe, part, codec, Path(folder), n, False, SAMPLE, pool, {})
            start = time.perf_counter()
            job.write_shard(0, lambda n: None)
            seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).glob("part-*"))
    share = clips / max(1, len(some.rows))
    return {
        "clips": clips,
        "readers": workers,
        "bytes": round(size * share),
        "seconds": round(seconds * share, 3),
    }


@dataclass(frozen=True)
class _Job:
    """What the steps below share; `firsts` says of which earlier row a row is a duplicate."""

    recipe: Recipe
    manifest: Manifest
    codec: codecs.Codec
    out: Path
    n: int
    link: bool
    shard_clips: int
    pool: ThreadPoolExecutor
    firsts: dict[int, int]

    def shards(self) -> range:
        return range(-(-len(self.manifest.rows) // self.shard_clips))

    def rows(self, shard: int) -> range:
        start = shard * self.shard_clips
        return range(start, min(start + self.shard_clips, len(self.manifest.rows)))

    def note(self, shard: int) -> Path:
        """Path of what is known of a shard besides its clips; written last, so it means that it is done."""
        return self.out / store.CLAIMS / f"part-{shard:05d}.json"

    def done(self, shard: int) -> bool:
        # In this order: another process that finishes writes store.json, then removes the notes.
        return self.note(shard).exists() or (self.out / "store.json").exists()

    def write_shards(self) -> None:
        """Write every shard that no other process writes, and wait for those."""
        waiting = list(self.shards())
        with console.progress(len(self.manifest.rows), "prepare") as advance:
            while waiting:
                left = [shard for shard in waiting if not self.settle(shard, advance)]
                if left == waiting:
                    time.sleep(POLL_S)
                waiting = left

    def settle(self, shard: int, advance: Callable[[int], None]) -> bool:
        """Write a shard unless it is done or claimed; return whether it is done."""
        if not self.done(shard) and (held := store.claim(self.out, f"part-{shard:05d}")):
            with held:
                if not self.done(shard):
                    self.write_shard(shard, advance)
                    return True
        done = self.done(shard)
        advance(len(self.rows(shard)) if done else 0)
        return done

    def write_shard(self, shard: int, advance: Callable[[int], None]) -> None:
        """Read, encode and write the clips of one shard, then its note."""
        records: list[dict[str, Any]] = []
        batch: list[tuple[Row, Heard]] = []
        counts: dict[str, Counter[str]] = {}
        rates: Counter[int] = Counter()
        problems: list[Problem] = []
        digests: dict[str, str] = {}
        for row, heard in ahead(self.pool, self.hear, self.rows(shard), READ_AHEAD):
            reached = (1, heard.found, heard.rate is not None, heard.reason is None)
            counts.setdefault(row.split, Counter()).update(dict(zip(COUNTED, map(int, reached), strict=True)))
            if heard.reason:
                problems.append(Problem(row.clip_id, row.path, None, heard.reason, row.split))
                if heard.sha256:
                    digests[row.path] = heard.sha256
            else:
                rates[heard.rate or 0] += 1
                batch.append((row, heard))
            if len(batch) == ENCODE_BATCH:
                records += self.encode(batch)
                batch = []
            advance(1)
        if batch:
            records += self.encode(batch)
        if records:
            store.write_shard(self.out, shard, records)
        listed = [asdict(problem) for problem in problems]
        note = {"counts": counts, "rates": rates, "problems": listed, "sha256": digests}
        _write_note(self.note(shard), note)

    def hear(self, number: int) -> tuple[Row, Heard]:
        """Read one row's piece of sound."""
        rows, first = self.manifest.rows, self.firsts.get(number)
        original = None if first is None else rows[first]
        return rows[number], hear(rows[number], self.recipe.data.duration_s, original, self.link)

    def encode(self, batch: list[tuple[Row, Heard]]) -> Iterator[dict[str, Any]]:
        """Yield the store's records of up to `ENCODE_BATCH` clips."""
        waves = np.zeros((ENCODE_BATCH, self.n), np.float32)
        for place, (_, heard) in enumerate(batch):
            waves[place] = heard.wav
        for (row, heard), codes in zip(batch, self.codec.encode(waves), strict=False):
            ids = [self.manifest.label_set.index(name) for name in row.labels]
            yield {**asdict(row), "label_ids": ids, "audio": heard.flac, "codes": codes}

    def close(self, fingerprint: str, frames: int) -> store.StoreMeta:
        """Put the shards' notes together, fit the whitening, and finish the store."""
        if not all(self.note(shard).exists() for shard in self.shards()):
            raise MissingError(f"{self.out}: another process gave this job up; see its quarantine.csv")
        notes = [json.loads(self.note(shard).read_text()) for shard in self.shards()]
        problems = [
            *self.manifest.problems,
            *(Problem(**item) for note in notes for item in note["problems"]),
        ]
        digests = {path: digest for note in notes for path, digest in note["sha256"].items()}
        store.write_quarantine(self.out, problems, digests)
        counts: dict[str, Counter[str]] = {}
        unread = Counter(problem.split or UNASSIGNED for problem in self.manifest.problems)
        for tallies in (
            {split: {"expected": n} for split, n in unread.items()},
            *(n["counts"] for n in notes),
        ):
            for split, tally in tallies.items():
                counts.setdefault(split, Counter(dict.fromkeys(COUNTED, 0))).update(tally)
        try:
            kept = {split: tally["kept"] for split, tally in counts.items()}
            _require_splits(self.recipe, kept, f"{_commonest(problems)}; see {self.out / 'quarantine.csv'}")
        except MissingError:
            store.discard(self.out)  # what is repaired must be read again
            raise
        rates: Counter[str] = Counter()
        for note in notes:
            rates.update(note["rates"])
        labels = self.manifest.label_set
        meta = store.StoreMeta(
            codec=self.codec.name,
            codec_hash=self.codec.weights_hash,
            hop=self.codec.hop,
            clip_samples=self.n,
            labels=list(labels.names),
            mids=None if labels.mids is None else list(labels.mids),
            counts={split: dict(counts[split]) for split in sorted(counts)},
            fingerprint=fingerprint,
            extra={
                "corpus": self.recipe.data.corpus,
                "frames": frames,
                "resampler": "soxr HQ",
                "source_rates": {rate: rates[rate] for rate in sorted(rates, key=int)},
            },
        )
        clips = store.ClipStore(self.out, store.assemble(self.out, meta))
        fitted = {
            "whitening": _whitening(clips, self.codec, self.recipe.codec.whitening).to_json(),
            "train_ids_hash": store.ids_hash(clips.clip_ids[i] for i in clips.split_indices("train")),
        }
        if problems:
            console.say(
                f"{len(clips)} clips kept, {len(problems)} left out: see {self.out / 'quarantine.csv'}"
            )
        return store.finish(self.out, clips.meta.model_copy(update=fitted))


def _geometry(recipe: Recipe, codec: codecs.Codec) -> tuple[int, int]:
    """Return the samples and the codec's frames of a clip."""
    n = audio.clip_samples(recipe.data.duration_s)
    frames = codec.encode(np.zeros((1, n), np.float32)).shape[2]
    if frames % audio.FRAME_MULTIPLE:
        unit = 2 * audio.FRAME_MULTIPLE * audio.HOP / audio.SAMPLE_RATE
        raise UsageError(
            f"data.duration_s={recipe.data.duration_s:g}: {frames} frames of codec {codec.name}, which is no "
            f"multiple of {audio.FRAME_MULTIPLE}; choose a multiple of {unit:g} s"
        )
    return n, frames


def _require_splits(recipe: Recipe, clips: Mapping[str, int], why: str) -> None:
    for split in ("train", "eval"):
        if not clips.get(split):
            raise MissingError(f"corpus {recipe.data.corpus}: no usable clip in split {split!r}: {why}")


def _commonest(problems: list[Problem]) -> str:
    reasons = Counter(problem.reason.partition(" (")[0] for problem in problems)
    return ", ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3))


def _whitening(clips: store.ClipStore, codec: codecs.Codec, kind: Kind) -> Whitening:
    train = clips.split_indices("train")
    starts = range(0, len(train), LATENT_BATCH)
    return Whitening.fit((codec.latents(clips.codes(train[i : i + LATENT_BATCH])) for i in starts), kind)


def _firsts(rows: list[Row], out: Path, pool: ThreadPoolExecutor) -> dict[int, int]:
    """Return of which earlier row each duplicate is one, as the first process of the job found it."""
    note = out / store.CLAIMS / "duplicates.json"
    if note.exists():
        return {int(number): first for number, first in json.loads(note.read_text()).items()}
    found = duplicates(rows, pool)
    _write_note(note, found)
    return found


def _write_note(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)  # another process may have finished the job and removed it
    atomic_write(path, json.dumps(content, ensure_ascii=False))
