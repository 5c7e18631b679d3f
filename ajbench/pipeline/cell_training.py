"""The work of a cell of Table A11's grid: train and score a classifier, or first choose keys for its arm."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ajbench.core.documents import read_arrays
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.files import atomic_write, replacing
from ajbench.core.recipe import Mix, Recipe, dump
from ajbench.core.run_dir import world
from ajbench.core.schema import Classifier
from ajbench.core.sealed_json import read_sealed, write_sealed
from ajbench.core.section import overlay

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ajbench.data.store import ClipStore
    from ajbench.data.val_part import ValPart

SCORES = "scores.npz"
TUNE = "tune.json"
CLASS_AP = "class_ap.npz"


@dataclass(frozen=True)
class Inputs:
    """What a training reads besides the recipe.

    Attributes:
        real: folder of the real clip store.
        seed: of initialisation, order and augmentation.
        tracker: where loss curves go besides `metrics.csv`.
        cache: folder of cached features, for a head.
        decoded: folder of the train clips decoded from their codes, if those are trained on.
        synthetic: folder of the synthetic clip store, if the mix needs one.
        augmented: folder of the store of augmented clips, if the mix needs one.
        base: folder of the classifier whose AP by class `mix.amplify` needs.
        pcm: folder of caches of decoded sound, if there are to be any (`data.cache`).
    """

    real: Path
    seed: int
    tracker: str = "csv"
    cache: Path | None = None
    decoded: Path | None = None
    synthetic: Path | None = None
    augmented: Path | None = None
    base: Path | None = None
    pcm: Path | None = None


class Candidate(NamedTuple):
    """Settings to try: the keys that are changed, the whole section, and how many steps it trains."""

    keys: dict[str, Any]
    settings: Classifier
    steps: int


def train_and_score(
    recipe: Recipe,
    inputs: Inputs,
    *,
    out: Path,
    fingerprint: str,
    tuning: Path | None = None,
    on_val: bool = False,
) -> None:
    """Train `recipe.classifier` on `recipe.mix`, then write its scores of the evaluation clips.

    Args:
        recipe: sections classifier and mix.
        inputs: what else is read.
        out: receives the checkpoint and `scores.npz`.
        fingerprint: stored with the checkpoint.
        tuning: folder of the finished choice of keys for its arm, which replace those of the recipe.
        on_val: whether it is trained without the val part and scored on that instead.
    """
    from ajbench.data import val_part
    from ajbench.data.labels import save_scores
    from ajbench.data.pcm import open_store

    if tuning:
        settings = settings_of(tuning, recipe.classifier)
        recipe = recipe.model_copy(update={"classifier": settings})
        if world()[1] == 0:
            atomic_write(out / "recipe.yaml", dump(recipe))
    store = open_store(inputs.real, inputs.pcm)
    part = val_part.divide(recipe.mix, store) if on_val else None
    scores = _scores(recipe, inputs, store, out, fingerprint, part)
    if scores is not None:
        held_out = part.val if part else store.split_indices("eval")
        ids, recordings = ([names[i] for i in held_out] for names in (store.clip_ids, store.recordings))
        save_scores(
            out / SCORES,
            scores,
            store.sparse_targets()[held_out].toarray(),
            ids,
            store.meta.labels,
            recordings,
        )


def tune_arm(
    recipe: Recipe, inputs: Inputs, candidates: Sequence[Candidate], own: Mix, *, out: Path, fingerprint: str
) -> None:
    """Train every candidate once on `recipe.mix` without the val part, and write `tune.json`.

    The candidate with the highest mAP on the val part is chosen; of equal ones that with fewer steps, then
    the first. An interrupted run goes on with the candidate that was being trained. The classifiers are
    deleted in the end.

    Args:
        recipe: its mix is trained on; its dose is lower if the val part leaves fewer clips of a source.
        inputs: what else is read.
        candidates: settings to try.
        own: the mix of the run, whose val part is the same for all arms.
        out: receives `tune.json`.
        fingerprint: of the choice.

    Raises:
        UsageError: there is no val part, or it leaves no clip of a source.
    """
    from ajbench.data import val_part
    from ajbench.data.pcm import open_store
    from ajbench.metrics.ranking import summary

    path, first = out / TUNE, world()[1] == 0
    if not path.exists():
        store = open_store(inputs.real, inputs.pcm)
        part = val_part.divide(own, store)
        targets, mix = store.sparse_targets()[part.val].toarray(), _lowered(recipe.mix, inputs, store, part)
        lines: list[dict[str, Any]] = []
        for number, (keys, settings, steps) in enumerate(candidates):
            mine = recipe.model_copy(update={"classifier": settings, "mix": mix})
            place = out / f"candidate-{number}", f"{fingerprint}-{number}"
            scores = _scores(mine, inputs, store, *place, part)
            if scores is not None:
                value = float(summary(scores, targets)["map"])
                lines.append({"keys": keys, "steps": steps, "val_map": value})
        if not first:
            return
        best = min(range(len(lines)), key=lambda k: (-lines[k]["val_map"], lines[k]["steps"], k))
        found = {"val_clips": len(part.val), "chosen": best, "candidates": lines}
        write_sealed(path, found, indent=1)
    for folder in out.glob("candidate-*") if first else ():
        shutil.rmtree(folder)


def _lowered(mix: Mix, inputs: Inputs, store: "ClipStore", part: "ValPart") -> Mix:
    """Return a mix with the largest dose up to its own for which clips are left without the val part."""
    from ajbench.classifiers.selection import heirs, usable
    from ajbench.data.store import ClipStore

    if mix.mode == "alpha" or not mix.dose:
        return mix
    without, dose = heirs(store, part), mix.dose
    for source, path in (("A", inputs.augmented), (mix.source[-1], inputs.synthetic)):
        if path:
            dose = min(dose, len(usable(mix, ClipStore.open(path), source, without)))
            if not dose:
                raise UsageError(
                    f"evaluate.tune: every clip of {path} was made from a val clip; raise synth.n, or leave "
                    "evaluate.tune out"
                )
    return mix.model_copy(update={"dose": dose})


def settings_of(tuning: Path, settings: Classifier) -> Classifier:
    """Return classifier settings with the keys that a finished `tune_arm` has chosen."""
    found = read_tuning(tuning)
    keys = found["candidates"][found["chosen"]]["keys"]
    return Classifier.model_validate(overlay(settings.model_dump(), keys))


def read_tuning(tuning: Path) -> dict[str, Any]:
    """Return what `tune_arm` has written: val_clips, chosen, and keys, steps, val_map of each candidate.

    Raises:
        IntegrityError: it is damaged.
    """
    return read_sealed(
        tuning / TUNE, "delete its folder and run again", keys=("val_clips", "chosen", "candidates")
    )


def _scores(
    recipe: Recipe,
    inputs: Inputs,
    store: "ClipStore",
    out: Path,
    fingerprint: str,
    part: "ValPart | None",
) -> "NDArray[np.float32] | None":
    """Train a classifier into `out` and return its logits [n, C] of the val part, or else of the eval split.

    Of the processes of one launch, only the first returns them, the others None. It computes with one thread:
    small models gain little from two, and its bits then do not depend on how many others are trained at the
    same time.
    """
    import torch

    from ajbench import classifiers
    from ajbench.classifiers.train import train_classifier
    from ajbench.data.pcm import open_store
    from ajbench.metrics.ranking import summary

    torch.set_num_threads(1)
    paths = inputs.synthetic, inputs.decoded, inputs.augmented
    synthetic, decoded, augmented = (open_store(path, inputs.pcm) if path else None for path in paths)
    clips = recipe, store, synthetic, out
    how: dict[str, Any] = {"seed": inputs.seed, "fingerprint": fingerprint, "part": part}
    how |= {"decoded": decoded, "augmented": augmented}
    how["class_ap"] = _kept_class_ap(out, inputs.base, store, recipe.mix, part) if inputs.base else None
    if inputs.cache:
        from ajbench.pipeline.head_training import fit_head

        if world()[1] > 0:  # one process of a launch fits a head
            return None
        return fit_head(*clips, **how, cache=inputs.cache)
    measures = ("accuracy", "map") if recipe.classifier.loss == "ce" else ("map",)

    def score(logits: "NDArray[np.float32]", targets: "NDArray[np.float32]") -> float:
        found = summary(logits, targets)  # accuracy is of clips with one label
        return float(next((found[name] for name in measures if math.isfinite(found[name])), math.nan))

    train_classifier(*clips, **how, score=score, tracker=inputs.tracker)
    scored = part.val if part else store.split_indices("eval")
    scores = classifiers.predict(classifiers.load(out), store, scored, shared=True)
    return scores if world()[1] == 0 else None


def _kept_class_ap(
    out: Path, classifier: Path, real: "ClipStore", mix: Mix, part: "ValPart | None"
) -> "NDArray[np.float64]":
    """Return `class_ap`, from the folder of the training if an interrupted one has left it there.

    Raises:
        IntegrityError: what it has left is damaged.
    """
    import numpy as np

    path = out / CLASS_AP
    if path.exists():
        try:
            return read_arrays(path)["values"]
        except (ValueError, KeyError) as error:
            raise IntegrityError(f"{path}: damaged ({error}); delete it and run again") from None
    values = class_ap(classifier, real, mix, part)
    if world()[1] == 0:  # after all processes of a launch have scored their clips
        out.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, values=values)
    return values


def class_ap(
    classifier: Path, real: "ClipStore", mix: Mix, part: "ValPart | None" = None
) -> "NDArray[np.float64]":
    """Return the AP by class [C] of a trained classifier on the val split, or without one on its real clips.

    The evaluation split must have no influence on training, nor has `part` if the training is scored on it.
    """
    from ajbench import classifiers
    from ajbench.data.real_clips import chosen
    from ajbench.metrics.ranking import average_precision

    held_out = real.split_indices("val")
    real_clips = part.real if part else chosen(mix.with_real, real)
    indices = held_out if len(held_out) and not part else real_clips
    scores = classifiers.predict(classifiers.load(classifier), real, indices, shared=True)
    return average_precision(scores, real.sparse_targets()[indices].toarray())
