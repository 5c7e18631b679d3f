"""The part of a synthesis that every process does: claim shards and generate their clips in micro-batches."""

import io
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xxhash
from numpy.typing import ArrayLike, NDArray

from ajbench import codec as codecs
from ajbench.core import memory
from ajbench.core.device import device_of, use_threads
from ajbench.core.errors import IntegrityError
from ajbench.core.files import seed_for
from ajbench.core.recipe import Synth
from ajbench.data import audio
from ajbench.data.shard_job import ShardJob
from ajbench.data.shards import StoreMeta
from ajbench.generation import shard_report
from ajbench.generation.plan import split_of

if TYPE_CHECKING:
    from ajbench.generation.fidelity import Judge
    from ajbench.generation.pipeline import AudioJourneyPipeline

PLAN = "plan.parquet"
BAD_GUIDE = "not finite (latents of the guide clip)"  # another seed would not help

# A clip's record and the levels of its waveform, or the reason why it was rejected.
Result = tuple[dict[str, Any], tuple[float, float]] | str


class Guides(Protocol):
    """What a synthesis needs of the real store: the codes of guide clips, and the metadata."""

    @property
    def meta(self) -> StoreMeta:
        """The content of `store.json`."""

    def codes(self, indices: ArrayLike) -> NDArray[np.uint16]:
        """Return the codes uint16 [n, 8, T] of the clips at `indices`."""


class Models(NamedTuple):
    """The models that a process loads once per job."""

    pipeline: "AudioJourneyPipeline"
    judge: "Judge | None"


class Sampled(NamedTuple):
    """A padded micro-batch of clips that are not yet checked.

    Attributes:
        section: as they were sampled; the strength of clips without a guide is 1.
        guided: whether the guide was finite.
        usable: whether the latents are finite.
        codes: uint16 [B, 8, T].
        waves: float32 [B, n].
        scores: fidelities; None without a judge.
    """

    section: Synth
    guided: list[bool]
    usable: list[bool]
    codes: NDArray[np.uint16]
    waves: NDArray[np.float32]
    scores: list[Any]


@dataclass(frozen=True)
class Job:
    """A synthesis as every process that takes part receives it.

    Attributes:
        section: the recipe's `synth` section.
        store: real clips, for guides.
        generator_dir: a trained generator.
        tokens_dir: its class tokens or LoRA; None if neither is used.
        out: folder of the synthetic store.
        codec: an instance to use instead of loading the generator's.
        threads: torch threads per process.
        n: clips in the plan.
        seed: of the run.
        plan_hash: of `plan.parquet`.
        judge_weights: of `synth.judge`, if it is a trained classifier.
    """

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
    def shards(self) -> ShardJob:
        """The shards of the synthetic store."""
        return ShardJob(self.out, self.n, self.section.shard_size)

    def load(self, rank: int) -> Models:
        """Load generator, tokens, codec and, if clips are judged, the judge, for process `rank`."""
        # Here, because a process that lets others generate needs neither diffusers nor transformers.
        from ajbench.generation.fidelity import Judge
        from ajbench.generation.pipeline import AudioJourneyPipeline

        device, named, judge = device_of(rank), self.section.judge, None
        if named is not None:
            name = "reference" if self.judge_weights else named
            judge = Judge(name, self.judge_weights, self.store.meta, device)
        how = self.generator_dir, self.tokens_dir, self.codec, device
        made = AudioJourneyPipeline.from_pretrained(*how, precision=self.section.precision)
        return Models(made, judge)

    def work(
        self,
        rank: int,
        advance: Callable[[int], None],
        some: Iterable[int] | None = None,
        models: Models | None = None,
    ) -> Models | None:
        """Write every shard (of `some`) that no other process is writing, and wait for the others.

        Returns:
            The models: those given, or loaded for the first shard; None if there was nothing to do.

        Raises:
            IntegrityError: the plan has changed since the job began.
        """
        table = pq.read_table(io.BytesIO(read_plan(self.out, self.plan_hash)))

        def make(shard: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
            nonlocal models
            models = models or self.load(rank)
            return self.make(models, table, shard, advance)

        with use_threads(self.threads):
            self.shards.run(make, advance, some)
        return models

    def make(
        self, models: Models, table: pa.Table, shard: int, advance: Callable[[int], None]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Generate one shard of the plan `table`; return its records and its note.

        Of `synth.candidates` results per clip, the one with the highest fidelity is kept. If all are
        rejected, up to `synth.retries` further seeds are tried. Attempt 0 uses the plan's seed, later
        attempts that of (run seed, clip id, attempt).
        """
        began = time.monotonic()
        items = self.shards.items(shard)
        rows = table.slice(items.start, len(items)).to_pylist()
        kept: dict[str, tuple[dict[str, Any], tuple[float, float]]] = {}
        failed: list[shard_report.Attempt] = []
        todo, retries, candidates = rows, 0, self.section.candidates
        for attempt in range(candidates + self.section.retries):
            again = []
            for part, results in self.generated(models, self.batches(todo)):
                for row, result in zip(part, results, strict=True):
                    clip_id = row["clip_id"]
                    if isinstance(result, str):
                        failed.append(shard_report.Attempt(clip_id, attempt, row["seed"], result))
                    elif clip_id not in kept or _fidelity(result) > _fidelity(kept[clip_id]):
                        kept[clip_id] = result
                    more = attempt + 1 < candidates or clip_id not in kept
                    if more and result != BAD_GUIDE:
                        again.append(row | {"seed": seed_for(self.seed, clip_id, attempt + 1)})
                if not attempt:
                    advance(len(part))
            retries += len(todo) if attempt >= candidates else 0
            todo = again
        clips = [kept[row["clip_id"]] for row in rows if row["clip_id"] in kept]
        seconds = time.monotonic() - began
        problems = shard_report.rejected(failed, kept, split_of(self.section))
        return [record for record, _ in clips], {
            "problems": [asdict(problem) for problem in problems],
            "cut": models.pipeline.text.count_cut([row["prompt"] for row in rows]),
            shard_report.RETRIES: [asdict(item) for item in failed],
            shard_report.STATISTICS: shard_report.statistics(
                shard,
                len(rows),
                [levels for _, levels in clips],
                failed,
                retries,
                candidates=candidates,
                fidelity=[_fidelity(item) for item in clips] if self.section.judge else (),
            ),
            shard_report.TIMING: {
                "shard": shard,
                "seconds": round(seconds, 3),
                "clips_per_s": round(len(rows) / seconds, 3),
                "process": f"{socket.gethostname()}:{os.getpid()}",
            },
        }

    def batches(self, rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """Yield up to `micro_batch` rows at a time; clips from noise need other steps and are kept apart."""
        for from_noise in (False, True):
            alike = [row for row in rows if (row["parent"] is None) == from_noise]
            for start in range(0, len(alike), self.section.micro_batch):
                yield alike[start : start + self.section.micro_batch]

    def generated(
        self, models: Models, parts: Iterable[list[dict[str, Any]]]
    ) -> Iterator[tuple[list[dict[str, Any]], list[Result]]]:
        """Yield micro-batches of rows with their results, in order.

        A thread checks and compresses the waves of a micro-batch while the next one is sampled.
        """
        with ThreadPoolExecutor(1, "finish") as pool:
            waiting: tuple[list[dict[str, Any]], Future[list[Result]]] | None = None
            for part in parts:
                sampled = self.sample(models, part)
                following = part, pool.submit(lambda made: list(self.finish(*made)), (models, part, sampled))
                if waiting:
                    yield waiting[0], waiting[1].result()
                waiting = following
            if waiting:
                yield waiting[0], waiting[1].result()

    def sample(self, models: Models, rows: list[dict[str, Any]]) -> Sampled:
        """Sample and decode up to `micro_batch` rows of the plan, all with a guide or all without."""
        memory.need_reserve()
        pipeline, judge = models
        section, codec, whitening = self.section, pipeline.codec, pipeline.whitening
        padded = rows + rows[-1:] * (section.micro_batch - len(rows))
        guide, guided = None, torch.ones(len(padded), dtype=torch.bool)
        if padded[0]["parent"] is None:
            section = section.model_copy(update={"strength": 1.0})
        if section.strength < 1:
            guide = whitening.grid(codec.latents(self.store.codes([row["parent"] for row in padded])))
            guided = _finite(guide)
            guide = _zeroed(guide, guided)
        prompts, seeds = [row["prompt"] for row in padded], [row["seed"] for row in padded]
        how = section.strength, _guidance(section), section.sampler_steps, section.sampler
        grids = pipeline.grids(prompts, guide, seeds, *how, section.negative, section.guidance_rescale)
        usable = _finite(grids)
        latents = whitening.latents(_zeroed(grids, usable))
        usable &= _finite(latents)
        latents = _zeroed(latents, usable)
        codes = codec.quantize(latents)
        heard = codec.decode(codes) if section.decode == "codes" else codec.decode_latents(latents)
        waves = heard.cpu().numpy()
        scores = [None] * len(padded)
        if judge:
            scores = judge(waves, [row["label_ids"] for row in padded]).tolist()
        return Sampled(section, guided.tolist(), usable.tolist(), codes, waves, scores)

    def finish(self, models: Models, rows: list[dict[str, Any]], made: Sampled) -> Iterator[Result]:
        """Yield the results of rows that were sampled: records with FLAC, or reasons."""
        section = made.section
        checked = zip(rows, made.guided, made.usable, made.codes, made.waves, made.scores, strict=False)
        for row, has_guide, finite, code, wave, score in checked:
            if not has_guide or not finite:
                yield "not finite (latents)" if has_guide else BAD_GUIDE
                continue
            if reason := audio.defect(wave):
                yield reason
                continue
            copied = ("clip_id", "parent_id", "labels", "label_ids", "caption", "seed")
            record = {name: row[name] for name in copied} | {
                "path": "",
                "duration_s": self.store.meta.clip_samples / audio.SAMPLE_RATE,
                "split": split_of(section),
                "source": "synthetic",
                "strength": section.strength,
                "guidance": _guidance(section),
                "steps": section.sampler_steps,
                "generator": models.pipeline.info.fingerprint,
                "fidelity": score,
                "audio": audio.flac_encode(audio.fit(wave, self.store.meta.clip_samples)),
                "codes": code,
            }
            yield record, shard_report.peak_and_power(wave)


def read_plan(folder: Path, known: str) -> bytes:
    """Return the content of a job's plan, whose hash must be `known`.

    Raises:
        IntegrityError: the file is missing or has changed.
    """
    path = folder / PLAN
    content = path.read_bytes() if path.exists() else b""
    if xxhash.xxh3_128_hexdigest(content) != known:
        raise IntegrityError(
            f"{path}: missing or changed since this job began; restore it, or use --force to start again"
        )
    return content


def remove_strays(folder: Path, name: str) -> None:
    """Remove partial files of processes that were killed while writing `name`; none may be writing it now."""
    for stray in folder.glob(f".{name}.*.tmp"):
        stray.unlink()


def _fidelity(clip: tuple[dict[str, Any], tuple[float, float]]) -> float:
    score = clip[0]["fidelity"]
    return -1.0 if score is None else float(score)


def _guidance(section: Synth) -> float:
    # Without text the two passes of guidance are identical, unless one has the negative prompt.
    return 1.0 if section.prompt == "none" and not section.negative else section.guidance


def _finite(batch: torch.Tensor) -> torch.Tensor:
    """Return which items of a batch have only finite values: bool [B], on the CPU."""
    return batch.isfinite().flatten(1).all(1).cpu()


def _zeroed(batch: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Replace the items that are not usable by zeros, so that they cannot affect the others."""
    shape = (-1, *[1] * (batch.ndim - 1))
    return torch.where(usable.to(batch.device).view(shape), batch, torch.zeros_like(batch))
