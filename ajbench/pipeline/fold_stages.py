"""The folds of a recipe (`evaluate.folds`): the stages of each, and the one evaluation of all."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ajbench.core.errors import UsageError
from ajbench.core.rows import folds_name
from ajbench.pipeline import grid, recipe_parts
from ajbench.pipeline.classifier_stages import grid_stages
from ajbench.pipeline.evaluation_stages import eval_cls_stage, eval_gen_stage
from ajbench.pipeline.stage import Stage, in_order, side_by_side

if TYPE_CHECKING:
    from ajbench.pipeline.recipe_stages import Pipeline


def check(pipeline: "Pipeline") -> None:
    """Check, before any work, that the corpus has the folds, and what `Pipeline.check` does in each.

    Raises:
        AjbenchError: as `Pipeline.check`.
    """
    check_names(pipeline)
    recipe = pipeline.recipe
    if len(recipe.evaluate.folds) > 1 and (high := max(recipe.evaluate.seeds)) >= recipe_parts.SEEDS:
        raise UsageError(
            f"evaluate.seeds: {high} with several folds, whose seeds are {recipe_parts.SEEDS} apart; choose "
            f"seeds below {recipe_parts.SEEDS}"
        )
    for one in pipeline.folds:
        one.check(grid.doses(recipe))


def check_names(pipeline: "Pipeline") -> None:
    """Check that the corpus has the folds of `evaluate.folds`.

    Raises:
        UsageError: it has not.
    """
    recipe = pipeline.recipe
    if not recipe.evaluate.folds:
        return
    present = sorted({row.fold for row in pipeline.manifest.rows if row.fold is not None})
    if not present:
        raise UsageError(f"evaluate.folds: corpus {recipe.data.corpus} has no folds; leave it out")
    if unknown := [fold for fold in recipe.evaluate.folds if fold not in present]:
        raise UsageError(
            f"evaluate.folds: corpus {recipe.data.corpus} has no {folds_name(unknown)}; allowed: "
            f"{', '.join(map(str, present))}"
        )


def own_fold(pipeline: "Pipeline") -> "Pipeline":
    """Return the fold that commands of single stages are about: the one of `evaluate.folds`.

    Of several, it is that of `data.eval_fold`, with the seeds and draws that an evaluation of all expects.

    Raises:
        UsageError: it is not in `evaluate.folds`, or the corpus has not all of these.
    """
    fold, folds = pipeline.recipe.data.eval_fold, pipeline.recipe.evaluate.folds
    check_names(pipeline)
    if len(folds) > 1 and fold not in folds:
        allowed = ", ".join(map(str, folds))
        raise UsageError(f"data.eval_fold={fold}: not in evaluate.folds; allowed: {allowed}")
    return next((one for one in pipeline.folds if one.recipe.data.eval_fold == fold), pipeline.folds[0])


def own_clips(pipeline: "Pipeline") -> "Pipeline":
    """Return `own_fold` with its first draw of real clips, whose generated clips are measured and shown."""
    return own_fold(pipeline).draws[0]


def stages(pipeline: "Pipeline", jobs: int | None = 1) -> list[Stage]:
    """Return every stage in the order of a run; `jobs` as in `Pipeline.sources`."""
    classifiers = grid_stages(pipeline)
    bases = [need for stage in classifiers for need in stage.needs if need.name == "train-cls"]
    tunings = [need for stage in (*bases, *classifiers) for need in stage.needs if need.name == "tune"]
    evaluations = [eval_cls_stage(pipeline, classifiers, jobs)]
    if pipeline.sets and not pipeline.recipe.table:
        evaluations += [eval_gen_stage(one.draws[0], one.sets) for one in pipeline.folds]
    return named(pipeline, in_order([*sources(pipeline, jobs), *tunings, *bases, *classifiers, *evaluations]))


def sources(pipeline: "Pipeline", jobs: int | None = 1) -> list[Stage]:
    """Return the stages of all folds and draws before the classifiers; generators next to each other."""
    return side_by_side(stage for one in pipeline.folds for draw in one.draws for stage in draw.sources(jobs))


def named(pipeline: "Pipeline", stages: Iterable[Stage]) -> list[Stage]:
    """Return stages with their fold in `what`, if there are several folds."""
    shared = "train-gen" if pipeline.recipe.generator.other_store else None

    def name(stage: Stage) -> Stage:
        if stage.recipe.evaluate.folds or stage.name == shared:  # of all folds
            return stage
        fold = f"fold {stage.recipe.data.eval_fold}"
        return replace(stage, what=f"{stage.what}, {fold}" if stage.what else fold)

    return list(map(name, stages)) if len(pipeline.folds) > 1 else list(stages)
