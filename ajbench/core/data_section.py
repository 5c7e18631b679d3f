"""The section `data` of a recipe: which labelled clips, how they are cut, and their videos."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from ajbench.core.section import AtLeastOne, Count, Fraction, Positive, Section


class Data(Section):
    """Which labelled clips, and how they are cut."""

    corpus: str = Field("mini", description="reader: `ajbench ls corpora`")
    subset: Literal["esc10", "balanced", "unbalanced", "full"] | None = Field(
        None, description="esc50: its ten-class part esc10; audioset: train segments (default: balanced)"
    )
    duration_s: Positive = Field(5.04, description="clip length; samples are a multiple of 21 × 320")
    eval_fold: AtLeastOne | None = Field(None, description="fold to evaluate; the others are the train split")
    label_separator: Literal[";", ",", "|"] = Field(";", description="table only: separates labels of a row")
    recording_from: str | None = Field(
        None, description="folder, table: youtube, or a regex whose group is the recording in a file's name"
    )
    leave_out: str | None = Field(
        None,
        description="list of clips whose recordings are not trained on, such as another corpus' test set",
    )
    n_clips: AtLeastOne = Field(240, description="mini only: clips to render, in five folds")
    real_through_codec: bool = Field(
        False, description="train on decoded real clips, as a control for the sound of the codec"
    )
    corpus_seed: Count = Field(
        0, description="mini: seed of the rendering; avdigits: of the pairs of a recording and a picture"
    )
    video: Literal["none", "tiny_video", "r2plus1d"] = Field(
        "none", description="encoder of the clips' videos, for corpora that have them"
    )
    match: Fraction = Field(
        0.5, description="mini, avdigits: share of clips whose video shows the class that sounds"
    )

    def identity(self, *without: str) -> dict[str, Any]:
        """Return what fingerprints contain, without some keys: nothing about video where none is used."""
        unused = {"video", "match"} if self.video == "none" else set()
        return self.model_dump(mode="json", exclude=unused | set(without))

    @field_validator("recording_from")
    @classmethod
    def _one_group(cls, text: str | None) -> str | None:
        try:
            if text in (None, "youtube") or re.compile(str(text)).groups == 1:
                return text
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        raise ValueError("needs one group, such as '_(.+)_', or the word youtube")
