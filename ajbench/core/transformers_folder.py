"""Folders saved by transformers: the kind of the model, and the model with its tokenizer or processor.

Nothing is downloaded, and no code from the folder is run.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ajbench.core.documents import read_json
from ajbench.core.errors import AjbenchError, IntegrityError, MissingError, UsageError
from ajbench.core.files import need_regular
from ajbench.core.weights import CONFIG, PICKLE, TENSORS, need_stored

# `model_type` in config.json → transformers' class with the text encoder, and the part that is the encoder.
CLASSES = {
    "t5": ("T5EncoderModel", "encoder"),
    "clip": ("CLIPTextModel", ""),
    "clip_text_model": ("CLIPTextModel", ""),
    "clap": ("ClapTextModelWithProjection", "text_model"),
}
CAPTIONERS = {
    "blip": "BlipForConditionalGeneration",
    "blip-2": "Blip2ForConditionalGeneration",
    "git": "GitForCausalLM",
}
HERE = {"local_files_only": True, "trust_remote_code": False}
# The largest numbers in the configurations of a model and of what prepares its input, by a part of their key:
# layers are built one by one, images resized and filters computed before weights are read. Others: MAX_SIZE.
MAX_SIZE = 10_000_000
OF_MODEL = {"layer": 200, "depth": 200, "num_image": 200, "num_labels": 10_000}
OF_INPUT = {
    "size": 4096, "height": 4096, "width": 4096, "edge": 4096, "fft": 4096, "num_": 4096, "mel": 4096,
    "length_s": 600, "sampling_rate": 192_000,
}  # fmt: skip
LIMITS = {"config.json": OF_MODEL, "preprocessor_config.json": OF_INPUT, "processor_config.json": OF_INPUT}
SPARE = 1 << 24  # numbers that a model computes, such as positions, and that its files need not have
TOKENIZERS = ("tokenizer.json", "spiece.model", "vocab.json")


def kind_of(folder: Path, kinds: Collection[str] = tuple(CLASSES), what: str = "text encoder") -> str:
    """Return the kind of a model from its `config.json`.

    Args:
        folder: of the model.
        kinds: allowed ones.
        what: the model is, for messages.

    Raises:
        MissingError: the file is missing.
        IntegrityError: it is damaged.
        UsageError: a model of another kind.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise MissingError(f"{what} {folder}: {path} is missing; name a folder saved by transformers")
    _need_plain(folder)
    try:
        kind = str(read_json(path)["model_type"])
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(
            f"{path}: damaged, or not from transformers (no model_type); get it again"
        ) from None
    if kind not in kinds:
        raise UsageError(f"{path}: a model of kind {kind!r}; allowed: {', '.join(kinds)}")
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
    _need_plain(folder)
    import transformers

    with _opening(folder, transformers):
        sides = {"padding_side": "right", "truncation_side": "right"}
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **HERE, **sides)
        if not isinstance(tokenizer.model_max_length, int | float):
            raise ValueError(f"model_max_length is {str(tokenizer.model_max_length)[:20]}, no number")
        model = _model(getattr(transformers, architecture), folder)
    return model, tokenizer


def captioner(folder: Path) -> tuple[Any, Any]:
    """Load a model that captions images (BLIP, BLIP-2, GIT), in float32, and its processor.

    Args:
        folder: weights, `config.json` and the files of the processor.

    Raises:
        MissingError: a file is missing.
        IntegrityError: a file is damaged or incomplete, or a pickle of more than tensors.
        UsageError: a model of another kind.
    """
    kind = kind_of(folder, CAPTIONERS, "captioner")
    import transformers

    with _opening(folder, transformers):
        processor = transformers.AutoProcessor.from_pretrained(str(folder), **HERE)
        model = _model(getattr(transformers, CAPTIONERS[kind]), folder)
    return model, processor


def _need_plain(folder: Path) -> None:
    """Refuse a folder that brings code, or whose model would be built for hours.

    Raises:
        IntegrityError: a configuration names classes of its own (`auto_map`) or sizes without measure, or a
            file is a pipe or a device.
    """
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            need_regular(path)
        if path.suffix != ".json" or not path.name.endswith("config.json"):
            continue
        try:
            tree = read_json(path)
        except ValueError as error:
            raise IntegrityError(f"{path}: damaged ({error}); get it again") from None
        for key, value in _entries(tree):
            if key in ("auto_map", "custom_pipelines", "custom_generate"):
                raise IntegrityError(
                    f"{path}: names code of its own ({key}), which is not run; use another model"
                )
            limits = LIMITS.get(path.name)
            if limits is None or not isinstance(value, int):
                continue
            most = next((limit for part, limit in limits.items() if part in key), MAX_SIZE)
            if abs(value) > most:
                raise IntegrityError(f"{path}: {key[:80]} is {str(value)[:20]}; at most {most}")


def _entries(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a JSON document, at any depth; those in a list have its key."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        for one in value if isinstance(value, list) else [value]:
            yield str(key), one
            yield from _entries(one)


def _need_weights(architecture: Any, folder: Path) -> None:
    """Refuse a configuration of more parameters than the files of weights have bytes.

    transformers takes memory for every parameter before it says that the files lack some.

    Raises:
        IntegrityError: it has more, or a file of weights is compressed.
    """
    files = [path for path in folder.iterdir() if path.suffix in TENSORS]
    for path in files:
        if path.suffix == PICKLE:
            need_stored(path)
    import torch

    with torch.device("meta"):
        model = architecture(architecture.config_class.from_pretrained(str(folder), local_files_only=True))
    needed = sum(tensor.numel() for part in (model.parameters(), model.buffers()) for tensor in part)
    if needed > (size := sum(path.stat().st_size for path in files)) + SPARE:
        raise IntegrityError(
            f"{folder / CONFIG}: a model of {needed} parameters, its files of weights have {size} bytes; "
            "get it again"
        )


def _model(architecture: Any, folder: Path) -> Any:
    _need_weights(architecture, folder)
    how = {"weights_only": True, "output_loading_info": True}
    model, report = architecture.from_pretrained(str(folder), **HERE, **how)
    if absent := sorted(report["missing_keys"]):
        raise IntegrityError(f"{folder}: tensors are missing, such as {absent[0]}; get it again")
    return model.float()


@contextmanager
def _opening(folder: Path, transformers: Any) -> Iterator[None]:
    """Turn the errors of transformers into ours."""
    try:
        with _quiet(transformers):
            yield
    except OSError as error:
        raise MissingError(f"{folder}: {_short(error)}") from None
    except (AjbenchError, MemoryError):
        raise
    except Exception as error:  # of a dozen types, depending on the damaged bytes
        raise IntegrityError(f"{folder}: unreadable ({_short(error)}); get it again") from None


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
