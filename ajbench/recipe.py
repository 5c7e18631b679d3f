"""Recipes: frozen, typed, one model per stage; YAML with `extends`, `key=value` overrides and mix
expressions.

A recipe says what an experiment means. Where it runs (device, workers, folders) is not part of it, so that
the fingerprint of a stage changes only when its result could.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ajbench.errors import UsageError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every recipe section: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """Which labelled clips, and how they are cut."""

    corpus: str = Field("mini", description="reader: mini, esc50, folder, table")
    subset: Literal["esc10"] | None = Field(None, description="esc50 only: keep the ten classes of ESC-10")
    duration_s: Positive = Field(5.04, description="clip length; samples are a multiple of 21 × 320")
    eval_fold: AtLeastOne | None = Field(
        None, description="fold that is evaluated; the other folds are the train split"
    )
    label_separator: Literal[";", ",", "|"] = Field(";", description="table only: between labels of one row")
    n_clips: AtLeastOne = Field(240, description="mini only: clips rendered, over five folds")
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
    text_encoder: str = Field("minilm", description="registry name of the text encoder")
    max_tokens: AtLeastOne = Field(16, description="text states per prompt (paper: 50)")
    mask: bool = Field(False, description="attention mask over padding (Table 1's masked rows)")
    prediction: Literal["epsilon", "v_prediction"] = Field(
        "epsilon", description="what the U-Net predicts: the noise (paper) or the velocity"
    )
    train_steps: AtLeastOne = 2000
    batch_size: AtLeastOne = 16
    lr: Positive = 2.56e-4
    warmup_steps: Count = 100
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    ema_decay: Fraction = 0.999
    condition_dropout: Fraction = 0.1
    frozen_steps: Count = Field(
        0, description="train only conv_in/conv_out and the projection at first (appendix B.4)"
    )
    checkpoint_every: AtLeastOne = 250
    seed: Count = 0


class Invert(Section):
    """Textual inversion: one learned vector per class token, all classes jointly."""

    train_steps: Count = Field(300, description="0: keep the class names' initial vectors")
    batch_size: AtLeastOne = 16
    lr: Positive = 5e-3
    checkpoint_every: AtLeastOne = 100
    seed: Count = 0


class Synth(Section):
    """Which clips are generated, and how."""

    plan: Literal["per-clip", "random-classes"] = "per-clip"
    n: AtLeastOne = Field(320, description="clips in the plan")
    classes: AtLeastOne | None = Field(None, description="use only the first K classes of the label set")
    strength: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.6, description="noise put on the guide clip; 1 = from noise"
    )
    guidance: Annotated[float, Field(ge=1.0)] = 4.0
    sampler: Literal["dpmsolver++", "unipc", "ddim", "pndm"] = "dpmsolver++"
    sampler_steps: AtLeastOne = 20
    prompt: Literal["tokens", "names", "none"] = Field(
        "tokens", description="learned tokens, plain class names, or no text"
    )
    micro_batch: AtLeastOne = 8
    shard_size: AtLeastOne = Field(64, description="clips per shard, the unit of resumable work")
    seed: Count = 0


class Mix(Section):
    """How real and synthetic clips are combined."""

    mode: Literal["dose", "alpha"] = "dose"
    real: bool = Field(True, description="dose only: false trains on synthetic clips alone")
    dose: Count = Field(0, description="dose only: the first n synthetic clips")
    alpha: Fraction = Field(0.5, description="alpha only: probability of a synthetic draw (Eq. 1)")
    balanced: bool = Field(False, description="draw clips by Σ 1000/(label count + 0.01)")
    amplify: Count = Field(0, description="give the K classes of lowest AP a weight of 0.4/AP more")

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "Mix":
        if self.mode == "dose" and not self.real and self.dose == 0:
            raise ValueError("neither real nor synthetic clips: set mix.real=true or mix.dose above 0")
        return self


class Classifier(Section):
    """The classifier trained on the mix."""

    name: str = Field("taltrans-small", description="registry name; `ajbench ls models`")
    augmentation: Literal["none", "mx+sp"] = Field("mx+sp", description="mx+sp: mixup and SpecAugment")
    mixup: Fraction = Field(0.5, description="share of clips mixed with a partner")
    specaug_time: Count = Field(48, description="widest time mask, frames")
    specaug_freq: Count = Field(16, description="widest frequency mask, mel bands")
    loss: Literal["bce", "ce"] = "bce"
    train_steps: AtLeastOne = Field(600, description="optimiser steps, the same for every mix")
    batch_size: AtLeastOne = 16
    lr: Positive = 1e-3
    warmup_steps: Count = 50
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    average_last: Fraction = Field(0.25, description="share of the last steps whose weights are averaged")
    checkpoint_every: AtLeastOne = 200


class Fusion(Section):
    """Entailment-weighted audio-visual fusion."""

    entailment: Literal["naive", "minilm", "t5", "bert", "llm"] = "minilm"
    renormalise: bool = True


class GridModel(Section):
    """One row of Table A11: a classifier, its augmentation, and what differs from the classifier section."""

    name: str
    augmentation: Literal["none", "mx+sp"]
    lr: Positive | None = None
    train_steps: AtLeastOne | None = None


class Evaluate(Section):
    """What is measured, and the grid of Table A11."""

    models: tuple[GridModel, ...] = (GridModel(name="taltrans-small", augmentation="mx+sp"),)
    doses: tuple[Count, ...] = Field((160, 320), description="synthetic clips added to the real ones")
    synthetic_only: bool = True
    seeds: tuple[Count, ...] = (0, 1, 2)
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    features: str = "reference"
    probes: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="extra synthetic sets for eval-gen: name → changed keys of the synth section",
    )
    published: Literal["as20k", "none"] = Field(
        "as20k", description="which published rows stand beside the measured"
    )


class Recipe(Section):
    """One experiment, from corpus to table."""

    name: str
    description: str = ""
    data: Data = Data()
    codec: CodecSection = CodecSection()
    generator: Generator = Generator()
    invert: Invert = Invert()
    synth: Synth = Synth()
    mix: Mix = Mix()
    classifier: Classifier = Classifier()
    fusion: Fusion = Fusion()
    evaluate: Evaluate = Evaluate()


_MIX = re.compile(r"^(?P<base>.+?)(?:(?P<only>G)|\+(?P<dose>\d+)(?P<kilo>k?)G)$")
_PACKAGE = Path(__file__).parent
# A wheel carries the recipes inside the package; a checkout has them beside it.
SHIPPED = _PACKAGE / "recipes" if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parent / "recipes"


def load(expression: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by shipped name, YAML path or mix expression, then apply `key=value` overrides.

    Mix expressions (DESIGN section 3): `esc10` real only, `esc10+320G` plus the first 320 synthetic clips,
    `as20k+40kG` plus the first 40,000, `esc10G` synthetic clips only.

    Raises:
        UsageError: unknown recipe, key or value, with the dotted path of what is wrong.
    """
    base, mix = split_mix(expression)
    tree = _merge(_read_tree(base), {"mix": mix} if mix else {})
    for override in overrides:
        tree = _merge(tree, _parse_override(override))
    if tree.get("mix", {}).get("real") is False and not tree["mix"].get("dose"):
        tree = _merge(tree, {"mix": {"dose": tree.get("synth", {}).get("n", Synth().n)}})
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"recipe {expression}: {_explain(error)}") from None


def split_mix(expression: str) -> tuple[str, dict[str, Any]]:
    """Split a mix expression into recipe name and the keys of the mix section that it sets."""
    if expression.endswith((".yaml", ".yml")) or (SHIPPED / f"{expression}.yaml").exists():
        return expression, {}
    match = _MIX.match(expression)
    if not match:
        return expression, {}
    if match["only"]:
        return match["base"], {"mode": "dose", "real": False}
    return match["base"], {
        "mode": "dose",
        "real": True,
        "dose": int(match["dose"]) * (1000 if match["kilo"] else 1),
    }


def dump(recipe: Recipe) -> str:
    """Return the merged recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped() -> list[str]:
    """Names of the recipes that come with ajbench."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def fingerprint(*parts: Any) -> str:
    """Hash meanings (recipe sections, plain values) and the fingerprints of inputs into 12 hex digits."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read_tree(name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else SHIPPED / f"{name}.yaml"
    if not path.exists():
        from ajbench.registry import suggest

        raise UsageError(
            f"recipe {name!r} is unknown{suggest(name, shipped())}; shipped: {', '.join(shipped())}"
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(tree, dict):
        raise UsageError(f"recipe {path}: expected keys and values, found {type(tree).__name__}")
    parent = tree.pop("extends", None)
    tree.setdefault("name", path.stem)
    if parent is None:
        return tree
    beside = path.parent / f"{parent}.yaml"
    return _merge(_read_tree(str(beside) if beside.exists() else str(parent)), tree)


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _parse_override(text: str) -> dict[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UsageError(f"override {text!r}: expected key=value, for instance mix.alpha=0.3")
    try:
        tree: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"override {text!r}: the value is not readable as YAML") from None
    for name in reversed(key.split(".")):
        tree = {name: tree}
    return dict(tree)


def _explain(error: ValidationError) -> str:
    from ajbench.registry import suggest

    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            section: Any = Recipe
            for part in item["loc"][:-1]:
                section = getattr(section, "model_fields", {}).get(part)
                section = getattr(section, "annotation", None)
            allowed = list(getattr(section, "model_fields", {}))
            lines.append(
                f"{where} is not a key{suggest(str(item['loc'][-1]), allowed)}; allowed: {', '.join(allowed)}"
            )
        else:
            lines.append(
                f"{where or 'mix'}: {item['msg'].removeprefix('Value error, ')} (found {item['input']!r})"[
                    :240
                ]
            )
    return "; ".join(lines)
