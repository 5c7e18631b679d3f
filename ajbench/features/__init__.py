"""Extractors by name: clips → embeddings and logits, for distances between sets of clips."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ajbench.features.extractor import Extractor


def load(name: str, path: Path | str | None = None, device: "torch.device | None" = None) -> "Extractor":
    """Load an extractor.

    Args:
        name: one of `ajbench ls features`.
        path: its weights; by default those in `$AJBENCH_WEIGHTS` or in the cache of torch or of the hub.
        device: where it computes; by default the device of this process.

    Returns:
        The extractor: `.features(wav [B, n])` → [B, d], `.logits(wav [B, n])` → [B, C].

    Raises:
        UsageError: the name is unknown.
        MissingError: the weights are not there.
        IntegrityError: the file there holds something else.
    """
    from ajbench.core import registry

    extractor: Extractor = registry.resolve("features", name)(name, path, device)
    return extractor
