"""The section `evaluate` of a recipe: what is measured, and the grid of Table A11."""

import math
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ajbench.core.clip_sections import Source
from ajbench.core.section import AtLeastOne, Augmentation, Count, Folds, Section, Seeds

CANDIDATES = 1000  # of a tuning, each of which is trained


class GridModel(BaseModel):
    """A row of Table A11: a classifier, its augmentation, and any key of the classifier section."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    aug: Augmentation


class Primary(Section):
    """The comparison that a verdict is about, declared before the run."""

    model: int | str = Field(0, description="place in evaluate.models from 0, or name+aug")
    dose: AtLeastOne = Field(description="one of evaluate.doses")
    arm: Literal["G", "A+G", "X"] = Field(
        "G", description="G and X are compared with real clips only, A+G with A"
    )


class Tune(Section):
    """Keys of the classifier section that every arm chooses on the val part (`ajbench.data.val_part`)."""

    grid: dict[str, list[Any]] = Field(
        {"train_steps": [150, 300, 600], "lr": [5e-4, 2e-3]},
        description="key of classifier → values; every combination is a candidate",
    )
    head: dict[str, list[Any]] = Field(
        {"c": [0.01, 0.1, 1.0, 10.0]}, description="the same for a head: key of classifier.options → values"
    )

    def candidates(self, head: bool) -> list[dict[str, Any]]:
        """Return the changes of the classifier section to try, for a head or for other classifiers."""
        keys = self.head if head else self.grid
        found = [dict(zip(keys, values, strict=True)) for values in product(*keys.values())]
        return [{"options": change} for change in found] if head else found

    @field_validator("grid", "head")
    @classmethod
    def _something_to_choose(cls, keys: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if math.prod(map(len, keys.values())) < 2:
            raise ValueError(
                "fewer than two candidates; give a key several values, and every key at least one"
            )
        if (count := math.prod(map(len, keys.values()))) > CANDIDATES:
            raise ValueError(f"{count} candidates; at most {CANDIDATES}")
        return keys


class Evaluate(Section):
    """What is measured, and the grid of Table A11."""

    models: tuple[GridModel, ...] = Field((GridModel(name="taltrans-small", aug="mx+sp"),), min_length=1)
    doses: tuple[Count, ...] = Field((160, 320), description="clips of each source to add to the real ones")
    arms: tuple[Source, ...] = Field(("G",), min_length=1, description="sources of every dose (mix.source)")
    synthetic_only: bool = True
    controls: tuple[Literal["match_steps", "through_codec", "amplify", "all_real"], ...] = Field(
        (),
        description="more columns of real clips only: steps of the largest mix; decoded; mix.amplify=100; "
        "all train clips, as an upper bound",
    )
    all_real: dict[str, Any] = Field(
        default_factory=dict, description="keys of classifier for the control all_real"
    )
    seeds: Seeds = Field((0, 1, 2), min_length=1)
    redraw: bool = Field(
        False,
        description="every seed draws real clips of its own, by mix.draw + seed, so that intervals are also "
        "about other draws; otherwise all seeds share those of mix.draw",
    )
    folds: Folds = Field(
        (), description="that run and eval-cls pool, each with its own generator; none: only data.eval_fold"
    )
    pools: tuple[str, ...] = Field(
        (),
        description="run only: train a generator of each of these pools as well, as in `generator.pool`, and "
        "compare their gains (not for a table, nor with --generator)",
    )
    bootstrap: Annotated[int, Field(ge=100, le=10**6)] = 1000
    features: str = "reference"
    generators: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="rows of Table 1: name → keys of generator; {folder: DIR}, {recipe: R}",
    )
    captioners: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="writers of Table A2: name → {backend: B} and its options; default: what is installed",
    )
    probes: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="more synthetic sets for eval-gen: name → keys of synth"
    )
    published: Literal["as20k", "none"] = Field(
        "as20k", description="published rows to show next to the measured ones"
    )
    primary: Primary | None = Field(
        None, description="judged at 95 % by itself; all other comparisons are a family"
    )
    tune: Tune | None = Field(
        None, description="choose steps and learning rate for each arm, from the same candidates"
    )

    def identity(self) -> dict[str, Any]:
        """Return what fingerprints contain; without `redraw`, `tune` and `pools` while they are not set."""
        later = {key for key in ("redraw", "tune", "pools") if not getattr(self, key)}
        return self.model_dump(mode="json", exclude=later)

    @property
    def primary_model(self) -> GridModel | None:
        """The classifier of the primary comparison; None if none is declared or it is not in `models`."""
        wanted = self.primary and self.primary.model
        named = [m for i, m in enumerate(self.models) if wanted in (i, f"{m.name}+{m.aug}")]
        return named[0] if len(named) == 1 else None

    @model_validator(mode="after")
    def _primary_is_run(self) -> "Evaluate":
        if self.primary is None:
            return self
        if self.primary_model is None:
            names = ", ".join(f"{m.name}+{m.aug}" for m in self.models)
            raise ValueError(
                f"evaluate.primary.model={self.primary.model}: give a place below {len(self.models)}, "
                f"or a name that occurs once: {names}"
            )
        arm = self.primary.arm
        if not {arm, *arm.split("+")[:-1]} <= {*self.arms}:
            raise ValueError(f"evaluate.primary.arm={arm}: add it to evaluate.arms (A+G is compared with A)")
        if self.primary.dose not in self.doses:
            raise ValueError(f"evaluate.primary.dose={self.primary.dose}: add it to evaluate.doses")
        return self
