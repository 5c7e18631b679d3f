"""Captions of many clips: which texts are made for each, and the job that writes them into a table."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajbench.captions import caption_table, prompts
from ajbench.captions.caption_source import Clips
from ajbench.captions.caption_table import KINDS, Record
from ajbench.captions.visual import Captioner
from ajbench.captions.writers import LanguageModel, Text, Writer
from ajbench.core import console
from ajbench.core.console import counted
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import fingerprint
from ajbench.data.manifest import Row
from ajbench.generation.prompts import sound_of, spoken

NO_VISUAL = "no visual caption"
BATCH = 256  # clips between two reports of progress


@dataclass(frozen=True)
class Job:
    """What captions are made, and how.

    Attributes:
        kinds: of `KINDS`.
        writer: makes sentences.
        captioner: makes captions of video frames; None if no kind needs one.
        about: name of the writer's backend and all its options that affect texts.
        single_class: whether a clip with one label gets "The sound of [CLASS]" from the rule.
        max_fallback: most fall-backs in a chunk, as a share of its clips.
        chunk: clips in a chunk.
    """

    kinds: tuple[str, ...]
    writer: Writer
    captioner: Captioner | None
    about: Mapping[str, Any]
    single_class: bool = True
    max_fallback: float = 0.05
    chunk: int = caption_table.CHUNK_CLIPS

    @property
    def settings(self) -> dict[str, Any]:
        """Everything besides the clips that affects the table."""
        names = ("labels", "frames", "merge") if self.writer.asks_model else ()
        shots = self.writer.shots if isinstance(self.writer, LanguageModel) else None
        return {
            "kinds": list(self.kinds),
            "writer": dict(self.about),
            "captioner": self.captioner and self.captioner.about,
            "prompts": {name: prompts.load(name).shots(shots).hash for name in names},
            "single_class_filter": self.single_class,
            "chunk_clips": self.chunk,
        }

    def key(self, clips: Clips) -> str:
        """Return the fingerprint of the captions table of `clips`; errors as `Clips.count`."""
        return fingerprint(self.settings, clips.count.digest)

    def run(self, clips: Clips, folder: Path, force: bool = False) -> tuple[dict[str, Any], bool]:
        """Write or complete the captions table of `clips`.

        Args:
            clips: to caption.
            folder: of the table.
            force: discard what the folder has.

        Returns:
            The content of `_captions.json`, and whether there was anything to do.

        Raises:
            UsageError: there are no clips, or none with what visual captions are made of.
            IntegrityError: the folder has captions made with other settings.
            MissingError: too many answers of the model are unusable; the chunk in question is not written.
        """
        count, settings = clips.count, self.settings
        if self.captioner and not count.having[self.captioner.reads]:
            raise UsageError(
                f"{clips.name}: no clip has a {self.captioner.reads}, of which captions of kind visual and "
                "merge are made; use --kind audio"
            )
        key = self.key(clips)
        if caption_table.start(folder, key, force):
            return caption_table.info(folder), False
        n = -(-count.clips // self.chunk)
        with console.progress(count.clips, "caption") as advance:
            chunks, make = lambda: clips.chunks(self.chunk), lambda rows: self.records(rows, advance)
            caption_table.fill(folder, chunks, n, make, advance)
        defects = self.captioner.defects if self.captioner else {}
        for reason, times in sorted(defects.items()):
            console.say(f"no visual caption, as the video is unusable ({reason}): {counted(times, 'clip')}")
        counts = {
            "clips": count.clips,
            "excluded": count.excluded,
            "without_labels": count.unlabelled,
            "single_class": count.single,
        }
        about = {"fingerprint": key, "source": clips.name, "evaluation_clips": clips.evaluation}
        return caption_table.finish(folder, n, {**about, "settings": settings, "counts": counts}), True

    def records(self, rows: Sequence[Row], advance: Callable[[int], None]) -> list[Record]:
        """Return the records of a chunk, clip by clip, with the kinds in the order of `KINDS`.

        Args:
            rows: clips of the chunk.
            advance: called with the number of clips that are finished.

        Raises:
            MissingError: the share of fall-backs is above `max_fallback`.
        """
        records: list[Record] = []
        reasons: Counter[str] = Counter()
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            found = self._made(batch)
            for made in found.values():
                asked = (record for record in made.values() if record["prompt_hash"])
                reasons.update(record["fallback"] for record in asked if record["fallback"])
            self._check(reasons, len(rows))
            wanted = [found[kind] for kind in KINDS if kind in self.kinds]
            records += (kind[row.clip_id] for row in batch for kind in wanted if row.clip_id in kind)
            advance(len(batch))
        return records

    def _made(self, rows: Sequence[Row]) -> dict[str, dict[str, Record]]:
        """Return kind → clip id → record, also of the kinds that a merge is made of."""
        merged, found = "merge" in self.kinds, dict[str, dict[str, Record]]()
        if merged or "audio" in self.kinds:
            found["audio"] = self._audio(rows)
        if merged or "visual" in self.kinds:
            found["visual"] = self._visual(rows)
        if merged:
            found["merge"] = self._merged(rows, found["audio"], found["visual"])
        return found

    def _audio(self, rows: Sequence[Row]) -> dict[str, Record]:
        ruled = [row for row in rows if self.single_class and len(row.labels) == 1]
        texts = {row.clip_id: Text(sound_of([spoken(row.labels[0])]), "rule") for row in ruled}
        written = [row for row in rows if row.clip_id not in texts]
        ids = [row.clip_id for row in written]
        if ids:
            texts |= zip(ids, self.writer.describe(ids, [row.labels for row in written]), strict=True)
        return {row.clip_id: _record(row, "audio", texts[row.clip_id]) for row in rows}

    def _visual(self, rows: Sequence[Row]) -> dict[str, Record]:
        """Return the records of the clips that have a visual caption."""
        assert self.captioner
        seen = {row: found for row, found in zip(rows, self.captioner.captions(rows), strict=True) if found}
        several = [row for row, found in seen.items() if len(found.texts) > 1]
        ids = [row.clip_id for row in several]
        summaries = self.writer.summarize(ids, [seen[row].texts for row in several]) if ids else []
        texts = dict(zip(ids, summaries, strict=True))
        own = self.captioner.about
        alone = {"model": own.get("model"), "model_hash": own.get("model_hash")}
        return {
            row.clip_id: _record(
                row,
                "visual",
                texts.get(row.clip_id) or Text(found.texts[0], own["name"], **alone),
                frames=found.times_s,
                sources=found.texts if row.clip_id in texts else None,
            )
            for row, found in seen.items()
        }

    def _merged(
        self, rows: Sequence[Row], audio: Mapping[str, Record], visual: Mapping[str, Record]
    ) -> dict[str, Record]:
        """Merge; a clip without a visual caption keeps its audio caption, with that reason."""
        both = [row for row in rows if row.clip_id in visual]
        ids = [row.clip_id for row in both]
        seen = [visual[clip]["text"] for clip in ids]
        heard = [
            spoken(row.labels[0])
            if self.single_class and self.writer.asks_model and len(row.labels) == 1
            else audio[row.clip_id]["text"]
            for row in both
        ]
        instead = [audio[clip]["text"] for clip in ids]
        texts = dict(zip(ids, self.writer.merge(ids, seen, heard, instead), strict=True)) if ids else {}
        sources = {clip: list(pair) for clip, *pair in zip(ids, seen, heard, strict=True)}
        return {
            row.clip_id: _record(
                row,
                "merge",
                texts.get(row.clip_id) or Text(audio[row.clip_id]["text"], "rule", fallback=NO_VISUAL),
                sources=sources.get(row.clip_id),
            )
            for row in rows
        }

    def _check(self, reasons: Counter[str], clips: int) -> None:
        if reasons.total() > self.max_fallback * clips:
            shown = ", ".join(f"{reason}: {n}" for reason, n in reasons.most_common(3))
            raise MissingError(
                f"{self.about['name']}: {counted(reasons.total(), 'unusable answer')} in a chunk of "
                f"{counted(clips, 'clip')} ({shown}), more than --max-fallback {self.max_fallback:g}; "
                "finished chunks are kept: correct the model or the server and run again, or raise the share"
            )


def _record(
    row: Row,
    kind: str,
    text: Text,
    frames: Sequence[float] | None = None,
    sources: Sequence[str] | None = None,
) -> Record:
    about = {"clip_id": row.clip_id, "kind": kind, "labels": row.labels, "frames": frames, "sources": sources}
    return {**about, **text._asdict(), "score": None}
