"""Text encoders by name or folder: the paper's T5-large and others whose weights are on the hub.

Nothing is downloaded here. Weights are read from `$AJBENCH_WEIGHTS/<name>`, from the hub's cache, or from a
folder that the recipe names; torch is imported when one is loaded.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ajbench.core import registry, transformers_folder, weights
from ajbench.core.errors import IntegrityError, MissingError

if TYPE_CHECKING:
    from ajbench.generation.text_encoder import TextEncoder


class Published(NamedTuple):
    """Weights on the hub: their ids (a cache may know them by an older one), and the width of states."""

    ids: tuple[str, ...]
    dim: int


PUBLISHED = {
    "t5-large": Published(("google-t5/t5-large", "t5-large"), 1024),
    "flan-t5": Published(("google/flan-t5-large",), 1024),
    "clip": Published(("openai/clip-vit-large-patch14",), 768),
    "clap": Published(("laion/clap-htsat-unfused",), 768),
}


def load(name: str, max_tokens: int) -> "TextEncoder":
    """Return the text encoder named by `generator.text_encoder`.

    Args:
        name: of the registry, or a folder (a path with a slash) with weights and tokenizer as saved by
            transformers.
        max_tokens: states per prompt.

    Raises:
        UsageError: an unknown name, a folder of another type of model, or `max_tokens` above its limit.
        MissingError: its weights are not on this machine; the message says what to do.
        IntegrityError: they are damaged or of another model.
    """
    if is_folder(name):
        return read(Path(name).resolve(), max_tokens)
    encoder: TextEncoder = registry.resolve("text encoder", name)(max_tokens=max_tokens)
    return encoder


def t5_large(max_tokens: int = 50) -> "TextEncoder":
    """T5-large's encoder, the paper's (google-t5/t5-large): 335 M frozen parameters, 1024-dim states."""
    return _published("t5-large", max_tokens)


def flan_t5(max_tokens: int = 50) -> "TextEncoder":
    """Flan-T5-large's encoder (google/flan-t5-large): 341 M frozen parameters, 1024-dim states."""
    return _published("flan-t5", max_tokens)


def clip(max_tokens: int = 50) -> "TextEncoder":
    """CLIP ViT-L/14's text model (openai/clip-vit-large-patch14): 123 M frozen parameters, 768-dim states."""
    return _published("clip", max_tokens)


def clap(max_tokens: int = 50) -> "TextEncoder":
    """CLAP's text model, a RoBERTa (laion/clap-htsat-unfused): 125 M frozen parameters, 768-dim states."""
    return _published("clap", max_tokens)


def is_folder(name: str) -> bool:
    """Return whether `generator.text_encoder` is a folder of weights rather than a name."""
    return name not in registry.TEXT_ENCODERS and "/" in name


def find(name: str) -> Path:
    """Return the folder that holds a published encoder's files.

    Raises:
        MissingError: it is not on this machine.
    """
    ids = PUBLISHED[name].ids
    found = weights.own(f"{name}/config.json") or weights.cached(ids, "config.json")
    if found is None:
        raise MissingError(
            f"text encoder {name}: {ids[0]} is not {weights.places(name)}; put its files (config, tokenizer, "
            f"safetensors) into a folder {name} and name the folder above it in {weights.VARIABLE}, or run "
            "without: generator.text_encoder=minilm"
        )
    return found.parent


def read(folder: Path, max_tokens: int, name: str | None = None) -> "TextEncoder":
    """Return the text encoder of a T5, CLIP or CLAP model saved by transformers, in float32.

    Weights are read from safetensors or else from a pickle that contains only tensors.

    Args:
        folder: with weights, `config.json` and tokenizer.
        max_tokens: states per prompt.
        name: for messages; None is the folder's path.

    Raises:
        UsageError: another type of model, or `max_tokens` above its limit.
        MissingError: a file is missing.
        IntegrityError: a file is damaged or incomplete.
    """
    name = name or str(folder)
    kind = transformers_folder.kind_of(folder)
    architecture, part = transformers_folder.CLASSES[kind]
    from ajbench.generation.text_encoder import TextEncoder

    model, tokenizer = transformers_folder.parts(folder, architecture)
    model = getattr(model, part) if part else model
    if len(tokenizer) > model.get_input_embeddings().num_embeddings or tokenizer.pad_token is None:
        raise IntegrityError(f"{folder}: the tokenizer does not belong to the model; download both again")
    return TextEncoder(model, tokenizer, max_tokens, name=name, limit=_limit(kind, model.config))


def _published(name: str, max_tokens: int) -> "TextEncoder":
    folder, entry = find(name), PUBLISHED[name]
    encoder = read(folder, max_tokens, name)
    if encoder.dim != entry.dim:
        raise IntegrityError(
            f"{folder}: states of {encoder.dim} numbers, {entry.ids[0]} has {entry.dim}; put its files there"
        )
    return encoder


def _limit(kind: str, config: Any) -> int | None:
    if kind == "t5":  # relative positions
        return None
    # RoBERTa's positions start after that of its padding token.
    return int(config.max_position_embeddings) - (config.pad_token_id + 1 if kind == "clap" else 0)
