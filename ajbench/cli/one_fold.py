"""What `data.eval_fold` means on the command line where `evaluate.folds` names folds as well."""

from dataclasses import replace
from typing import TYPE_CHECKING

from ajbench.cli.options import Settings
from ajbench.core.errors import UsageError

if TYPE_CHECKING:
    from ajbench.core.recipe import Recipe


def names(settings: Settings, section: str, key: str) -> bool:
    """Return whether a KEY=VALUE sets a key of a section."""
    from ajbench.core.recipe_tree import parse_override

    changed = (parse_override(one).get(section) for one in settings.overrides)
    return any(isinstance(keys, dict) and key in keys for keys in changed)


def instead_of_planned(settings: Settings) -> Settings:
    """Return the settings of a run of own clips, in which `data.eval_fold` replaces the planned folds."""
    if not names(settings, "data", "eval_fold") or names(settings, "evaluate", "folds"):
        return settings
    return replace(settings, overrides=("evaluate.folds=[]", *settings.overrides))


def not_idle(settings: Settings, recipe: "Recipe") -> "Recipe":
    """Return the recipe of a command that evaluates all its folds, if `data.eval_fold` is not among the keys.

    Raises:
        UsageError: it is on the command line, and `evaluate.folds` are others.
    """
    fold, folds = recipe.data.eval_fold, recipe.evaluate.folds
    if names(settings, "data", "eval_fold") and folds and folds != (fold,):
        shown = ",".join(map(str, folds))
        raise UsageError(
            f"data.eval_fold={fold}: has no effect here, as evaluate.folds=[{shown}] are evaluated; give "
            f"evaluate.folds=[{fold}] instead"
        )
    return recipe
