"""Which columns of a table are classes with cells of 0 and 1, and the labels of its rows."""

import pytest

from ajbench.data.corpora import class_columns


def rows(columns):
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize(
    "cells", [(1, 0), ("1", "0"), ("1.0", "0.0"), (True, False), ("TRUE", "False"), (1.0, None), ("1", "")]
)
def test_what_a_cell_says(cells):
    table = rows({"dog": cells, "cat": cells[::-1]})
    classes = class_columns.find(table, ())
    assert classes == {"dog": "dog", "cat": "cat"}
    assert [class_columns.labels(row, classes) for row in table] == [(["dog"], None), (["cat"], None)]


def test_other_columns_are_no_classes():
    flags = [0, 1] * 10
    table = rows(
        {
            "file": [f"{k}.wav" for k in range(20)], "dog": flags, "cat": flags[::-1], "plays": [*range(20)],
            "fold": flags, "checked": [None] * 20, "": flags, "score": [0.5] * 20,
        }
    )  # fmt: skip
    assert [*class_columns.find(table, {"fold"})] == ["dog", "cat"]
    assert class_columns.find([{"dog": 1, "path": "a.wav"}, {"dog": 0, "path": "b.wav"}], ()) == {}
    assert class_columns.find([], ()) == {}


@pytest.mark.parametrize("beginning", ["label_", "Class:", "is_", "category."])
def test_names_that_begin_alike_are_classes_without_that(beginning):
    table = [{f"{beginning}dog": k % 2, f"{beginning}cat": 1, "verified": 1} for k in range(4)]
    assert class_columns.find(table, ()) == {f"{beginning}dog": "dog", f"{beginning}cat": "cat"}


def test_a_few_other_cells_are_problems_of_their_rows():
    table = rows({"dog": [1] * 18 + [2, 0], "cat": [0] * 18 + [1, 0]})
    classes = class_columns.find(table, ())
    assert class_columns.labels(table[18], classes) == ([], "column 'dog': 2 is neither 0 nor 1")
    assert class_columns.labels(table[19], classes) == ([], "no class: 0 in all of their columns")
