"""Prompts, and the class tokens in them."""

import re
from collections.abc import Mapping, Sequence

from ajbench.core.errors import UsageError
from ajbench.data.labels import LabelSet


def sound_of(names: Sequence[str]) -> str:
    """Return the prompt of App. E, "The sound of dog, rain"; "" (no condition) without names."""
    return f"The sound of {', '.join(names)}" if names else ""


def spoken(label: str) -> str:
    """Return a label as it is written in a prompt: "crying_baby" → "crying baby"."""
    return " ".join(label.replace("_", " ").split())


def chosen_classes(wanted: Sequence[str] | None, labels: Sequence[str]) -> list[str]:
    """Return the labels that get a token, in the order of `labels`.

    Raises:
        UsageError: a wanted one is not among the labels, or none is wanted.
    """
    if wanted is None:
        return list(labels)
    if not wanted:
        raise UsageError("invert.classes: empty; name labels, or null for all of them")
    known = LabelSet(tuple(labels))
    try:
        return [labels[place] for place in sorted({known.index(name) for name in wanted})]
    except UsageError as error:
        raise UsageError(f"invert.classes: {error}") from None


def class_tokens(labels: Sequence[str]) -> dict[str, str]:
    """Return a token for each label, all different: "Civil siren" → "<aj-civil-siren>"."""
    tokens: dict[str, str] = {}
    for number, label in enumerate(labels):
        slug = re.sub(r"[\W_]+", "-", label.lower()).strip("-")
        token = f"<aj-{slug}>"
        if not slug or token in tokens.values():
            token = f"<aj-{slug}-{number}>" if slug else f"<aj-{number}>"
        tokens[label] = token
    return tokens


def vector_names(token: str, vectors: int) -> list[str]:
    """Return a name for each vector of a token, as diffusers does: "<aj-dog>", "<aj-dog>_1", …"""
    return [token, *(f"{token}_{number}" for number in range(1, vectors))]


def expand(prompt: str, vectors: Mapping[str, int]) -> str:
    """Return a prompt in which every token is followed by the names of its further vectors.

    "The sound of <aj-dog>" becomes "The sound of <aj-dog> <aj-dog>_1 <aj-dog>_2" where <aj-dog> has three
    vectors. A prompt that was expanded before stays as it is.

    Args:
        prompt: of words and tokens.
        vectors: how many vectors each token has.
    """
    for token, count in vectors.items():
        if count > 1 and token in prompt:
            name, spelt = re.escape(token), " ".join(vector_names(token, count))
            # Tokens hold no backslash, so what they are spelt as is taken as it is.
            prompt = re.sub(rf"{name}(?!_\d)(?: {name}_\d+)*", spelt, prompt)
    return prompt
