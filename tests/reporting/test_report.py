import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import soundfile
from browser import check
from fakes import ESC10_LABELS, esc10_recipe, grid_predictions, write_result_rows
from PIL import Image

from ajbench.core.errors import MissingError
from ajbench.data.store import ClipStore
from ajbench.reporting import report, tables

VOID = {"meta", "img", "br", "link", "input", "hr", "path", "use", "rect"}


class Page(HTMLParser):
    """Checks that all tags are closed, and collects links, ids and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.text, self.ids = [], [], [], []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"
        self.text = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


@pytest.fixture(scope="module")
def made(rendered):
    """The report of `rendered`: (data, folder, page)."""
    data, folder = rendered
    return data, folder, Page((folder / "index.html").read_text(encoding="utf-8"))


def test_the_folder_needs_nothing_else(made):
    _, folder, page = made
    linked = {"clips.html", "listen.html"}
    for one in linked:
        linked = linked | {*Page((folder / one).read_text(encoding="utf-8")).links}
    sounds = json.loads(re.search(r'id="data">(.*?)</script>', (folder / "listen.html").read_text())[1])
    assert {sound["audio"] for sound in sounds["sounds"]} <= linked
    for link in linked | {*page.links}:
        if link.startswith("#"):
            assert link[1:] in page.ids or link.startswith("#m"), link
        else:
            assert (folder / link).is_file(), link
    text = (folder / "index.html").read_text()
    urls = set(re.findall(r"(?:https?:)?//[a-z][^\s\"'<>)]*", text))
    assert urls == {"http://www.w3.org/1999/xlink"}, "a namespace, never fetched"
    assert len(page.ids) == len(set(page.ids))
    files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert files == {link for link in linked | {*page.links} if not link.startswith("#")} | {"index.html"}


def test_the_page_has_the_verdict_and_its_evidence(made):
    data, _, page = made
    assert "Does synthetic audio help? Yes, for both classifiers." in page.text
    rows = report.read_rows(data.rows)
    delta = rows[(rows["metric"] == "map_delta") & (rows["column"] == "+320G")].iloc[0]
    assert f"{100 * delta['value']:+.1f}" in page.text and f"[{100 * delta['ci_low']:+.1f}, " in page.text
    for words in (
        "Table A11, esc10 (measured)", "Table A11 of the paper (published)", "white noise", "1 clip left out",
        "not comparable with the measured rows", "audio/<5>.ogg silent (peak 3.1e-05", "codec tiny",
        "unconditional: no KL <b>here</b>.", "taltrans-small, mx+sp, 10 classes",
        "synth 2 22 min 812 MB cpu", "doses:", "3 seeds", "0.05/4",
    ):  # fmt: skip
        assert words in page.text, words
    assert "mini is rendered" not in page.text


def test_sounds_and_pictures_are_those_of_the_stores(made):
    data, folder, _ = made
    files = sorted((folder / "audio").iterdir())
    # All 30 clips of both sets, and the 40 real clips, each once.
    assert len(files) == len(list((folder / "img").iterdir())) == 100
    real = ClipStore.open(data.real)
    index = real.clip_ids.index("real-dog-0")
    [path] = [path for path in files if "real-dog-0" in path.name]
    wav, rate = soundfile.read(path, dtype="float32")
    assert rate == 16_000
    np.testing.assert_array_equal(wav, real.audio([index])[0])
    assert path.stat().st_size < 60_000
    picture = Image.open(folder / "img" / f"{path.stem}.png")
    assert picture.format == "PNG" and picture.size[1] == 80


def test_each_row_of_examples_starts_with_the_guide(made):
    *_, page = made
    names = [link for link in page.links if link.startswith("audio/")]
    for parent, child in zip(names[::3], names[1::3], strict=True):
        assert parent.split("-real-")[1] == child.split("-synthetic-")[1]


def test_ap_by_class_is_in_a_table(made):
    table = pd.read_csv(made[1] / "per_class.csv")
    assert len(table) == 2 * len(ESC10_LABELS) and set(table["eval_clips"]) == {8}
    assert np.allclose(table["+160G_gain"], table["+160G"] - table["esc10"], atol=0.011)


def test_rendering_again_gives_the_same_folder(made):
    data, folder, _ = made
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "audio" / "stale.flac").write_bytes(b"old")
    report.render(data, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def only(data, path, keep, **changes):
    """The report's data with some of its rows."""
    rows = report.read_rows(data.rows)
    rows[keep(rows["table"])].to_csv(path, index=False)
    return dataclasses.replace(data, rows=path, synthetic={}, runs=(), notes=(), **changes)


def test_a_rendered_corpus_is_marked_and_missing_parts_are_left_out(made, tmp_path):
    data, _, _ = made
    mini = data.recipe.model_copy(update={"data": data.recipe.data.model_copy(update={"corpus": "mini"})})
    bare = only(data, tmp_path / "rows.csv", lambda table: table == "A11", recipe=mini)
    page = Page(report.render(bare, tmp_path / "out").read_text())
    assert "mini is rendered" in page.text
    assert {"clips", "listen"}.isdisjoint(page.ids)


def test_generated_clips_alone_have_tables_and_a_page(made, tmp_path):
    plan = esc10_recipe(published="none")
    bare = only(made[0], tmp_path / "rows.csv", lambda table: table != "A11", recipe=plan, scores={})
    written = tables.write(bare.rows, tmp_path, plan)
    assert written.table["lines"] == [] and "table_1.csv" in written.paths
    page = Page(report.render(bare, tmp_path / "out").read_text())
    assert "clips" in page.ids and "classes" not in page.ids and "white noise" in page.text


def test_without_a_store_there_are_the_verdict_and_the_table(made, tmp_path):
    bare = dataclasses.replace(made[0], real=None, synthetic={}, scores={})
    page = Page(report.render(bare, tmp_path / "out").read_text())
    assert "Yes, for both classifiers." in page.text and "Table A11, esc10 (measured)" in page.text
    assert {"listen", "classes"}.isdisjoint(page.ids) and "left out" not in page.text


def test_the_pages_in_chromium(made, chromium):
    for name in ("index.html", "clips.html", "listen.html"):
        check(chromium, made[1] / name)


@pytest.mark.parametrize(
    ("trained", "answers", "means"),
    [
        (lambda cell: True, "over evaluation clips and seeds.", "over clips and seeds. Right"),
        (lambda cell: cell.seed == 0, "over evaluation clips.",
         "Left: mAP with its 95 % interval over clips. Right"),
        (lambda cell: cell.seed == 0 or cell.column == "esc10", "over evaluation clips.",
         "over clips and, from two seeds on, seeds. Right"),
    ],
)  # fmt: skip
def test_an_interval_is_said_to_cover_seeds_only_where_there_are_several(tmp_path, trained, answers, means):
    plan = esc10_recipe(published="none")
    cells = {cell: scores for cell, scores in grid_predictions(plan).items() if trained(cell)}
    data = report.ReportData(plan, write_result_rows(tmp_path / "rows.csv", plan, cells), None, {}, {})
    page = Page(report.render(data, tmp_path / "out").read_text())
    assert f"with its 95 % interval {answers}" in page.text and means in page.text


def test_missing_rows_are_an_error(made, tmp_path):
    with pytest.raises(MissingError, match=r"none\.csv"):
        report.render(dataclasses.replace(made[0], rows=tmp_path / "none.csv"), tmp_path)
