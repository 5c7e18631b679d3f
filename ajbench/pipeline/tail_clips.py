"""The tail of a recipe (`mix.tail`): its real clips, and whether its sources have enough clips to fill it."""

from collections.abc import Collection, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from ajbench.core.console import counted
from ajbench.core.recipe import Mix, Recipe
from ajbench.core.rows import Context, Row, make_row
from ajbench.data import real_clips
from ajbench.data.manifest import Manifest
from ajbench.data.rounds import rounds
from ajbench.evaluation.classification import TAIL
from ajbench.generation.plan import ListedClips, plan
from ajbench.pipeline import grid

if TYPE_CHECKING:
    from ajbench.data.store import ClipStore
    from ajbench.pipeline.recipe_stages import Pipeline


def check(recipe: Recipe, manifest: Manifest, doses: Collection[int]) -> None:
    """Check, before any work, that as many clips of the tail are planned as the doses that fill it.

    Raises:
        UsageError: there are fewer.
    """
    mixes = [column.mix for column in grid.columns(recipe) if column.mix.dose in doses]
    filling = [mix for mix in mixes if mix.fills_tail]
    for source in sorted({source for mix in filling for source in mix.source.split("+")} - {"R", "X"}):
        largest = max((mix for mix in filling if source in mix.source.split("+")), key=lambda mix: mix.dose)
        n, found = recipe.synth.n, _planned(recipe, manifest, source)
        real_clips.need_of_tail(largest, source, found, n, f"the plan for corpus {recipe.data.corpus}")


def _planned(recipe: Recipe, manifest: Manifest, source: str) -> int:
    """Return how many of the clips that a source plans have a label of the tail."""
    section, where = recipe.synth, f"corpus {recipe.data.corpus}"
    if source == "A" and section.classes == "tail":
        return section.n
    if source == "A":
        clips = ListedClips.of_manifest(manifest, where, mix=recipe.mix).with_tail(recipe.mix)
        labels = clips.labels()
        requested = [labels[place] for place in rounds(clips.targets, section.n, section.seed)]
    else:
        mix = recipe.mix if recipe.guides_are_real else None
        clips = ListedClips.of_manifest(manifest, where, mix=mix).with_tail(recipe.mix)
        table = plan(section, clips, {name: name for name in clips.names})
        requested = table["label_ids"].to_pylist()
    return sum(not {*clips.tail}.isdisjoint(ids) for ids in requested)


def counts(mix: Mix, clips: "Manifest | ClipStore") -> dict[str, int]:
    """Return the real clips of each class of the tail, by name; nothing without a tail."""
    if mix.tail is None:
        return {}
    if isinstance(clips, Manifest):
        names: Sequence[str] = clips.label_set.names
        targets = clips.sparse_targets(real_clips.places(mix.with_real, clips).tolist())
    else:
        names = clips.meta.labels
        targets = clips.sparse_targets()[real_clips.chosen(mix.with_real, clips)]
    of_class = np.asarray((targets != 0).sum(axis=0)).reshape(-1)
    return {names[c]: int(of_class[c]) for c in real_clips.tail_classes(mix.tail, mix.draw, names)}


def rows(recipe: Recipe, stores: "Sequence[ClipStore]", context: Context) -> list[Row]:
    """Return a row for each class of the tail: its real clips, the mean over folds; `n` are its eval clips.

    Args:
        recipe: that is run.
        stores: of real clips, of each fold.
        context: of the evaluation.
    """
    found = [counts(recipe.mix, store) for store in stores]
    out = []
    for name in found[0]:
        n = 0
        for store in stores:
            place = store.meta.labels.index(name)
            n += int(store.sparse_targets()[store.split_indices("eval")][:, [place]].sum())
        value = fmean(of_fold[name] for of_fold in found)
        row = make_row(context, TAIL, name, recipe.name, "real_clips", value, n=n, split="train")
        out.append(row)
    return out


def planned(pipeline: "Pipeline") -> dict[str, Any]:
    """Return the real clips of the tail, of the first fold; empty without a tail.

    Keys: `classes` (name → clips), `real` (clips of all classes), `sentence`.
    """
    mix, first = pipeline.recipe.mix, pipeline.folds[0]
    found = counts(mix, first.manifest)
    if not found:
        return {}
    real = first.real_clips(mix.with_real)
    names = ", ".join(f"{name} {number:,}" for name, number in found.items())
    return {"classes": found, "real": real, "sentence": f"tail: {names} of {counted(real, 'real clip')}"}
