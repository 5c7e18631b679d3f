import csv

import numpy as np
import pytest
from browser import check

from ajbench.captions import published_pairs
from ajbench.captions.aggregation import Scaling
from ajbench.captions.entailment import load
from ajbench.captions.score_file import ScoredClips
from ajbench.reporting import entailment_page


def scored(name, raw, comparison="predicted", spread=None):
    ids = [f"c{i}" for i in range(len(raw))]
    return ScoredClips(ids, name, comparison, raw, raw, Scaling(0.0, 1.0), spread)


@pytest.fixture
def parts(rng):
    x = rng.uniform(size=50)
    y = np.where(np.arange(50) == 4, np.nan, x + rng.normal(0, 0.3, 50))
    return [scored("minilm", x), scored("llm", y, spread=np.full(50, 0.07))]


def test_the_page_has_distributions_agreement_and_the_published_pairs(parts, tmp_path):
    found = entailment_page.agreements(parts, parts[0].clip_ids)
    checks = [published_pairs.check(load("minilm"))]
    page, table = entailment_page.write(tmp_path / "out", "<store>", parts, found, checks)
    text = page.read_text()
    assert "<svg" in text and "&lt;store&gt;" in text and "0.07" in text and "49 clips" in text
    assert "a man eating a cupcake at a table" in text and "0.63" in text
    assert "alpaca (published)" in text and "tell labels" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    rows = list(csv.DictReader(table.open()))
    assert [(row["scores"], row["with"]) for row in rows] == [
        ("minilm/predicted", "llm/predicted"),
        ("minilm", "alpaca (published pairs)"),
    ]
    assert float(rows[0]["pearson_low"]) < float(rows[0]["pearson"]) == found[0, 1].pearson.value
    assert rows[0]["n"] == "49" and rows[1]["n"] == "13"


def test_a_page_of_scores_by_true_labels_says_that_they_leak(parts, tmp_path):
    one = parts[0]
    true = scored("minilm", one.raw, "true")
    page, _ = entailment_page.write(tmp_path, "s", [true], {}, [])
    assert "tell labels" in page.read_text() and "Correlations" not in page.read_text()
    (line,) = entailment_page.summaries([true])
    assert line["scored"] == 50 and line["median"] == np.median(one.raw) and line["spread"] is None


def test_the_page_in_chromium(parts, tmp_path, chromium):
    found = entailment_page.agreements(parts, parts[0].clip_ids)
    checks = [published_pairs.check(load("minilm"))]
    check(chromium, entailment_page.write(tmp_path, "store", parts, found, checks)[0])
