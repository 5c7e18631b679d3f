"""Reading and encoding the clips of one shard of a corpus, in this process or in a worker of Ray."""

from collections import Counter, deque
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ajbench import codec as codecs
from ajbench.core import memory
from ajbench.core.device import device_of, use_threads
from ajbench.core.recipe import Recipe
from ajbench.data import archive, noise, shards
from ajbench.data.clip_reader import ReadClip, read_clip, tally_length
from ajbench.data.clip_set import ahead
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Problem, Row
from ajbench.fusion import video_tokens
from ajbench.fusion.video_tokens import Seen, VideoEncoder
from ajbench.pipeline import changed_files

# The codec always gets batches of this size, zero-padded: a clip's codes depend on the size of its batch
# (rounding differs) but not on the other clips in it.
BATCH = 8
MOST_READERS = 8  # threads; more would run far ahead of the codec
READ_AHEAD = 4 * BATCH
ENCODERS = 4  # at most, on a CPU: each holds the activations of a batch
COUNTED = ("expected", "found", "decoded", "kept")

Listed = tuple[Row, Row | None]  # a row of the manifest, and the first row that it repeats


@dataclass(frozen=True)
class ShardEncoding:
    """How clips become records of a store.

    Attributes:
        recipe: its `data` section is used.
        labels: of the corpus.
        codec: encodes the sound.
        encoder: encodes the videos; None: they are not read.
        samples: of a clip.
        link: store the path of each clip's file instead of its audio.
        absent: files that were not there when the corpus was read; None: any may be missing.
    """

    recipe: Recipe
    labels: LabelSet
    codec: codecs.Codec
    encoder: VideoEncoder | None
    samples: int
    link: bool
    absent: Set[str] | None = None

    def make(
        self, listed: Sequence[Listed], pool: ThreadPoolExecutor, advance: Callable[[int], None]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Read and encode the clips of one shard; return their records and the shard's note.

        Args:
            listed: of the shard.
            pool: its threads read clips.
            advance: called with the number of clips that have been read.
        """
        records: list[dict[str, Any]] = []
        batch: list[tuple[Row, ReadClip, Seen | None]] = []
        videos: dict[str, Counter[str]] = {}
        unseen: list[Problem] = []
        counts: dict[str, Counter[str]] = {}
        rates: Counter[int] = Counter()
        problems: list[Problem] = []
        digests: dict[str, str] = {}
        waiting: deque[Future[list[dict[str, Any]]]] = deque()
        most = encoders()
        with use_threads(torch.get_num_threads() // most), ThreadPoolExecutor(most) as encoding:
            for row, clip, seen in ahead(pool, self.read, listed, READ_AHEAD):
                reached = (1, clip.found, clip.rate is not None, clip.reason is None)
                counts.setdefault(row.split, Counter()).update(
                    dict(zip(COUNTED, map(int, reached), strict=True))
                )
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
                    waiting.append(encoding.submit(self.encode, batch))
                    batch = []
                if len(waiting) > most:
                    records += waiting.popleft().result()
                advance(1)
            if batch:
                waiting.append(encoding.submit(self.encode, batch))
            for done in waiting:
                records += done.result()
        noted = {"counts": counts, "rates": rates, "problems": list(map(asdict, problems))}
        return records, noted | {"sha256": digests, "videos": videos, "unseen": list(map(asdict, unseen))}

    def read(self, listed: Listed) -> tuple[Row, ReadClip, Seen | None]:
        """Read the audio of one row and, if it is usable and videos are encoded, its video."""
        (row, first), duration_s = listed, self.recipe.data.duration_s
        clip = read_clip(row, duration_s, first, self.link, noise.of(self.recipe.data))
        seen = (
            None if self.encoder is None or clip.reason else video_tokens.see(self.encoder, row, duration_s)
        )
        if self.absent is not None and (not clip.found or (seen and seen.outcome == "missing")):
            videos = [row.video] if self.encoder and row.video else []
            changed_files.need_listed([archive.container(row.path), *videos], self.absent)
        return row, clip, seen

    def encode(self, batch: list[tuple[Row, ReadClip, Seen | None]]) -> list[dict[str, Any]]:
        """Return the records of up to `BATCH` clips."""
        memory.need_reserve()
        records = []
        waves = np.zeros((BATCH, self.samples), np.float32)
        for place, (_, clip, _) in enumerate(batch):
            waves[place] = clip.wav
        for (row, clip, seen), codes in zip(batch, self.codec.encode(waves), strict=False):
            ids = [self.labels.index(name) for name in row.labels]
            record = {**asdict(row), "label_ids": ids, "audio": clip.flac, "codes": codes}
            if self.encoder and seen and seen.pixels is not None:
                record[shards.VIDEO_TOKENS] = self.encoder.encode(seen.pixels)
            records.append(record)
        return records


def readers() -> int:
    """Return how many threads read clips: half of this process's, as the codec needs the others."""
    return max(2, min(MOST_READERS, torch.get_num_threads() // 2))


def encoders() -> int:
    """Return how many batches are encoded at a time; they share the threads, as a codec's steps are short."""
    return max(1, min(ENCODERS, torch.get_num_threads())) if device_of().type == "cpu" else 1


def video_encoder(recipe: Recipe) -> VideoEncoder | None:
    """Load the recipe's encoder of videos; None if there is none."""
    name = recipe.data.video
    return None if name == "none" else video_tokens.load(name, device_of())
