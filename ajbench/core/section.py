"""What the sections of a recipe share: their base class, types of numbers, and how keys are merged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
LARGEST = 2**31 - 1
Count = Annotated[int, Field(ge=0, le=LARGEST)]
AtLeastOne = Annotated[int, Field(ge=1, le=LARGEST)]
Augmentation = Literal["none", "mx+sp", "wave", "wave+mx+sp"]  # of a classifier's training clips


def _different(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(numbers)) < len(numbers):
        raise ValueError("a number is listed twice")
    return numbers


def _ascending(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(_different(numbers)))


def _home(text: str) -> str:
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError as error:
        raise ValueError(f"{text}: {error}") from None


# Names a path, alone or besides other things; no shell expands the ~ of `key=~/folder` or of a YAML file.
PathText = Annotated[str, AfterValidator(_home)]
Seeds = Annotated[tuple[Count, ...], AfterValidator(_different)]
Folds = Annotated[tuple[Count, ...], AfterValidator(_ascending)]
NAMED = ("probes", "generators", "captioners", "per_classifier")  # mappings whose keys the user chooses
# Pairs of keys that exclude each other: setting one unsets the other.
PAIRS = (("train_steps", "epochs"), ("warmup_steps", "warmup_epochs"))


class Section(BaseModel):
    """Base of every recipe section: immutable, unknown keys and infinite numbers refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """Return what fingerprints contain of the section; keys added later are absent at their defaults."""
        return self.model_dump(mode="json")


def overlay(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the keys of `change`, also in nested mappings.

    A key of `PAIRS` that `change` sets unsets the other of its pair. An empty mapping of `NAMED` empties it.
    """
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping) and (value or key not in NAMED)
        merged[key] = overlay(old or {}, value) if nested else value
    for pair in PAIRS:
        for one, other in (pair, pair[::-1]):
            if change.get(one) is not None and change.get(other) is None and other in merged:
                merged[other] = None
    return merged
