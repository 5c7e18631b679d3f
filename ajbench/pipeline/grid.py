"""The classifiers and mixes that a recipe compares: rows and columns of its Table A11."""

from dataclasses import dataclass
from itertools import product
from typing import Any

from ajbench.core.errors import UsageError
from ajbench.core.recipe import Mix, Recipe
from ajbench.core.schema import Classifier
from ajbench.core.section import overlay

AMPLIFIED = 100  # classes of lowest AP in the control `amplify` (App. E)
ALL_REAL: dict[str, Any] = {"real": "all", "tail": None}  # keys of mix in the control `all_real`


@dataclass(frozen=True)
class Column:
    """Training data: a mix, and whether its real clips are decoded from their codes or all train clips."""

    mix: Mix
    through_codec: bool = False
    all_real: bool = False


def models(recipe: Recipe, all_real: bool = False) -> list[Classifier]:
    """Return the recipe's classifier section with the changes of each row of `evaluate.models`, each once.

    `all_real`: and with those of `evaluate.all_real`.

    Raises:
        UsageError: two rows would be one line of Table A11, or `evaluate.all_real` makes another line.
    """
    rows: dict[str, dict[str, Any]] = {}
    found: dict[str, Classifier] = {}
    for row in (line.model_dump() for line in recipe.evaluate.models):
        settings = recipe.classifier_of(row)
        if found.setdefault(settings.line, settings) != settings:
            raise UsageError(
                f"evaluate.models: two different classifiers are {settings.line} in Table A11, and one would "
                "hide the other; keep one, and run the other by a recipe of another name"
            )
        rows.setdefault(settings.line, row)
    if not all_real:
        return list(found.values())
    bound = {line: recipe.classifier_of(overlay(row, recipe.evaluate.all_real)) for line, row in rows.items()}
    if other := next((one.line for line, one in bound.items() if one.line != line), None):
        raise UsageError(
            f"evaluate.all_real: makes {other}, another line of Table A11; add that to evaluate.models"
        )
    return list(bound.values())


def real(recipe: Recipe, **more: Any) -> Mix:
    """Return the mix of the recipe's real clips only, with which all others are compared."""
    alone = {"mode": "dose", "real": recipe.mix.baseline, "none_of": "all", "dose": 0, "match_steps": 0}
    return recipe.mix.model_copy(update=alone | {"source": "G"} | more)


def doses(recipe: Recipe) -> tuple[int, ...]:
    """Return the doses of a run: none for a recipe with its own mix, which `columns` has instead."""
    own = Column(recipe.mix, recipe.data.real_through_codec)
    return () if own != Column(real(recipe)) else tuple(recipe.evaluate.doses)


def columns(recipe: Recipe) -> list[Column]:
    """Return the columns of a run: real clips only, synthetic clips only, doses of every arm, controls.

    A recipe with its own mix (or with decoded real clips) has that instead of synthetic only and doses. If
    all mixes train for the same number of steps, there is no control with the steps of one.
    """
    alone, found = real(recipe), _mixes(recipe)
    if longest := matched(recipe):
        found.append(Column(alone.model_copy(update={"match_steps": longest.added})))
    if "through_codec" in recipe.evaluate.controls:
        found.append(Column(alone, through_codec=True))
    if "amplify" in recipe.evaluate.controls:
        found.append(Column(alone.model_copy(update={"amplify": AMPLIFIED})))
    if "all_real" in recipe.evaluate.controls and alone.limited:
        found.append(Column(alone.model_copy(update=ALL_REAL), all_real=True))
    return list(dict.fromkeys([Column(alone), *found]))


def _mixes(recipe: Recipe) -> list[Column]:
    """Return the columns without controls: the recipe's own mix, or synthetic clips only and all doses."""
    alone, own, section = real(recipe), Column(recipe.mix, recipe.data.real_through_codec), recipe.evaluate
    if own != Column(alone):
        return [own]
    arms = [{"dose": dose, "source": arm} for arm, dose in product(section.arms, doses(recipe))]
    found = [Column(alone.model_copy(update=added if added["dose"] else {})) for added in arms]
    # Of synthetic clips of the tail alone, no classifier learns the other classes.
    if section.synthetic_only and "G" in section.arms and recipe.synth.classes != "tail":
        synthetic = {"real": "none", "none_of": recipe.mix.baseline, "dose": recipe.synth.n}
        found.insert(0, Column(alone.model_copy(update=synthetic)))
    return found


def matched(recipe: Recipe) -> Mix | None:
    """Return the mix whose steps the control `match_steps` has: that with most added clips, if there is one.

    Of several it is the one of generated clips.
    """
    by_epochs = any(one.epochs for model in models(recipe) for one in recipe.candidates_of(model) or [model])
    if "match_steps" not in recipe.evaluate.controls or not by_epochs:
        return None
    mixes = (column.mix for column in _mixes(recipe) if column.mix.has_real and column.mix.added)
    return max(mixes, key=lambda mix: (mix.added, mix.source == "G"), default=None)


def tuning_mix(recipe: Recipe, mix: Mix) -> Mix:
    """Return the mix on which the keys of a mix's arm are chosen (`evaluate.tune`).

    Of an arm of the primary comparison it has the dose of that, of other arms the largest dose. Real clips
    only, synthetic clips only and controls are arms of their own.
    """
    primary = recipe.evaluate.primary
    compared = primary and mix.source in (primary.arm, *primary.arm.split("+")[:-1])
    if not (mix.dose and mix.has_real) or mix.mode == "alpha":
        return mix
    dose = primary.dose if primary and compared else max(recipe.evaluate.doses, default=0)
    return mix.model_copy(update={"dose": dose or mix.dose})


def cells(recipe: Recipe) -> list[tuple[Classifier, Column, int]]:
    """Return models × columns × seeds; a head takes no steps, so it has no `match_steps` column."""
    settings = zip(models(recipe), models(recipe, all_real=True), strict=True)
    return [
        (bound if column.all_real else model, column, seed)
        for (model, bound), column, seed in product(settings, columns(recipe), recipe.evaluate.seeds)
        if not (model.features and column.mix.match_steps)
    ]
