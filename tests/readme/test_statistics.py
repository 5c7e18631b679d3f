"""docs/statistics.md shows benchmarks/coverage.csv.

`python tests/readme/test_statistics.py` writes its table again.
"""

import csv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "statistics.md"
MARKS = "<!-- table -->\n", "<!-- end of table -->\n"


def table():
    """Return the rows of coverage.csv in Markdown, shares in percent with their standard error."""
    with (REPOSITORY / "benchmarks" / "coverage.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "| scenario | setting | nominal | measured | earlier method |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        covered, repetitions = float(row["covered"]), int(row["repetitions"])
        error = f" ± {100 * (covered * (1 - covered) / repetitions) ** 0.5:.1f}" if repetitions else ", exact"
        before = f"{100 * float(row['before']):.1f}" if row["before"] else ""
        cells = row["scenario"], row["setting"], f"{100 * float(row['nominal']):g}"
        lines.append(f"| {' | '.join([*cells, f'{100 * covered:.1f}{error}', before])} |")
    return "\n".join(lines) + "\n"


def parts():
    """Return the page before, in and after the table."""
    text = PAGE.read_text(encoding="utf-8")
    start, end = (text.index(mark) for mark in MARKS)
    return text[: start + len(MARKS[0])], text[start + len(MARKS[0]) : end], text[end:]


def test_the_page_has_the_measured_coverage():
    assert parts()[1] == f"\n{table()}\n"


if __name__ == "__main__":
    first, _, last = parts()
    PAGE.write_text(f"{first}\n{table()}\n{last}", encoding="utf-8")
