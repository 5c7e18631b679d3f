"""The paper's own entailment scores: 13 pairs scored by Alpaca (Tables A6, A7), and ranges of its scorers."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ajbench.captions import prompts
from ajbench.captions.aggregation import over_repeats
from ajbench.captions.entailment import Scorer
from ajbench.captions.llm_scorer import LLMScorer
from ajbench.metrics.correlation import Correlation, correlation

PROMPTS = ("entailment_single", "entailment_multi")  # whose examples are the pairs of Tables A6 and A7


class Published(NamedTuple):
    """A pair of the paper with the score that Alpaca gave it."""

    table: str
    visual: str
    audio: str
    score: float


class Range(NamedTuple):
    """Scores of one of the paper's scorers on AudioSet's balanced set (Figure 3)."""

    scorer: str
    low: float
    median: float
    high: float


# Read off the figures and examples of the paper.
RANGES = (
    Range("alpaca", 0.0, 0.55, 1.0),
    Range("t5", 0.60, 0.75, 0.98),
    Range("bert", -0.20, 0.34, 0.98),
)


class Check(NamedTuple):
    """Raw scores [13] of the published pairs by one scorer, and their correlation with Alpaca's."""

    scorer: str
    raw: NDArray[np.float64]
    correlation: Correlation


@cache
def pairs() -> tuple[Published, ...]:
    """Return the pairs as printed."""
    return tuple(
        Published(str(prompt.table), visual, audio, float(answer))
        for prompt in map(prompts.load, PROMPTS)
        for (visual, audio), answer in prompt.examples
    )


def check(scorer: Scorer) -> Check:
    """Score the published pairs.

    The pairs are the examples of the prompts. So that a language model is not given the answers, it gets the
    pairs of each table with the prompt of the other one.
    """
    every = pairs()
    raw = np.empty(len(every))
    for own, other in zip(PROMPTS, PROMPTS[::-1], strict=True):
        places = [n for n, pair in enumerate(every) if pair.table == prompts.load(own).table]
        asked = scorer.with_prompt(other) if isinstance(scorer, LLMScorer) else scorer
        found = asked([(every[n].visual, every[n].audio) for n in places])
        raw[places] = over_repeats(found)[0]
    published = np.array([pair.score for pair in every])
    return Check(scorer.name, raw, correlation(raw, published, range(len(every))))
