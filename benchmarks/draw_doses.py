"""Draw the dose curves of committed results as a picture that stands alone, light and dark.

Run from the repository root: `python benchmarks/draw_doses.py [esc10 [docs/esc10.svg]]`. Reads
`results/<recipe>/rows.csv` and `run.json`.
"""

import json
import sys
from pathlib import Path

from ajbench import recipe, tables
from ajbench.answer import answers
from ajbench.report import dose_figure
from ajbench.rows import read_rows

LIGHT = {"paper": "#fcfbf8", "ink": "#1d1c1a", "muted": "#6a665e", "rule": "#e3dfd6", "real": "#7d8894"}
DARK = {"paper": "#171614", "ink": "#ece8e0", "muted": "#a09a8e", "rule": "#34312c", "real": "#8d99a6"}
LIGHT |= {"c1": "#b5471d", "c2": "#1f6f78", "c3": "#7a5195"}
DARK |= {"c1": "#ee8a5c", "c2": "#5fb7c0", "c3": "#bf9add"}


def main() -> None:
    """Write the SVG."""
    name = sys.argv[1] if len(sys.argv) > 1 else "esc10"
    out = Path(sys.argv[2] if len(sys.argv) > 2 else f"docs/{name}.svg")
    folder = Path("results") / name
    pinned = json.loads((folder / "run.json").read_text(encoding="utf-8"))["fingerprints"]
    settings = recipe.load(name)
    rows = tables.select(read_rows(folder / "rows.csv"), settings, pinned)
    drawing = dose_figure(rows, settings, answers(rows, name))
    light, dark = (";".join(f"--{key}:{value}" for key, value in each.items()) for each in (LIGHT, DARK))
    style = (
        f"<style>svg{{{light};background:var(--paper);font-family:sans-serif}}"
        f"@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    )
    head, rest = drawing.split(">", 1)
    out.write_text(f'{head} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
