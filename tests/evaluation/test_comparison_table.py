import re

import numpy as np
import pandas as pd
import pytest

from ajbench.evaluation.comparison_table import ComparisonTable
from ajbench.evaluation.generation_metrics import METRICS


def row(metric, value, low=np.nan, high=np.nan, of="", gen="gen"):
    about = {"set": gen, "reference": "ref", "protocol": "ajbench", "features": "tiny", "definition": "d"}
    ends = {"value": value, "ci_low": low, "ci_high": high, "n": 24, "n_reference": 30}
    return {"metric": metric, "of": of, **ends, **about}


@pytest.fixture
def table():
    made = ComparisonTable([row("fd", 12.3456, 11.1, 13.9), row("kad", 0.1234)])
    made.attrs["notes"] = ["knows <b>no</b> classes"]
    return made


def test_text_has_values_intervals_and_notes(table):
    assert [" ".join(line.split()) for line in str(table).splitlines()] == [
        "gen against ref: features tiny, protocol ajbench",
        "metric value 95 % interval n n reference",
        "fd ↓ 12.3 [11.1, 13.9] 24 30",
        "kad ↓ 0.123 – 24 30",
        "tiny: knows <b>no</b> classes.",
    ]


def test_html_is_a_table_whose_words_are_escaped(table):
    text = ComparisonTable([row("fd", 1.0, gen="<script>alert(1)</script>")])._repr_html_()
    assert "<script>" not in text and "&lt;script&gt;" in text
    shown = table._repr_html_()
    assert (
        "&lt;b&gt;no&lt;/b&gt;" in shown and shown.count("<tr") == 3 and "<caption>gen against ref" in shown
    )
    assert re.findall(r"<td>(.*?)</td>", shown)[:5] == ["fd ↓", "12.3", "[11.1, 13.9]", "24", "30"]


def test_classes_have_a_column(table):
    both = ComparisonTable([row("fd_class", 2.0), row("fd_class", 3.0, of="dog")])
    assert str(both).splitlines()[1].split()[:2] == ["metric", "of"] and "dog" in str(both)


def test_it_computes_as_a_dataframe_and_its_parts_are_ordinary_ones(table):
    assert table.set_index("metric")["value"]["fd"] == 12.3456
    assert type(table[["metric", "value"]]) is pd.DataFrame
    assert type(table[table["metric"] == "fd"]) is pd.DataFrame
    assert "definition" in table.columns


def test_without_rows_or_columns_it_shows_what_pandas_shows(table):
    assert "Empty ComparisonTable" in str(ComparisonTable([]))
    del table["ci_low"]
    assert "12.3456" in str(table) and "<table" in table._repr_html_()


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_shown(metric):
    assert metric in str(ComparisonTable([row(metric, 1234.5)]))
