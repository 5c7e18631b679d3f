import pytest

from ajbench.reporting.formats import Block, console_table, latex, markdown, signed, to_csv


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
