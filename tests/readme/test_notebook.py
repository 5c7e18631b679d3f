"""The notebook of the docs: it executes, and its outputs are those that are committed."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
NUMBER = re.compile(r"-?\d+\.?\d*")


def outputs(notebook):
    """Return the text of every output."""
    cells = json.loads(json.dumps(notebook))["cells"]
    data = [output["data"]["text/plain"] for cell in cells for output in cell.get("outputs", [])]
    return ["".join(text) for text in data]


def test_the_notebook_executes_to_the_outputs_that_it_shows(monkeypatch):
    pytest.importorskip("nbclient", reason="the notebook: pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="the notebook: pip install nbclient ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(DOCS.parent), os.environ.get("PYTHONPATH", "")]))
    spec = importlib.util.spec_from_file_location("execute_notebook", DOCS / "execute_notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    committed = outputs(json.loads(module.NOTEBOOK.read_text(encoding="utf-8")))
    found = outputs(module.executed(module.NOTEBOOK))
    assert len(found) == len(committed) >= 4
    for one, other in zip(found, committed, strict=True):
        assert NUMBER.sub("#", one).split() == NUMBER.sub("#", other).split()
        values, expected = ([float(x) for x in NUMBER.findall(text)] for text in (one, other))
        assert values == pytest.approx(expected, rel=0.03, abs=0.02)
    assert found[0].startswith("noisy against real") and "exact" in found[-1]
