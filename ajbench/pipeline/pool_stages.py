"""The pools of a recipe (`evaluate.pools`): the stages of one run with a generator of each."""

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from ajbench.pipeline import fold_stages
from ajbench.pipeline.stage import Stage, in_order, side_by_side

if TYPE_CHECKING:
    from ajbench.pipeline.recipe_stages import Pipeline

EVALUATIONS = ("eval-cls", "eval-gen")


def check(pipeline: "Pipeline") -> None:
    """Check the recipe with each of its pools before any work; errors as `fold_stages.check`."""
    for one in pipeline.pools:
        fold_stages.check(one)


def stages(pipeline: "Pipeline", jobs: int | None = 1) -> list[Stage]:
    """Return every stage of all pools in the order of a run; `jobs` as in `Pipeline.sources`.

    Stages that depend on the pool have it in `what`. All others, such as classifiers of real clips only, are
    shared.
    """
    if len(pipeline.pools) == 1:
        return pipeline.stages(jobs)
    found = [(one.recipe.generator.pool, one.stages(jobs)) for one in pipeline.pools]
    uses = Counter(stage.fingerprint for _, mine in found for stage in mine)
    known: dict[str, Stage] = {}
    for pool, mine in found:
        for stage in mine:
            what = ", ".join(filter(None, (stage.what, f"pool {pool}")))
            known[stage.fingerprint] = replace(stage, what=what) if uses[stage.fingerprint] == 1 else stage
    sources = side_by_side(stage for one in pipeline.pools for stage in fold_stages.sources(one, jobs))
    # The classifiers of all pools train next to each other, so evaluations come last.
    others = sorted(known.values(), key=lambda stage: stage.name in EVALUATIONS)
    return [known[stage.fingerprint] for stage in in_order([*sources, *others])]


def evaluations(pipeline: "Pipeline") -> list[Stage]:
    """Return the evaluations of the other pools, without that of the recipe itself."""
    return [stage for one in pipeline.pools[:-1] for stage in one.stages() if stage.name in EVALUATIONS]
