"""Take a picture of the report of committed results, down to its first table.

Run from the repository root: `python benchmarks/draw_report.py [results/fsdd-shots [docs/report.png]]`. Reads
`rows.csv`, `recipe.yaml` and `run.json` of the folder. Needs Chromium and the package playwright.
"""

import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

import yaml
from PIL import Image

from ajbench.core import recipe
from ajbench.reporting.report import ReportData, render

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH = 1080  # of the window, in pixels; the picture has twice as many
MARGIN = 4


def page(results: Path, out: Path) -> Path:
    """Write the report of a results folder into the folder `out`, without sounds; return its page."""
    state = json.loads((results / "run.json").read_text(encoding="utf-8"))
    tree = yaml.safe_load((results / "recipe.yaml").read_text(encoding="utf-8"))
    data = ReportData(
        recipe.load(tree["name"], tree=tree), results / "rows.csv", None, {}, {},
        runs=[state | stage for stage in state["stages"]], fingerprints=state["fingerprints"],
        counts=state["counts"],
    )  # fmt: skip
    return render(data, out)


def picture(path: Path) -> bytes:
    """Return a page from its top to the end of its first table as PNG, in 256 colours."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        raise SystemExit(f"none of {', '.join(NAMES)} is installed")
    with sync_playwright() as driver:
        window = driver.chromium.launch(executable_path=browser)
        tab = window.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=2)
        tab.goto(path.resolve().as_uri())
        tab.add_style_tag(
            content="#theme, nav { display: none !important } body { padding-top: 2rem !important }"
        )
        end = tab.locator("main table").first.bounding_box()
        assert end is not None, "the page has no table"
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": end["y"] + end["height"] + MARGIN}
        shot = tab.screenshot(clip=clip, full_page=True)
        window.close()
    buffer = io.BytesIO()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(256).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Write the picture."""
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results/fsdd-shots")
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "docs/report.png")
    with tempfile.TemporaryDirectory() as folder:
        out.write_bytes(picture(page(results, Path(folder))))


if __name__ == "__main__":
    main()
