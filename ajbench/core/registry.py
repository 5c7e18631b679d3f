"""Names users type → "module:attr", imported only when asked for."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from ajbench.core.errors import UsageError

CORPORA: Mapping[str, str] = {
    "mini": "ajbench.data.corpora.mini:read",
    "esc50": "ajbench.data.corpora.esc50:read",
    "audioset": "ajbench.data.corpora.audioset:read",
    "fsd50k": "ajbench.data.corpora.fsd50k:read",
    "vggsound": "ajbench.data.corpora.vggsound:read",
    "audiocaps": "ajbench.data.corpora.audiocaps:read",
    "folder": "ajbench.data.corpora.folder:read",
    "table": "ajbench.data.corpora.table:read",
}
# Corpora whose lists are enough to plan with: their readers take `need_files=False`.
LABEL_TABLES = ("audioset", "vggsound", "audiocaps")
CODECS: Mapping[str, str] = {
    "tiny": "ajbench.codec.tiny:load",
    "encodec_24khz@16k": "ajbench.codec.encodec:load_16k",
    "encodec_24khz@24k": "ajbench.codec.encodec:load_24k",
}
TEXT_ENCODERS: Mapping[str, str] = {
    "minilm": "ajbench.generation.text_encoder:MiniLM",
    "t5-large": "ajbench.generation.hub_encoders:t5_large",
    "flan-t5": "ajbench.generation.hub_encoders:flan_t5",
    "clip": "ajbench.generation.hub_encoders:clip",
    "clap": "ajbench.generation.hub_encoders:clap",
}
CLASSIFIERS: Mapping[str, str] = {
    "taltrans": "ajbench.classifiers.taltrans:taltrans",
    "taltrans-small": "ajbench.classifiers.taltrans:taltrans_small",
    "ast": "ajbench.classifiers.ast:ast",
    "ast-small": "ajbench.classifiers.ast:ast_small",
    "ast-tiny": "ajbench.classifiers.ast:ast_tiny",
}
FEATURES: Mapping[str, str] = {
    "reference": "ajbench.features.extractor:Reference",
    "mn04": "ajbench.features.mobilenet:mn04",
    "mn10": "ajbench.features.mobilenet:mn10",
    "panns16k": "ajbench.features.panns:panns16k",
    "panns32k": "ajbench.features.panns:panns32k",
    "passt": "ajbench.features.passt:Passt",
    "ast": "ajbench.features.ast:AudioSetAST",
    "clap": "ajbench.features.clap:Clap",
    "vggish": "ajbench.features.vggish:Vggish",
    "encodec": "ajbench.features.encodec:Encodec",
}
# Of these, networks that know no classes: they have no logits to take IS, KL or a judgement of.
WITHOUT_CLASSES = ("clap", "vggish", "encodec")
# Networks that hear k frames in a clip rather than the clip, and those that read text.
FRAMES = ("vggish", "encodec")
TEXTS = ("clap",)
# Their weights: files by the names under which they are published, folders as transformers saves them.
FEATURE_FILES: Mapping[str, str] = {
    "mn04": "mn04_as_mAP_432.pt",
    "mn10": "mn10_as_mAP_471.pt",
    "panns16k": "Cnn14_16k_mAP=0.438.pth",
    "panns32k": "Cnn14_mAP=0.431.pth",
    "passt": "passt-s-f128-p16-s10-ap.476-swa.pt",
    "vggish": "vggish-10086976.pth",
}
FEATURE_FOLDERS: Mapping[str, str] = {
    "ast": "MIT/ast-finetuned-audioset-10-10-0.4593",
    "clap": "laion/clap-htsat-unfused",
}
KINDS: Mapping[str, Mapping[str, str]] = {
    "corpus": CORPORA,
    "codec": CODECS,
    "text encoder": TEXT_ENCODERS,
    "classifier": CLASSIFIERS,
    "features": FEATURES,
}


def resolve(kind: str, name: str) -> Any:
    """Import and return what `name` stands for among the entries of `kind`.

    Raises:
        UsageError: the name is unknown; the message lists the allowed names.
    """
    check(kind, name)
    module, _, attribute = KINDS[kind][name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def check(kind: str, name: str) -> None:
    """Refuse a name that stands for nothing among the entries of `kind`; nothing is imported.

    Raises:
        UsageError: the name is unknown; the message lists the allowed names.
    """
    table = KINDS[kind]
    if name not in table:
        raise UsageError(f"{kind} {name!r} is unknown{suggest(name, table)}; allowed: {', '.join(table)}")


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for a near miss, else an empty string."""
    near = difflib.get_close_matches(name, list(allowed), n=1)
    return f", did you mean {near[0]!r}?" if near else ""
