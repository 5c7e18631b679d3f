"""What is read in the answers of chat models, and what is not."""

import pytest

from ajbench.captions.answers import CUT, number, sentence


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("A dog barks.", "A dog barks."),
        ("<think>\nOkay, the user\nwants…</think>\n\nA dog barks.", "A dog barks."),
        ('```json\n{"caption": "A dog barks."}\n```', "A dog barks."),
        ("Sure! Here is a single sentence:\n\nA dog barks.\nIt is loud.", "A dog barks."),
        ("Response: A dog barks.", "A dog barks."),
        ("**A dog barks.**", "A dog barks."),
        ("“A dog  barks.”", "A dog barks."),
        ('A man says "Hello"', 'A man says "Hello"'),
        ('"Hello" says a man, and "bye"', '"Hello" says a man, and "bye"'),
        ("Ein Hund bellt.", "Ein Hund bellt."),
        ("Okay, the user wants one.\n</think>\n\nA dog barks.", "A dog barks."),
        ('Here it is:\n```json\n{\n  "caption": "A dog barks."\n}\n```', "A dog barks."),
        ('["A dog barks."]', "A dog barks."),
        ("**Caption:** A dog barks.", "A dog barks."),
        ('A dog barks."', "A dog barks."),
    ],
)
def test_the_sentence_of_an_answer(answer, found):
    assert sentence(answer) == (found, None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty answer"),
        ("```\n```", "empty answer"),
        ("<think>Let me", "unfinished thought"),
        ("Here is the caption:", "empty answer"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I cannot describe this.", "refusal"),
        ("As an AI language model, I", "refusal"),
    ],
)
def test_answers_without_a_sentence_have_a_reason(answer, reason):
    assert sentence(answer) == ("", reason)


def test_an_answer_that_was_cut_counts_if_its_sentence_or_number_is_whole():
    assert sentence("A dog bar", cut=True) == ("", CUT)
    assert sentence("A dog barks.\nNote: this is", cut=True) == ("A dog barks.", None)
    assert number("0", cut=True) == CUT and number("0.8\nBecause the", cut=True) == 0.8


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        *(("0.7", 0.7), (" 1", 1.0), ("1.0.", 1.0), ("Score: 0.35.", 0.35), ("0", 0.0), (".5", 0.5)),
        *((".1", 0.1), ("(.1)", 0.1), (",1", 0.1), ("Score: .1", 0.1)),
        *(("0,8", 0.8), ("“0.4”", 0.4), ("0.8\nBecause they agree.", 0.8), ("Response: 0.2", 0.2)),
    ],
)
def test_an_answer_of_one_number_is_a_score(answer, found):
    assert number(answer) == found


@pytest.mark.parametrize(
    "answer",
    [
        *("7", "-0.5", "ten", "", "Probability: 0.", "1. The", "1/10", "1%", "On a scale from 0 to 1, 0.8"),
        *("Score (0-1): 0.8", "0.5 to 0.7", "1.5"),
    ],
)
def test_other_answers_are_no_scores(answer):
    assert isinstance(number(answer), str)


@pytest.mark.parametrize("answer", ["[" * 9000, '{"a": ' * 9000])
def test_json_without_end_is_an_answer_like_others(answer):
    assert isinstance(sentence(answer), tuple)
