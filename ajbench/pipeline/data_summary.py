"""What was found in someone's clips and what a recipe made for them will do, in words."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ajbench.core.console import counted
from ajbench.core.recipe import Recipe
from ajbench.data import reasons
from ajbench.data.manifest import Manifest, Problem
from ajbench.evaluation.classification import enough
from ajbench.pipeline import grid
from ajbench.pipeline.budget import CLASSIFIERS, GENERATION, span

SHOWN = 8  # classes that are named


def classes(manifest: Manifest) -> dict[str, int]:
    """Return the number of clips of each class, the most frequent first."""
    return dict(Counter(label for row in manifest.rows for label in row.labels).most_common())


def found_lines(
    path: Path,
    layout: str,
    manifest: Manifest,
    problems: Sequence[Problem],
    rates: Counter[int],
    lengths: Sequence[float],
) -> list[str]:
    """Return what was found at `path`, one line each.

    Args:
        path: as given.
        layout: in words.
        manifest: the clips.
        problems: what is left out.
        rates: sample rates in Hz of some files.
        lengths: of these files in seconds, ascending.
    """
    counts = classes(manifest)
    named = [f"{name}: {n}" for name, n in counts.items()]
    if len(named) > SHOWN:
        named = [*named[: SHOWN - 2], "…", *named[-2:]]
    lines = [
        f"found: {layout} at {path}: {counted(len(manifest.rows), 'clip')} of "
        f"{counted(len(counts), 'class')} ({', '.join(named)})"
    ]
    split = Counter(row.split for row in manifest.rows)
    parts = ", ".join(f"{name} {split[name]}" for name in ("train", "val", "eval") if split[name])
    folds = Counter(row.fold for row in manifest.rows if row.fold is not None)
    sizes = f"; folds {', '.join(f'{fold}: {n}' for fold, n in sorted(folds.items()))}" if folds else ""
    lines.append(f"split: {parts}{sizes}")
    if rates:
        shown = ", ".join(f"{rate} Hz" for rate, _ in rates.most_common())
        ends = " to ".join(dict.fromkeys(f"{seconds:.2g}" for seconds in (lengths[0], lengths[-1])))
        lines.append(f"files: {shown}; {ends} s ({counted(sum(rates.values()), 'file')} looked at)")
    recordings = {row.recording for row in manifest.rows if row.recording}
    if recordings:
        lines.append(f"recordings: {len(recordings)}; each is in one split or fold")
    if problems:
        lines.append(f"left out: {counted(len(problems), 'file')}: {reasons.in_words(problems)}")
    return lines


def plan_lines(
    recipe: Recipe,
    parts: dict[str, float | None],
    budget: int,
    generate: bool = True,
    seeds_given: bool = False,
) -> list[str]:
    """Return what will be done and how long it takes, one line each.

    Args:
        recipe: the recipe.
        parts: seconds of each part; None where they are unknown. Without any, no time is told.
        budget: in seconds.
        generate: whether clips are generated, rather than taken from elsewhere.
        seeds_given: whether a key of the command limits the seeds, rather than the budget.
    """
    evaluate = recipe.evaluate
    folds, seeds = max(1, len(evaluate.folds)), len(evaluate.seeds)
    fold = evaluate.folds[0] if len(evaluate.folds) == 1 else recipe.data.eval_fold
    alone = "the eval split" if fold is None else f"fold {fold}"
    where = f"{counted(folds, 'fold')}, each" if folds > 1 else alone
    doses = ", ".join(map(str, evaluate.doses))
    added = (
        f"generator of {recipe.generator.train_steps} steps; {counted(recipe.synth.n, 'synthetic clip')}, "
        f"doses {doses}"
        if generate
        else f"no generator; doses {doses} of the clips of --synthetic"
    )
    steps, epochs = recipe.classifier.train_steps, recipe.classifier.epochs
    trained = f"{epochs:g} epochs" if steps is None else f"{steps} steps"
    lines = [
        f"plan: evaluate {where}; clips cut or padded to {recipe.data.duration_s:g} s; {added}; "
        f"{counted(len(evaluate.models), 'classifier')} of {trained} on "
        f"{counted(len(grid.columns(recipe)), 'mix')}, {counted(seeds, 'seed')}"
    ]
    if not enough(seeds, folds) and not seeds_given:
        lines.append(f"{counted(seeds, 'seed')}: a verdict takes more, which take a larger --budget")
    return [*lines, *([_time_line(recipe, parts, budget)] if parts else [])]


def _time_line(recipe: Recipe, parts: dict[str, float | None], budget: int) -> str:
    known = {name: seconds for name, seconds in parts.items() if seconds is not None}
    longest = ", ".join(f"{name} {span(seconds)}" for name, seconds in known.items() if seconds >= 1)
    total = sum(known.values())
    over = ", which this exceeds: lower what KEY=VALUE adds, or give a larger one" if total > budget else ""
    about = f"about {span(total)} ({longest}); budget {span(budget)}{over}"
    if len(known) < len(parts):
        about = (
            f"unknown for {', '.join(_unmeasured(recipe, parts))}; run a few steps of it, then `ajbench "
            f"estimate FILE` with the FILE of --write-recipe and the same KEY=VALUE; the rest {about}"
        )
    return f"time: {about}"


def _unmeasured(recipe: Recipe, parts: dict[str, float | None]) -> list[str]:
    """Return what the parts of unknown time have that other parts have not."""
    found = []
    if any(parts.get(name, 0) is None for name in GENERATION):
        found.append(f"generator.preset={recipe.generator.preset}")
    if parts.get(CLASSIFIERS, 0) is None:
        found += dict.fromkeys(model.name for model in recipe.evaluate.models)
    return found
