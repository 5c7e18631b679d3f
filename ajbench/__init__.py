"""ajbench: does synthetic audio help my classifier, how much of it, and can I trust the answer?"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["AudioJourneyPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the pipeline only when asked for: `import ajbench` stays free of torch."""
    if name == "AudioJourneyPipeline":
        from ajbench.generation.pipeline import AudioJourneyPipeline

        return AudioJourneyPipeline
    raise AttributeError(f"module 'ajbench' has no attribute {name!r}")
