"""The folder of a trained classifier, here or on the hub: found, and its files read and checked."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ajbench.core import tensor_shapes
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import checksum
from ajbench.core.sealed_json import read_sealed

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
REQUIRED = {"name", "labels", "clip_samples", "options", "xxh3"}
PICKLES = {".bin", ".ckpt", ".pkl", ".pt", ".pth"}
MAX_WIDTH = 16_384  # of a layer
MAX_SAMPLES = 3600 * 16_000  # an hour
MAX_LAYERS = 200
# The largest numbers in options; of others it is MAX_WIDTH.
_MOST = {"clip_samples": MAX_SAMPLES, "depth": MAX_LAYERS, "passes": MAX_LAYERS}
# What constructors raise for options that do not fit.
_UNFIT = (
    UsageError, TypeError, ValueError, KeyError, RuntimeError, AttributeError, ArithmeticError,
    AssertionError,
)  # fmt: skip
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def locate(source: Path | str) -> Path:
    """Return the folder `source`, or the local copy of the hub repository `source` (`owner/name`).

    Raises:
        MissingError: no such folder, and the hub cannot be reached or does not have it.
        IntegrityError: a pickle.
        UsageError: another file.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.suffix in PICKLES:
        raise IntegrityError(_pickle(path))
    if path.is_file():
        raise UsageError(f"{path}: a file; give the folder that holds {CONFIG} and {WEIGHTS}")
    if not _HUB_ID.fullmatch(str(source)):
        raise MissingError(f"{path}: no such folder; it should hold {CONFIG} and {WEIGHTS}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # the hub's client has no common base of its errors
        raise MissingError(_unreachable(source, error)) from None


def need(source: Path | str) -> None:
    """Raise what `locate` would, without a download: the hub is only asked whether it has the weights."""
    if Path(source).expanduser().exists() or not _HUB_ID.fullmatch(str(source)):
        folder = locate(source)
        read_json(folder)
        _weights_in(folder)
        return
    try:
        need_on_hub(str(source))
    except Exception as error:  # the hub's client has no common base of its errors
        raise MissingError(_unreachable(source, error)) from None


def need_on_hub(repository: str) -> None:
    """Raise the error of the hub's client if weights are neither in its cache nor on the hub."""
    from huggingface_hub import file_exists, try_to_load_from_cache

    here = isinstance(try_to_load_from_cache(repository, WEIGHTS), str)
    if not here and not file_exists(repository, WEIGHTS):
        raise FileNotFoundError(f"{repository} has no {WEIGHTS}")


def _unreachable(source: Path | str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:160]
    return (
        f"{source}: no such folder, and https://huggingface.co/{source} cannot be downloaded ({reason}); "
        f"offline, put its {CONFIG} and {WEIGHTS} into a folder and give that folder"
    )


def read_json(folder: Path) -> dict[str, Any]:
    """Return `config.json`, written by ajbench, without its seal, or by others.

    Raises:
        MissingError: there is no such file.
        IntegrityError: it is damaged.
    """
    path = folder / CONFIG
    try:
        return read_sealed(path, "train the classifier again")
    except (FileNotFoundError, NotADirectoryError):
        message = f"{folder}: no trained classifier ({CONFIG} is missing); run train-cls first"
        raise MissingError(message) from None


def read_config(folder: Path) -> dict[str, Any]:
    """Return `config.json` of a classifier trained by ajbench.

    Raises:
        MissingError: there is no trained classifier.
        IntegrityError: the file is damaged, or not written by ajbench.
    """
    config = read_json(folder)
    if missing := REQUIRED - config.keys():
        raise IntegrityError(
            f"{folder / CONFIG}: not a classifier trained by ajbench ({', '.join(sorted(missing))} missing); "
            "to start from a checkpoint of transformers, train with init=FOLDER"
        )
    if fault := _fault(config):
        raise IntegrityError(f"{folder / CONFIG}: damaged ({fault}); train the classifier again")
    return config


def _fault(config: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the required keys, if something is."""
    labels, samples, options = config["labels"], config["clip_samples"], config["options"]
    if not isinstance(config["name"], str) or not isinstance(config["xxh3"], str):
        return "name or xxh3 is no text"
    if not (isinstance(labels, list) and labels and all(isinstance(one, str) for one in labels)):
        return "labels is no list of texts"
    if type(samples) is not int or not 1 <= samples <= MAX_SAMPLES:
        return f"clip_samples is {str(samples)[:20]}; 1 to {MAX_SAMPLES}"
    if not isinstance(options, dict):
        return "options is no mapping"
    for key, value in _numbers(options):
        if abs(value) > (most := _MOST.get(key, MAX_WIDTH)):
            return f"options: {key[:40]} is {str(value)[:20]}; at most {most}"
    return None


def _numbers(tree: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield the whole numbers in a JSON document, at any depth, each with the last key that leads to it."""
    if isinstance(tree, int):
        yield key, tree
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield from _numbers(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _numbers(value, key)


def rebuilt(folder: Path, build: Callable[[], nn.Module], compared: bool = True) -> nn.Module:
    """Return the untrained network of a folder.

    Args:
        folder: of the classifier.
        build: makes the network from the options in `config.json`.
        compared: whether its tensors are first compared with those of `model.safetensors`, so that options
            cannot make a network that is larger than its file.

    Raises:
        MissingError: the weights are missing.
        IntegrityError: the options do not fit each other, or the network has other tensors than the file.
    """
    path = _weights_in(folder)
    try:
        fault = None
        if compared:
            expected = tensor_shapes.of_network(build)
            fault = tensor_shapes.difference(expected, tensor_shapes.of_files([path]))
        if fault is None:
            return build()
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path}: damaged ({error}); train the classifier again") from None
    except _UNFIT as error:
        reason = " ".join(str(error).split())[:160]
        raise IntegrityError(f"{folder / CONFIG}: not a classifier of ajbench ({reason})") from None
    raise IntegrityError(f"{path}: not the weights of {CONFIG} ({fault}); train the classifier again")


def read_weights(folder: Path, xxh3: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of `model.safetensors` by name.

    Args:
        folder: holds the file.
        xxh3: expected checksum, if known.

    Raises:
        MissingError: the file is missing.
        IntegrityError: it is damaged, or a pickle.
    """
    path = _weights_in(folder)
    if xxh3 is not None and checksum(path) != xxh3:
        raise IntegrityError(f"{path}: checksum mismatch; train the classifier again")
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path}: damaged ({error}); train the classifier again") from None


def _weights_in(folder: Path) -> Path:
    path = folder / WEIGHTS
    if not path.exists():
        for other in sorted(folder.iterdir()):
            if other.suffix in PICKLES:
                raise IntegrityError(_pickle(other))
        raise MissingError(f"{path}: missing; train the classifier again, or copy it there")
    return path


def card(config: Mapping[str, Any]) -> str:
    """Return the model card of a trained classifier, in the hub's format."""
    samples, rate, labels = config["clip_samples"], config["sampling_rate"], config["labels"]
    return f"""---
library_name: ajbench
pipeline_tag: audio-classification
---

# {config["name"]}

A classifier of {len(labels)} {"class" if len(labels) == 1 else "classes"}, trained with ajbench on
clips of {samples / rate:g} s ({samples:,} samples, mono, {rate:,} Hz).

```python
from ajbench.classifiers import Classifier
classifier = Classifier.from_pretrained("FOLDER")  # or the hub's owner/name
logits = classifier.predict(waves)  # float32 [clips, {samples}] → [clips, {len(labels)}]
```

Classes, in the order of the logits: {", ".join(f"`{label}`" for label in labels)}.
"""


def _pickle(path: Path) -> str:
    return f"{path}: a pickle, which can run code when loaded; convert it to safetensors ({WEIGHTS})"
