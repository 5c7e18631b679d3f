import pandas as pd
import pytest
from fakes import ESC10_CONTEXT, esc10_recipe

from ajbench.core.rows import make_row
from ajbench.reporting.verdict import Answer, answers, bound, document, headline, leaking, limits

PLAN = esc10_recipe()


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
            *("+320G", "changes", "+1.8 [−0.4, +4.1]", "No gain of 4.1 points or more."),
        ),
        (
            comparison("a", "+320G", 0.4, 1.8, 4.1),
            "+320G",
            "raises",
            "1.8 [+0.4, +4.1]",
            "Yes: +1.8 points of mAP.",
        ),
        (
            comparison("a", "+320G", -4.0, -1.8, -0.1),
            "+320G",
            "lowers",
            "1.8 [−4.0, −0.1]",
            "No, it hurts: −1.8 points of mAP.",
        ),
        (  # distinguishable from zero, but not with the interval of the family
            comparison("a", "+160G", 0.1, 1.0, 2.0, family=(-0.1, 2.21)) + comparison("a", "+320G", -2, 0, 2),
            *("+160G", "changes", "+1.0 [+0.1, +2.0]", "No gain of 2.3 points or more."),
        ),
        (  # the larger gain is uncertain, the smaller one is not
            comparison("a", "+160G", 0.5, 1.0, 1.5) + comparison("a", "+320G", -3, 2, 7),
            *("+160G", "raises", "1.0 [+0.5, +1.5]", "Yes: +1.0 points of mAP."),
        ),
        (
            comparison("a", "+320G", 1, 2, 3) + comparison("b", "+320G", -3, -2, -1),
            *("+320G", "raises", "2.0 [+1.0, +3.0]", "For 1 of 2 classifiers; it hurts 1."),
        ),
    ],
)
def test_answers_say_what_the_intervals_allow(rows, column, verb, numbers, words):
    found = answers(pd.DataFrame(rows), PLAN)
    value, interval = numbers.split(" ", 1)
    sentence = str(found[0])
    assert sentence.startswith(f"a, mx+sp: {column} {verb} mAP by {value} points")
    assert interval in sentence and "3 seeds" in sentence
    assert (found[0].verdict in sentence) == (verb == "changes")
    assert headline(found) == words


def test_two_seeds_in_each_of_several_folds_are_judged():
    rows = [row | {"dataset": "esc10 folds 1-5"} for row in comparison("a", "+320G", 1, 2, 3, seeds="0;1")]
    primary = esc10_recipe(models=[{"name": "a", "aug": "mx+sp"}], primary={"model": 0, "dose": 320})
    for plan in (PLAN, primary):
        (answer,) = answers(pd.DataFrame(rows), plan)
        assert (answer.effect, answer.folds) == (1, 5) and "2 seeds in each of 5 folds" in str(answer)
        said = limits(pd.DataFrame(rows), plan, [answer])
        assert any("5 folds" in line for line in said) and not any("one split" in line for line in said)
    (alone,) = answers(pd.DataFrame(comparison("a", "+320G", 1, 2, 3, seeds="0;1")), primary)
    assert not alone.judged


def test_what_is_excluded_is_the_widest_end_of_all_intervals_of_the_classifier_rounded_up():
    rows = comparison("a", "+160G", -1, 1, 3, family=(-2.01, 4.01)) + comparison("a", "+320G", -3, 0.5, 2)
    (answer,) = answers(pd.DataFrame(rows), PLAN)
    assert (answer.column, answer.most, answer.least) == ("+160G", *map(pytest.approx, (4.01, -3)))
    assert "4.1" in answer.verdict and "3.0" in answer.verdict
    assert [bound(points) for points in (4.0, 4.01, -0.2)] == ["4.0", "4.1", "0.1"]


def test_a_single_comparison_is_judged_by_the_interval_that_tables_show():
    rows = comparison("a", "+160G", -20, -7.6, 4.9, family=(-25.7, 10.5))
    (answer,) = answers(pd.DataFrame(rows), PLAN)
    assert (answer.most, answer.least, answer.comparisons) == (pytest.approx(4.9), pytest.approx(-20), 1)
    assert headline([answer]) == "No gain of 4.9 points or more."
    certain = comparison("a", "+160G", 0.5, 3, 5.5, family=(-0.1, 6.1))
    unjudged = comparison("b", "+160G", 1, 3, 5, seeds="0;1")[:1]
    found = answers(pd.DataFrame(certain + unjudged), PLAN)
    assert [(one.effect, one.judged) for one in found] == [(1, True), (0, False)]


def test_the_headline_for_several_classifiers_excludes_what_all_of_them_exclude():
    rows = comparison("a", "+160G", -1, 1, 3) + comparison("b", "+160G", -2, 0, 5)
    assert "5.0" in headline(answers(pd.DataFrame(rows), PLAN))


PRIMARY = esc10_recipe(primary={"model": "taltrans-small+mx+sp", "dose": 160})


@pytest.mark.parametrize(
    ("ends", "effect", "word"), [((0.1, 2), 1, "Yes"), ((-2, -0.1), -1, "hurts"), ((-1, 2), 0, "2.0")]
)
def test_the_headline_is_about_the_primary_comparison_at_95_percent(ends, effect, word):
    low, high = ends
    rows = comparison("taltrans-small", "+160G", low, (low + high) / 2, high, family=(-9, 9))
    rows += comparison("taltrans-small", "+320G", 3, 5, 7) + comparison("ast-tiny", "+160G", -7, -5, -3)
    found = answers(pd.DataFrame(rows), PRIMARY)
    first, *others = found
    assert first.primary and (first.column, first.effect, first.comparisons) == ("+160G", effect, 0)
    assert (first.most, first.least) == (pytest.approx(high), pytest.approx(low))
    assert word in headline(found) and "(taltrans-small, mx+sp: +160G against real clips only)" in headline(
        found
    )
    assert word in headline(found, short=True) and "+160G" not in headline(found, short=True)
    assert [(a.column, a.effect, a.primary) for a in others] == [("+320G", 1, False), ("+160G", -1, False)]


def test_a_primary_comparison_that_was_declared_late_is_told():
    rows = comparison("taltrans-small", "+160G", 0.1, 1, 2)
    late = {"table": "primary", "row": rows[0]["row"], "column": "+160G", "metric": "trained_before"}
    rows.append(rows[0] | late | {"value": 6.0, "n": 9})
    found = answers(pd.DataFrame(rows), PRIMARY)
    assert found[0].primary and headline(found).startswith("Yes: +1.0 points")
    assert headline(found, short=True).endswith(", declared after 6 of 9 classifiers had been trained.")
    assert "declared" not in headline(answers(pd.DataFrame(rows[:-1]), PRIMARY))


def test_augmented_and_synthetic_clips_are_compared_with_augmented_clips_alone():
    plan = esc10_recipe(arms=["G", "A", "A+G"], primary={"dose": 160, "arm": "A+G"})
    rows = comparison("taltrans-small", "+160A+160G", 3, 5, 7)
    less = comparison("taltrans-small", "+160A+160G", -1, 1, 3)[0] | {"metric": "map_delta_a"}
    (first,) = answers(pd.DataFrame([*rows, less]), plan)
    assert (first.column, first.effect, first.delta) == ("+160A+160G", 0, pytest.approx(1))
    assert "relative to +160A (" in str(first) and first.against == "+160A+160G against +160A"
    said = " ".join(limits(pd.DataFrame([*rows, less]), plan, [first]))
    assert "All other verdicts compare synthetic clips with real clips only" in said
    assert "The verdict compares" in " ".join(limits(pd.DataFrame(rows), PLAN, [first]))


def test_without_rows_of_the_primary_comparison_the_others_are_judged():
    (answer,) = answers(pd.DataFrame(comparison("ast-tiny", "+160G", 1, 2, 3)), PRIMARY)
    assert not answer.primary and answer.effect == 1


def lacking(rows):
    (answer,) = answers(pd.DataFrame(rows), PLAN)
    assert not answer.judged and answer.lacking in headline([answer])
    return str(answer)


def test_a_missing_verdict_has_its_reason():
    nothing = float("nan")
    alike = comparison("a", "+160G", nothing, 0, nothing)
    assert "two recordings" in lacking(alike) and "nan" not in lacking(alike)
    few = comparison("a", "+160G", 1, 2, 3)[:1] + comparison("a", "+320G", 1, 1, 3, seeds="0")[:1]
    assert "1 seed in common, at least 3 seeds" in lacking(few)
    assert "not judged together" in lacking(comparison("a", "+160G", 1, 2, 3)[:1])


def test_the_document_has_the_numbers():
    found = document(answers(pd.DataFrame(comparison("a", "+160G", -1, 1, 3)), PLAN))
    (answer,) = found["answers"]
    assert (answer["most"], answer["effect"], answer["primary"]) == (pytest.approx(3), 0, False)
    assert found["headline"] == "No gain of 3.0 points or more."


@pytest.mark.parametrize("primary", [True, False])
def test_a_handful_of_clips_gives_no_direction(primary):
    rows = [row | {"n": 12} for row in comparison("taltrans-small", "+160G", 1, 2, 3)]
    (answer,) = answers(pd.DataFrame(rows), PRIMARY if primary else PLAN)
    assert answer.primary == primary and answer.effect == 0 and not answer.judged
    assert headline([answer]) == "No verdict: 12 evaluation clips, at least 20 are needed."


def test_the_family_of_an_answer_is_all_comparisons_of_all_classifiers():
    rows = [row for line in "abc" for dose in (160, 320) for row in comparison(line, f"+{dose}G", 1, 2, 3)]
    rows += comparison("a", "esc10 (decoded)", 1, 2, 3)
    assert [answer.comparisons for answer in answers(pd.DataFrame(rows), PLAN)] == [6, 6, 6]


@pytest.mark.parametrize("seeds", ["0", "0;1"])
def test_fewer_than_three_seeds_give_no_verdict(seeds):
    rows = [r for r in comparison("a", "+320G", 1, 2, 3, seeds=seeds) if r["metric"] == "map_delta"]
    (answer,) = answers(pd.DataFrame(rows), PLAN)
    assert answer.effect == 0 and "3 seeds" in answer.verdict and answer.verdict in str(answer)
    assert "3 seeds" in headline([answer])
    both = answers(pd.DataFrame(rows + comparison("b", "+320G", 1, 2, 3)), PLAN)
    assert [a.effect for a in both] == [0, 1] and headline(both) == "For 1 of 2 classifiers."


def test_synthetic_clips_only_are_no_mix_and_no_comparison_gives_no_answer():
    assert answers(pd.DataFrame(comparison("a", "esc10G", -9, -8, -7)), PLAN) == []
    assert "not measured" in headline([]).lower()


def test_limits_depend_on_seeds_comparisons_and_corpus():
    plan, rows = esc10_recipe(), pd.DataFrame(comparison("a", "+320G", 1, 2, 3))
    one = Answer("a/-/none", "+320G", 2.0, 1.0, 3.0, 1, 1, 0, 3.0, 1.0, 80)
    assert one.name == "a, no augmentation" and "1 seed)" in str(one)
    said = " ".join(limits(rows, plan, [one]))
    assert "1 seed per mix" in said and "80 evaluation clips" in said and "0.05" not in said
    several = " ".join(
        limits(rows, plan, [Answer("a/-/none", "+320G", 2.0, 1.0, 3.0, 3, 2, 1, 3.0, 1.0, 80)])
    )
    assert "3 seeds" in several and "0.05/2" in several
    mix = {"mix": plan.mix.model_copy(update={"real": "shots=4"})}
    three = Answer("a/-/none", "+320G", 2.0, 1.0, 3.0, 3, 1, 0, 3.0, 1.0, 80)
    for redraw in (False, True):
        drawn = esc10_recipe(redraw=redraw).model_copy(update=mix)
        assert ("other draws" in " ".join(limits(rows, drawn, [three]))) == redraw
    mini = plan.model_copy(update={"data": plan.data.model_copy(update={"corpus": "mini"})})
    assert len(limits(rows, mini, [one])) == len(limits(rows, plan, [one])) + 1


def test_clips_from_elsewhere_have_answers_of_their_own():
    rows = comparison("a", "+160G", -3, -2, -1) + comparison("a", "+160X", 1, 2, 3)
    found = {answer.source: answer for answer in answers(pd.DataFrame(rows), PLAN)}
    assert (found["G"].effect, found["X"].effect) == (-1, 1) and found["X"].comparisons == 2
    said = headline([*found.values()])
    assert "(G): No, it hurts" in said and "(X): Yes" in said
    assert headline([found["X"]]) == "Yes: +2.0 points of mAP."
    lines = limits(pd.DataFrame(rows), PLAN, [*found.values()])
    assert any(line.startswith("Clips X") for line in lines)
    alone = limits(pd.DataFrame(comparison("a", "+160X", 1, 2, 3)), PLAN, [found["X"]])
    assert not any("passed through the codec" in line for line in alone)


def test_copies_of_evaluation_clips_give_no_answer():
    rows = pd.DataFrame(comparison("a", "+160X (leaks)", 5, 9, 13))
    found = answers(rows, PLAN)
    assert found == [] and leaking(rows)
    assert headline(found, leaks=True).startswith("No answer")
    assert any("(leaks)" in line for line in limits(rows, PLAN, found))
