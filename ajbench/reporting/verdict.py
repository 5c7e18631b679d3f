"""Does synthetic audio help? A verdict per classifier, a headline, and the limits of both."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ajbench.core.console import counted
from ajbench.core.recipe import Recipe
from ajbench.core.rows import is_control
from ajbench.evaluation.classification import MIN_SEEDS
from ajbench.reporting.formats import equal_steps, signed

QUESTION = "Does synthetic audio help?"
NO_VERDICT = f"no verdict, which takes at least {MIN_SEEDS} seeds"


@dataclass(frozen=True)
class Answer:
    """The best mix of one classifier against real clips only."""

    line: str  # the classifier: model/pretraining/augmentation
    column: str  # the mix, such as `+320G`: the best of those that help for certain, otherwise the best
    delta: float  # paired difference in points of mAP
    low: float  # of its 95 % interval
    high: float
    seeds: int  # per mix
    comparisons: int  # with real clips only, of all mixes with synthetic clips and all classifiers
    effect: int  # 1 helps, −1 hurts, 0: the interval corrected for all comparisons contains zero

    @property
    def name(self) -> str:
        """The classifier in words: `taltrans-small, mx+sp`."""
        model, pretraining, augmentation = self.line.split("/")
        parts = [model, pretraining.strip("-"), "no augmentation" if augmentation == "none" else augmentation]
        return ", ".join(filter(None, parts))

    @property
    def judged(self) -> bool:
        """Whether there are enough seeds for a verdict."""
        return self.seeds >= MIN_SEEDS

    @property
    def verdict(self) -> str:
        """What the interval allows one to say."""
        if not self.judged:
            return NO_VERDICT
        if self.effect:
            return "helps" if self.effect > 0 else "hurts"
        if self.low > 0 or self.high < 0:
            family = counted(self.comparisons, "comparison")
            return f"distinguishable from zero by itself, but not in the family of {family}"
        return "not distinguishable from zero"

    @property
    def points(self) -> str:
        """The difference with its sign."""
        return signed(self.delta)

    @property
    def range(self) -> str:
        """The 95 % interval."""
        return f"[{signed(self.low)}, {signed(self.high)}]"

    def __str__(self) -> str:
        verb = {1: "raises", -1: "lowers", 0: "changes"}[self.effect]
        points = self.points.lstrip("+−") if self.effect else self.points
        end = "" if self.effect else f", {self.verdict}"
        return (
            f"{self.name}: {self.column} {verb} mAP by {points} points relative to real clips only "
            f"(95 % interval {self.range}, {counted(self.seeds, 'seed')}){end}"
        )


def answers(rows: pd.DataFrame, recipe_name: str) -> list[Answer]:
    """Return the verdict on each classifier that has a comparison, in the order of the rows.

    Args:
        rows: of one recipe, as selected by `tables.select`.
        recipe_name: also the name of the column of real clips only.
    """
    found = []
    rows = rows[(rows["table"] == "A11") & ~rows["column"].isin((recipe_name, f"{recipe_name}G"))]
    rows = rows[~rows["column"].map(is_control).astype(bool)]
    rows = rows.assign(seeds=rows["seed"].astype(str).str.split(";").map(len))
    judged = rows[(rows["metric"] == "map_delta_family") & (rows["seeds"] >= MIN_SEEDS)]
    for line, mine in rows[rows["metric"] == "map_delta"].groupby("row", sort=False):
        delta = mine.set_index("column")
        family = judged[judged["row"] == line].set_index("column")
        helping = family.index[family["ci_low"] > 0]
        best = delta.loc[helping if len(helping) else delta.index, "value"].idxmax()
        hurts = best in family.index and family.loc[best, "ci_high"] < 0
        effect = 1 if len(helping) else -1 if hurts else 0
        points, low, high = (100 * float(delta.loc[best, name]) for name in ("value", "ci_low", "ci_high"))
        about = int(delta.loc[best, "seeds"]), len(judged), effect
        found.append(Answer(str(line), str(best), points, low, high, *about))
    return found


def headline(found: Sequence[Answer]) -> str:
    """Answer the question for all classifiers together in a few words."""
    if not found:
        return "Not measured yet: no mix has been compared with real clips only."
    if not any(answer.judged for answer in found):
        return f"{NO_VERDICT[0].upper()}{NO_VERDICT[1:]}."
    helped, hurt = (sum(a.effect == sign for a in found) for sign in (1, -1))
    if len(found) == 1:
        return {1: "Yes.", -1: "No, it hurts.", 0: "Not measurably."}[found[0].effect]
    if helped == len(found):
        return f"Yes, for {'both' if helped == 2 else f'all {helped}'} classifiers."
    if not helped and not hurt:
        return f"Not measurably for any of {len(found)} classifiers."
    share = f"For {helped or 'none'} of {len(found)} classifiers"
    return f"{share}; it hurts {hurt}." if hurt else f"{share}."


def limits(rows: pd.DataFrame, recipe: Recipe, found: Sequence[Answer]) -> list[str]:
    """Return, as sentences, what the verdicts do not cover.

    Args:
        rows: of the recipe, as selected by `tables.select`.
        recipe: the merged recipe.
        found: the verdicts.
    """
    lines = []
    if recipe.data.corpus == "mini":
        lines.append(
            "The corpus is rendered by ajbench. These figures show that the pipeline works; they say "
            "nothing about recorded sound."
        )
    if found:
        clips, seeds = int(rows.loc[rows["table"] == "A11", "n"].max()), max(a.seeds for a in found)
        comparisons = found[0].comparisons
        lines.append(
            f"The figures rest on {counted(clips, 'evaluation clip')} of one split. The intervals cover "
            "other clips and seeds like these, but not another corpus, fold, generator or classifier."
        )
        if seeds == 1:
            lines.append("There is 1 seed per mix: the intervals do not cover the variation between seeds.")
        else:
            lines.append(
                f"There are {seeds} seeds per mix. The intervals add the variance between them to that "
                "between clips, by Student's t: with few seeds they are wide."
            )
        if comparisons > 1:
            lines.append(
                f"The best of {comparisons} comparisons is chosen by its result on the evaluation clips, "
                "which is optimistic. The verdict corrects for all of them (intervals at "
                f"1 − 0.05/{comparisons}); the interval shown is the plain 95 % interval."
            )
        if equal_steps(recipe):
            lines.append(
                "All mixes train for the same number of steps: the more clips, the fewer epochs over each."
            )
        elif "match_steps" not in recipe.evaluate.controls:
            lines.append(
                "More clips also mean more training steps; evaluate.controls=[match_steps] separates the two."
            )
    named = sorted(set(rows.loc[rows["table"] == "1", "features"]))
    if named:
        lines.append(
            f"FD, inception score and KL depend on the extractor (here {', '.join(named)}) and on the number "
            "of clips: compare them within this page, not with published values."
        )
    if "reference" in named:
        lines.append(
            "The reference extractor is a classifier trained on the clips that the generator was trained on "
            "and starts from: it favours clips close to these more than an independent extractor would."
        )
    decoded = any(str(column).endswith("(decoded)") for column in rows["column"])
    lines.append(
        f"Generated clips have passed through the codec {recipe.codec.name} at 16 kHz; the real clips that "
        f"classifiers are trained and evaluated on have not{', except in the column (decoded)' * decoded}."
    )
    return lines
