"""The section `fusion` of a recipe: the audio-visual classifier, and the grid of Table A8."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ajbench.core.section import AtLeastOne, Count, Fraction, PathText, Positive, Section

NAIVE = "none"  # the scorer of naive fusion: every clip has score 1


def _word(value: Any) -> Any:
    """YAML reads `true` as a boolean."""
    return "true" if value is True else value


Comparison = Annotated[Literal["predicted", "noisy-or", "true", "clap", "overlap"], BeforeValidator(_word)]
Labels = Annotated[
    Literal["predicted", "noisy-or", "true", "clap", "overlap", "constant", "shuffled", "feature"],
    BeforeValidator(_word),
]
Control = Literal["constant", "shuffled", "feature"]


class Fusion(Section):
    """Audio and video tokens pooled by attention; an entailment score per clip discounts the video."""

    discount: Literal["renormalised", "paper", "logit"] = Field(
        "renormalised", description="how the score lowers the attention to video tokens"
    )
    scorer: str = Field("minilm", description="entailment scorer; none: score 1 for all clips (naive fusion)")
    labels: Labels = Field(
        "predicted",
        description="what visual captions are compared with: the audio model's predictions (mean or "
        "noisy-or), the true labels (which leaks those of evaluation clips), or from a file of scores the "
        "audio (clap) or no text (overlap); controls with the scores of "
        "`predicted`: their mean, permuted, or as an input feature instead of a discount",
    )
    scores: PathText | None = Field(None, description="Parquet file of `ajbench entail` to take scores from")
    captions: PathText | None = Field(
        None, description="folder of `ajbench caption` with visual captions; null: those of the corpus"
    )
    top_k: AtLeastOne = Field(3, description="predicted: classes that count, weighted by their probability")
    cross_fit: Annotated[int, Field(ge=2, le=100)] = Field(
        3, description="predicted: parts of the train split; each is scored by a model trained on the others"
    )
    audio_init: Literal["frozen", "held_out", "trained", "scratch"] = Field(
        "frozen",
        description="audio backbone: the recipe's classifier as trained, kept fixed (its tokens are computed "
        "once); held_out, the same, but trained without one of the `cross_fit` parts, which alone trains the "
        "fusion; trained, and trained further; scratch, untrained",
    )
    width: Annotated[int, Field(ge=1, le=8192)] = Field(128, description="of the tokens that are pooled")
    modality_dropout: Annotated[float, Field(ge=0.0, lt=0.5)] = Field(
        0.2,
        description="probability that a clip is trained without its audio, and the same without its video",
    )
    mixup: Fraction = Field(0.5, description="share of clips that are mixed with a partner, audio and video")
    mixup_beta: Positive = Field(10.0, description="b of λ ~ Beta(b, b), the weight of a mixed clip")
    train_steps: AtLeastOne = 300
    batch_size: AtLeastOne = 32
    lr: Positive = 2e-3
    warmup_steps: Count = 20
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    average_last: Fraction = Field(0.25, description="average weights over this last share of steps")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on CUDA, fp32 on CPUs")
    checkpoint_every: AtLeastOne = Field(100, description="steps")
    interval_over: Literal["recordings", "clips"] = Field(
        "recordings", description="Table A8: clips, where evaluation clips are of a few recordings only"
    )
    scorers: tuple[str, ...] = Field(("minilm",), min_length=1, description="Table A8: scorers")
    comparisons: tuple[Comparison, ...] = Field(
        ("predicted", "true"), description="Table A8: values of `labels` for each scorer"
    )
    controls: tuple[Control, ...] = Field(
        ("constant", "shuffled", "feature"), description="Table A8: controls, of the first scorer"
    )

    def identity(self) -> dict[str, Any]:
        """Return what fingerprints of one model contain: not the table, nor files, which are inputs."""
        apart = {"scorers", "comparisons", "controls", "interval_over", "scores", "captions"}
        return self.model_dump(mode="json", exclude=apart)

    @model_validator(mode="after")
    def _scored(self) -> "Fusion":
        if self.scorer == NAIVE and self.labels != "predicted":
            raise ValueError(f"fusion.labels={self.labels} needs scores: set fusion.scorer, such as minilm")
        return self
