"""The recipes of which a run consists: one for each fold, each pool, and each draw of the real clips."""

from ajbench.core.recipe import Recipe

SEEDS = 1000  # seeds of a fold; those of the next follow


def offset(fold: int) -> int:
    """Return what is added to seeds and draws in one of several folds, so that no two folds share any.

    Equal seeds would start the classifiers of all folds from the same weights, and draw much the same real
    clips: F folds of S seeds would be less than F·S independent trainings, as which intervals count them.
    """
    return SEEDS * fold


def of_folds(recipe: Recipe) -> list[Recipe]:
    """Return the recipe of each fold of `evaluate.folds`, as if it alone were evaluated."""
    alone = recipe.evaluate.model_copy(update={"folds": ()})
    data = [recipe.data.model_copy(update={"eval_fold": fold}) for fold in recipe.evaluate.folds]
    return [recipe.model_copy(update={"data": one, "evaluate": alone}) for one in data]


def of_other_pools(recipe: Recipe) -> list[Recipe]:
    """Return the recipe with each other pool of `evaluate.pools` as `generator.pool`."""
    others = [pool for pool in dict.fromkeys(recipe.evaluate.pools) if pool != recipe.generator.pool]
    sections = [recipe.generator.model_copy(update={"pool": pool}) for pool in others]
    return [recipe.model_copy(update={"generator": one}) for one in sections]


def of_seed(recipe: Recipe, seed: int) -> Recipe:
    """Return the recipe with the real clips of a training seed, those of `mix.draw` + seed.

    `seed`: in one of several folds, with its `offset`.

    The recipe itself if all seeds share its real clips: without `evaluate.redraw`, or if none are drawn.
    """
    if not (recipe.evaluate.redraw and recipe.mix.by_chance):
        return recipe
    mix = recipe.mix.model_copy(update={"draw": recipe.mix.draw + seed})
    alone = recipe.evaluate.model_copy(update={"redraw": False})
    return recipe.model_copy(update={"mix": mix, "evaluate": alone})


def with_doses_up_to(recipe: Recipe, clips: int) -> Recipe:
    """Return a recipe with the doses that so many clips are enough for, or with that number alone."""
    doses = recipe.evaluate.doses
    if max(doses, default=0) <= clips:
        return recipe
    fitting = tuple(dose for dose in doses if dose <= clips) or (clips,)
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"doses": fitting})})
