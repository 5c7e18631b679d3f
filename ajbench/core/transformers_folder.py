"""Folders saved by transformers: the kind of the model, and the model with its tokenizer.

Nothing is downloaded, and no code from the folder is run.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ajbench.core.errors import IntegrityError, MissingError, UsageError

# `model_type` in config.json → transformers' class with the text encoder, and the part that is the encoder.
CLASSES = {
    "t5": ("T5EncoderModel", "encoder"),
    "clip": ("CLIPTextModel", ""),
    "clip_text_model": ("CLIPTextModel", ""),
    "clap": ("ClapTextModelWithProjection", "text_model"),
}
TOKENIZERS = ("tokenizer.json", "spiece.model", "vocab.json")


def kind_of(folder: Path) -> str:
    """Return the kind of a model, one of `CLASSES`, from its `config.json`.

    Raises:
        MissingError: the file is missing.
        IntegrityError: it is damaged.
        UsageError: a model of another kind.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise MissingError(f"text encoder {folder}: {path} is missing; name a folder saved by transformers")
    try:
        kind = str(json.loads(path.read_text(encoding="utf-8"))["model_type"])
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(
            f"{path}: damaged, or not from transformers (no model_type); get it again"
        ) from None
    if kind not in CLASSES:
        raise UsageError(f"{path}: a model of kind {kind!r}; allowed: {', '.join(CLASSES)}")
    return kind


def parts(folder: Path, architecture: str) -> tuple[Any, Any]:
    """Load the model, in float32, and the tokenizer of a folder.

    Args:
        folder: weights, `config.json` and tokenizer.
        architecture: the class of transformers.

    Raises:
        MissingError: a file is missing.
        IntegrityError: a file is damaged or incomplete, or a pickle of more than tensors.
    """
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise MissingError(f"{folder}: no tokenizer ({' or '.join(TOKENIZERS)}); put its files there")
    import transformers

    here = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet(transformers):
            sides = {"padding_side": "right", "truncation_side": "right"}
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **here, **sides)
            how = {"weights_only": True, "output_loading_info": True}
            model, report = getattr(transformers, architecture).from_pretrained(str(folder), **here, **how)
    except OSError as error:
        raise MissingError(f"{folder}: {_short(error)}") from None
    except MemoryError:
        raise
    except Exception as error:  # of a dozen types, depending on the damaged bytes
        raise IntegrityError(f"{folder}: unreadable ({_short(error)}); get it again") from None
    if absent := sorted(report["missing_keys"]):
        raise IntegrityError(f"{folder}: tensors are missing, such as {absent[0]}; get it again")
    return model.float(), tokenizer


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep transformers from printing progress bars and reports to stderr."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
