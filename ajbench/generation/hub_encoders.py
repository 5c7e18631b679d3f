"""Text encoders by name or folder: the paper's T5-large and others whose weights are on the hub.

Nothing is downloaded here. Weights are read from `$AJBENCH_WEIGHTS/<name>`, from the hub's cache, or from a
folder that the recipe names; torch is imported when one is loaded.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajbench.core import registry, transformers_folder, weights
from ajbench.core.errors import IntegrityError

if TYPE_CHECKING:
    from ajbench.generation.text_encoder import TextEncoder


WIDTHS = {"t5-large": 1024, "flan-t5": 1024, "clip": 768, "clap": 768}  # of their states


def load(name: str, max_tokens: int, mask_padding: bool = True) -> "TextEncoder":
    """Return the text encoder named by `generator.text_encoder`.

    Args:
        name: of the registry, or a folder (a path with a slash) with weights and tokenizer as saved by
            transformers.
        max_tokens: states per prompt.
        mask_padding: whether padding is masked inside the encoder.

    Raises:
        UsageError: an unknown name, a folder of another type of model, or `max_tokens` above its limit.
        MissingError: its weights are not on this machine; the message says what to do.
        IntegrityError: they are damaged or of another model.
    """
    encoder: TextEncoder
    if registry.is_folder(name):
        encoder = read(Path(name).resolve(), max_tokens)
    else:
        encoder = registry.resolve("text encoder", name)(max_tokens=max_tokens)
    encoder.mask_padding = mask_padding
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


def find(name: str) -> Path:
    """Return the folder of a published encoder on this machine.

    Raises:
        MissingError: it is not on this machine.
    """
    instead = "run without it: generator.text_encoder=minilm generator.encoder_mask=true"
    return weights.locate(name, who=f"text encoder {name}", instead=instead)


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
    folder = find(name)
    encoder = read(folder, max_tokens, name)
    if encoder.dim != WIDTHS[name]:
        raise IntegrityError(
            f"{folder}: states of width {encoder.dim}; {name} has {WIDTHS[name]}; get the right files"
        )
    return encoder


def _limit(kind: str, config: Any) -> int | None:
    if kind == "t5":  # relative positions
        return None
    # RoBERTa's positions start after that of its padding token.
    return int(config.max_position_embeddings) - (config.pad_token_id + 1 if kind == "clap" else 0)
