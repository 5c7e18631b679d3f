"""Does synthetic audio help? A verdict per classifier, a headline, and the limits of both."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, isfinite
from typing import Any

import pandas as pd

from ajbench.core.console import counted
from ajbench.core.recipe import Recipe
from ajbench.core.rows import folds_in, is_control, is_rival
from ajbench.evaluation.classification import MIN_CLIPS, MIN_SEEDS, enough, primary_comparison
from ajbench.reporting.formats import equal_steps, signed

QUESTION = "Does synthetic audio help?"
NO_VERDICT = (
    f"no verdict, which takes at least {MIN_SEEDS} seeds (in each of several folds: 2) and {MIN_CLIPS} "
    "evaluation clips"
)


@dataclass(frozen=True)
class Answer:
    """The primary comparison, or the best mix of one classifier, against real clips only."""

    line: str  # the classifier: model/pretraining/augmentation
    column: str  # the mix, such as `+320G`: the best of those that help for certain, otherwise the best
    delta: float  # paired difference in points of mAP
    low: float  # of its 95 % interval
    high: float
    seeds: int  # per mix and fold
    comparisons: int  # that the verdict corrects for; 0: the recipe declared this one as primary
    effect: int  # 1 helps, −1 hurts, 0: neither follows from the intervals that verdicts use
    most: float  # the highest gain, in points, that these intervals contain for any mix; NaN: no verdict
    least: float  # the lowest one
    clips: int  # evaluation clips, of all folds
    folds: int = 1

    @property
    def name(self) -> str:
        """The classifier in words."""
        return classifier_name(self.line)

    @property
    def primary(self) -> bool:
        """Whether the recipe declared this comparison as its primary one."""
        return not self.comparisons

    @property
    def judged(self) -> bool:
        """Whether there are enough seeds and clips for a verdict."""
        return self.clips >= MIN_CLIPS and isfinite(self.most)

    @property
    def verdict(self) -> str:
        """What the intervals allow one to say."""
        if not self.judged:
            return NO_VERDICT
        if self.effect:
            return "helps" if self.effect > 0 else "hurts"
        return f"no gain of {bound(self.most)} points or more, no loss of {bound(-self.least)} or more"

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
        end = "" if self.effect else f": {self.verdict}"
        baseline = self.column.rpartition("+")[0] if is_rival(self.column) else "real clips only"
        seeds = counted(self.seeds, "seed") + (f" in each of {self.folds} folds" if self.folds > 1 else "")
        return (
            f"{self.name}: {self.column} {verb} mAP by {points} points relative to {baseline} "
            f"(95 % interval {self.range}, {seeds}){end}"
        )


def classifier_name(line: str) -> str:
    """Return a line of Table A11 in words: `taltrans-small, mx+sp` for `taltrans-small/-/mx+sp`."""
    model, pretraining, augmentation = line.split("/")
    parts = [model, pretraining.strip("-"), "no augmentation" if augmentation == "none" else augmentation]
    return ", ".join(filter(None, parts))


def bound(points: float) -> str:
    """Return the end of an interval, in points, rounded up to a tenth: what is excluded from there on."""
    return f"{max(0.1, ceil(10 * points - 1e-6) / 10):.1f}"


def answers(rows: pd.DataFrame, recipe: Recipe) -> list[Answer]:
    """Return the verdict on the primary comparison, if one is declared, and on each classifier.

    The primary comparison is judged by its 95 % interval, all others by the intervals of their family.
    Classifiers are in the order of the rows; those without a comparison are left out.

    Args:
        rows: of the recipe, as selected by `tables.select`.
        recipe: the merged recipe.
    """
    found: list[Answer] = []
    rows = rows[(rows["table"] == "A11") & ~rows["column"].isin((recipe.name, f"{recipe.name}G"))]
    rows = rows.assign(seeds=rows["seed"].astype(str).str.split(";").map(len))
    rows = rows.assign(folds=rows["dataset"].map(folds_in))
    first = primary_comparison(recipe)
    if first:
        own = (rows["row"] == first.line) & (rows["column"] == first.column)
        if len(mine := rows[own & (rows["metric"] == first.metric)].set_index("column")):
            trained = zip(mine["seeds"], mine["folds"], strict=True)
            found.append(_answer(first.line, mine, mine[[enough(*one) for one in trained]], 0))
        rows = rows[~own]
    rows = rows[~rows["column"].map(lambda column: is_control(column) or is_rival(column)).astype(bool)]
    judged = rows[rows["metric"] == "map_delta_family"]  # of classifiers with enough seeds only
    for line, mine in rows[rows["metric"] == "map_delta"].groupby("row", sort=False):
        family = judged[judged["row"] == line].set_index("column")
        found.append(_answer(str(line), mine.set_index("column"), family, len(judged) or len(mine)))
    return found


def _answer(line: str, delta: pd.DataFrame, judged: pd.DataFrame, comparisons: int) -> Answer:
    """Return the verdict on one classifier from the intervals of its mixes, plain and as judged."""
    helping = judged.index[judged["ci_low"] > 0]
    best = delta.loc[helping if len(helping) else delta.index, "value"].idxmax()
    clips, seeds, folds = (int(delta.loc[best, name]) for name in ("n", "seeds", "folds"))
    hurts = best in judged.index and judged.loc[best, "ci_high"] < 0
    effect = 1 if len(helping) else -1 if hurts else 0
    points, low, high = (100 * float(delta.loc[best, name]) for name in ("value", "ci_low", "ci_high"))
    most, least = 100 * float(judged["ci_high"].max()), 100 * float(judged["ci_low"].min())
    answer = Answer(line, str(best), points, low, high, seeds, comparisons, effect, most, least, clips, folds)
    return answer if answer.judged else replace(answer, effect=0)


def document(found: Sequence[Answer]) -> dict[str, Any]:
    """Return headline and verdicts with their numbers, in points of mAP, for `--json`."""
    lines = [asdict(answer) | {"primary": answer.primary, "verdict": answer.verdict} for answer in found]
    return {"headline": headline(found), "answers": lines}


def headline(found: Sequence[Answer]) -> str:
    """Answer the question in a few words: by the primary comparison, or for all classifiers together."""
    if not found:
        return "Not measured yet: no mix has been compared with real clips only."
    primary = next((answer for answer in found if answer.primary), None)
    asked = [answer for answer in ([primary] if primary else found) if answer.judged]
    if not asked:
        return f"{NO_VERDICT[0].upper()}{NO_VERDICT[1:]}."
    end = f" ({primary.name}: {primary.column})." if primary else "."
    helped, hurt = (sum(a.effect == sign for a in asked) for sign in (1, -1))
    nothing = f"No gain of {bound(max(a.most for a in asked))} points or more"
    if primary or len(found) == 1:
        return {1: "Yes", -1: "No, it hurts", 0: nothing}[asked[0].effect] + end
    if helped == len(found):
        return f"Yes, for {'both' if helped == 2 else f'all {helped}'} classifiers."
    if not helped and not hurt:
        return f"{nothing} for any of {counted(len(asked), 'classifier')}."
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
        comparisons, folds = found[-1].comparisons, found[-1].folds
        if folds > 1:
            lines.append(
                f"The figures are means over {folds} folds with {counted(clips, 'evaluation clip')} in all; "
                "each fold has its own generator and classifiers. The intervals cover other clips and seeds "
                "like these, but not another corpus or classifier, nor other train clips: the folds share "
                "most of theirs."
            )
        else:
            lines.append(
                f"The figures rest on {counted(clips, 'evaluation clip')} of one split. The intervals cover "
                "other clips and seeds like these, but not another corpus, fold, generator or classifier."
            )
        each = "mix and fold" if folds > 1 else "mix"
        if seeds == 1:
            lines.append(
                f"There is 1 seed per {each}: the intervals do not cover the variation between seeds."
            )
        else:
            lines.append(
                f"There are {seeds} seeds per {each}. The intervals add the variance between them to that "
                "between clips, by Student's t: with few seeds they are wide."
            )
        if comparisons > 1:
            lines.append(
                f"The best of {comparisons} comparisons is chosen by its result on the evaluation clips, "
                "which is optimistic. Its verdict corrects for all of them (intervals at "
                f"1 − 0.05/{comparisons}); the interval shown is the plain 95 % interval."
            )
        if recipe.evaluate.tune:
            lines.append(
                "Every arm trains with the keys that were chosen for it on val clips, from the same "
                "candidates; the numbers of steps may differ."
            )
        elif equal_steps(recipe):
            lines.append(
                "All mixes train for the same number of steps: the more clips, the fewer epochs over each."
            )
        elif "match_steps" not in recipe.evaluate.controls:
            lines.append(
                "More clips also mean more training steps; evaluate.controls=[match_steps] separates the two."
            )
    if rows["column"].map(is_rival).any():
        lines.append(
            "The verdict compares synthetic clips with real clips only. Augmented (A) and repeated clips (R) "
            "at the same dose are rivals, which the table shows next to them."
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
