"""Which folds a command is about: those of `evaluate.folds`, or one of them by `data.eval_fold`."""

from dataclasses import replace
from typing import TYPE_CHECKING

from ajbench.cli.options import Settings
from ajbench.core.errors import UsageError

if TYPE_CHECKING:
    from ajbench.core.recipe import Recipe
    from ajbench.pipeline.recipe_stages import Pipeline


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


def own_clips(pipeline: "Pipeline") -> "Pipeline":
    """Return the stages of the fold that commands of single stages are about (`fold_stages.own_clips`)."""
    from ajbench.pipeline import fold_stages

    return fold_stages.own_clips(pipeline)


def named(settings: Settings, pipeline: "Pipeline") -> "Pipeline":
    """Return `own_clips`; of several folds, the command line names one.

    Raises:
        UsageError: it does not, or the fold is not in `evaluate.folds`.
    """
    folds = pipeline.recipe.evaluate.folds
    if len(folds) > 1 and not names(settings, "data", "eval_fold"):
        allowed = ", ".join(map(str, folds))
        raise UsageError(
            f"evaluate.folds: each fold has clips and a generator of its own; choose one, such as "
            f"data.eval_fold={folds[0]}; allowed: {allowed}"
        )
    return own_clips(pipeline)
