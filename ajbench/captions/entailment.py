"""Entailment scores: how likely a visual caption and a text about the audio describe the same scene."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ajbench.core.errors import UsageError
from ajbench.core.registry import suggest

if TYPE_CHECKING:
    from ajbench.generation.text_encoder import MiniLM

MAX_TOKENS = 256  # of all-MiniLM-L6-v2 as a sentence encoder; longer texts are truncated
BATCH = 32

Pairs = Sequence[tuple[str, str]]


def entailment(pairs: Pairs, scorer: str = "minilm") -> NDArray[np.float64]:
    """Score pairs of a visual caption and an audio caption (or label text).

    Args:
        pairs: N pairs of texts.
        scorer: `minilm`, the cosine of all-MiniLM-L6-v2's sentence embeddings, in [-1, 1].

    Returns:
        Raw scores [N].

    Raises:
        UsageError: an unknown scorer, or an element that is not a pair of texts.
        MissingError: the weights of the scorer are not installed.
    """
    if scorer not in SCORERS:
        raise UsageError(
            f"scorer {scorer!r} is unknown{suggest(scorer, SCORERS)}; allowed: {', '.join(SCORERS)}"
        )
    for number, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise UsageError(f"pairs[{number}]: {pair!r}; expected a visual caption and an audio text")
    return SCORERS[scorer](pairs)


def _minilm(pairs: Pairs) -> NDArray[np.float64]:
    texts = sorted({text for pair in pairs for text in pair}, key=len)  # little padding in a batch
    rows = {text: row for row, text in enumerate(texts)}
    embeddings = embed(texts)
    visual, audio = (embeddings[[rows[pair[side]] for pair in pairs]] for side in (0, 1))
    return np.einsum("nd,nd->n", visual, audio)


def embed(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return sentence embeddings [N, 384]: the mean of the token states, normalised to unit length."""
    import torch

    encoder = _encoder()
    parts = [np.empty((0, encoder.dim))]
    for start in range(0, len(texts), BATCH):
        batch = encoder.tokenizer(
            list(texts[start : start + BATCH]),
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        with torch.no_grad():
            states = encoder.states(batch.input_ids, batch.attention_mask).double()
        mask = batch.attention_mask.double()
        mean = torch.einsum("bt,btd->bd", mask, states) / mask.sum(dim=1, keepdim=True)
        parts.append(torch.nn.functional.normalize(mean, dim=1).numpy())
    return np.concatenate(parts)


@functools.cache
def _encoder() -> "MiniLM":
    from ajbench.generation.text_encoder import MiniLM

    return MiniLM(MAX_TOKENS)


SCORERS: Mapping[str, Callable[[Pairs], NDArray[np.float64]]] = {"minilm": _minilm}
