"""Which classifiers and which mixes a recipe compares: the lines and columns of its Table A11."""

from dataclasses import dataclass
from typing import Any

from ajbench.core.recipe import Mix, Recipe
from ajbench.core.schema import Classifier


@dataclass(frozen=True)
class Column:
    """What a cell is trained on: a mix, and whether its real clips are heard through the codec."""

    mix: Mix
    through_codec: bool = False


def models(recipe: Recipe) -> list[Classifier]:
    """Return the classifier sections of `evaluate.models`, laid over the recipe's own."""
    return [recipe.classifier_of(line.model_dump()) for line in recipe.evaluate.models]


def real(recipe: Recipe, **more: Any) -> Mix:
    """Return the mix of real clips alone, with which every other is compared."""
    return recipe.mix.model_copy(update={"mode": "dose", "real": True, "dose": 0, "match_steps": 0} | more)


def columns(recipe: Recipe) -> list[Column]:
    """Return what a run compares: real clips alone, then synthetic only, doses and controls.

    A recipe that names a mix of its own (or hears real clips through the codec) has that in their place.
    Where every mix trains for the same steps anyhow, real clips with the steps of a dose are real clips
    alone, and no column of their own.
    """
    alone, own = real(recipe), Column(recipe.mix, recipe.data.real_through_codec)
    if own != Column(alone):
        found = [own]
    else:
        found = [Column(alone.model_copy(update={"dose": dose})) for dose in recipe.evaluate.doses]
        if recipe.evaluate.synthetic_only:
            found.insert(0, Column(alone.model_copy(update={"real": False, "dose": recipe.synth.n})))
    largest = max((column.mix.dose for column in found if column.mix.real), default=0)
    if "match_steps" in recipe.evaluate.controls and any(model.epochs for model in models(recipe)):
        found.append(Column(alone.model_copy(update={"match_steps": largest})))
    if "through_codec" in recipe.evaluate.controls:
        found.append(Column(alone, through_codec=True))
    return list(dict.fromkeys([Column(alone), *found]))
