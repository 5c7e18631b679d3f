"""Names that users type → what they stand for, as "module:attr" that is imported only when needed.

Other packages add their own with `register`; `$AJBENCH_PLUGINS` makes the command line import them.
"""

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ajbench.core.errors import MissingError, UsageError

if TYPE_CHECKING:
    from ajbench.core.recipe import Recipe

CORPORA: dict[str, Any] = {
    "mini": "ajbench.data.corpora.mini:read",
    "esc50": "ajbench.data.corpora.esc50:read",
    "audioset": "ajbench.data.corpora.audioset:read",
    "fsd50k": "ajbench.data.corpora.fsd50k:read",
    "vggsound": "ajbench.data.corpora.vggsound:read",
    "audiocaps": "ajbench.data.corpora.audiocaps:read",
    "avdigits": "ajbench.data.corpora.avdigits:read",
    "folder": "ajbench.data.corpora.folder:read",
    "table": "ajbench.data.corpora.clip_table:read",
    "hub": "ajbench.data.corpora.hub:read",
    "webdataset": "ajbench.data.corpora.webdataset:read",
}
RENDERED = ("mini",)  # corpora without files: --data has no use
# Corpora whose lists are enough to plan with: their readers take `need_files=False`.
LABEL_TABLES = ("audioset", "vggsound", "audiocaps")
TINY = "tiny@9a71329efa59f9b4"  # today's version of the codec tiny
CODECS: dict[str, Any] = {
    "tiny": "ajbench.codec.tiny:load",
    TINY: "ajbench.codec.tiny:load_today",
    "tiny@ff1b92258faaad59": "ajbench.codec.tiny:load_former",
    "encodec_24khz@16k": "ajbench.codec.encodec:load_16k",
    "encodec_24khz@24k": "ajbench.codec.encodec:load_24k",
}
TEXT_ENCODERS: dict[str, Any] = {
    "minilm": "ajbench.generation.text_encoder:MiniLM",
    "t5-large": "ajbench.generation.hub_encoders:t5_large",
    "flan-t5": "ajbench.generation.hub_encoders:flan_t5",
    "clip": "ajbench.generation.hub_encoders:clip",
    "clap": "ajbench.generation.hub_encoders:clap",
}
CLASSIFIERS: dict[str, Any] = {
    "taltrans": "ajbench.classifiers.taltrans:TalTrans",
    "taltrans-small": "ajbench.classifiers.taltrans:taltrans_small",
    "ast": "ajbench.classifiers.ast:AST",
    "ast-small": "ajbench.classifiers.ast:ast_small",
    "ast-tiny": "ajbench.classifiers.ast:ast_tiny",
    "head": "ajbench.features.head:Head",
}


class ExtractorEntry(NamedTuple):
    """An extractor of features, as far as it is known without importing it.

    Attributes:
        target: subclass of `ajbench.features.extractor.Extractor`, or "module:attr".
        description: one line for `ajbench ls features`.
        classes: whether it has logits: without them there is no IS, KL or label agreement.
        frames: whether its features are k frames per clip instead of one vector.
        texts: whether it embeds text too, as a CLAP score needs.
        weights: name in weights.csv, if not the extractor's own name.
        shipped: file of weights that comes with ajbench, as a path in the package.
        package: module that has to be installed.
        extra: of ajbench, which installs it.
    """

    target: Any
    description: str
    classes: bool = True
    frames: bool = False
    texts: bool = False
    weights: str = ""
    shipped: str = ""
    package: str = ""
    extra: str = ""


FEATURES: dict[str, ExtractorEntry] = {
    "reference": ExtractorEntry(
        "ajbench.features.extractor:Reference",
        "a classifier trained by the same recipe on real clips; values of different recipes do not compare",
    ),
    "mn04": ExtractorEntry(
        "ajbench.features.mobilenet:MobileNetTagger",
        "EfficientAT's MobileNetV3 of width 0.4 (1 M parameters, mAP 43.2): 384-d, 527 AudioSet logits",
    ),
    "mn10": ExtractorEntry(
        "ajbench.features.mobilenet:MobileNetTagger",
        "EfficientAT's MobileNetV3 of width 1 (4.9 M parameters, mAP 47.1): 960-d, 527 AudioSet logits",
    ),
    "panns16k": ExtractorEntry(
        "ajbench.features.panns:Panns",
        "PANNs' Cnn14 for 16 kHz: 2048-d, 527 AudioSet logits; the basis of most published FD, IS and KL",
    ),
    "panns32k": ExtractorEntry(
        "ajbench.features.panns:Panns",
        "PANNs' Cnn14 for 32 kHz: like panns16k, but values of the two do not compare",
    ),
    "passt": ExtractorEntry(
        "ajbench.features.passt:Passt",
        "PaSST-S (mAP 47.6): 768-d, 527 AudioSet logits; needs the package hear21passt",
        package="hear21passt",
        extra="passt",
    ),
    "ast": ExtractorEntry(
        "ajbench.features.ast:AudioSetAST", "AST fine-tuned on AudioSet: 768-d, 527 AudioSet logits"
    ),
    "clap": ExtractorEntry(
        "ajbench.features.clap:Clap",
        "LAION's CLAP: 512-d embeddings of sound and of text, no classes",
        classes=False,
        texts=True,
    ),
    "laion-clap": ExtractorEntry(
        "ajbench.features.fad_package:LaionClap",
        "LAION's CLAP as frechet-audio-distance takes it: 512-d, no classes; needs that package",
        classes=False,
        package="frechet_audio_distance",
        extra="fad",
    ),
    "vggish": ExtractorEntry(
        "ajbench.features.vggish:Vggish",
        "VGGish: 128-d frames, one per 0.96 s, no classes; the basis of most published FAD",
        classes=False,
        frames=True,
    ),
    "encodec": ExtractorEntry(
        "ajbench.features.encodec:Encodec",
        "EnCodec's 24 kHz encoder before its quantiser: 128-d frames, 75 per second, no classes",
        classes=False,
        frames=True,
        weights="encodec_24khz",
    ),
    "tiny": ExtractorEntry(
        "ajbench.features.tiny:Tiny",
        "the encoder of the codec tiny, first version: 128-d frames, 50 per second, no classes; no download",
        classes=False,
        frames=True,
        shipped="codec/tiny_ff1b92258faaad59.safetensors",
    ),
}
KINDS: Mapping[str, dict[str, Any]] = {
    "corpus": CORPORA,
    "codec": CODECS,
    "text encoder": TEXT_ENCODERS,
    "classifier": CLASSIFIERS,
    "features": FEATURES,
}
PLUGINS = "AJBENCH_PLUGINS"


def register(kind: str, name: str, target: Any, description: str = "", **more: Any) -> None:
    """Add an entry of your own, or replace one.

    Args:
        kind: of `KINDS`.
        name: by which recipes and options select it.
        target: what it stands for, or "module:attr".
        description: one line; by default the first of the target's docstring.
        **more: of features, the other attributes of `ExtractorEntry`.

    Raises:
        UsageError: no such kind, or the name is one of ajbench's own.
    """
    if kind not in KINDS:
        raise UsageError(f"kind {kind!r} is unknown{suggest(kind, KINDS)}; allowed: {', '.join(KINDS)}")
    known = KINDS[kind].get(name)
    if str(getattr(known, "target", known)).startswith("ajbench."):
        raise UsageError(f"{kind} {name!r} is ajbench's own; register yours under another name")
    if kind == "features":
        description = description or (inspect.getdoc(target) or "").partition("\n")[0]
        target = ExtractorEntry(target, description, **more)
    KINDS[kind][name] = target


def load_plugins() -> None:
    """Import the Python files and modules that `$AJBENCH_PLUGINS` lists; they register their entries.

    Files end in `.py`; entries are separated as in `$PATH`.

    Raises:
        MissingError: a file is not there.
    """
    for named in filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)):
        if not named.endswith(".py"):
            importlib.import_module(named)
            continue
        path = Path(named).expanduser().resolve()
        name = f"{PLUGINS.lower()}:{path}"
        if name in sys.modules:
            continue
        if not path.is_file():
            raise MissingError(f"{PLUGINS}: {path} is not there")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None, path
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def resolve(kind: str, name: str) -> Any:
    """Import and return what `name` stands for among the entries of `kind`.

    Raises:
        UsageError: the name is unknown; the message lists the allowed names.
    """
    check(kind, name)
    target = KINDS[kind][name]
    target = target.target if isinstance(target, ExtractorEntry) else target
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def check(kind: str, name: str) -> None:
    """Refuse a name that is not among the entries of `kind`; nothing but plug-ins is imported.

    Raises:
        UsageError: the name is unknown; the message lists the allowed names.
    """
    load_plugins()
    _require(kind, name)


def _require(kind: str, name: str, where: str = "") -> None:
    if name not in (table := KINDS[kind]):
        near, allowed = suggest(name, table), ", ".join(table)
        raise UsageError(f"{where}{kind} {name!r} is unknown{near}; allowed: {allowed}")


def check_names(recipe: "Recipe") -> None:
    """Check the names in a recipe without importing anything.

    Raises:
        UsageError: of the first unknown name, with its key, a similar name and the allowed ones.
    """
    named = [
        ("data.corpus", "corpus", recipe.data.corpus),
        ("evaluate.features", "features", recipe.evaluate.features),
        ("classifier.name", "classifier", recipe.classifier.name),
        *(("evaluate.models", "classifier", model.name) for model in recipe.evaluate.models),
    ]
    if not is_folder(recipe.generator.text_encoder):
        named.append(("generator.text_encoder", "text encoder", recipe.generator.text_encoder))
    if not recipe.codec.name.endswith(".safetensors"):
        named.append(("codec.name", "codec", recipe.codec.name))
    for key, kind, name in named:
        _require(kind, name, f"{key}: ")
    for key, chosen in (("evaluate.features", recipe.evaluate.features), ("synth.judge", recipe.synth.judge)):
        if chosen in FEATURES and not FEATURES[chosen].classes:
            able = [name for name, entry in FEATURES.items() if entry.classes]
            raise UsageError(
                f"{key}={chosen}: has no classes, which are needed here; allowed: {', '.join(able)}; for its "
                f"FD: ajbench eval-gen --gen DIR --ref DIR --features {chosen}"
            )
    judge_weights(recipe.synth.judge)
    if recipe.mix.min_fidelity and recipe.synth.judge is None and recipe.mix.source != "X":
        raise UsageError(
            f"mix.min_fidelity={recipe.mix.min_fidelity:g}: needs scores of the clips; set synth.judge, "
            "such as reference"
        )


def judge_weights(name: str | None) -> Path | None:
    """Return the folder of the trained classifier that `synth.judge` names; None if it names features.

    Raises:
        UsageError: `name` is neither the name of features nor a folder.
    """
    if name is None or name in FEATURES:
        return None
    if not Path(name).is_dir():
        allowed = ", ".join(FEATURES)
        raise UsageError(
            f"synth.judge: {name!r} is not a folder{suggest(name, FEATURES)}; allowed: "
            f"{allowed}, or the folder of a trained classifier"
        )
    return Path(name)


def is_folder(text_encoder: str) -> bool:
    """Return whether a recipe's text encoder is a folder of weights rather than a name."""
    return text_encoder not in TEXT_ENCODERS and "/" in text_encoder


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for a near miss, else an empty string."""
    near = difflib.get_close_matches(name, list(allowed), n=1)
    return f", did you mean {near[0]!r}?" if near else ""
