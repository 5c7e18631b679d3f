"""Which classifiers and which mixes a recipe compares: the lines and columns of its Table A11."""

from typing import Any

from ajbench.recipe import Classifier, Mix, Recipe


def models(recipe: Recipe) -> list[Classifier]:
    """Return the classifier sections of `evaluate.models`, laid over the recipe's own."""
    sections = [model.model_dump(exclude_none=True) for model in recipe.evaluate.models]
    return [recipe.classifier.model_copy(update=section) for section in sections]


def real(recipe: Recipe, **more: Any) -> Mix:
    """Return the mix of real clips alone, with which every other is compared."""
    return recipe.mix.model_copy(update={"mode": "dose", "real": True, "dose": 0} | more)


def mixes(recipe: Recipe) -> list[Mix]:
    """Return the mixes of a run: real, synthetic only, doses; or real and the one that the recipe names."""
    alone = real(recipe)
    if recipe.mix != alone:
        return [alone, recipe.mix]
    doses = [alone.model_copy(update={"dose": dose}) for dose in recipe.evaluate.doses]
    if recipe.evaluate.synthetic_only:
        doses.insert(0, alone.model_copy(update={"real": False, "dose": recipe.synth.n}))
    return [alone, *doses]


def expression(name: str, mix: Mix) -> str:
    """Return the mix expression that a user would type for a mix of recipe `name`."""
    if mix.mode == "alpha":
        return f"{name} mix.alpha={mix.alpha:g}"
    if not mix.real:
        return f"{name}G"
    return f"{name}+{mix.dose}G" if mix.dose else name
