"""Draw the dose curves of committed results as a self-contained SVG for light and dark backgrounds.

Run from the repository root: `python benchmarks/draw_doses.py [esc10 [docs/esc10.svg]]`. Reads
`results/<recipe>/rows.csv` and `run.json`.
"""

import json
import sys
from pathlib import Path

from ajbench.core import recipe
from ajbench.core.rows import read_rows
from ajbench.reporting import current_rows, mix_figure
from ajbench.reporting.figures import alone
from ajbench.reporting.verdict import answers


def main() -> None:
    """Write the SVG."""
    name = sys.argv[1] if len(sys.argv) > 1 else "esc10"
    out = Path(sys.argv[2] if len(sys.argv) > 2 else f"docs/{name}.svg")
    folder = Path("results") / name
    pinned = json.loads((folder / "run.json").read_text(encoding="utf-8"))["fingerprints"]
    settings = recipe.load(name)
    rows = current_rows.select(read_rows(folder / "rows.csv"), settings, pinned)
    drawing = mix_figure.draw(rows, settings, answers(rows, settings))
    out.write_text(alone(drawing), encoding="utf-8")


if __name__ == "__main__":
    main()
