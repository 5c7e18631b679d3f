"""Prompts and class tokens."""

import re
from collections.abc import Mapping, Sequence

from ajbench.core.errors import UsageError
from ajbench.data.labels import LabelSet


def sound_of(names: Sequence[str]) -> str:
    """Return the prompt of App. E, "The sound of dog, rain"; without names "" (unconditional)."""
    return f"The sound of {', '.join(names)}" if names else ""


def spoken(label: str) -> str:
    """Return a label as written in prompts: "crying_baby" → "crying baby"."""
    return " ".join(label.replace("_", " ").split())


def chosen_classes(wanted: Sequence[str] | None, labels: Sequence[str]) -> list[str]:
    """Return the labels that get a token, in the order of `labels`.

    Raises:
        UsageError: `wanted` is empty or has an unknown label.
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
    """Return a distinct token for each label: "Civil siren" → "<aj-civil-siren>"."""
    tokens: dict[str, str] = {}
    for number, label in enumerate(labels):
        slug = re.sub(r"[\W_]+", "-", label.lower()).strip("-")
        token = f"<aj-{slug}>"
        if not slug or token in tokens.values():
            token = f"<aj-{slug}-{number}>" if slug else f"<aj-{number}>"
        while token in tokens.values():  # of a class such as `C 2` beside `C` and `C++`
            token = f"{token[:-1]}-{number}>"
        tokens[label] = token
    return tokens


def with_tokens(prompt: str, tokens: Mapping[str, str], name: str = "prompt") -> str:
    """Return a prompt in which labels in angle brackets are class tokens: "<Clock tick>" → "<aj-clock-tick>".

    Args:
        prompt: words, labels in angle brackets as they are or as `spoken`, and class tokens.
        tokens: label → class token.
        name: of the prompt, for messages.

    Raises:
        UsageError: brackets around anything else; it would be read letter by letter.
    """
    named = {f"<{name}>": token for label, token in tokens.items() for name in (label, spoken(label))}
    named |= {token: token for token in tokens.values()}

    def token_of(found: re.Match[str]) -> str:
        if found[0] not in named:
            known = ", ".join(f"<{label}>" for label in list(tokens)[:3]) + ", …" * (len(tokens) > 3)
            what = f"the class tokens are {known}" if tokens else "there are no class tokens here"
            raise UsageError(f"{name}: {found[0]}: {what}; write other words without angle brackets")
        return named[found[0]]

    return re.sub(r"<[^<>]+>", token_of, prompt)


def truncated(cut: int, total: int, max_tokens: int) -> str:
    """Return the message that `cut` of `total` prompts are longer than `max_tokens`."""
    were = "was" if cut == 1 else "were"
    return f"{cut} of {total} prompts {were} truncated to generator.max_tokens={max_tokens} tokens"


def vector_names(token: str, vectors: int) -> list[str]:
    """Return the names of a token's vectors, as in diffusers: "<aj-dog>", "<aj-dog>_1", …"""
    return [token, *(f"{token}_{number}" for number in range(1, vectors))]


def expand(prompt: str, vectors: Mapping[str, int]) -> str:
    """Return a prompt in which every token is followed by the names of its other vectors.

    "The sound of <aj-dog>" becomes "The sound of <aj-dog> <aj-dog>_1 <aj-dog>_2" if <aj-dog> has three
    vectors. Expanding twice has no further effect.

    Args:
        prompt: words and tokens.
        vectors: the number of vectors of each token.
    """
    for token, count in vectors.items():
        if count > 1 and token in prompt:
            name, expanded = re.escape(token), " ".join(vector_names(token, count))
            # Tokens contain no backslash, so the replacement needs no escaping.
            prompt = re.sub(rf"{name}(?!_\d)(?: {name}_\d+)*", expanded, prompt)
    return prompt
