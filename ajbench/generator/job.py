"""A synthesis as a process sees it: claim a shard, make its clips in micro-batches, write it; then close."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState

from ajbench import audio, console
from ajbench import codec as codecs
from ajbench import store as stores
from ajbench.errors import NumericError
from ajbench.generator.folder import GeneratorInfo
from ajbench.generator.pipeline import AudioJourneyPipeline
from ajbench.manifest import Problem
from ajbench.recipe import Synth
from ajbench.run import atomic_write

PLAN = "plan.parquet"
POLL_S = 0.2


@dataclass(frozen=True)
class Job:
    """What a process needs in order to take part; it travels to others."""

    section: Synth
    store: stores.ClipStore
    generator_dir: Path
    tokens_dir: Path | None
    out: Path
    codec: "codecs.Codec | None"
    threads: int
    n: int

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

    def rows(self, table: pa.Table, shard: int) -> pa.Table:
        """The plan's rows of a shard."""
        return table.slice(shard * self.section.shard_size, self.section.shard_size)

    def load(self, rank: int) -> AudioJourneyPipeline:
        """Load generator, tokens and codec onto the device of process `rank`."""
        device = PartialState().device
        if device.type == "cuda":
            device = torch.device("cuda", rank % torch.cuda.device_count())
        return AudioJourneyPipeline.from_pretrained(self.generator_dir, self.tokens_dir, self.codec, device)

    def work(self, rank: int, advance: Callable[[int], None]) -> None:
        """Make every shard that no other process is making, and wait for those."""
        table = pq.read_table(self.out / PLAN)
        pipeline = None
        waiting = list(self.shards)
        with use_threads(self.threads):
            # Once another process has closed the store the notes are gone.
            while waiting and not self.closed:
                left = []
                for shard in waiting:
                    held = None if self.note(shard).exists() else stores.claim(self.out, f"part-{shard:05d}")
                    with held or contextlib.nullcontext():
                        if held and not self.note(shard).exists():
                            pipeline = pipeline or self.load(rank)
                            self.make(pipeline, shard, table, advance)
                        elif self.note(shard).exists():
                            advance(len(self.rows(table, shard)))
                        else:
                            left.append(shard)
                if left == waiting:
                    time.sleep(POLL_S)
                waiting = left

    def make(
        self, pipeline: AudioJourneyPipeline, shard: int, table: pa.Table, advance: Callable[[int], None]
    ) -> None:
        """Generate and write one shard, then its note."""
        rows = self.rows(table, shard).to_pylist()
        records: list[dict[str, Any]] = []
        problems: list[Problem] = []
        for start in range(0, len(rows), self.section.micro_batch):
            part = rows[start : start + self.section.micro_batch]
            for made in self.generate(pipeline, part):
                problems.append(made) if isinstance(made, Problem) else records.append(made)
            advance(len(part))
        if records:
            stores.write_shard(self.out, shard, records)
        note = {
            "problems": [asdict(problem) for problem in problems],
            "cut": pipeline.text.count_cut([row["prompt"] for row in rows]),
        }
        atomic_write(self.note(shard), json.dumps(note))

    def generate(
        self, pipeline: AudioJourneyPipeline, rows: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any] | Problem]:
        """Yield a store's record, or why there is none, of each of up to `micro_batch` rows of the plan."""
        section, codec, whitening = self.section, pipeline.codec, pipeline.whitening
        padded = rows + rows[-1:] * (section.micro_batch - len(rows))
        guide = None
        if section.strength < 1:
            guide = whitening.grid(codec.latents(self.store.codes([row["parent"] for row in padded])))
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
        finite = grids.isfinite().flatten(1).all(1)
        codes = codec.quantize(whitening.latents(torch.where(finite[:, None, None, None], grids, 0.0)))
        waves = codec.decode(codes).cpu().numpy()
        for row, usable, code, wave in zip(rows, finite.tolist(), codes, waves, strict=False):
            reason = audio.defect(wave) if usable else "not finite (latents)"
            if reason:
                yield Problem(row["clip_id"], "", None, reason, "train")
                continue
            about = {
                name: row[name] for name in ("clip_id", "parent_id", "labels", "label_ids", "caption", "seed")
            }
            yield about | {
                "path": "",
                "duration_s": self.store.meta.clip_samples / audio.SAMPLE_RATE,
                "split": "train",
                "source": "synthetic",
                "strength": section.strength,
                "guidance": _guidance(section),
                "steps": section.sampler_steps,
                "generator": pipeline.info.fingerprint,
                "audio": audio.flac_encode(audio.fit(wave, self.store.meta.clip_samples)),
                "codes": code,
            }

    def close(self, fingerprint: str, info: GeneratorInfo, exact: Mapping[str, Any]) -> None:
        """Put the shards' notes together and finish the store."""
        notes = [json.loads(self.note(shard).read_text()) for shard in self.shards]
        problems = [Problem(**item) for note in notes for item in note["problems"]]
        cut = sum(note["cut"] for note in notes)
        for name in ("quarantine.csv", "store.json"):
            remove_strays(self.out, name)
        stores.write_quarantine(self.out, problems)
        if len(problems) == self.n:
            stores.discard(self.out)
            raise NumericError(
                f"{self.out}: none of {self.n} results is usable ({problems[0].reason}); train the "
                "generator longer or lower synth.guidance"
            )
        if problems:
            console.say(f"synth: {len(problems)} of {self.n} results left out: {self.out / 'quarantine.csv'}")
        if cut:
            console.say(
                f"synth: {cut} of {self.n} prompts are longer than generator.max_tokens, and were cut"
            )
        made = dict.fromkeys(("expected", "found", "decoded"), self.n) | {"kept": self.n - len(problems)}
        meta = self.store.meta
        stores.finish(
            self.out,
            stores.StoreMeta(
                codec=info.codec,
                codec_hash=info.codec_hash,
                hop=meta.hop,
                clip_samples=meta.clip_samples,
                labels=meta.labels,
                mids=meta.mids,
                counts={"train": made},
                fingerprint=fingerprint,
                source="synthetic",
                train_ids_hash=stores.ids_hash(info.train_ids),
                extra={
                    "plan": self.section.plan,
                    "generator": info.fingerprint,
                    "frames": info.frames,
                    "prompts_cut": cut,
                    **exact,
                },
            ),
        )


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


def _guidance(section: Synth) -> float:
    # Without text both passes of guidance are the same one.
    return 1.0 if section.prompt == "none" else section.guidance
