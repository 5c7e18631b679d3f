import csv
import io

import pytest
from conftest import REPOSITORY

from ajbench.reporting.formats import Block, console_table, latex, markdown, percent, signed, to_csv


@pytest.mark.parametrize(
    ("value", "text"), [(1.84, "+1.8"), (-0.36, "−0.4"), (0.04, "0.0"), (-0.04, "0.0"), (-12.0, "−12.0")]
)
def test_differences_show_their_sign(value, text):
    assert signed(value) == text


def test_special_characters_are_escaped_and_every_format_has_the_small_print():
    block = Block("A_1", ["Model", "α=0.5"], [[("50 %", ""), ("1 ± 2", "−3")]], ["x & y"], 1)
    tex = latex([block])
    assert r"A\_1" in tex and r"50 \%" in tex and r"1 $\pm$ 2" in tex and "$-$3" in tex and r"x \& y" in tex
    assert "| 50 % | 1 ± 2<br><sub>−3</sub> |" in markdown([block])
    assert console_table(block)[1] == [["50 %", "1 ± 2"], ["", "Δ"]]


def test_csv_has_free_text_last_and_nothing_for_none_and_nan():
    assert to_csv([{"value": 0.5, "ci_low": float("nan")}]) == "value,ci_low\n0.5,\n"
    assert to_csv([{"note": "a, b", "x": None}, {"x": 1, "y": 2}]) == 'x,y,note\n,,"a, b"\n1,2,\n'
    assert to_csv([], columns=("x", "y")) == "x,y\n"


def test_a_number_is_rounded_once_in_a_csv_and_once_in_a_table():
    line = {"map": percent(0.382519), "delta": percent(-0.0854773), "none": percent(float("nan"))}
    assert to_csv([line], 2) == "map,delta,none\n38.25,-8.55,\n"
    assert f"{line['map']:.1f}" == "38.3" and signed(line["delta"]) == "−8.5"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("+1|x!A0", "'+1|x!A0"), ("\t=1", "'\t=1"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"), ("-0xzrMun0Rs_30000", "-0xzrMun0Rs_30000"),
        ("-0.5", "-0.5"), ("dog", "dog"), ("", ""), ("+640A+640G", "+640A+640G"), ("+A1+B2", "'+A1+B2"),
    ],
)  # fmt: skip
def test_no_cell_of_a_csv_is_computed_by_a_spreadsheet(text, cell):
    (row,) = list(csv.DictReader(io.StringIO(to_csv([{"label": text, "value": -0.5}]), newline="")))
    assert row == {"label": cell, "value": "-0.5"}


def test_the_committed_tables_have_no_character_that_latex_lacks():
    tables = sorted((REPOSITORY / "results").rglob("*.tex"))
    assert len(tables) > 5 and all(path.read_text(encoding="utf-8").isascii() for path in tables)
    assert latex([Block("α", ["μ"], [[("Δ × − ± – ↑ ↓", "")]], [], 1)]).isascii()


def test_names_are_text_in_latex_and_markdown():
    name = "\\input{x}~^$#%&_\n<script>|"
    block = Block(name, [name], [[(name, name)]], [name], 1)
    tex = latex([block])
    assert "\\input" not in tex and tex.count(r"\textbackslash{}input\{x\}") == 5
    text = markdown([block])
    assert "<script" not in text and text.count(r"&lt;script>\|") == 5
    assert text.count("\n") == markdown([Block("a", ["a"], [[("a", "a")]], ["a"], 1)]).count("\n")
