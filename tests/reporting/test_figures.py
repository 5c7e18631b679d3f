import re

from ajbench.reporting import figures


def test_figures_have_the_colours_of_the_page_and_searchable_text():
    svg = figures.bars(["dog <&>", "rain"], [50.0, 60.0], [55.0, 58.0], ("real", "+160G"))
    assert "dog &lt;&amp;&gt;" in svg and "+5.0" in svg and "−2.0" in svg
    assert not set(re.findall(r"#[0-9a-f]{6}", svg)), "no colour is fixed"
    assert svg == figures.bars(["dog <&>", "rain"], [50.0, 60.0], [55.0, 58.0], ("real", "+160G"))
    alone = figures.alone(svg)
    used = set(re.findall(r"var\(--(\w+)\)", alone))
    assert used and all(alone.count(f"--{name}:") == 2 for name in used)  # light and dark


def test_names_of_classes_are_no_formulas():
    names = [r"$\frac{", "a$b$"]
    assert all(
        name in drawn
        for drawn in (
            figures.bars(names, [50.0, 60.0], [55.0, 58.0], ("real", names[0])),
            figures.shares(names, [(names[0], [0.5, 0.6], figures.INK)]),
        )
        for name in names
    )
