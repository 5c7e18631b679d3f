"""Corpus → real clip store: read every file, list the defects, cut the rest to length and encode it.

A shard holds consecutive manifest rows. `ajbench.data.shard_job` resumes interrupted runs and lets several
processes share the work; neither changes the bytes of the store.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ajbench import codec as codecs
from ajbench.codec.whitening import fit_to_clips
from ajbench.core import console
from ajbench.core.console import counted
from ajbench.core.device import device_of
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Recipe
from ajbench.data import audio, noise, shards
from ajbench.data.clip_reader import ReadClip, read_clip, tally_length
from ajbench.data.clip_set import ahead
from ajbench.data.corpora import recordings
from ajbench.data.duplicates import duplicates
from ajbench.data.manifest import Manifest, Problem, Row
from ajbench.data.shard_job import ShardJob, discard, open_job, write_note
from ajbench.data.store import ClipStore
from ajbench.fusion import video_tokens
from ajbench.fusion.video_tokens import Seen, VideoEncoder
from ajbench.pipeline import changed_files

# The codec always gets batches of this size, zero-padded: a clip's codes depend on the size of its batch
# (rounding differs) but not on the other clips in it.
BATCH = 8
READ_AHEAD = 4 * BATCH
# Reader threads: half the cores, as the codec needs the others, and few enough not to run far ahead of it.
READERS = max(2, min(8, (os.cpu_count() or 1) // 2))
SAMPLE = 16  # clips that an estimate prepares
COUNTED = ("expected", "found", "decoded", "kept")
UNASSIGNED = "unassigned"  # in the counts: clips that the corpus reader left out without knowing their split


def prepare(
    recipe: Recipe,
    root: Path | None,
    out: Path,
    *,
    fingerprint: str,
    workers: int = READERS,
    manifest: Manifest | None = None,
    absent: Set[str] | None = None,
    codec: codecs.Codec | None = None,
    encoder: VideoEncoder | None = None,
    link: bool = False,
    shard_clips: int = shards.SHARD_CLIPS,
) -> shards.StoreMeta:
    """Read a corpus and write its clip store, or the part of it that is still missing.

    Rejected and listed in `quarantine.csv`: entries that the corpus reader could not use; files that are
    missing, unreadable, too short, silent, not finite or clipped; and byte-level duplicates of an earlier row
    (same bytes, start and duration). Audio is stored as 16-bit FLAC; the codes are those of the FLAC. If
    `data.video` is not none, videos become tokens; `data.snr_db` adds noise to the sound. A clip whose video
    is missing or unusable is kept, and listed in `quarantine.csv` with a reason that starts with `video:`.

    Args:
        recipe: its `data` and `codec` sections are used.
        root: folder or file of the corpus; None for `mini`.
        out: folder of the store.
        fingerprint: of everything that affects the store; a folder with another fingerprint is refused.
        workers: reader threads.
        manifest: the corpus, if it has been read already.
        absent: files that were not there when it was read; None: any may be missing.
        codec: use this codec instead of the recipe's.
        encoder: use this encoder of videos instead of the recipe's.
        link: store the path of each clip's file instead of its audio.
        shard_clips: manifest rows per shard.

    Returns:
        The store's metadata. For each split, `counts` has the number of clips that the corpus lists
        (`expected`), whose file exists (`found`), that are usable (`decoded`) and that are in the store
        (`kept`: without duplicates); and, if there are any, that were left out and not expected, as their
        recording may not be trained on (`left_out`). `extra.source_rates` counts usable clips by sample rate.

    Raises:
        MissingError: the train or the eval split has no usable clip, or with `data.video` the train split no
            usable video; only quarantine.csv remains. Or a file has vanished that is not `absent`.
        IntegrityError: the folder belongs to a run with another fingerprint.
        UsageError: with this codec, a clip is not a whole number of columns of 21 frames.
    """
    if open_job(out, fingerprint):
        return ClipStore.open(out).meta
    if manifest is None:
        manifest = recordings.read_corpus(recipe.data, root)
    _require_splits(recipe, Counter(row.split for row in manifest.rows), "the corpus lists none")
    codec = codec or codecs.load(recipe.codec.name, device_of())
    samples, frames = _geometry(recipe, codec)
    encoder = encoder or _encoder(recipe)
    job = ShardJob(out, len(manifest.rows), shard_clips, _video_width(encoder))
    with ThreadPoolExecutor(workers) as pool:
        originals = _originals(manifest.rows, out, pool)
        with console.progress(job.n, "prepare") as advance:
            how = job, recipe, manifest, codec, encoder, samples, link
            work = _Preparation(*how, pool, originals, advance, absent)
            job.run(work.make, advance)
    job.close(lambda notes: work.finish(notes, fingerprint, frames))
    return shards.read_meta(out)


def estimate(
    recipe: Recipe, manifest: Manifest, *, workers: int = READERS, codec: codecs.Codec | None = None
) -> dict[str, Any]:
    """Return an estimate of preparing a corpus: clips, readers, bytes, seconds.

    Up to 16 clips from all over the corpus are prepared in a temporary folder.

    Raises:
        MissingError: the codec's weights are not on this machine.
        UsageError: with this codec, a clip is not a whole number of columns of 21 frames.
    """
    codec = codec or codecs.load(recipe.codec.name, device_of())
    samples, _ = _geometry(recipe, codec)
    encoder = _encoder(recipe)
    clips = len(manifest.rows)
    stride = max(1, -(-clips // SAMPLE))
    # The first clips of a process take longer. They are not among those that are timed, whose files would
    # otherwise be in the page cache.
    warm_up, timed = (
        Manifest(rows, manifest.label_set)
        for rows in (manifest.rows[stride // 2 :: stride][:BATCH], manifest.rows[::stride])
    )
    with TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        for part in (warm_up, timed):
            job = ShardJob(Path(folder), len(part.rows), SAMPLE, _video_width(encoder))
            work = _Preparation(job, recipe, part, codec, encoder, samples, False, pool, {}, lambda n: None)
            start = time.perf_counter()
            job.write(0, work.make)
            seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).glob("part-*"))
    share = clips / max(1, len(timed.rows))
    amounts = {"bytes": round(size * share), "seconds": round(seconds * share, 3)}
    return {"clips": clips, "readers": workers, **amounts}


@dataclass(frozen=True)
class _Preparation:
    """A corpus on its way into a store; `originals` maps a duplicate row's number to that of the first."""

    job: ShardJob
    recipe: Recipe
    manifest: Manifest
    codec: codecs.Codec
    encoder: VideoEncoder | None
    samples: int
    link: bool
    pool: ThreadPoolExecutor
    originals: dict[int, int]
    advance: Callable[[int], None]
    absent: Set[str] | None = None

    def make(self, shard: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Read and encode the clips of one shard; return their records and the shard's note."""
        records: list[dict[str, Any]] = []
        batch: list[tuple[Row, ReadClip, Seen | None]] = []
        videos: dict[str, Counter[str]] = {}
        unseen: list[Problem] = []
        counts: dict[str, Counter[str]] = {}
        rates: Counter[int] = Counter()
        problems: list[Problem] = []
        digests: dict[str, str] = {}
        for row, clip, seen in ahead(self.pool, self.read, self.job.items(shard), READ_AHEAD):
            reached = (1, clip.found, clip.rate is not None, clip.reason is None)
            counts.setdefault(row.split, Counter()).update(dict(zip(COUNTED, map(int, reached), strict=True)))
            if clip.reason:
                problems.append(Problem(row.clip_id, row.path, None, clip.reason, row.split))
                if clip.sha256:
                    digests[row.path] = clip.sha256
            else:
                rates[clip.rate or 0] += 1
                tally_length(row, clip.seconds or 0.0, self.recipe.data.duration_s)
                batch.append((row, clip, seen))
            if seen:
                videos.setdefault(row.split, Counter())[seen.outcome] += 1
            if seen and seen.reason:
                reason = f"{shards.OF_VIDEO}{seen.reason}"
                unseen.append(Problem(row.clip_id, row.video or row.path, None, reason, row.split))
            if len(batch) == BATCH:
                records += self.encode(batch)
                batch = []
            self.advance(1)
        if batch:
            records += self.encode(batch)
        listed = [asdict(problem) for problem in problems]
        note = {"counts": counts, "rates": rates, "problems": listed, "sha256": digests}
        return records, note | {"videos": videos, "unseen": list(map(asdict, unseen))}

    def read(self, number: int) -> tuple[Row, ReadClip, Seen | None]:
        """Read the audio of one row and, if it is usable and videos are encoded, its video."""
        rows, original = self.manifest.rows, self.originals.get(number)
        first = None if original is None else rows[original]
        row, duration_s = rows[number], self.recipe.data.duration_s
        clip = read_clip(row, duration_s, first, self.link, noise.of(self.recipe.data))
        seen = (
            None if self.encoder is None or clip.reason else video_tokens.see(self.encoder, row, duration_s)
        )
        if self.absent is not None and (not clip.found or (seen and seen.outcome == "missing")):
            changed_files.need_listed(row, self.absent)
        return row, clip, seen

    def encode(self, batch: list[tuple[Row, ReadClip, Seen | None]]) -> Iterator[dict[str, Any]]:
        """Yield the records of up to `BATCH` clips."""
        waves = np.zeros((BATCH, self.samples), np.float32)
        for place, (_, clip, _) in enumerate(batch):
            waves[place] = clip.wav
        for (row, clip, seen), codes in zip(batch, self.codec.encode(waves), strict=False):
            ids = [self.manifest.label_set.index(name) for name in row.labels]
            record = {**asdict(row), "label_ids": ids, "audio": clip.flac, "codes": codes}
            if self.encoder and seen and seen.pixels is not None:
                record[shards.VIDEO_TOKENS] = self.encoder.encode(seen.pixels)
            yield record

    def finish(self, notes: list[dict[str, Any]], fingerprint: str, frames: int) -> None:
        """Combine the notes of all shards, fit the whitening and close the store."""
        out, labels = self.job.folder, self.manifest.label_set
        rejected = [Problem(**item) for note in notes for item in note["problems"]]
        problems = [*self.manifest.problems, *rejected]
        digests = {path: digest for note in notes for path, digest in note["sha256"].items()}
        unseen = [Problem(**item) for note in notes for item in note.get("unseen", ())]  # not in older notes
        shards.write_quarantine(out, [*problems, *unseen], digests)
        counts: dict[str, Counter[str]] = {}
        unread = Counter(problem.split or UNASSIGNED for problem in self.manifest.problems)
        for part in ({split: {"expected": n} for split, n in unread.items()}, *(n["counts"] for n in notes)):
            for split, numbers in part.items():
                counts.setdefault(split, Counter(dict.fromkeys(COUNTED, 0))).update(numbers)
        left_out = recordings.left_out(self.manifest.problems)
        for problem in chain.from_iterable(left_out.values()):
            counts[str(problem.split)].update(expected=-1, left_out=1)
        try:
            kept = {split: numbers["kept"] for split, numbers in counts.items()}
            _require_splits(self.recipe, kept, f"{_commonest(problems)}; see {out / 'quarantine.csv'}")
            video = self.video(notes, unseen)
        except MissingError:
            discard(out)  # repaired files must be read again
            raise
        rates: Counter[str] = Counter()
        for note in notes:
            rates.update(note["rates"])
        meta = shards.StoreMeta(
            codec=self.codec.name,
            codec_hash=self.codec.weights_hash,
            hop=self.codec.hop,
            clip_samples=self.samples,
            labels=list(labels.names),
            mids=None if labels.mids is None else list(labels.mids),
            counts={split: dict(counts[split]) for split in sorted(counts)},
            fingerprint=fingerprint,
            extra={
                "corpus": self.recipe.data.corpus,
                "frames": frames,
                "resampler": "soxr HQ",
                "source_rates": {rate: rates[rate] for rate in sorted(rates, key=int)},
                **video,
            },
        )
        clips = ClipStore(out, shards.assemble(out, meta))
        train = clips.split_indices("train")
        fitted = {
            "whitening": fit_to_clips(clips, train, self.codec, self.recipe.codec.whitening).to_json(),
            "train_ids_hash": shards.ids_hash(clips.clip_ids[i] for i in train),
        }
        if problems:
            left = f"{counted(len(clips), 'clip')} kept, {len(problems)} rejected"
            console.say(f"{left}: see {out / 'quarantine.csv'}")
        if unseen:
            console.say(
                f"prepare: {counted(len(unseen), 'clip')} without a usable video: {_commonest(unseen)}"
            )
        for reason, part in left_out.items():
            console.say(f"prepare: {counted(len(part), 'clip')} {reason}, such as {part[0].clip_id}")
        if self.recipe.data.leave_out and recordings.LISTED not in left_out:
            console.say(f"prepare: no clip {recordings.LISTED}: no train clip is of a recording in that list")
        shards.finish(out, clips.meta.model_copy(update=fitted))

    def video(self, notes: list[dict[str, Any]], unseen: list[Problem]) -> dict[str, Any]:
        """Return what store.json says about the videos; nothing if they are not encoded."""
        if self.encoder is None:
            return {}
        counts: dict[str, Counter[str]] = {}
        for split, numbers in chain.from_iterable(note["videos"].items() for note in notes):
            counts.setdefault(split, Counter(usable=0, missing=0, undecodable=0)).update(numbers)
        if not counts["train"]["usable"]:
            raise MissingError(
                f"corpus {self.recipe.data.corpus}: no usable video in split 'train': {_commonest(unseen)}; "
                f"see {self.job.folder / 'quarantine.csv'}, or prepare it with data.video=none"
            )
        about: dict[str, Any] = {"encoder": self.encoder.name, "weights_hash": self.encoder.weights_hash}
        about |= {"windows": video_tokens.WINDOWS, "width": self.encoder.width}
        return {"video": about | {"counts": {split: dict(counts[split]) for split in sorted(counts)}}}


def _encoder(recipe: Recipe) -> VideoEncoder | None:
    name = recipe.data.video
    return None if name == "none" else video_tokens.load(name, device_of())


def _video_width(encoder: VideoEncoder | None) -> int:
    return video_tokens.WINDOWS * encoder.width if encoder else 0


def _geometry(recipe: Recipe, codec: codecs.Codec) -> tuple[int, int]:
    """Return the number of samples and of codec frames of a clip."""
    samples = audio.clip_samples(recipe.data.duration_s)
    frames = codec.encode(np.zeros((1, samples), np.float32)).shape[2]
    if frames % audio.FRAME_MULTIPLE:
        unit = 2 * audio.FRAME_MULTIPLE * audio.HOP / audio.SAMPLE_RATE
        raise UsageError(
            f"data.duration_s={recipe.data.duration_s:g}: {frames} frames of codec {codec.name} are not a "
            f"multiple of {audio.FRAME_MULTIPLE}; choose a multiple of {unit:g} s"
        )
    return samples, frames


def _require_splits(recipe: Recipe, clips: Mapping[str, int], why: str) -> None:
    for split in ("train", "eval"):
        if not clips.get(split):
            raise MissingError(f"corpus {recipe.data.corpus}: no usable clip in split {split!r}: {why}")


def _commonest(problems: list[Problem]) -> str:
    reasons = Counter(problem.reason.partition(" (")[0] for problem in problems)
    return ", ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3))


def _originals(rows: list[Row], out: Path, pool: ThreadPoolExecutor) -> dict[int, int]:
    """Return, for every duplicate row, the number of the row it repeats; found once per job."""
    note = out / shards.CLAIMS / "duplicates.json"
    if note.exists():
        return {int(number): first for number, first in json.loads(note.read_text()).items()}
    found = duplicates(rows, pool)
    write_note(note, found)
    return found
