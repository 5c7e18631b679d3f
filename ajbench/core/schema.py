"""The sections of a recipe, one per stage: frozen, typed, unknown keys refused."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
# Two ways to say one thing: whoever sets one of a pair means it instead of the other.
PAIRS = (("train_steps", "epochs"), ("warmup_steps", "warmup_epochs"))


class Section(BaseModel):
    """Base of every recipe section: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """Which labelled clips, and how they are cut."""

    corpus: str = Field("mini", description="reader: `ajbench ls corpora`")
    subset: Literal["esc10", "balanced", "unbalanced", "full"] | None = Field(
        None,
        description="esc50: esc10, its ten-class part; audioset: which segments train (balanced if not said)",
    )
    duration_s: Positive = Field(5.04, description="clip length; samples are a multiple of 21 × 320")
    eval_fold: AtLeastOne | None = Field(
        None, description="fold that is evaluated; the other folds are the train split"
    )
    label_separator: Literal[";", ",", "|"] = Field(";", description="table only: between labels of one row")
    n_clips: AtLeastOne = Field(240, description="mini only: clips rendered, over five folds")
    real_through_codec: bool = Field(
        False, description="train on real clips decoded from their codes: a control for the codec's sound"
    )
    corpus_seed: Count = Field(0, description="mini only: seed of the rendering")


class CodecSection(Section):
    """The neural codec through which everything downstream hears."""

    name: str = Field("tiny", description="tiny, encodec_24khz@16k, encodec_24khz@24k")
    whitening: Literal["channel", "pca"] = Field(
        "pca", description="what the diffusion sees: channels of unit deviation (paper), or components"
    )


class Generator(Section):
    """Latent diffusion U-Net on whitened codec latents."""

    preset: Literal["tiny", "small", "full"] = "tiny"
    text_encoder: str = Field(
        "minilm", description="minilm, t5-large (paper), flan-t5, clip, clap, or a folder: ./my-t5"
    )
    max_tokens: AtLeastOne = Field(16, description="text states per prompt (paper: 50)")
    mask: bool = Field(False, description="attention mask over padding (Table 1's masked rows)")
    prediction: Literal["epsilon", "v_prediction"] = Field(
        "epsilon", description="what the U-Net predicts: the noise (paper) or the velocity"
    )
    init: str | None = Field(
        None, description="full only: start from sd14, or a folder or hub id of a U-Net of its shape"
    )
    train_steps: AtLeastOne = 2000
    batch_size: AtLeastOne = Field(16, description="clips an optimiser step, over all processes")
    accumulate: AtLeastOne = Field(1, description="parts that a process computes its batch in")
    optimizer: Literal["adamw", "adamw8bit"] = Field(
        "adamw", description="adamw8bit: moments in 8 bits (CUDA, with bitsandbytes)"
    )
    lr: Positive = 2.56e-4
    warmup_steps: Count = 100
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_grad: Positive | None = Field(1.0, description="largest norm of the gradient; null: no limit")
    ema_decay: Fraction = 0.999
    condition_dropout: Fraction = 0.1
    min_snr_gamma: Positive | None = Field(
        None, description="weigh the loss by min(SNR, γ) (Hang et al. 2023: 5); null: all steps alike (paper)"
    )
    frozen_steps: Count = Field(
        0, description="train only conv_in/conv_out and the projection at first (appendix B.4)"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on CUDA, fp32 on CPUs")
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, more time"
    )
    channels_last: bool = Field(False, description="memory layout of the U-Net: faster convolutions on CUDA")
    compile: bool = Field(False, description="torch.compile: minutes at first, then faster steps")
    validate_every: AtLeastOne | None = Field(
        None, description="steps between looks at the loss on clips that are not trained on; null: none"
    )
    val_share: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.0, description="of the train clips, held out for that where the corpus has no val split"
    )
    checkpoint_every: AtLeastOne = 250
    seed: Count = 0

    @model_validator(mode="after")
    def _fits(self) -> "Generator":
        if self.init is not None and self.preset != "full":
            raise ValueError(
                f"generator.init={self.init} fits generator.preset=full alone, not {self.preset}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"generator.accumulate={self.accumulate} does not divide batch_size={self.batch_size}"
            )
        if self.val_share and not self.validate_every:
            raise ValueError(
                f"generator.val_share={self.val_share} is for nothing without generator.validate_every"
            )
        return self


class Invert(Section):
    """Adaptation of a trained generator: learned class tokens, all classes jointly; LoRA; or both."""

    train_steps: Count = Field(300, description="0: keep the initial vectors")
    tokens: bool = Field(
        True,
        description="learn class tokens; false: LoRA alone, prompts are plain names (synth.prompt=names)",
    )
    lora_rank: AtLeastOne | None = Field(
        None, description="of LoRA on the U-Net's attention, then part of every synthesis; null: none"
    )
    vectors: AtLeastOne = Field(1, description="learned vectors per class token")
    classes: tuple[str, ...] | None = Field(None, description="labels that get a token; null: all of them")
    init: Annotated[str, Field(min_length=1)] = Field(
        "name", description="vectors begin as the mean of the class's name, or of a word such as sound"
    )
    batch_size: AtLeastOne = 16
    lr: Positive = Field(5e-3, description="of the class tokens")
    lora_lr: Positive = Field(1e-4, description="of LoRA")
    checkpoint_every: AtLeastOne = 100
    log_every: AtLeastOne = Field(50, description="steps per row and class of metrics_classes.csv")
    seed: Count = 0

    @model_validator(mode="after")
    def _something_to_train(self) -> "Invert":
        if not self.tokens and self.lora_rank is None:
            raise ValueError(
                "invert.tokens=false leaves nothing to train; set invert.lora_rank, such as 8, or tokens=true"
            )
        return self


class Synth(Section):
    """Which clips are generated, and how."""

    plan: Literal["per-clip", "random-classes", "captions"] = Field(
        "per-clip", description="captions: of the evaluation clips, for Table 1, never to train on"
    )
    n: AtLeastOne = Field(320, description="clips in the plan")
    classes: AtLeastOne | None = Field(None, description="use only the first K classes of the label set")
    unguided: Literal["leave_out", "noise", "refuse"] = Field(
        "leave_out",
        description="random-classes: what becomes of classes without a train clip, which have no guide",
    )
    strength: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.6, description="noise put on the guide clip; 1 = from noise"
    )
    guidance: Annotated[float, Field(ge=1.0)] = 4.0
    guidance_rescale: Fraction = Field(
        0.0, description="share of the loudness that guidance adds which is taken back"
    )
    negative: str = Field("", description="text that guidance leads away from")
    sampler: Literal["dpmsolver++", "unipc", "ddim", "pndm"] = "dpmsolver++"
    sampler_steps: AtLeastOne = 20
    prompt: Literal["tokens", "names", "none"] = Field(
        "tokens", description="learned tokens, plain class names (of captions: those), or no text"
    )
    micro_batch: AtLeastOne = 8
    shard_size: AtLeastOne = Field(64, description="clips per shard, the unit of resumable work")
    retries: Count = Field(
        2, description="further seeds tried where a result is silent, clipped through or not finite"
    )
    judge: str | None = Field(
        None,
        description="scores clips for their labels: reference (of this run), mn04, panns16k, panns32k, or "
        "a classifier's folder",
    )
    candidates: AtLeastOne = Field(1, description="clips made for each, of which the judge keeps the best")
    seed: Count = 0

    @model_validator(mode="after")
    def _judged(self) -> "Synth":
        if self.candidates > 1 and self.judge is None:
            raise ValueError(f"synth.candidates={self.candidates} needs a synth.judge, such as reference")
        if self.plan == "captions" and (self.strength < 1 or self.prompt == "tokens"):
            raise ValueError(
                "synth.plan=captions: a clip must not begin from the one that it is compared with, and its "
                "prompt is the caption; set synth.strength=1 and synth.prompt=names"
            )
        return self


class Mix(Section):
    """How real and synthetic clips are combined."""

    mode: Literal["dose", "alpha"] = "dose"
    real: bool = Field(True, description="dose only: false trains on synthetic clips alone")
    dose: Count = Field(0, description="dose only: the first n synthetic clips")
    alpha: Fraction = Field(0.5, description="alpha only: probability of a synthetic draw (Eq. 1)")
    balanced: bool = Field(False, description="draw clips by Σ 1000/(label count + 0.01)")
    amplify: Count = Field(0, description="give the K classes of lowest AP a weight of 0.4/AP more")
    match_steps: Count = Field(
        0, description="train as many steps as with this dose: of epochs, a control for mere training"
    )

    min_fidelity: Fraction = Field(
        0.0, description="least score by synth.judge of synthetic clips; doses count those that have it"
    )

    def counted(self, real: int) -> int:
        """Return the clips of the epoch by which optimiser steps are counted, of `real` train clips."""
        if self.match_steps:
            return real + self.match_steps
        return real if self.mode == "alpha" else real * self.real + self.dose

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "Mix":
        if self.mode == "dose" and not self.real and self.dose == 0:
            raise ValueError("neither real nor synthetic clips: set mix.real=true or mix.dose above 0")
        return self


class Classifier(Section):
    """The classifier trained on the mix, and how. Defaults suit some hundred clips and a small model."""

    name: str = Field("taltrans-small", description="registry name; `ajbench ls models`")
    options: dict[str, Any] = Field(
        default_factory=dict, description="of the model: {patchout: 0.5}, {tied: false}, {dropout: 0.1}"
    )
    init: str | None = Field(
        None, description="start from imagenet, a trained classifier's folder, or a hub id"
    )
    new_head: bool = Field(False, description="take an `init` of other classes, with a new last layer")
    aug: Literal["none", "mx+sp"] = Field("mx+sp", description="mx+sp: mixup and SpecAugment")
    mixup: Fraction = Field(0.5, description="share of clips mixed with a partner")
    mixup_beta: Positive = Field(10.0, description="λ ~ Beta(b, b), the weight that a mixed clip keeps")
    mixup_partner: Literal["mix", "batch"] = Field(
        "mix", description="partners: any clip of the mix, uniformly (AST), or of the same batch"
    )
    specaug_time: Count = Field(48, description="widest time mask, frames")
    specaug_freq: Count = Field(16, description="widest frequency mask, mel bands")
    loss: Literal["bce", "ce"] = Field("bce", description="ce: corpora with one label a clip")
    train_steps: AtLeastOne | None = Field(600, description="optimiser steps, the same for every mix; or")
    epochs: Positive | None = Field(None, description="passes over the mix, of whatever size it is")
    batch_size: AtLeastOne = Field(16, description="clips an optimiser step, over all processes")
    accumulate: AtLeastOne = Field(1, description="parts that a process computes its batch in")
    optimizer: Literal["adamw", "adam"] = "adamw"
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip_grad: Positive | None = Field(1.0, description="largest norm of the gradient; null: no limit")
    lr: Positive = 1e-3
    warmup_steps: Count | None = Field(50, description="linear warm-up; or")
    warmup_epochs: Annotated[float, Field(ge=0)] | None = None
    schedule: Literal["cosine", "step"] = Field("cosine", description="of the learning rate after warm-up")
    decay_from_epoch: AtLeastOne = Field(10, description="step only: epochs before the first decay")
    decay_every_epochs: AtLeastOne = Field(5, description="step only: epochs between decays")
    decay_factor: Positive = Field(0.5, description="step only")
    average_last: Fraction = Field(0.25, description="share of the last steps whose weights are averaged")
    average_epochs: tuple[AtLeastOne, AtLeastOne] | None = Field(
        None, description="average the weights at the ends of these epochs, the first and last, instead"
    )
    ema_decay: Fraction | None = Field(None, description="moving average of the weights instead")
    select: Literal["last", "best"] = Field(
        "last", description="which weights are used: the last (averaged), or the best on the val split"
    )
    validate_every: AtLeastOne | None = Field(
        None, description="steps; null: once an epoch (with a val split)"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on CUDA, fp32 on CPUs")
    compile: bool = Field(False, description="torch.compile: minutes at first, then faster steps")
    checkpoint_every: AtLeastOne = Field(200, description="steps")

    @model_validator(mode="before")
    @classmethod
    def _instead(cls, tree: Any) -> Any:
        defaults = {key: cls.model_fields[key].default for pair in PAIRS for key in pair}
        return overlay(defaults, tree) if isinstance(tree, Mapping) else tree

    @model_validator(mode="after")
    def _one_of_each(self) -> "Classifier":
        for one, other in PAIRS:
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise ValueError(f"set classifier.{one} or classifier.{other}, and the other to null")
        if self.average_epochs and self.average_epochs[0] > self.average_epochs[1]:
            raise ValueError("classifier.average_epochs: the first comes after the last")
        if self.ema_decay is not None and self.average_epochs:
            raise ValueError("classifier.ema_decay and classifier.average_epochs: set one of them")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"classifier.accumulate={self.accumulate} does not divide batch_size={self.batch_size}"
            )
        return self

    def steps(self, epoch_size: int) -> int:
        """Return the optimiser steps of a training on an epoch of `epoch_size` clips."""
        return self.train_steps or self.steps_in(self.epochs or 0, epoch_size)

    def steps_in(self, epochs: float, epoch_size: int) -> int:
        """Return the steps after which `epochs` epochs of `epoch_size` clips have been seen, at least 1."""
        return max(1, math.ceil(epochs * epoch_size / self.batch_size - 1e-9))

    def model_options(self, clip_samples: int) -> dict[str, Any]:
        """Return the options with which the model is built for clips of this length."""
        fitted = {"clip_samples": clip_samples} if self.name.startswith("ast") else {}
        return fitted | self.options

    def warmup(self, epoch_size: int) -> int:
        """Return the optimiser steps of the warm-up."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return self.steps_in(self.warmup_epochs, epoch_size) if self.warmup_epochs else 0


class GridModel(BaseModel):
    """One line of Table A11: a classifier, its augmentation, and any key of the classifier section."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    aug: Literal["none", "mx+sp"]


class Evaluate(Section):
    """What is measured, and the grid of Table A11."""

    models: tuple[GridModel, ...] = (GridModel(name="taltrans-small", aug="mx+sp"),)
    doses: tuple[Count, ...] = Field((160, 320), description="synthetic clips added to the real ones")
    synthetic_only: bool = True
    controls: tuple[Literal["match_steps", "through_codec"], ...] = Field(
        (), description="more columns of real clips alone: with the steps of the largest dose; decoded"
    )
    seeds: tuple[Count, ...] = (0, 1, 2)
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    features: str = "reference"
    generators: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="rows of Table 1: name → changed keys of the generator section, or {folder: DIR}",
    )
    probes: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="extra synthetic sets for eval-gen: name → changed keys of the synth section",
    )
    published: Literal["as20k", "none"] = Field(
        "as20k", description="which published rows stand beside the measured"
    )


def overlay(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `change` laid over it, mappings within mappings too.

    Of a pair of keys that exclude each other (`PAIRS`), the one that `change` sets unsets the other.
    """
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = overlay(old or {}, value) if nested else value
    for pair in PAIRS:
        for one, other in (pair, pair[::-1]):
            if change.get(one) is not None and change.get(other) is None and other in merged:
                merged[other] = None
    return merged
