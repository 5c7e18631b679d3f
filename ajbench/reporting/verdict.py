"""Does synthetic audio help? The answer, per classifier and in a few words, and what limits it."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ajbench.core.recipe import Recipe
from ajbench.core.rows import is_control
from ajbench.reporting.formats import signed

QUESTION = "Does synthetic audio help?"


@dataclass(frozen=True)
class Answer:
    """The best mix of one classifier against real clips only, in points of mAP.

    Attributes:
        line: model/pretraining/augmentation. column: the mix, for instance `+320G`: of those that clearly
        help the best, else simply the best. delta: the paired difference; `low` and `high` are its 95 %
        interval. low: see `delta`. high: see `delta`. seeds: trainings of each mix. mixes: mixes tried that
        add synthetic clips. effect: 1 helps, −1 hurts, 0 neither can be told. Judged by an interval wide
        enough for all mixes tried.
    """

    line: str
    column: str
    delta: float
    low: float
    high: float
    seeds: int
    mixes: int
    effect: int

    @property
    def name(self) -> str:
        """The classifier in words: `taltrans-small, mx+sp`."""
        model, pretraining, augmentation = self.line.split("/")
        parts = [model, pretraining.strip("-"), "no augmentation" if augmentation == "none" else augmentation]
        return ", ".join(filter(None, parts))

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        if self.effect:
            return "helps" if self.effect > 0 else "hurts"
        if self.low > 0 or self.high < 0:
            return f"clear of zero alone, but not once the choice among {self.mixes} mixes is allowed for"
        return "not distinguishable from zero"

    @property
    def points(self) -> str:
        """The difference as text, with its sign."""
        return signed(self.delta)

    @property
    def range(self) -> str:
        """The interval as text."""
        return f"[{signed(self.low)}, {signed(self.high)}]"

    def __str__(self) -> str:
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
        return f"{self.name}, {self.column}: {self.points} mAP {self.range}, {seeds}, {self.verdict}"


def answers(rows: pd.DataFrame, recipe_name: str) -> list[Answer]:
    """Return an answer per classifier, in the order of the rows; none where nothing was compared.

    Args:
        rows: of one recipe, as `tables.select` leaves them.
        recipe_name: which is also the name of the column of real clips only.
    """
    found = []
    rows = rows[(rows["table"] == "A11") & ~rows["column"].isin((recipe_name, f"{recipe_name}G"))]
    rows = rows[~rows["column"].map(is_control).astype(bool)]
    for line, mine in rows.groupby("row", sort=False):
        delta = mine[mine["metric"] == "map_delta"].set_index("column")
        family = mine[mine["metric"] == "map_delta_family"].set_index("column")
        if delta.empty:
            continue
        helping = family.index[family["ci_low"] > 0]
        best = delta.loc[helping if len(helping) else delta.index, "value"].idxmax()
        row, wide = delta.loc[best], family.loc[best]
        effect = 1 if wide["ci_low"] > 0 else -1 if wide["ci_high"] < 0 else 0
        points, low, high = (100 * float(row[name]) for name in ("value", "ci_low", "ci_high"))
        seeds = len(row["seed"].split(";"))
        found.append(Answer(str(line), str(best), points, low, high, seeds, len(delta), effect))
    return found


def headline(found: Sequence[Answer]) -> str:
    """Answer the question for all classifiers together in a few words."""
    if not found:
        return "Not measured yet: no mix was compared with real clips only."
    helped, hurt = (sum(a.effect == sign for a in found) for sign in (1, -1))
    if len(found) == 1:
        return {1: "Yes.", -1: "No, it hurts.", 0: "Not measurably."}[found[0].effect]
    if helped == len(found):
        return "Yes, both classifiers." if helped == 2 else f"Yes, all {helped} classifiers."
    if not helped and not hurt:
        return f"Not measurably, for any of {len(found)} classifiers."
    told = f"{helped or 'None'} of {len(found)} classifiers"
    return f"{told}; it hurts {hurt}." if hurt else f"{told}, measurably."


def limits(rows: pd.DataFrame, recipe: Recipe, found: Sequence[Answer]) -> list[str]:
    """Return, as sentences, how far the answers reach."""
    said = []
    if recipe.data.corpus == "mini":
        said.append(
            "The corpus is rendered by ajbench itself. These figures show that the loop works; about "
            "recorded sound they say nothing."
        )
    if found:
        n, seeds = int(rows.loc[rows["table"] == "A11", "n"].max()), max(a.seeds for a in found)
        mixes = max(a.mixes for a in found)
        said.append(
            f"{n} evaluation clips of one split. Intervals cover other clips and seeds like these, "
            "not another corpus, fold, generator or classifier."
        )
        if seeds == 1:
            said.append(
                "One training a mix: intervals cover other clips, but nothing is known of other seeds."
            )
        else:
            said.append(
                f"{seeds} seeds a mix. Resampling so few shows {seeds - 1}/{seeds} of the variance "
                "between seeds: where seeds differ much, the intervals are too narrow."
            )
        if mixes > 1:
            said.append(
                f"The best of {mixes} mixes is named by its result on the evaluation clips, which "
                f"flatters it. The verdict allows for that (interval at 1 − 0.05/{mixes}); the "
                "interval shown is the plain 95 %."
            )
        if all(recipe.classifier_of(line.model_dump()).train_steps for line in recipe.evaluate.models):
            said.append(
                "Every mix trains for the same number of steps: with more clips, each is met less often."
            )
        elif "match_steps" not in recipe.evaluate.controls:
            said.append(
                "More clips also mean more steps; evaluate.controls=[match_steps] tells the two apart."
            )
    named = sorted(set(rows.loc[rows["table"] == "1", "features"]))
    if named:
        said.append(
            f"FD, inception score and KL are taken over the features {', '.join(named)} and depend on "
            "the number of clips: compare them within this page, not with published values."
        )
    if "reference" in named:
        said.append(
            "The reference features are those of a classifier trained on the very clips that the "
            "generator learned and started from: kinder to clips close to these than a stranger "
            "would be."
        )
    heard = any(str(column).endswith("(decoded)") for column in rows["column"])
    but = ", but for the column (decoded)" if heard else ""
    said.append(
        f"Generated clips have passed through the codec {recipe.codec.name} at 16 kHz; the real clips "
        f"that classifiers train on and are scored on have not{but}."
    )
    return said
