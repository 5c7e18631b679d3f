"""The few-shot prompts of Tables A3–A7, kept as data in `prompts.yaml`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from ajbench.core.errors import UsageError
from ajbench.core.registry import suggest

FILE = Path(__file__).with_name("prompts.yaml")
STOP = ("\n",)  # an answer is one line


@dataclass(frozen=True)
class Prompt:
    """An instruction with its examples.

    Attributes:
        name: in `prompts.yaml`.
        table: of the paper with the examples; None if they are in none.
        instruction: the text before the examples.
        examples: parts of the input (such as two captions), and the answer.
    """

    name: str
    table: str | None
    instruction: str
    examples: tuple[tuple[tuple[str, ...], str], ...]

    def shots(self, n: int | None) -> "Prompt":
        """Return the prompt with its first `n` examples: 0 zero-shot, 1 one-shot, None all (few-shot)."""
        return replace(self, examples=self.examples[:n])

    def text(self, *parts: str) -> str:
        """Return the whole prompt for an input; the answer is expected in the last line."""
        return f"{self._head()}\n{_turn(parts)}"

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of everything but the input."""
        return hashlib.sha256(self.text("").encode()).hexdigest()[:16]

    def _head(self) -> str:
        return "\n".join([self.instruction, *(f"{_turn(parts)} {answer}" for parts, answer in self.examples)])


def _turn(parts: Sequence[str]) -> str:
    return (
        "\n".join(["", "Prompt:", *parts, "Response:"])
        if len(parts) > 1
        else f"\nPrompt: {parts[0]}\nResponse:"
    )


@cache
def load(name: str) -> Prompt:
    """Return a prompt by its name.

    Args:
        name: `labels` (labels → caption, Table A3), `frames` (three frame captions → one, A4), `merge`
            (visual caption and audio label → one, A5), `entailment_text` (body text), `entailment_single`
            (A6) or `entailment_multi` (A7).

    Raises:
        UsageError: an unknown name.
    """
    found = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    if name not in found:
        raise UsageError(f"prompt {name!r} is unknown{suggest(name, found)}; allowed: {', '.join(found)}")
    one = found[name]
    examples = tuple((tuple(parts), answer) for parts, answer in one["examples"])
    return Prompt(name, one["table"], one["instruction"], examples)
