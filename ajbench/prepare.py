"""Corpus → real clip store: every file is read, defects are listed, the rest is cut to length and encoded.

The unit of work is a shard of consecutive manifest rows. A shard that is done stays done: a run that was
killed goes on with the missing ones, and several processes on one folder share them. None of that changes the
bytes.
"""

import contextlib
import hashlib
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ajbench import audio, console, registry, store
from ajbench import codec as codecs
from ajbench.codec.whiten import Kind, Whitening
from ajbench.corpora import mini
from ajbench.errors import MissingError, UsageError
from ajbench.manifest import Manifest, Problem, Row
from ajbench.recipe import Recipe
from ajbench.run import atomic_write

# The codec is always given this many waves, zeros if need be: a clip's codes depend on the size of its batch
# (another size, other roundings) but not on its companions.
ENCODE_BATCH = 8
LATENT_BATCH = 64  # clips at once when whitening is fitted
READ_AHEAD = 4 * ENCODE_BATCH
COUNTED = ("expected", "found", "decoded", "kept")
UNASSIGNED = "unassigned"  # in the counts: what the corpus reader left out without knowing its split
POLL_S = 0.2
_MINI = "mini:"

Item = TypeVar("Item")
Result = TypeVar("Result")


def prepare(
    recipe: Recipe,
    root: Path | None,
    out: Path,
    *,
    fingerprint: str,
    workers: int = 2,
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
    manifest: Manifest = registry.resolve("corpus", recipe.data.corpus)(recipe.data, root)
    _require_splits(recipe, Counter(row.split for row in manifest.rows), "the corpus lists none")
    codec = codec or codecs.load(recipe.codec.name)
    n = audio.clip_samples(recipe.data.duration_s)
    frames = codec.encode(np.zeros((1, n), np.float32)).shape[2]
    if frames % audio.FRAME_MULTIPLE:
        unit = 2 * audio.FRAME_MULTIPLE * audio.HOP / audio.SAMPLE_RATE
        raise UsageError(
            f"data.duration_s={recipe.data.duration_s:g}: {frames} frames of codec {codec.name}, which is no "
            f"multiple of {audio.FRAME_MULTIPLE}; choose a multiple of {unit:g} s"
        )
    with ThreadPoolExecutor(workers) as pool:
        firsts = _duplicates(manifest.rows, out, pool)
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


@dataclass(frozen=True)
class _Heard:
    """What became of a manifest row: a wave, or a reason why not."""

    number: int
    wav: NDArray[np.float32] | None = None
    flac: bytes | None = None
    rate: int | None = None  # Hz, of the source; None where it is no usable sound
    found: bool = True
    reason: str | None = None
    sha256: str | None = None


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
        batch: list[_Heard] = []
        counts: dict[str, Counter[str]] = {}
        rates: Counter[int] = Counter()
        problems: list[Problem] = []
        digests: dict[str, str] = {}
        for heard in _ahead(self.pool, self.hear, self.rows(shard)):
            row = self.manifest.rows[heard.number]
            reached = (1, heard.found, heard.rate is not None, heard.reason is None)
            counts.setdefault(row.split, Counter()).update(dict(zip(COUNTED, map(int, reached), strict=True)))
            if heard.reason:
                problems.append(Problem(row.clip_id, row.path, None, heard.reason, row.split))
                if heard.sha256:
                    digests[row.path] = heard.sha256
            else:
                rates[heard.rate or 0] += 1
                batch.append(heard)
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

    def hear(self, number: int) -> _Heard:
        """Read one row's piece of sound, cut to length and rounded to 16 bits, or say why not."""
        row = self.manifest.rows[number]
        rendered = row.path.startswith(_MINI)
        rate = None
        try:
            if rendered:
                wav, rate = _render(row.path, self.recipe.data.duration_s), audio.SAMPLE_RATE
            else:
                wav = store.read_piece(row.path, row.start_s, row.duration_s, self.n)
                rate = audio.probe(row.path)[0]
            reason = None
        except audio.AudioError as error:
            reason = error.reason
        if reason is None and number in self.firsts:
            first = self.manifest.rows[self.firsts[number]]
            reason = f"byte-level duplicate of {first.clip_id} (split {first.split})"
        if reason is not None:
            found = rendered or Path(row.path).is_file()
            return _Heard(number, rate=rate, found=found, reason=reason, sha256=_sha256(row.path))
        if self.link and not rendered:
            return _Heard(number, wav=wav, rate=rate)
        flac = audio.flac_encode(wav)
        return _Heard(number, wav=audio.flac_decode(flac), flac=flac, rate=rate)

    def encode(self, batch: list[_Heard]) -> Iterator[dict[str, Any]]:
        """Yield the store's records of up to `ENCODE_BATCH` clips."""
        waves = np.zeros((ENCODE_BATCH, self.n), np.float32)
        for place, heard in enumerate(batch):
            waves[place] = heard.wav
        for heard, codes in zip(batch, self.codec.encode(waves), strict=False):
            row = self.manifest.rows[heard.number]
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


def _duplicates(rows: list[Row], out: Path, pool: ThreadPoolExecutor) -> dict[int, int]:
    """Return, for every row with the bytes, start and duration of an earlier one, the number of the first."""
    note = out / store.CLAIMS / "duplicates.json"
    if note.exists():
        return {int(number): first for number, first in json.loads(note.read_text()).items()}
    paths = [path for path in dict.fromkeys(row.path for row in rows) if not path.startswith(_MINI)]
    sizes = dict(zip(paths, pool.map(_size, paths), strict=True))
    alike = Counter(sizes.values())
    # A file of a size of its own is no duplicate and need not be read for this.
    suspects = [path for path, size in sizes.items() if alike[size] > 1]
    digests = {}
    if suspects:
        with console.progress(len(suspects), "compare", "files") as advance:
            for path, digest in zip(suspects, pool.map(_digest, suspects), strict=True):
                digests[path] = digest
                advance(1)
    first: dict[tuple[str, float, float | None], int] = {}
    found = {}
    for number, row in enumerate(rows):
        key = (digests.get(row.path, row.path), row.start_s, row.duration_s)
        if first.setdefault(key, number) != number:
            found[number] = first[key]
    _write_note(note, found)
    return found


def _write_note(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)  # another process may have finished the job and removed it
    atomic_write(path, json.dumps(content, ensure_ascii=False))


def _size(path: str) -> int | None:
    with contextlib.suppress(OSError):
        return Path(path).stat().st_size
    return None


def _digest(path: str) -> str:
    # What cannot be read is like nothing else; hearing it will say why.
    with contextlib.suppress(OSError):
        return store.checksum(Path(path))
    return path


def _sha256(path: str) -> str | None:
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def _render(path: str, duration_s: float) -> NDArray[np.float32]:
    seed, index = path.removeprefix(_MINI).split(":")
    return mini.render(int(seed), int(index), duration_s)[0]


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Map in order, never more than `READ_AHEAD` items ahead, so that memory stays bounded."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
