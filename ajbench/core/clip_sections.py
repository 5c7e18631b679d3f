"""The sections `data` and `mix` of a recipe: the labelled clips, and what a classifier is trained on."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ajbench.core.section import AtLeastOne, Count, Fraction, PathText, Positive, Section

# Corpora whose readers ask no file's name for its recording.
KNOW_RECORDINGS = ("mini", "esc50", "fsd50k", "audioset", "vggsound", "audiocaps", "avdigits")
Source = Literal["G", "A", "R", "A+G", "X"]


class Data(Section):
    """Which labelled clips, and how they are cut."""

    corpus: str = Field("mini", description="reader: `ajbench ls corpora`")
    subset: Literal["esc10", "balanced", "unbalanced", "full"] | None = Field(
        None, description="esc50: its ten-class part esc10; audioset: train segments (default: balanced)"
    )
    duration_s: Positive = Field(5.04, le=3600, description="clip length; samples are a multiple of 21 × 320")
    eval_fold: Count | None = Field(None, description="fold to evaluate; the others are the train split")
    label_separator: Literal[";", ",", "|"] = Field(";", description="table only: separates labels of a row")
    recording_from: str | None = Field(
        None, description="folder, table: youtube, or a regex whose group is the recording in a file's name"
    )
    label_from: str | None = Field(
        None,
        description="folder: a regex whose group is the class in a file's name, instead of class folders",
    )
    leave_out: PathText | None = Field(
        None,
        description="list of clips whose recordings are not trained on, such as another corpus' test set",
    )
    n_clips: Annotated[int, Field(ge=1, le=10**6)] = Field(
        240, description="mini only: clips to render, in five folds"
    )
    real_through_codec: bool = Field(
        False, description="train on decoded real clips, as a control for the sound of the codec"
    )
    corpus_seed: Count = Field(
        0,
        description="mini: seed of the rendering; avdigits: of the pairs of a recording and a picture; with "
        "snr_db, of the noise",
    )
    snr_db: float | None = Field(
        None,
        description="white noise in all clips, at this signal-to-noise ratio in dB; null: none",
        ge=-60.0,
        le=100.0,
    )
    video: Literal["none", "tiny_video", "r2plus1d"] = Field(
        "none", description="encoder of the clips' videos, for corpora that have them"
    )
    match: Fraction = Field(
        0.5, description="mini, avdigits: share of clips whose video shows the class that sounds"
    )
    cache: Literal["none", "pcm"] = Field(
        "none",
        description="pcm: keep the decoded sound of stores in work/pcm, 0.32 MB for 10 s, so that trainings "
        "need not decode; the same results",
    )

    def identity(self, *without: str) -> dict[str, Any]:
        """Return what fingerprints contain, without some keys: no cache, nor unused video or noise."""
        unused = {"video", "match"} if self.video == "none" else set()
        unused |= {"cache"} | {key for key in ("snr_db", "label_from") if getattr(self, key) is None}
        return self.model_dump(mode="json", exclude=unused | set(without))

    @model_validator(mode="after")
    def _classes_in_names_of_files(self) -> "Data":
        if self.label_from is not None and self.corpus != "folder":
            raise ValueError(f"data.label_from is for data.corpus=folder; {self.corpus} has labels")
        if self.recording_from is not None and self.corpus in KNOW_RECORDINGS:
            raise ValueError(
                f"data.recording_from is for folders and tables; {self.corpus} knows its recordings"
            )
        return self

    @field_validator("recording_from", "label_from")
    @classmethod
    def _one_group(cls, text: str | None, info: ValidationInfo) -> str | None:
        words = ("youtube",) if info.field_name == "recording_from" else ()
        try:
            if text is None or text in words or re.compile(text).groups == 1:
                return text
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        raise ValueError(
            " or ".join(("needs one group, such as '_(.+)_'", *map("the word {}".format, words)))
        )


class Tail(Section):
    """The classes of which a classifier has few real clips."""

    classes: tuple[str, ...] | int = Field(
        description="names, or the number of classes to draw by mix.draw (nested: 2 of them are among 4)"
    )
    shots: AtLeastOne = Field(description="real train clips that each of them keeps, of those in mix.real")
    fill: bool = Field(False, description="dose only: add only clips with a label of these classes")

    @field_validator("classes", mode="before")
    @classmethod
    def _named_or_counted(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        if isinstance(value, list | tuple) and value and len({*map(str, value)}) == len(value):
            return tuple(sorted(map(str, value)))  # YAML reads the class names of spoken digits as numbers
        raise ValueError("expected class names, each once, such as [dog, rain], or a number above 0")


class Mix(Section):
    """How real clips are mixed with others."""

    mode: Literal["dose", "alpha"] = "dose"
    real: str = Field(
        "all",
        description="train clips of the classifier: all, none (synthetic clips only), a subset of the corpus "
        "(balanced), shots=k for each class, or share=x",
    )
    none_of: str = Field("all", description="real=none only: the real clips to compare with (set by as20kG)")
    draw: Count = Field(0, description="shots, share and tail only: seed of the drawn clips and classes")
    tail: Tail | None = Field(
        None, description="classes with few real clips: {classes: [dog, rain], shots: 4, fill: true}"
    )
    source: Source = Field(
        "G",
        description="dose only: added clips are G generated, A augmented, R real repeated, A+G both, X "
        "synthetic clips from elsewhere (--synthetic)",
    )
    dose: Count = Field(0, description="dose only: the first n clips of each source")
    alpha: Fraction = Field(0.5, description="alpha only: probability of a synthetic draw (Eq. 1)")
    balanced: bool = Field(False, description="draw clips by Σ 1000/(label count + 0.01)")
    amplify: Count = Field(0, description="add a weight of 0.4/AP to the K classes of lowest AP")
    match_steps: Count = Field(
        0, description="train as many steps as with this dose: a control for longer training"
    )
    min_fidelity: Fraction = Field(
        0.0, description="use only synthetic clips with at least this score by synth.judge"
    )

    @field_validator("real", "none_of", mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return "all" if value else "none"
        kind, sign, number = str(value).partition("=")
        try:
            if kind == "shots" and int(number) > 0:
                return f"shots={int(number)}"
            if kind == "share" and 0 < float(number) < 1:
                return f"share={float(number):g}"
        except ValueError:
            pass
        if sign or not kind:
            raise ValueError("expected all, none, a subset such as balanced, shots=4, or share=0.1 (below 1)")
        return value

    @property
    def has_real(self) -> bool:
        """Whether real clips are part of the mix."""
        return self.real != "none"

    @property
    def baseline(self) -> str:
        """The real clips of the mix, or those that a mix of synthetic clips only is compared with."""
        return self.real if self.has_real else self.none_of

    @property
    def limits(self) -> "tuple[str, Tail | None]":
        """What limits the real clips that all mixes of a recipe are compared with."""
        return self.baseline, self.tail

    @property
    def limited(self) -> bool:
        """Whether the baseline may lack train clips."""
        return self.limits != ("all", None)

    @property
    def with_real(self) -> "Mix":
        """The mix, with the real clips that it is compared with if it has none."""
        return self if self.has_real else self.model_copy(update={"real": self.none_of})

    @property
    def fills_tail(self) -> bool:
        """Whether the clips that are added to real ones have a label of the tail."""
        return bool(self.tail and self.tail.fill and self.has_real and self.dose)

    @property
    def by_chance(self) -> bool:
        """Whether `draw` decides which clips the baseline has."""
        return "=" in self.baseline or self.tail is not None

    @property
    def drawn(self) -> list[Any]:
        """What fingerprints of stages that read the baseline contain besides the store; empty for all."""
        tail = [self.tail.model_dump(mode="json", exclude={"fill"})] if self.tail else []
        draw = [self.draw] if self.by_chance else []
        return [self.baseline, *tail, *draw] if self.limited else []

    def identity(self) -> dict[str, Any]:
        """Return what fingerprints contain: `real` as the boolean it once was where it is all or none."""
        absent = {"none_of", "draw", "tail"} | ({"source"} if self.source == "G" else set())
        found = self.model_dump(mode="json", exclude=absent)
        found["real"] = {"all": True, "none": False}.get(self.real, self.real)
        tail = self.tail if self.has_real else None
        if tail:
            found["tail"] = tail.model_dump(mode="json") | {"fill": self.fills_tail}
        return found | ({"draw": self.draw} if "=" in self.real or tail else {})

    def epoch_size(self, real: int) -> int:
        """Return the epoch size that sets the number of optimiser steps, given the number of real clips."""
        if self.match_steps:
            return real + self.match_steps
        return real if self.mode == "alpha" else real * self.has_real + self.added

    def adds(self, source: str) -> bool:
        """Return whether clips of a source (G, A, R or X) are added, or replace real ones."""
        return (self.mode == "alpha" or self.dose > 0) and source in self.source.split("+")

    @property
    def added(self) -> int:
        """The number of clips that are added to the real ones."""
        return self.dose * len(self.source.split("+"))

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "Mix":
        if not self.has_real and self.mode == "alpha":
            raise ValueError("mix.mode=alpha draws real clips: set mix.real=all, or mix.mode=dose")
        if not self.has_real and self.dose == 0:
            raise ValueError("neither real nor synthetic clips: set mix.real=all or mix.dose above 0")
        if self.source != "G" and not (self.mode == "dose" and self.has_real and self.dose):
            raise ValueError(
                f"mix.source={self.source} adds clips to real ones: set mix.mode=dose, mix.dose and mix.real"
            )
        if self.tail and self.tail.fill and self.mode == "alpha":
            raise ValueError("mix.tail.fill=true needs mix.mode=dose: α-mixing replaces clips of all classes")
        if self.none_of == "none":
            raise ValueError("mix.none_of=none: name real clips, such as all")
        return self
