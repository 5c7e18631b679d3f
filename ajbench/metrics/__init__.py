"""Metrics: pure functions of arrays, computed in float64."""

import importlib
from typing import Any

__all__ = ["distribution", "ranking"]


def __getattr__(name: str) -> Any:
    """Import a public module on first use, as in `ajbench.metrics.ranking.summary(scores, targets)`."""
    if name in __all__:
        return importlib.import_module(f"ajbench.metrics.{name}")
    raise AttributeError(f"module 'ajbench.metrics' has no attribute {name!r}")
