"""benchmarks/draw_report.py: README's picture of a report is that of the committed results."""

import importlib
import sys

import numpy as np
import pytest
from conftest import REPOSITORY
from fakes import run_script
from PIL import Image

SCRIPT = REPOSITORY / "benchmarks" / "draw_report.py"
RESULTS = REPOSITORY / "results" / "fsdd-shots"


def test_the_report_of_committed_results_needs_nothing_else(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    page = importlib.import_module("draw_report").page(RESULTS, tmp_path)
    text = page.read_text(encoding="utf-8")
    # The verdict is the first line of Table A11's paired differences.
    assert (
        "Yes: +9.3 points of mAP" in text and "+9.3 [+4.6, +13.9]" in (RESULTS / "table_a11.md").read_text()
    )
    assert "<audio" not in text


@pytest.mark.slow
@pytest.mark.usefixtures("chromium")
def test_the_picture_shows_what_the_committed_one_shows(tmp_path):
    run_script([sys.executable, SCRIPT, RESULTS, tmp_path / "found.png"])
    found, kept = (
        np.asarray(Image.open(path).convert("L"), float)
        for path in (tmp_path / "found.png", REPOSITORY / "docs" / "report.png")
    )
    assert found.shape[1] == kept.shape[1] == 2160
    assert abs(found.shape[0] - kept.shape[0]) < 100  # other fonts, other breaks of lines
    height = min(len(found), len(kept)) // 40 * 40
    blocks = [image[:height].reshape(-1, 40, 54, 40).mean(axis=(1, 3)).ravel() for image in (found, kept)]
    assert np.corrcoef(blocks)[0, 1] > 0.8
