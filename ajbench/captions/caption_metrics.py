"""Caption metrics of Table A2: BLEU, METEOR, ROUGE-L and CIDEr by pycocoevalcap, similarity, vocabulary."""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ajbench.captions.entailment import entailment
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.registry import suggest
from ajbench.metrics.intervals import SHARE, Interval, jackknife, mean_interval, none

METRICS = ("similarity", "bleu_1", "bleu_4", "meteor", "rouge_l", "cider")
TOKENIZERS = ("plain", "ptb")
NO_JAVA = "java is not installed"

Texts = Mapping[str, str]
References = Mapping[str, Sequence[str]]
Tokens = dict[str, list[str]]


@dataclass(frozen=True)
class CaptionScores:
    """Metrics of one set of captions.

    Attributes:
        values: by name of `METRICS`; those that cannot be computed are absent.
        reasons: why, by name.
        n: clips.
        vocabulary: different words in the captions.
    """

    values: dict[str, Interval]
    reasons: dict[str, str]
    n: int
    vocabulary: int


def measure(captions: Texts, references: References, tokenizer: str = "plain") -> CaptionScores:
    """Compare a caption per clip with its reference captions.

    Similarity is the cosine of MiniLM's sentence embeddings, mean over references and clips (the paper's is
    a rating by five people). BLEU and METEOR are of the corpus, ROUGE-L and CIDEr means over clips; CIDEr's
    word weights come from the references, so it changes with the set of clips. Intervals are over clips: a
    jackknife for BLEU, Student's t for means; METEOR has none.

    Args:
        captions: clip → caption.
        references: clip → at least one caption, for the same clips.
        tokenizer: `plain` (lower case, without punctuation but apostrophes) or `ptb` (Penn Treebank, as in
            most publications; needs Java).

    Raises:
        UsageError: an unknown tokenizer, other clips, none, or a clip without a reference.
        MissingError: pycocoevalcap is not installed, or Java for `ptb`.
    """
    if tokenizer not in TOKENIZERS:
        near, allowed = suggest(tokenizer, TOKENIZERS), ", ".join(TOKENIZERS)
        raise UsageError(f"tokenizer {tokenizer!r} is unknown{near}; allowed: {allowed}")
    if not captions or captions.keys() != references.keys():
        raise UsageError(
            f"captions of {len(captions)} clips, references of {len(references)}: must be the same"
        )
    if bare := next((clip for clip, texts in references.items() if not texts), None):
        raise UsageError(f"clip {bare}: has no reference caption")
    try:
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError:
        raise MissingError(
            "caption metrics: pycocoevalcap is not installed; pip install 'ajbench[captions]'"
        ) from None
    clips = sorted(captions)
    tokenized = _plain if tokenizer == "plain" else _ptb
    res = tokenized({clip: [captions[clip]] for clip in clips})
    gts = tokenized({clip: list(references[clip]) for clip in clips})
    values = {"similarity": mean_interval(_similarity(clips, captions, references), clips)}
    values |= _bleu(clips, gts, res)
    for name, scorer, limits in (("rouge_l", Rouge(), SHARE), ("cider", Cider(), (0.0, 10.0))):
        values[name] = mean_interval(
            np.asarray(scorer.compute_score(gts, res)[1], np.float64), clips, limits=limits
        )
    meteor = _meteor(gts, res)
    reasons = {"meteor": meteor} if isinstance(meteor, str) else {}
    if not isinstance(meteor, str):
        values["meteor"] = none(meteor)
    words = {
        word
        for (text,) in _plain({clip: [captions[clip]] for clip in clips}).values()
        for word in text.split()
    }
    return CaptionScores(values, reasons, len(clips), len(words))


def _plain(texts: Mapping[str, list[str]]) -> Tokens:
    def tokens(text: str) -> str:
        return " ".join(re.sub(r"[^\w\s']", "", text.lower()).split())

    return {clip: [tokens(text) for text in found] for clip, found in texts.items()}


def _ptb(texts: Mapping[str, list[str]]) -> Tokens:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    if not shutil.which("java"):
        raise MissingError(f"tokenizer ptb: {NO_JAVA}; install it, or use the tokenizer plain")
    lines = {
        clip: [{"caption": " ".join(text.split()) or "."} for text in found] for clip, found in texts.items()
    }
    try:
        found: Tokens = PTBTokenizer().tokenize(lines)
    except OSError as error:  # it writes a file into its own folder
        raise MissingError(f"tokenizer ptb: cannot run ({error}); use the tokenizer plain") from None
    return found


def _similarity(clips: Sequence[str], captions: Texts, references: References) -> NDArray[np.float64]:
    counts = [len(references[clip]) for clip in clips]
    scores = entailment([(captions[clip], text) for clip in clips for text in references[clip]])
    return np.add.reduceat(scores, np.cumsum([0, *counts[:-1]])) / counts


def _bleu(clips: Sequence[str], gts: Tokens, res: Tokens) -> dict[str, Interval]:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for clip in clips:
        scorer += (res[clip][0], gts[clip])
    whole, _ = scorer.compute_score(option="closest", verbose=0)
    counts = [(*one["correct"], *one["guess"], one["testlen"]) for one in scorer.ctest]
    lengths = [_closest(one["reflen"], one["testlen"]) for one in scorer.ctest]
    parts = np.column_stack([np.array(counts, np.float64), lengths])

    def of(order: int) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
        def statistic(kept: NDArray[np.int64]) -> NDArray[np.float64]:
            sums = kept @ parts
            precision = (sums[:, :order] + 1e-15) / (sums[:, 4 : 4 + order] + 1e-9)
            brevity = np.exp(np.minimum(0, 1 - sums[:, 9] / np.maximum(sums[:, 8], 1e-9)))
            return np.prod(precision, axis=1) ** (1 / order) * brevity

        return statistic

    def interval(order: int) -> Interval:
        value = whole[order - 1]
        if not parts[:, :order].sum(axis=0).all():  # without a common n-gram nothing varies
            return none(value)
        return jackknife(value, of(order), [clips], limits=SHARE)

    return {f"bleu_{order}": interval(order) for order in (1, 4)}


def _closest(lengths: Sequence[int], length: int) -> int:
    return min(lengths, key=lambda one: (abs(one - length), one))


def _meteor(gts: Tokens, res: Tokens) -> float | str:
    """Return METEOR, or why there is none."""
    if not shutil.which("java"):
        return NO_JAVA
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = None
    try:
        scorer = Meteor()
        return float(scorer.compute_score(gts, res)[0])
    except (OSError, ValueError) as error:
        return f"its program failed ({' '.join(str(error).split())[:80]})"
    finally:
        if scorer and scorer.lock.locked():
            scorer.lock.release()  # which its destructor waits for
