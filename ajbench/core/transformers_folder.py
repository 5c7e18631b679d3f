"""Models that transformers saved into a folder: what kind they are, and the model with its tokenizer.

Nothing is downloaded, and no code from the folder is run.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ajbench.core.errors import IntegrityError, MissingError, UsageError

# What `config.json` calls a model → the class of transformers with its text encoder, and the part that it is.
CLASSES = {
    "t5": ("T5EncoderModel", "encoder"),
    "clip": ("CLIPTextModel", ""),
    "clip_text_model": ("CLIPTextModel", ""),
    "clap": ("ClapTextModelWithProjection", "text_model"),
}
TOKENIZERS = ("tokenizer.json", "spiece.model", "vocab.json")


def kind_of(folder: Path) -> str:
    """Return what a folder's `config.json` says that it holds, one of `CLASSES`.

    Raises:
        MissingError: it is not there.
        IntegrityError: it is damaged.
        UsageError: a kind of model that is no text encoder here.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise MissingError(f"generator.text_encoder={folder}: {path} is not there")
    try:
        kind = str(json.loads(path.read_text(encoding="utf-8"))["model_type"])
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(f"{path}: damaged, or not transformers' (no model_type); get it again") from None
    if kind not in CLASSES:
        raise UsageError(f"{path}: a model of kind {kind!r}; text encoders are of {', '.join(CLASSES)}")
    return kind


def parts(folder: Path, architecture: str) -> tuple[Any, Any]:
    """Return the model, in float32, and the tokenizer that transformers saved into a folder.

    Args:
        folder: weights, `config.json` and tokenizer.
        architecture: the class of transformers.

    Raises:
        MissingError: a file is not there.
        IntegrityError: a file is damaged, a pickle of more than tensors, or weights are missing in it.
    """
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise MissingError(f"{folder}: no tokenizer there ({' or '.join(TOKENIZERS)}); put its files there")
    import transformers

    try:
        with _quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, padding_side="right", truncation_side="right"
            )
            model, report = getattr(transformers, architecture).from_pretrained(
                str(folder), local_files_only=True, weights_only=True, output_loading_info=True
            )
    except OSError as error:
        raise MissingError(f"{folder}: {_short(error)}") from None
    except MemoryError:
        raise
    except Exception as error:  # of a dozen kinds, whatever damaged bytes happen to say
        raise IntegrityError(f"{folder}: not to be read ({_short(error)}); get it again") from None
    if absent := sorted(report["missing_keys"]):
        raise IntegrityError(
            f"{folder}: {len(absent)} weights are missing, such as {absent[0]}; get it again"
        )
    return model.float(), tokenizer


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep transformers from writing bars and reports to stderr."""
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
