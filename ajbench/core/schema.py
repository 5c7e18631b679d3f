"""The sections of a recipe, one per stage: frozen and typed; unknown keys are refused."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ajbench.core.section import (
    PAIRS,
    AtLeastOne,
    Augmentation,
    Count,
    Fraction,
    PathText,
    Positive,
    Section,
    overlay,
)

Preset = Literal["tiny", "small", "full"]  # sizes of the U-Net


class CodecSection(Section):
    """The neural codec that clips are encoded with."""

    name: PathText = Field(
        "tiny",
        description="tiny, tiny@HASH (one version of it: `ajbench ls codecs`), encodec_24khz@16k, "
        "encodec_24khz@24k, or the safetensors file of a trained tiny codec",
    )
    whitening: Literal["channel", "pca"] = Field(
        "pca", description="input of the U-Net: channels of unit deviation (paper), or principal components"
    )


class Generator(Section):
    """Latent diffusion U-Net on whitened codec latents."""

    pool: Annotated[PathText, Field(min_length=1)] = Field(
        "train",
        description="clips it is trained on: train (the train split), real (those of `mix.real`), or the "
        "folder of another store of real clips",
    )
    preset: Preset = "tiny"
    text_encoder: PathText = Field(
        "minilm", description="minilm, t5-large (paper), flan-t5, clip, clap, or a folder: ./my-t5"
    )
    captions: PathText | None = Field(
        None, description="folder of a captions table (`ajbench caption`); null: the captions of the corpus"
    )
    caption_kind: Literal["audio", "visual", "merge"] = Field("audio", description="captions to take from it")
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = Field(16, description="tokens per prompt (paper: 50)")
    mask: bool = Field(False, description="mask padding in the U-Net's attention (masked rows of Table 1)")
    encoder_mask: bool = Field(True, description="mask padding inside the text encoder (paper: false)")
    prediction: Literal["epsilon", "v_prediction"] = Field(
        "epsilon", description="the U-Net predicts the noise (paper) or the velocity"
    )
    init: PathText | None = Field(None, description="full only: start from sd14, a folder, or a hub id")
    train_steps: AtLeastOne = 2000
    batch_size: AtLeastOne = Field(16, description="clips per optimiser step, over all processes")
    accumulate: AtLeastOne = Field(1, description="parts in which a process computes its batch")
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
        None, description="weigh the loss by min(SNR, γ) (Hang et al. 2023: 5); null: not weighed (paper)"
    )
    frozen_steps: Count = Field(
        0, description="train only conv_in, conv_out and the projection first (appendix B.4)"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on CUDA, fp32 on CPUs")
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, more time")
    channels_last: bool = Field(False, description="memory layout of the U-Net: faster convolutions on CUDA")
    compile: bool = Field(False, description="torch.compile: starts slowly, then steps are faster")
    validate_every: AtLeastOne | None = Field(
        None, description="steps between losses on held-out clips; null: none"
    )
    val_share: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.0, description="share of train clips to hold out for them if the corpus has no val split"
    )
    checkpoint_every: AtLeastOne = 250
    seed: Count = 0

    @property
    def other_store(self) -> Path | None:
        """The folder of the pool, if that is another store."""
        return None if self.pool in ("train", "real") else Path(self.pool)

    def identity(self) -> dict[str, Any]:
        """Return what fingerprints contain: no pool or captions, whose contents are inputs of the stage."""
        return self.model_dump(mode="json", exclude={"pool", "captions", "caption_kind"})

    @model_validator(mode="after")
    def _fits(self) -> "Generator":
        if self.init is not None and self.preset != "full":
            raise ValueError(f"generator.init={self.init} needs generator.preset=full, not {self.preset}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"generator.accumulate={self.accumulate} must divide batch_size={self.batch_size}"
            )
        if self.val_share and not self.validate_every:
            raise ValueError(
                f"generator.val_share={self.val_share} has no effect without generator.validate_every"
            )
        return self


class Invert(Section):
    """Adaptation of a trained generator: class tokens, learned jointly for all classes, LoRA, or both."""

    train_steps: Count = Field(300, description="0: keep the initial vectors")
    tokens: bool = Field(True, description="learn class tokens; false: LoRA only, with synth.prompt=names")
    lora_rank: AtLeastOne | None = Field(
        None,
        le=1024,
        description="rank of LoRA on the U-Net's attention, used in every synthesis; null: no LoRA",
    )
    vectors: Annotated[int, Field(ge=1, le=100)] = Field(1, description="learned vectors per class token")
    classes: tuple[str, ...] | None = Field(None, description="labels that get a token; null: all")
    init: Annotated[str, Field(min_length=1)] = Field(
        "name", description="vectors start as the mean of the class name, or of a word such as sound"
    )
    batch_size: AtLeastOne = 16
    lr: Positive = Field(5e-3, description="learning rate of the class tokens")
    lora_lr: Positive = Field(1e-4, description="learning rate of LoRA")
    checkpoint_every: AtLeastOne = 100
    log_every: AtLeastOne = Field(50, description="steps between rows of metrics_classes.csv")
    seed: Count = 0

    @model_validator(mode="after")
    def _something_to_train(self) -> "Invert":
        if not self.tokens and self.lora_rank is None:
            raise ValueError(
                "invert.tokens=false leaves nothing to train; set invert.lora_rank, such as 8, or tokens=true"
            )
        return self


class Synth(Section):
    """Which clips are generated and how."""

    plan: Literal["per-clip", "random-classes", "captions"] = Field(
        "per-clip", description="captions: those of the evaluation clips, for Table 1; never to train on"
    )
    n: Annotated[int, Field(ge=1, le=10**7)] = Field(320, description="clips in the plan")
    classes: AtLeastOne | Literal["tail"] | None = Field(
        None, description="use only the first K classes of the label set, or tail: those of mix.tail"
    )
    guides: Literal["pool", "real"] = Field(
        "pool",
        description="guides come from the generator's pool (another store: from the real clips), or from the "
        "clips of `mix.real`",
    )
    unguided: Literal["leave_out", "noise", "refuse"] = Field(
        "leave_out", description="random-classes: what to do with classes without a train clip as guide"
    )
    strength: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.6, description="noise added to the guide clip; 1: start from noise"
    )
    guidance: Annotated[float, Field(ge=1.0)] = 4.0
    guidance_rescale: Fraction = Field(
        0.0, description="share of the loudness added by guidance that is removed"
    )
    negative: str = Field("", description="negative prompt; `<dog>` is the class token of dog")
    sampler: Literal["dpmsolver++", "unipc", "ddim", "pndm"] = "dpmsolver++"
    sampler_steps: Annotated[int, Field(ge=1, le=1000)] = 20
    prompt: Literal["tokens", "names", "none"] = Field(
        "tokens", description="class tokens, class names (plan captions: the captions), or no text"
    )
    decode: Literal["latents", "codes"] = Field(
        "latents", description="sound of the generated latents, or of the codes next to them"
    )
    micro_batch: AtLeastOne = 8
    shard_size: AtLeastOne = Field(64, description="clips per shard, the unit of resumable work")
    retries: Count = Field(2, description="other seeds to try if a result is silent, clipped or not finite")
    judge: PathText | None = Field(
        None, description="classifier that scores clips: reference, mn04, panns16k, panns32k or a folder"
    )
    candidates: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="clips generated per kept clip; the judge chooses"
    )
    seed: Count = 0
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of the U-Net; auto: bf16 on CUDA, fp32 on CPUs"
    )

    def identity(self) -> dict[str, Any]:
        """Return what fingerprints contain: not `guides`, whose clips are an input of the synthesis.

        Once, there was no other `decode` than codes.
        """
        later = {"precision"} if self.precision == "auto" else set()
        later |= {"decode"} if self.decode == "codes" else set()
        return self.model_dump(mode="json", exclude={"guides", *later})

    @property
    def shards(self) -> int:
        """The number of shards of all clips."""
        return -(-self.n // self.shard_size)

    @property
    def micro_batches(self) -> int:
        """The number of micro-batches: none has clips of two shards."""
        last = self.n - (self.shards - 1) * self.shard_size
        return (self.shards - 1) * -(-self.shard_size // self.micro_batch) + -(-last // self.micro_batch)

    @model_validator(mode="after")
    def _judged(self) -> "Synth":
        if self.candidates > 1 and self.judge is None:
            raise ValueError(f"synth.candidates={self.candidates} needs a synth.judge, such as reference")
        apart = 1000 // self.sampler_steps
        lost = 1000 - self.sampler_steps * apart
        if self.sampler in ("ddim", "pndm") and lost > 50:
            raise ValueError(
                f"synth.sampler_steps={self.sampler_steps}: {self.sampler} would leave out the noisiest "
                f"{lost} of 1,000 training steps; choose {1000 // max(apart, 2)}"
            )
        if self.plan == "captions" and (self.strength < 1 or self.prompt == "tokens"):
            raise ValueError(
                "synth.plan=captions needs synth.strength=1 and synth.prompt=names: clips start from noise, "
                "and their prompts are the captions"
            )
        return self


class Classifier(Section):
    """The classifier and its training. The defaults suit a few hundred clips and a small model."""

    name: str = Field("taltrans-small", description="registry name; `ajbench ls models`")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="of the model, such as {patchout: 0.5}; head: {features: mn04, hidden: null, c: 1.0}",
    )
    init: PathText | None = Field(
        None, description="start from imagenet, the folder of a classifier, or a hub id"
    )
    new_head: bool = Field(False, description="replace the last layer, for an `init` with other classes")
    aug: Augmentation = Field(
        "mx+sp", description="mx+sp: mixup and SpecAugment; wave: noise, stretch, pitch, shift, gain"
    )
    mixup: Fraction = Field(0.5, description="share of clips that are mixed with a partner")
    mixup_beta: Positive = Field(10.0, description="b of λ ~ Beta(b, b), the weight of a mixed clip")
    mixup_partner: Literal["mix", "batch"] = Field(
        "mix", description="partners come from the whole mix, uniformly (AST), or from the batch"
    )
    specaug_time: Count = Field(48, description="widest time mask, frames; at most half a clip")
    specaug_freq: Count = Field(16, description="widest frequency mask, mel bands")
    loss: Literal["bce", "ce"] = Field("bce", description="ce: for corpora with one label per clip")
    train_steps: AtLeastOne | None = Field(600, description="optimiser steps, equal for all mixes; or")
    epochs: Positive | None = Field(None, le=10**6, description="passes over the mix")
    batch_size: AtLeastOne = Field(16, description="clips per optimiser step, over all processes")
    accumulate: AtLeastOne = Field(1, description="parts in which a process computes its batch")
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
    average_last: Fraction = Field(0.25, description="average weights over this last share of steps")
    average_epochs: tuple[AtLeastOne, AtLeastOne] | None = Field(
        None, description="instead average weights at the ends of these epochs (first, last)"
    )
    ema_decay: Fraction | None = Field(None, description="instead take a moving average of the weights")
    select: Literal["last", "best"] = Field(
        "last", description="use the last (averaged) weights, or the best on the val split"
    )
    validate_every: AtLeastOne | None = Field(
        None, description="steps between scores on the val split; null: once per epoch"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on CUDA, fp32 on CPUs")
    compile: bool = Field(False, description="torch.compile: starts slowly, then steps are faster")
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
            raise ValueError("classifier.average_epochs: the first epoch is after the last")
        if self.ema_decay is not None and self.average_epochs:
            raise ValueError("classifier.ema_decay and classifier.average_epochs: set one of them")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"classifier.accumulate={self.accumulate} must divide batch_size={self.batch_size}"
            )
        return self

    @property
    def features(self) -> str | None:
        """The frozen features of a head; None for other classifiers."""
        return str(self.options.get("features", "tiny")) if self.name == "head" else None

    @property
    def pretraining(self) -> str:
        """How Table A11 abbreviates initial weights: `-`, `IM` (ImageNet), `AS` (AudioSet) or `PT`.

        Of a head, it is what distinguishes it: its features, and the width of its hidden layer if it has one.
        """
        if self.features:
            hidden = self.options.get("hidden")
            return f"{self.features}-{hidden}" if hidden else self.features
        if self.init is None:
            return "-"
        return "IM" if self.init == "imagenet" else "AS" if "audioset" in self.init.lower() else "PT"

    @property
    def line(self) -> str:
        """Its line of Table A11 as written in rows.csv: model/pretraining/augmentation."""
        return f"{self.name}/{self.pretraining}/{self.aug}"

    def steps(self, epoch_size: int) -> int:
        """Return the number of optimiser steps for an epoch of `epoch_size` clips; for a head it is 1."""
        if self.features is not None:
            return 1
        return self.train_steps or self.steps_in(self.epochs or 0, epoch_size)

    def steps_in(self, epochs: float, epoch_size: int) -> int:
        """Return the number of steps in `epochs` epochs of `epoch_size` clips, at least 1."""
        return max(1, math.ceil(epochs * epoch_size / self.batch_size - 1e-9))

    def model_options(self, clip_samples: int) -> dict[str, Any]:
        """Return the options that the model is built with for clips of this length."""
        fitted = {"clip_samples": clip_samples} if self.name.startswith("ast") else {}
        return fitted | self.options

    def warmup(self, epoch_size: int) -> int:
        """Return the number of warm-up steps."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return self.steps_in(self.warmup_epochs, epoch_size) if self.warmup_epochs else 0
