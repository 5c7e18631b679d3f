"""Audio-visual classification: audio and video tokens pooled, the video discounted by entailment."""

from typing import Any

__all__ = ["pool"]


def __getattr__(name: str) -> Any:
    """Import `pool` on first use, since it needs torch."""
    if name == "pool":
        from ajbench.fusion.pooling import pool

        return pool
    raise AttributeError(f"module 'ajbench.fusion' has no attribute {name!r}")
