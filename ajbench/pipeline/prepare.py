"""Corpus → real clip store: read every file, list the defects, cut the rest to length and encode it.

A shard holds consecutive manifest rows. `ajbench.data.shard_job` resumes interrupted runs and lets several
processes share the work; neither changes the bytes of the store.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ajbench import codec as codecs
from ajbench.codec.whitening import fit_to_clips
from ajbench.core import console, ray_tasks
from ajbench.core.console import counted
from ajbench.core.device import device_of
from ajbench.core.documents import IDS_BYTES
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Recipe
from ajbench.core.sealed_json import read_sealed
from ajbench.data import archive, audio, reasons, shards
from ajbench.data.corpora import recordings
from ajbench.data.duplicates import duplicates
from ajbench.data.manifest import Manifest, Problem, Row
from ajbench.data.shard_job import MakeShard, ShardJob, claimed, discard, open_job, write_note
from ajbench.data.store import ClipStore
from ajbench.fusion import video_tokens
from ajbench.fusion.video_tokens import VideoEncoder
from ajbench.pipeline.ray_shards import Order, share
from ajbench.pipeline.shard_encoding import BATCH, COUNTED, Listed, ShardEncoding, readers, video_encoder

SAMPLE = 16  # clips that an estimate prepares
UNASSIGNED = "unassigned"  # in the counts: clips that the corpus reader left out without knowing their split


def prepare(
    recipe: Recipe,
    root: Path | None,
    out: Path,
    *,
    fingerprint: str,
    workers: int | None = None,
    manifest: Manifest | None = None,
    absent: Set[str] | None = None,
    codec: codecs.Codec | None = None,
    encoder: VideoEncoder | None = None,
    link: bool = False,
    shard_clips: int = shards.SHARD_CLIPS,
    engine: ray_tasks.Engine = "local",
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
        workers: reader threads; None: as `shard_encoding.readers`.
        manifest: the corpus, if it has been read already.
        absent: files that were not there when it was read; None: any may be missing.
        codec: use this codec instead of the recipe's.
        encoder: use this encoder of videos instead of the recipe's.
        link: store the path of each clip's file instead of its audio.
        shard_clips: manifest rows per shard.
        engine: this process, or `ray` with one task per shard.

    Returns:
        The store's metadata. For each split, `counts` has the number of clips that the corpus lists
        (`expected`), whose file exists (`found`), that are usable (`decoded`) and that are in the store
        (`kept`: without duplicates); and, if there are any, that were left out and not expected: as their
        recording may not be trained on (`left_out`), or as the file is no sound (`not_sound`).
        `extra.source_rates` counts usable clips by sample rate.

    Raises:
        MissingError: the train or the eval split has no usable clip, or with `data.video` the train split no
            usable video; only quarantine.csv remains. Or a file has vanished that is not `absent`.
        IntegrityError: the folder belongs to a run with another fingerprint.
        UsageError: with this codec, a clip is not a whole number of columns of 21 frames.
        AjbenchError: with Ray, also as `ray_tasks.run`.
    """
    if engine == "ray":
        ray_tasks.need()
    if open_job(out, fingerprint):
        return ClipStore.open(out).meta
    if manifest is None:
        manifest = recordings.read_corpus(recipe.data, root)
    _require_splits(recipe, Counter(row.split for row in manifest.rows), "the corpus lists none")
    given = codec, encoder
    codec = codec or codecs.load(recipe.codec.name, device_of())
    samples, frames = _geometry(recipe, codec)
    encoder = encoder or video_encoder(recipe)
    encoding = ShardEncoding(recipe, manifest.label_set, codec, encoder, samples, link, absent)
    job = ShardJob(out, len(manifest.rows), shard_clips, _video_width(encoder))
    with ThreadPoolExecutor(workers or readers()) as pool, console.progress(job.n, "prepare") as advance:
        work = _Preparation(job, manifest, encoding, _originals(manifest.rows, out, pool))
        if engine == "ray":
            order = Order(job, recipe, manifest.label_set, samples, link, absent, *given, codec.weights_hash)
            share(order, work.listed, work.seen(root), advance)
        else:
            job.run(work.maker(pool, advance), advance)
    job.close(lambda notes: work.finish(notes, fingerprint, frames))
    return shards.read_meta(out)


def estimate(
    recipe: Recipe, manifest: Manifest, *, workers: int | None = None, codec: codecs.Codec | None = None
) -> dict[str, Any]:
    """Return an estimate of preparing a corpus: clips, readers, bytes, seconds.

    Up to 16 clips from all over the corpus are prepared in a temporary folder.

    Raises:
        MissingError: the codec's weights are not on this machine.
        UsageError: with this codec, a clip is not a whole number of columns of 21 frames.
    """
    workers, codec = workers or readers(), codec or codecs.load(recipe.codec.name, device_of())
    samples, _ = _geometry(recipe, codec)
    encoder = video_encoder(recipe)
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
            encoding = ShardEncoding(recipe, part.label_set, codec, encoder, samples, False)
            make = _Preparation(job, part, encoding, {}).maker(pool, lambda n: None)
            start = time.perf_counter()
            job.write(0, make)
            seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).glob("part-*"))
    share = clips / max(1, len(timed.rows))
    amounts = {"bytes": round(size * share), "seconds": round(seconds * share, 3)}
    return {"clips": clips, "readers": workers, **amounts}


@dataclass(frozen=True)
class _Preparation:
    """A corpus on its way into a store; `originals` maps a duplicate row's number to that of the first."""

    job: ShardJob
    manifest: Manifest
    encoding: ShardEncoding
    originals: dict[int, int]

    @property
    def recipe(self) -> Recipe:
        """Its `data` and `codec` sections are used."""
        return self.encoding.recipe

    def listed(self, shard: int) -> list[Listed]:
        """Return the rows of a shard."""
        rows, originals = self.manifest.rows, self.originals
        return [(rows[k], rows[originals[k]] if k in originals else None) for k in self.job.items(shard)]

    def seen(self, root: Path | None) -> list[Path]:
        """Return the corpus and the file of one of its first clips, as far as they are on disk."""
        firsts = (Path(archive.container(row.path)) for row in self.manifest.rows[:SAMPLE])
        return [path for path in firsts if path.exists()][:1] + ([root] if root else [])

    def maker(self, pool: ThreadPoolExecutor, advance: Callable[[int], None]) -> MakeShard:
        """Return the function that makes a shard in this process."""
        return lambda shard: self.encoding.make(self.listed(shard), pool, advance)

    def finish(self, notes: list[dict[str, Any]], fingerprint: str, frames: int) -> None:
        """Combine the notes of all shards, fit the whitening and close the store."""
        out, labels, codec = self.job.folder, self.manifest.label_set, self.encoding.codec
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
        not_sound = reasons.by_reason(self.manifest.problems).get(reasons.NOT_SOUND, [])
        for problem in not_sound:
            counts[problem.split or UNASSIGNED].update(expected=-1, not_sound=1)
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
            codec=codec.name,
            codec_hash=codec.weights_hash,
            hop=codec.hop,
            clip_samples=self.encoding.samples,
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
            "whitening": fit_to_clips(clips, train, codec, self.recipe.codec.whitening).to_json(),
            "train_ids_hash": shards.ids_hash(clips.clip_ids[i] for i in train),
        }
        if problems:
            left = f"{counted(len(clips), 'clip')} kept, {len(problems) - len(not_sound)} rejected"
            left += f", {counted(len(not_sound), 'file')} not sound" if not_sound else ""
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
        encoder = self.encoding.encoder
        if encoder is None:
            return {}
        counts: dict[str, Counter[str]] = {}
        for split, numbers in chain.from_iterable(note["videos"].items() for note in notes):
            counts.setdefault(split, Counter(usable=0, missing=0, undecodable=0)).update(numbers)
        if not counts["train"]["usable"]:
            raise MissingError(
                f"corpus {self.recipe.data.corpus}: no usable video in split 'train': {_commonest(unseen)}; "
                f"see {self.job.folder / 'quarantine.csv'}, or prepare it with data.video=none"
            )
        about: dict[str, Any] = {"encoder": encoder.name, "weights_hash": encoder.weights_hash}
        about |= {"windows": video_tokens.WINDOWS, "width": encoder.width}
        return {"video": about | {"counts": {split: dict(counts[split]) for split in sorted(counts)}}}


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
    return ", ".join(f"{reason} ({n})" for reason, n in list(reasons.counts(problems).items())[:3])


def _originals(rows: list[Row], out: Path, pool: ThreadPoolExecutor) -> dict[int, int]:
    """Return, for every duplicate row, the number of the row it repeats; found once per job."""
    note = out / shards.CLAIMS / "duplicates.json"
    with claimed(out, "duplicates"):
        if not note.exists():
            write_note(note, {str(number): first for number, first in duplicates(rows, pool).items()})
    found = read_sealed(note, "delete it and run the same command again", IDS_BYTES)
    return {int(number): first for number, first in found.items()}
