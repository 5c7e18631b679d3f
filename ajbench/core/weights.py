"""Where published weights are looked for on this machine, and what they are; nothing is downloaded here."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from ajbench.core.errors import IntegrityError

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "AJBENCH_WEIGHTS"


def folder() -> Path | None:
    """Return the folder that `$AJBENCH_WEIGHTS` names, if it names one."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def own(*names: str) -> Path | None:
    """Return the first of these files, given by their paths below `$AJBENCH_WEIGHTS`, that is there."""
    home = folder()
    return next((home / name for name in names if (home / name).is_file()), None) if home else None


def torch_cache() -> Path:
    """Return the folder in which torch keeps checkpoints that it downloaded, without importing torch."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(os.environ.get("TORCH_HOME", cache)).expanduser() / "hub" / "checkpoints"


def cached(repositories: Iterable[str], *names: str) -> Path | None:
    """Return the first of these files that the hub's cache has of one of the repositories (`owner/name`)."""
    import huggingface_hub

    for repository in repositories:
        for name in names:
            found = huggingface_hub.try_to_load_from_cache(repository, name)  # looks, and never asks the hub
            if isinstance(found, str):
                return Path(found)
    return None


def places(name: str) -> str:
    """Say where `own` and `cached` look, as a message has it.

    Args:
        name: of the file or folder below `$AJBENCH_WEIGHTS`.
    """
    from huggingface_hub import constants

    home = folder()
    return f"{f'in {home / name} or ' if home else ''}in the hub's cache ({constants.HF_HUB_CACHE})"


def unpickled(path: Path) -> Any:
    """Return what `torch.save` wrote, where it is tensors and plain values alone; nothing in it is run.

    Raises:
        IntegrityError: a pickle of anything else, or damaged.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception:  # of a dozen kinds, and with torch's advice how to run what is in it
        raise IntegrityError(f"{path}: not a plain state dict, or damaged; get it again") from None


def digest(tensors: Iterable["Tensor"]) -> str:
    """Return a hash of a network's tensors, whatever file they came from and in whatever order they are."""
    # Sorted, as parameters' names differ between versions of libraries.
    parts = (tensor.detach().cpu().contiguous().numpy().data for tensor in tensors)
    return xxhash.xxh3_64_hexdigest(b"".join(sorted(xxhash.xxh3_64_digest(part) for part in parts)))
