"""A synthesis as a process sees it: claim a shard, make its clips in micro-batches, write it."""

import contextlib
import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xxhash
from numpy.typing import ArrayLike, NDArray

from ajbench import codec as codecs
from ajbench.core import registry
from ajbench.core.device import device_of
from ajbench.core.errors import IntegrityError
from ajbench.core.files import atomic_write, seed_for
from ajbench.core.recipe import Synth
from ajbench.data import audio
from ajbench.data import store as stores
from ajbench.generation import shard_report
from ajbench.generation.fidelity import Judge
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.plan import split_of

PLAN = "plan.parquet"
POLL_S = 0.2
BAD_GUIDE = "not finite (latents of the guide clip)"  # which no other seed would mend

# A store's record and its wave's levels, or why there is none.
Made = tuple[dict[str, Any], tuple[float, float]] | str


class Guides(Protocol):
    """What a job asks of the real store: codes of guide clips, and how long clips are."""

    @property
    def meta(self) -> stores.StoreMeta:
        """What the store's `store.json` says."""

    def codes(self, indices: ArrayLike) -> NDArray[np.uint16]:
        """Codes uint16 [n, 8, T] of the clips at `indices`."""


class Models(NamedTuple):
    """What a process loads for a job, once."""

    pipeline: AudioJourneyPipeline
    judge: Judge | None


@dataclass(frozen=True)
class Job:
    """What a process needs in order to take part; it travels to others."""

    section: Synth
    store: Guides
    generator_dir: Path
    tokens_dir: Path | None
    out: Path
    codec: "codecs.Codec | None"
    threads: int
    n: int
    seed: int
    plan_hash: str
    judge_weights: Path | None = None

    @property
    def shards(self) -> range:
        """Numbers of the shards."""
        return range(-(-self.n // self.section.shard_size))

    @property
    def closed(self) -> bool:
        """Whether the store is finished."""
        return (self.out / "store.json").exists()

    def note(self, shard: int) -> Path:
        """Path of what was left out of a shard; written after it, so that it tells the shard is done."""
        return self.out / stores.CLAIMS / f"part-{shard:05d}.json"

    def plan(self) -> pa.Table:
        """Read the plan.

        Raises:
            IntegrityError: the file is not what it was when the job began.
        """
        return pq.read_table(io.BytesIO(read_plan(self.out, self.plan_hash)))

    def rows(self, table: pa.Table, shard: int) -> pa.Table:
        """The plan's rows of a shard."""
        return table.slice(shard * self.section.shard_size, self.section.shard_size)

    def load(self, rank: int) -> Models:
        """Load generator, tokens, codec and what scores the clips, if anything does, for process `rank`."""
        device, named, judge = device_of(rank), self.section.judge, None
        if named is not None:
            name = named if named in registry.FEATURES else "reference"
            judge = Judge(name, self.judge_weights, self.store.meta, device)
        pipeline = AudioJourneyPipeline.from_pretrained(
            self.generator_dir, self.tokens_dir, self.codec, device
        )
        return Models(pipeline, judge)

    def work(
        self,
        rank: int,
        advance: Callable[[int], None],
        shards: Iterable[int] | None = None,
        models: Models | None = None,
    ) -> Models | None:
        """Make every shard (of `shards`) that no other process is making, and wait for those.

        Returns:
            The models that were given, or loaded when they were first needed.
        """
        table = self.plan()
        waiting = list(self.shards if shards is None else shards)
        with use_threads(self.threads):
            # Once another process has closed the store the notes are gone.
            while waiting and not self.closed:
                left = []
                for shard in waiting:
                    held = None if self.note(shard).exists() else stores.claim(self.out, f"part-{shard:05d}")
                    with held or contextlib.nullcontext():
                        if held and not self.note(shard).exists():
                            models = models or self.load(rank)
                            self.make(models, shard, table, advance)
                        elif self.note(shard).exists():
                            advance(len(self.rows(table, shard)))
                        else:
                            left.append(shard)
                if left == waiting:
                    time.sleep(POLL_S)
                waiting = left
        return models

    def make(self, models: Models, shard: int, table: pa.Table, advance: Callable[[int], None]) -> None:
        """Generate and write one shard, then its note.

        Of `synth.candidates` results of a clip the judge's best is kept. Where all come to nothing others are
        tried, as often as `synth.retries` says. Attempts after the first have the seed of (run seed, clip id,
        attempt).
        """
        began = time.monotonic()
        rows = self.rows(table, shard).to_pylist()
        kept: dict[str, tuple[dict[str, Any], tuple[float, float]]] = {}
        failed: list[shard_report.Attempt] = []
        todo, retries, candidates = rows, 0, self.section.candidates
        for attempt in range(candidates + self.section.retries):
            again = []
            for part in self.batches(todo):
                for row, made in zip(part, self.generate(models, part), strict=True):
                    clip_id = row["clip_id"]
                    if isinstance(made, str):
                        failed.append(shard_report.Attempt(clip_id, attempt, row["seed"], made))
                    elif clip_id not in kept or _fidelity(made) > _fidelity(kept[clip_id]):
                        kept[clip_id] = made
                    more = attempt + 1 < candidates or clip_id not in kept
                    if more and made != BAD_GUIDE:
                        again.append(row | {"seed": seed_for(self.seed, clip_id, attempt + 1)})
                if not attempt:
                    advance(len(part))
            retries += len(todo) if attempt >= candidates else 0
            todo = again
        done = [kept[row["clip_id"]] for row in rows if row["clip_id"] in kept]
        if done:
            stores.write_shard(self.out, shard, [record for record, _ in done])
        heard = [levels for _, levels in done]
        seconds = time.monotonic() - began
        note = {
            "problems": [
                asdict(problem) for problem in shard_report.left_out(failed, kept, split_of(self.section))
            ],
            "cut": models.pipeline.text.count_cut([row["prompt"] for row in rows]),
            shard_report.RETRIES: [asdict(item) for item in failed],
            shard_report.STATISTICS: shard_report.statistics(
                shard,
                len(rows),
                heard,
                failed,
                retries,
                candidates=candidates,
                fidelity=[_fidelity(item) for item in done] if self.section.judge else (),
            ),
            shard_report.TIMING: {
                "shard": shard,
                "seconds": round(seconds, 3),
                "clips_per_s": round(len(rows) / seconds, 3),
                "process": f"{socket.gethostname()}:{os.getpid()}",
            },
        }
        atomic_write(self.note(shard), json.dumps(note))

    def batches(self, rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """Yield up to `micro_batch` rows at a time; those from noise take other steps, so go apart."""
        for from_noise in (False, True):
            alike = [row for row in rows if (row["parent"] is None) == from_noise]
            for start in range(0, len(alike), self.section.micro_batch):
                yield alike[start : start + self.section.micro_batch]

    def generate(self, models: Models, rows: list[dict[str, Any]]) -> Iterator[Made]:
        """Yield what comes of each of up to `micro_batch` rows of the plan, all with a guide or none."""
        pipeline, judge = models
        section, codec, whitening = self.section, pipeline.codec, pipeline.whitening
        padded = rows + rows[-1:] * (section.micro_batch - len(rows))
        guide, heard = None, torch.ones(len(padded), dtype=torch.bool)
        if padded[0]["parent"] is None:
            section = section.model_copy(update={"strength": 1.0})
        if section.strength < 1:
            guide = whitening.grid(codec.latents(self.store.codes([row["parent"] for row in padded])))
            heard = _finite(guide)
            guide = _without(guide, heard)
        grids = pipeline.grids(
            [row["prompt"] for row in padded],
            guide,
            [row["seed"] for row in padded],
            section.strength,
            _guidance(section),
            section.sampler_steps,
            section.sampler,
            section.negative,
            section.guidance_rescale,
        )
        usable = _finite(grids)
        latents = whitening.latents(_without(grids, usable))
        usable &= _finite(latents)
        codes = codec.quantize(_without(latents, usable))
        waves = codec.decode(codes).cpu().numpy()
        scores = [None] * len(padded)
        if judge:
            scores = judge(waves, [row["label_ids"] for row in padded]).tolist()
        checked = zip(rows, heard.tolist(), usable.tolist(), codes, waves, scores, strict=False)
        for row, guided, sound, code, wave, score in checked:
            if not guided or not sound:
                yield "not finite (latents)" if guided else BAD_GUIDE
                continue
            if reason := audio.defect(wave):
                yield reason
                continue
            about = {
                name: row[name] for name in ("clip_id", "parent_id", "labels", "label_ids", "caption", "seed")
            }
            record = about | {
                "path": "",
                "duration_s": self.store.meta.clip_samples / audio.SAMPLE_RATE,
                "split": split_of(section),
                "source": "synthetic",
                "strength": section.strength,
                "guidance": _guidance(section),
                "steps": section.sampler_steps,
                "generator": pipeline.info.fingerprint,
                "fidelity": score,
                "audio": audio.flac_encode(audio.fit(wave, self.store.meta.clip_samples)),
                "codes": code,
            }
            yield record, shard_report.levels(wave)


def read_plan(folder: Path, known: str) -> bytes:
    """Return the content of a job's plan, whose hash is `known`.

    Raises:
        IntegrityError: it is gone, or another one.
    """
    path = folder / PLAN
    content = path.read_bytes() if path.exists() else b""
    if xxhash.xxh3_128_hexdigest(content) != known:
        raise IntegrityError(
            f"{path}: not the plan with which this job began; nobody may change it: use --force to begin anew"
        )
    return content


def remove_strays(folder: Path, name: str) -> None:
    """Remove what a process that was killed while writing `name` left; nobody else may be writing it."""
    for stray in folder.glob(f".{name}.*.tmp"):
        stray.unlink()


@contextlib.contextmanager
def use_threads(n: int) -> Iterator[None]:
    """Give torch `n` threads within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fidelity(made: tuple[dict[str, Any], tuple[float, float]]) -> float:
    score = made[0]["fidelity"]
    return -1.0 if score is None else float(score)


def _guidance(section: Synth) -> float:
    # Without text both passes of guidance are the same one.
    return 1.0 if section.prompt == "none" else section.guidance


def _finite(batch: torch.Tensor) -> torch.Tensor:
    """Say which items of a batch are finite throughout: bool [B], on the CPU."""
    return batch.isfinite().flatten(1).all(1).cpu()


def _without(batch: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Put zeros in place of what is not usable, so that nothing spreads from it."""
    shape = (-1, *[1] * (batch.ndim - 1))
    return torch.where(usable.to(batch.device).view(shape), batch, torch.zeros_like(batch))
