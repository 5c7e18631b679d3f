"""ajbench: does synthetic audio help my classifier, how much of it, and can I trust the answer?"""

import importlib
from typing import Any

__version__ = "0.1.0"
# Public names and the modules that define them, imported on first use: `import ajbench` stays free of torch.
_PUBLIC = {
    "AudioJourneyPipeline": "ajbench.generation.pipeline",
    "ClipStore": "ajbench.data.store",
    "audit": "ajbench.evaluation.audit",
    "compare": "ajbench.evaluation.compare",
    "read": "ajbench.data.audio",
}
_PACKAGES = ("captions", "classifiers", "codec", "features", "fusion", "metrics")  # with public names
__all__ = ["__version__", *_PUBLIC, *_PACKAGES]


def __getattr__(name: str) -> Any:
    """Return a public name from the module that defines it, or a package."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"ajbench.{name}")
    raise AttributeError(f"module 'ajbench' has no attribute {name!r}")
