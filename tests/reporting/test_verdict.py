import pandas as pd
import pytest
from fakes import ESC10_CONTEXT, esc10_recipe

from ajbench.core.rows import make_row
from ajbench.reporting.verdict import Answer, answers, headline, limits


def comparison(line, column, low, value, high, family=None, seeds="0;1;2"):
    made = {"map_delta": (low, high), "map_delta_family": family or (low, high)}
    return [
        make_row(ESC10_CONTEXT, "A11", f"{line}/-/mx+sp", column, metric, value / 100, n=80, seed=seeds)
        | {"ci_low": ends[0] / 100, "ci_high": ends[1] / 100}
        for metric, ends in made.items()
    ]


@pytest.mark.parametrize(
    ("rows", "column", "verb", "numbers", "words"),
    [
        (
            comparison("a", "+320G", -0.4, 1.84, 4.1),
            *("+320G", "changes", "+1.8 [−0.4, +4.1]", "Not measurably."),
        ),
        (comparison("a", "+320G", 0.4, 1.8, 4.1), "+320G", "raises", "1.8 [+0.4, +4.1]", "Yes."),
        (comparison("a", "+320G", -4.0, -1.8, -0.1), "+320G", "lowers", "1.8 [−4.0, −0.1]", "No, it hurts."),
        (  # distinguishable from zero, but not with the interval of the family
            comparison("a", "+160G", 0.1, 1.0, 2.0, family=(-0.1, 2.2)) + comparison("a", "+320G", -2, 0, 2),
            *("+160G", "changes", "+1.0 [+0.1, +2.0]", "Not measurably."),
        ),
        (  # the larger gain is uncertain, the smaller one is not
            comparison("a", "+160G", 0.5, 1.0, 1.5) + comparison("a", "+320G", -3, 2, 7),
            *("+160G", "raises", "1.0 [+0.5, +1.5]", "Yes."),
        ),
        (
            comparison("a", "+320G", 1, 2, 3) + comparison("b", "+320G", -3, -2, -1),
            *("+320G", "raises", "2.0 [+1.0, +3.0]", "For 1 of 2 classifiers; it hurts 1."),
        ),
    ],
)
def test_answers_say_what_the_intervals_allow(rows, column, verb, numbers, words):
    found = answers(pd.DataFrame(rows), "esc10")
    value, interval = numbers.split(" ", 1)
    sentence = str(found[0])
    assert sentence.startswith(f"a, mx+sp: {column} {verb} mAP by {value} points")
    assert interval in sentence and "3 seeds" in sentence
    assert (found[0].verdict in sentence) == (verb == "changes")
    assert headline(found) == words


def test_a_gain_that_does_not_survive_the_correction_names_the_number_of_comparisons():
    assert "9 comparisons" in Answer("a/-/none", "+320G", 2.0, 1.0, 3.0, 3, 9, 0).verdict
    assert "comparison" not in Answer("a/-/none", "+320G", 2.0, -1.0, 3.0, 3, 9, 0).verdict


def test_the_family_of_an_answer_is_all_comparisons_of_all_classifiers():
    rows = [row for line in "abc" for dose in (160, 320) for row in comparison(line, f"+{dose}G", 1, 2, 3)]
    rows += comparison("a", "esc10 (decoded)", 1, 2, 3)
    assert [answer.comparisons for answer in answers(pd.DataFrame(rows), "esc10")] == [6, 6, 6]


@pytest.mark.parametrize("seeds", ["0", "0;1"])
def test_fewer_than_three_seeds_give_no_verdict(seeds):
    rows = [r for r in comparison("a", "+320G", 1, 2, 3, seeds=seeds) if r["metric"] == "map_delta"]
    (answer,) = answers(pd.DataFrame(rows), "esc10")
    assert answer.effect == 0 and "3 seeds" in answer.verdict and answer.verdict in str(answer)
    assert "3 seeds" in headline([answer])
    both = answers(pd.DataFrame(rows + comparison("b", "+320G", 1, 2, 3)), "esc10")
    assert [a.effect for a in both] == [0, 1] and headline(both) == "For 1 of 2 classifiers."


def test_synthetic_clips_only_are_no_mix_and_no_comparison_gives_no_answer():
    assert answers(pd.DataFrame(comparison("a", "esc10G", -9, -8, -7)), "esc10") == []
    assert "not measured" in headline([]).lower()


def test_limits_depend_on_seeds_comparisons_and_corpus():
    plan, rows = esc10_recipe(), pd.DataFrame(comparison("a", "+320G", 1, 2, 3))
    one = Answer("a/-/none", "+320G", 2.0, 1.0, 3.0, 1, 1, 0)
    assert one.name == "a, no augmentation" and "1 seed)" in str(one)
    said = " ".join(limits(rows, plan, [one]))
    assert "1 seed per mix" in said and "80 evaluation clips" in said and "0.05" not in said
    several = " ".join(limits(rows, plan, [Answer("a/-/none", "+320G", 2.0, 1.0, 3.0, 3, 2, 1)]))
    assert "3 seeds" in several and "0.05/2" in several
    mini = plan.model_copy(update={"data": plan.data.model_copy(update={"corpus": "mini"})})
    assert len(limits(rows, mini, [one])) == len(limits(rows, plan, [one])) + 1
