"""A language model as an entailment scorer: the number that it gives, or expects to give."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ajbench.captions import backends, prompts
from ajbench.captions.aggregation import over_repeats
from ajbench.captions.answers import number
from ajbench.captions.backends import Backend
from ajbench.captions.prompts import Prompt
from ajbench.captions.score_log import ScoreLog
from ajbench.core.console import counted
from ajbench.core.errors import MissingError, UsageError

GRAMMAR = 'root ::= " "? ("0." [0-9] | "1.0")'
MAX_TOKENS = 8


@runtime_checkable
class NextToken(Protocol):
    """A backend that gives the probabilities of the next token."""

    def next_token(self, prompts: Sequence[str]) -> list[dict[str, float]]:
        """Return the most probable next tokens after each prompt, with their probabilities."""
        ...


class LLMScores(NamedTuple):
    """Scores of N pairs.

    Attributes:
        values: mean over the repeats, in [0, 1], [N]; NaN where no repeat gave a number.
        spread: standard deviation over the repeats, [N]; 0 of a single one.
        reasons: of the pairs without a number, by their place.
        repeats: each one, [k, N]; NaN where it gave no number.
    """

    values: NDArray[np.float64]
    spread: NDArray[np.float64]
    reasons: dict[int, str]
    repeats: NDArray[np.float64]


class _Options(NamedTuple):
    repeats: int
    shots: int | None
    seed: int


class LLMScorer:
    """A language model as a scorer of `captions.entailment`.

    Args:
        backend: the model.
        prompt: of `prompts.yaml`.
        repeats: k, with the examples in other orders.
        shots: examples in a prompt; None: all.
        seed: of the orders.
        max_fallback: largest share of pairs without a number among those of a call.

    Attributes:
        reasons: why pairs have no number → how many.
        log: where the numbers of each repeat are kept, if anywhere; what is in it is not asked again.
    """

    name = "llm"

    def __init__(
        self,
        backend: Backend,
        prompt: str = "entailment_multi",
        repeats: int = 1,
        shots: int | None = None,
        seed: int = 0,
        max_fallback: float = 1.0,
    ) -> None:
        self.backend, self.options = backend, _Options(repeats, shots, seed)
        self.prompt, self.max_fallback = prompt, max_fallback
        self.reasons: Counter[str] = Counter()
        self.log: ScoreLog | None = None
        self.about = {
            "backend": backend.name,
            "model": backend.model,
            "model_hash": backend.model_hash,
            "prompt": prompt,
            "prompt_hash": prompts.load(prompt).shots(shots).hash,
            **self.options._asdict(),
        }

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """Return the numbers [k, N]; NaN where there is none, and its reason is counted in `reasons`.

        Raises:
            MissingError: more than `max_fallback` of the different pairs have no number.
        """
        different = list(dict.fromkeys(pairs))
        found = score(different, self.backend, self.prompt, *self.options, log=self.log)
        reasons = Counter(found.reasons.values())
        self.reasons += reasons
        if reasons.total() > self.max_fallback * len(different):
            shown = ", ".join(f"{reason}: {n}" for reason, n in reasons.most_common(3))
            raise MissingError(
                f"{self.backend.name}: {counted(reasons.total(), 'unusable answer')} about "
                f"{counted(len(different), 'pair')} ({shown}), more than --max-fallback "
                f"{self.max_fallback:g}; numbers so far are kept: correct the model or the server and run "
                "again, or raise the share"
            )
        columns = dict(zip(different, found.repeats.T, strict=True))
        return np.stack([columns[pair] for pair in pairs], axis=1)

    def with_prompt(self, prompt: str) -> "LLMScorer":
        """Return the same model with another prompt."""
        return LLMScorer(self.backend, prompt, *self.options)


def load(
    backend: str = "llamacpp",
    prompt: str = "entailment_multi",
    repeats: int = 1,
    shots: int | None = None,
    seed: int = 0,
    max_fallback: float = 0.05,
    **options: Any,
) -> LLMScorer:
    """Load a language model as a scorer; options and errors as in `backends.load`."""
    return LLMScorer(backends.load(backend, **options), prompt, repeats, shots, seed, max_fallback)


def score(
    pairs: Sequence[tuple[str, str]],
    backend: Backend,
    prompt: str = "entailment_multi",
    repeats: int = 1,
    shots: int | None = None,
    seed: int = 0,
    log: ScoreLog | None = None,
) -> LLMScores:
    """Ask a language model how probable it is that two captions belong together (Tables A6 and A7).

    Where the backend gives probabilities, a score is the expectation of the number's first decimal,
    P(1) + P(0) Σ d/10 P(d | "0."), with P over the allowed digits only. Otherwise it is the number in the
    answer.
    A model at temperature 0 repeats itself, so the repeats differ in the order of the examples.

    Args:
        pairs: visual caption and audio caption (or label text).
        backend: the model.
        prompt: of `prompts.yaml`, with examples whose answers are numbers.
        repeats: k; the first has the examples in the paper's order.
        shots: examples in a prompt; None: all.
        seed: of the orders.
        log: of this model and these settings: what is in it is not asked again, and the numbers of a repeat
            are added as soon as it ends.

    Raises:
        UsageError: no repeat.
        MissingError: the backend cannot be reached.
    """
    if repeats < 1:
        raise UsageError(f"repeats={repeats}: must be at least 1")
    reasons = dict[int, str]()
    values = log.of(pairs, repeats) if log else np.full((repeats, len(pairs)), np.nan)
    for repeat, order in enumerate(_orders(prompts.load(prompt).shots(shots), repeats, seed)):
        places = np.flatnonzero(np.isnan(values[repeat])).tolist()
        asked = [pairs[place] for place in places]
        texts = [order.text(*pair) for pair in asked]
        found = (
            _expected(texts, backend) if isinstance(backend, NextToken) else _answered(texts, backend, seed)
        )
        for place, one in zip(places, found, strict=True):
            if isinstance(one, str):
                reasons[place] = one
            else:
                values[repeat, place] = one
        if log:
            log.add(repeat, asked, values[repeat, places])
    mean, spread = over_repeats(values)
    unknown = {place: reason for place, reason in reasons.items() if np.isnan(mean[place])}
    return LLMScores(mean, spread, unknown, values)


def _orders(prompt: Prompt, repeats: int, seed: int) -> list[Prompt]:
    """Return the prompt with its examples in `repeats` orders, different ones as far as there are."""
    draw = random.Random(seed)
    orders = [prompt.examples]
    most = math.factorial(min(len(prompt.examples), 8))
    while len(orders) < repeats:
        examples = tuple(draw.sample(prompt.examples, len(prompt.examples)))
        if examples not in orders or len(orders) >= most:
            orders.append(examples)
    return [replace(prompt, examples=examples) for examples in itertools.islice(orders, repeats)]


def _answered(texts: Sequence[str], backend: Backend, seed: int) -> list[float | str]:
    answers = backend.complete(texts, max_tokens=MAX_TOKENS, stop=prompts.STOP, grammar=GRAMMAR, seed=seed)
    return [
        one.reason or "no answer" if one.text is None else number(one.text, one.reason is not None)
        for one in answers
    ]


def _expected(texts: Sequence[str], backend: NextToken) -> list[float | str]:
    whole = backend.next_token([f"{text} " for text in texts])
    decimals = backend.next_token([f"{text} 0." for text in texts])
    return [_expectation(first, second) for first, second in zip(whole, decimals, strict=True)]


def _expectation(whole: Mapping[str, float], decimals: Mapping[str, float]) -> float | str:
    first = [whole.get(digit, 0.0) for digit in "01"]
    # A token may be several digits: `85` after `0.` is 0.85.
    digits = {token: p for token, p in decimals.items() if token.isascii() and token.isdigit()}
    if not sum(first) or not sum(digits.values()):
        return "no digit among the most probable tokens"
    one = first[1] / sum(first)
    rest = sum(p * float(f"0.{token}") for token, p in digits.items()) / sum(digits.values())
    return float(one + (1 - one) * rest)
