"""Names of folds."""

import pytest

from ajbench.data.corpora import fold_names


@pytest.mark.parametrize(
    ("text", "fold"),
    [
        ("3", 3),
        ("0", 0),
        ("3.0", 3),
        ("fold3", 3),
        ("Fold 3", 3),
        ("cv_3", 3),
        ("Session3", 3),
        ("part-03", 3),
    ]
    + [(text, None) for text in ("", None, "A", "-1", "3.5", "dog3", "fold", "3 4")],
)
def test_numbers(text, fold):
    assert fold_names.number(text) == fold


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("fold1", "Fold 2"), [1, 2]),
        (("fold_a", "fold_b"), [1, 2]),
        (("foldA", "foldB"), [1, 2]),
        (("Session1", "Session10"), [1, 10]),
        (("set-a", "set-c"), [1, 3]),
        (("folds", "foldr"), []),  # words
        (("A", "B"), []),  # perhaps classes
        (("1", "2"), []),
        (("fold1", "dog"), []),
        ((), []),
    ],
)
def test_folders(names, found):
    assert [*fold_names.of_folders(names).values()] == found


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ("ABCDE", "ABCDE"),
        (("east", "West", "north"), ("east", "north", "West")),
        (("week 10", "week 9"), ("week 9", "week 10")),
        (("A",), ()),
        ("A1", ()),  # a name among numbers is a mistake
        ([f"site {k}x" for k in range(21)], ()),  # too many to be folds
    ],
)
def test_names(names, order):
    assert [*fold_names.named([*names] * 3)] == [*order]
    assert [*fold_names.named([*names] * 3).values()] == [*range(1, len(order) + 1)]
    assert not fold_names.named(names)  # each only once


def test_in_words():
    assert fold_names.in_words({"A": 1, "fold_b": 2, "fold3": 3}) == "A is 1, fold_b is 2, fold3"
