"""How labels are put into words, for whoever plans without a text encoder (and so without torch)."""

from collections.abc import Sequence


def sound_of(names: Sequence[str]) -> str:
    """Return the prompt of App. E, "The sound of dog, rain"; "" (no condition) without names."""
    return f"The sound of {', '.join(names)}" if names else ""


def spoken(label: str) -> str:
    """Return a label as it is written in a prompt: "crying_baby" → "crying baby"."""
    return " ".join(label.replace("_", " ").split())
