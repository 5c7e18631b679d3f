"""Why clips are left out: grouped by reason, with an example of each."""

from ajbench.data.manifest import Problem
from ajbench.data.reasons import counts, in_words

PROBLEMS = [
    Problem("a", "set/dog/a.wav", None, "too short (0.05 s)"),
    *(Problem(None, "set/clips.csv", line, f"no such file (clips/{line}.wav)") for line in (2, 3, 4)),
    Problem("a", "set/dog/b.wav", None, "too short (0.02 s)"),
    Problem(None, "set/clips.csv", 7, "labels is empty"),
    Problem("clip-3", "work/store", None, "no label"),
]


def test_problems_are_counted_by_reason():
    assert counts(PROBLEMS) == {"no such file": 3, "too short": 2, "labels is empty": 1, "no label": 1}


def test_a_reason_is_named_once_with_an_example():
    text = in_words(PROBLEMS)
    assert text.startswith("no such file (3, such as clips/2.wav), too short (2, such as a.wav), ")
    assert "labels is empty (1: line 7), no label (1: clip-3)" in text
    assert text.endswith("the table's folder") and "relative" not in in_words(PROBLEMS[:1])
    assert in_words(PROBLEMS[4:], shown=1) == "too short (1: b.wav), …"
