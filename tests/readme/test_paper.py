"""docs/paper.md: the paper's settings next to those of the merged recipes, line by line.

`paper.csv` has the lines: what the paper says, and the key of the recipes to compare it with, or a test for
what no key decides. `python tests/readme/test_paper.py` writes the tables of the page again.
"""

import csv
import itertools
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from ajbench.core import recipe

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "paper.md"
MARKS = "<!-- tables -->\n", "<!-- end of tables -->\n"
COLUMNS = {"diffusion": "as20k as2m", "classification_as20k": "as20k", "classification_as2m": "as2m"}
loaded = cache(recipe.load)


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


LINES = read(Path(__file__).with_name("paper.csv"))


def is_test(line):
    return line["key_or_test"].startswith("tests/")


def measured(name, key):
    """Return the value of a key of a merged recipe, or the values of several, as YAML would have them."""
    if " " in key:
        return [measured(name, one) for one in key.split()]
    found = loaded(name)
    for part in key.split("."):
        found = getattr(found, part)
    if key == "evaluate.models":
        return [list(row.model_dump().values()) for row in found]
    return list(found) if isinstance(found, tuple) else found


def verdict(line):
    """Return what ajbench has, and `same`, `differs (why)` or `unsaid`."""
    what, wanted = line["key_or_test"], line["value"]
    shown, same = f"`{what}`" if what else "", not line["why"]
    if what and not is_test(line):
        value, *others = [measured(name, what) for name in line["recipes"].split()]
        assert all(other == value for other in others), f"{what} differs between {line['recipes']}"
        shown += f": {text(value)}"
        ends = re.fullmatch(r"(\S+) to (\S+)", wanted)
        same = float(ends[1]) <= value <= float(ends[2]) if ends else value == yaml.safe_load(wanted)
    return shown, "unsaid" if wanted == "unsaid" else "same" if same else f"differs ({line['why']})"


def text(value):
    """Return a value as the page shows it."""
    if isinstance(value, list):
        return ", ".join(" ".join(item) if isinstance(item, list) else text(item) for item in value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return value if isinstance(value, str) else f"{value:,g}"


def tables():
    """Return the page's tables."""
    out = []
    for part, lines in itertools.groupby(LINES, lambda line: line["part"]):
        header = "| setting | paper | recipes | ajbench | verdict |"
        out += ["", f"## {part}", "", header, "| --- | --- | --- | --- | --- |"]
        for line in lines:
            names = line["recipes"].replace(" ", ", ")
            out.append(f"| {' | '.join([line['setting'], line['paper'], names, *verdict(line)])} |")
    return "\n".join([*out, "", ""])


def test_every_cell_of_table_a10_has_a_line():
    printed = read(REPOSITORY / "results" / "published" / "table_a10.csv")
    cells = [(row["setting"], row[c], names) for row in printed for c, names in COLUMNS.items() if row[c]]
    lines = [line for line in LINES if line["part"] == "Table A10"]
    assert [(line["setting"], line["paper"], line["recipes"]) for line in lines] == cells


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line['setting']}: {line['paper']}")
def test_a_setting_is_the_papers_or_the_line_says_why_not(line):
    _, answer = verdict(line)
    assert answer != "differs ()"
    assert bool(line["why"]) == answer.startswith("differs"), "the reason is out of date"


@pytest.mark.parametrize("name", sorted({line["key_or_test"] for line in LINES if is_test(line)}))
def test_a_test_that_a_line_names_exists(name):
    path, _, function = name.partition("::")
    assert re.search(rf"^def {function}\(", (REPOSITORY / path).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_shows_what_the_merged_recipes_say():
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(MARKS[0])[2].partition(MARKS[1])[0] == tables()


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    PAGE.write_text(f"{before}{MARKS[0]}{tables()}{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")
