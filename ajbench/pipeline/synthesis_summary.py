"""What `synth --dry-run` shows: the plan in numbers, disk space, time, and the part of the corpus found."""

from typing import Any

import numpy as np

from ajbench.core.errors import MissingError
from ajbench.core.recipe import Synth
from ajbench.data.manifest import Manifest
from ajbench.generation.plan import ListedClips, plan, split_of, unguided
from ajbench.pipeline import estimates, preflight
from ajbench.pipeline.recipe_stages import Pipeline
from ajbench.pipeline.stage import free_mb, store_mb

NO_AUDIO = "no audio found: planned from the label table alone"


def synthesis_summary(pipeline: Pipeline, probe: str = "", processes: int = 1) -> dict[str, Any]:
    """Return what is known about a synthesis before it starts.

    Args:
        pipeline: the recipe and its places.
        probe: name of the set in `evaluate.probes`; empty: the recipe's own set.
        processes: that would share the work.

    Returns:
        What `plan_summary` returns; `planned_from` (store: the prepared clips; files: the corpus; label
        table: no audio was found) and `audio` in words; store_mb, disk_mb (of all that is not finished),
        disk_free_mb; seconds, None if there is no generator to time; and, if there is audio, the stages as
        `estimates.describe` returns them.

    Raises:
        MissingError: the corpus is missing, even its label table.
        UsageError: the corpus does not have what the recipe asks for.
    """
    recipe, places = pipeline.recipe, pipeline.places
    section = pipeline.probes[probe] if probe else recipe.synth
    recipe = recipe.model_copy(update={"synth": section})
    try:
        manifest, found = pipeline.manifest, True
    except MissingError as error:
        manifest, found = preflight.label_table(recipe, places.data, error), False
    pipeline.check(manifest=manifest)
    split, captions = split_of(section), section.plan == "captions"
    how: dict[str, Any] = {"mix": recipe.mix if recipe.guides_are_real else None, "captions": captions}
    clips = ListedClips.of_manifest(manifest, f"corpus {recipe.data.corpus}", split, **how)
    origin = "files" if found else "label table"
    stage = pipeline.synth(probe, processes) if found else None
    if stage and pipeline.prepare.done():
        from ajbench.data.store import ClipStore

        store = ClipStore.open(pipeline.prepare.path, verify=False)
        clips = ListedClips.of_store(store, split, **how)
        origin = "store"
    size = store_mb(recipe, section.n)
    document = {
        "recipe": recipe.name,
        **plan_summary(section, clips.with_tail(recipe.mix)),
        "planned_from": origin,
        "audio": _audio_found(manifest) if stage else NO_AUDIO,
        "store_mb": size,
        "disk_mb": size,
        "disk_free_mb": round(free_mb(places.work), 1),
        "seconds": None,
    }
    if stage:
        document |= estimates.describe(places.work, [*stage.needs, stage]) | estimates.estimate(stage)
    if places.generator and document["seconds"] is None and not (stage and stage.done()):
        document["seconds"] = estimates.synthesis_seconds(recipe, None, places.generator, processes=processes)
    return document


def plan_summary(section: Synth, clips: ListedClips) -> dict[str, Any]:
    """Return a plan in numbers.

    Args:
        section: the recipe's synth section.
        clips: of the train split.

    Returns:
        clips, shards, micro_batches; classes: used, asked (how many), unguided (names); labels_a_clip (number
        → clips); guides: clips with one, holding a requested class, different; from_noise.

    Raises:
        UsageError: as `plan`.
    """
    table = plan(section, clips, {name: name for name in clips.names})
    requested = table["label_ids"].to_pylist()
    row_of = {place: row for row, place in enumerate(clips.places.tolist())}
    labels = clips.labels()
    guides: list[tuple[int, list[int]]] = []  # (row of the guide, requested classes)
    if section.strength < 1:
        parents = table["parent"].to_pylist()
        guides = [(row_of[p], ids) for p, ids in zip(parents, requested, strict=True) if p is not None]
    numbers = np.bincount([len(ids) for ids in requested])
    return {
        "clips": len(table),
        "shards": -(-len(table) // section.shard_size),
        "micro_batches": section.micro_batches,
        "classes": {
            "used": len({k for ids in requested for k in ids}),
            "asked": int(clips.requested(section).sum()),
            "unguided": unguided(section, clips),
            "unguided_are": section.unguided,
        },
        "labels_a_clip": {str(k): int(n) for k, n in enumerate(numbers) if n},
        "guides": {
            "clips": len(guides),
            "holding_an_asked_class": sum(not {*labels[row]}.isdisjoint(ids) for row, ids in guides),
            "different": len({row for row, _ in guides}),
        },
        "from_noise": len(table) - len(guides),
    }


def _audio_found(manifest: Manifest) -> str:
    found = len(manifest.split("train"))
    lost = sum(problem.split == "train" for problem in manifest.problems)
    return f"{found} of {found + lost} train clips found"
