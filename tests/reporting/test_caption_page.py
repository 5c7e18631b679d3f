import csv

from browser import check
from fakes import caption_table_of

from ajbench.captions import checks
from ajbench.reporting import caption_page


def test_the_page_shows_the_worst_captions_and_escapes_them(tmp_path):
    texts = {
        "a": "A frog by a stream",
        "<b>": "a siren <script>alert(1)</script>",
        "c": "near a coughing person",
    }
    folder = caption_table_of(tmp_path / "t", texts)
    page, table = caption_page.write(folder, checks.check(folder), tmp_path / "out")
    text = page.read_text()
    assert "A frog by a stream" in text and "Stream" in text and "near a coughing person" in text
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    rows = list(csv.DictReader(table.open()))
    assert {(row["check"], row["clip_id"]) for row in rows} >= {("invented", "a"), ("echo", "c")}


def test_captions_without_a_finding_have_a_page_too(tmp_path):
    folder = caption_table_of(tmp_path / "t", {"a": "quiet"})
    page, table = caption_page.write(folder, checks.check(folder), tmp_path)
    assert "quiet" in page.read_text() and table.exists()


def test_the_page_in_chromium(tmp_path, chromium):
    folder = caption_table_of(tmp_path / "t", {"a": "A frog by a stream", "c": "near a coughing person"})
    check(chromium, caption_page.write(folder, checks.check(folder), tmp_path)[0])
