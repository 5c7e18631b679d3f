import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from fakes import ESC10_CONTEXT, ESC10_LABELS, esc10_recipe, write_result_store
from PIL import Image
from sklearn.metrics import average_precision_score

from ajbench.core.errors import MissingError
from ajbench.core.rows import make_row
from ajbench.data import shards
from ajbench.data.manifest import Problem
from ajbench.data.store import ClipStore
from ajbench.evaluation import classification
from ajbench.reporting import figures, report, tables
from ajbench.reporting.report import ReportData
from ajbench.reporting.verdict import Answer, answers, headline, limits

VOID = {"meta", "img", "br", "link", "input", "hr", "path", "use", "rect"}


class Page(HTMLParser):
    """Checks that tags close, and collects links and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.text, self.ids = [], [], [], []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"
        self.text = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


@pytest.fixture(scope="session")
def made(grid_results, tmp_path_factory):
    """A rendered report with everything in it: (data, folder, page)."""
    torch.set_num_threads(1)
    folder, (plan, cells, rows) = tmp_path_factory.mktemp("report"), grid_results
    scores = {
        cell: classification.save_scores(folder / f"{i}.npz", s.scores, s.targets, s.clip_ids, s.labels)
        for i, (cell, s) in enumerate(cells.items())
    }
    real = write_result_store(folder / "real", per_class=4)
    problem = Problem("5-9", "audio/<5>.ogg", None, "silent (peak 3.1e-05; at least 1e-04)")
    shards.write_quarantine(real, [problem])
    sets = {
        "img2img": write_result_store(folder / "img2img", "synthetic", blur=0.3, parents=True),
        "noise": write_result_store(folder / "noise", "synthetic", blur=0.9),
    }
    run = {"stage": "synth", "seconds": 660.0, "peak_memory_mb": 812.5, "device": "cpu", "git": "c0ffee"}
    run |= {"python": "3.11.7", "platform": "Linux", "threads": 2, "versions": {"torch": "2.11.0"}}
    data = ReportData(
        recipe=plan,
        rows=rows,
        real=real,
        synthetic=sets,
        scores=scores,
        runs=[run, run],
        notes=["unconditional: no KL <b>here</b>"],
    )
    (folder / "out").mkdir()
    (folder / "out" / "audit.html").touch()  # of `ajbench audit`, which the page links to
    path = report.render(data, folder / "out")
    return data, path.parent, Page(path.read_text(encoding="utf-8"))


def test_the_page_stands_alone(made):
    _, folder, page = made
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids or link.startswith("#m"), link
        else:
            assert (folder / link).is_file(), link
    text = (folder / "index.html").read_text()
    urls = set(re.findall(r"(?:https?:)?//[a-z][^\s\"'<>)]*", text))
    assert urls == {"http://www.w3.org/1999/xlink"}, "a namespace, never fetched"
    assert len(page.ids) == len(set(page.ids))
    files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert files == {link for link in page.links if not link.startswith("#")} | {"index.html"}


def test_the_answer_and_its_evidence_are_on_it(made):
    data, _, page = made
    assert "Does synthetic audio help? Yes, both classifiers." in page.text
    rows = report.read_rows(data.rows)
    delta = rows[(rows["metric"] == "map_delta") & (rows["column"] == "+320G")].iloc[0]
    assert f"{100 * delta['value']:+.1f}" in page.text and f"[{100 * delta['ci_low']:+.1f}, " in page.text
    for words in (
        "Table A11, esc10 (measured)",
        "Table A11 of the paper (published)",
        "not comparable with the measured rows",
        "white noise",
        "1 left out, none replaced",
        "audio/<5>.ogg silent (peak 3.1e-05",
        "unconditional: no KL <b>here</b>.",
        "taltrans-small, mx+sp: 10 of 10 classes gain with +320G",
        "synth 2 22 min 812 MB cpu",
        "doses:",
        "3 seeds a mix. Resampling so few shows 2/3 of the variance",
        "The best of 2 mixes",
        "codec tiny",
    ):
        assert words in page.text, words
    assert "rendered by ajbench itself" not in page.text


def test_sounds_and_pictures_are_those_of_the_stores(made):
    data, folder, _ = made
    heard = sorted((folder / "audio").iterdir())
    assert len(heard) == len(list((folder / "img").iterdir())) == 3 * len(ESC10_LABELS)
    real = ClipStore.open(data.real)
    index = real.clip_ids.index("real-dog-0")
    [path] = [path for path in heard if "real-dog-0" in path.name]
    wav, rate = soundfile.read(path, dtype="float32")
    assert rate == 16_000
    np.testing.assert_array_equal(wav, real.audio([index])[0])
    assert path.stat().st_size < 60_000
    picture = Image.open(folder / "img" / f"{path.stem}.png")
    assert picture.format == "PNG" and picture.size[1] == 80


def test_each_row_begins_with_the_parent(made):
    *_, page = made
    names = [link for link in page.links if link.startswith("audio/")]
    for parent, child in zip(names[::3], names[1::3], strict=True):
        assert parent.split("-real-")[1] == child.split("-synthetic-")[1]


def test_ap_by_class_is_the_mean_over_seeds(made):
    data, folder, _ = made
    table = pd.read_csv(folder / "per_class.csv")
    assert len(table) == 2 * len(ESC10_LABELS) and set(table["eval_clips"]) == {8}
    line = table[(table["model"] == "ast-tiny") & (table["class"] == "rain")].iloc[0]
    loaded = [
        classification.load_scores(path)
        for cell, path in data.scores.items()
        if (cell.model, cell.column) == ("ast-tiny", "+160G")
    ]
    values = [average_precision_score(s.targets[:, 6], s.scores[:, 6]) for s in loaded]
    assert ESC10_LABELS[6] == "rain" and line["+160G"] == pytest.approx(100 * np.mean(values), abs=0.006)


def test_rendering_again_gives_the_same_folder(made):
    data, folder, _ = made
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "audio" / "stale.flac").write_bytes(b"old")
    report.render(data, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_rendered_corpus_and_a_run_without_generation_are_said(made, tmp_path):
    data, _, _ = made
    mini = data.recipe.model_copy(update={"data": data.recipe.data.model_copy(update={"corpus": "mini"})})
    rows = report.read_rows(data.rows)
    path = tmp_path / "rows.csv"
    rows[rows["table"] == "A11"].to_csv(path, index=False)
    bare = ReportData(recipe=mini, rows=path, real=data.real, synthetic={}, scores=data.scores)
    page = Page(report.render(bare, tmp_path / "out").read_text())
    assert "Note: corpus mini is rendered by ajbench itself" in page.text
    assert "about recorded sound they say nothing" in page.text
    assert "Against yardsticks" not in page.text and "Click a spectrogram" not in page.text


def test_generated_clips_alone_make_tables_and_a_page(made, tmp_path):
    data, _, _ = made
    rows = report.read_rows(data.rows)
    path = tmp_path / "rows.csv"
    rows[rows["table"] != "A11"].to_csv(path, index=False)
    plan = esc10_recipe(published="none")
    written = tables.write(path, tmp_path, plan)
    assert written.lines == [] and written.answers == [] and "table_1.csv" in written.paths
    page = Page(report.render(ReportData(plan, path, data.real, {}, {}), tmp_path / "out").read_text())
    assert "No classifier has been measured yet." in page.text and "Against yardsticks" in page.text


def test_missing_inputs_are_named(made, tmp_path):
    data, _, _ = made
    with pytest.raises(MissingError, match="no measurements yet"):
        report.render(ReportData(data.recipe, tmp_path / "none.csv", data.real, {}, {}), tmp_path)


def comparison(line, column, low, value, high, family=None):
    made = {"map_delta": (low, high), "map_delta_family": family or (low, high)}
    return [
        make_row(
            ESC10_CONTEXT, "A11", f"{line}/-/mx+sp", column, metric, value / 100, ends, n=80, seed="0;1;2"
        )
        | {"ci_low": ends[0] / 100, "ci_high": ends[1] / 100}
        for metric, ends in made.items()
    ]


@pytest.mark.parametrize(
    ("rows", "sentence", "words"),
    [
        (
            comparison("a", "+320G", -0.4, 1.84, 4.1),
            "a, mx+sp, +320G: +1.8 mAP [−0.4, +4.1], 3 seeds, not distinguishable from zero",
            "Not measurably.",
        ),
        (
            comparison("a", "+320G", 0.4, 1.8, 4.1),
            "a, mx+sp, +320G: +1.8 mAP [+0.4, +4.1], 3 seeds, helps",
            "Yes.",
        ),
        (
            comparison("a", "+320G", -4.0, -1.8, -0.1),
            "a, mx+sp, +320G: −1.8 mAP [−4.0, −0.1], 3 seeds, hurts",
            "No, it hurts.",
        ),
        (
            comparison("a", "+160G", 0.1, 1.0, 2.0, family=(-0.1, 2.2)) + comparison("a", "+320G", -2, 0, 2),
            "a, mx+sp, +160G: +1.0 mAP [+0.1, +2.0], 3 seeds, clear of zero alone, but not once the "
            "choice among 2 mixes is allowed for",
            "Not measurably.",
        ),
        (
            # The larger gain is uncertain; the smaller one is there.
            comparison("a", "+160G", 0.5, 1.0, 1.5) + comparison("a", "+320G", -3, 2, 7),
            "a, mx+sp, +160G: +1.0 mAP [+0.5, +1.5], 3 seeds, helps",
            "Yes.",
        ),
        (
            comparison("a", "+320G", 1, 2, 3) + comparison("b", "+320G", -3, -2, -1),
            "a, mx+sp, +320G: +2.0 mAP [+1.0, +3.0], 3 seeds, helps",
            "1 of 2 classifiers; it hurts 1.",
        ),
    ],
)
def test_answers_say_what_the_intervals_allow(rows, sentence, words):
    found = answers(pd.DataFrame(rows), "esc10")
    assert str(found[0]) == sentence
    assert headline(found) == words


def test_synthetic_only_is_no_answer_and_nothing_is_not_measured():
    rows = pd.DataFrame(comparison("a", "esc10G", -9, -8, -7))
    assert answers(rows, "esc10") == []
    assert "Not measured yet" in headline([])


def test_one_seed_is_a_limit():
    plan = esc10_recipe()
    rows = pd.DataFrame(comparison("a", "+320G", 1, 2, 3))
    found = [Answer("a/-/none", "+320G", 2.0, 1.0, 3.0, 1, 1, 1)]
    said = " ".join(limits(rows, plan, found))
    assert "nothing is known of other seeds" in said and "The best of" not in said
    assert found[0].name == "a, no augmentation" and "1 seed," in str(found[0])


def test_spectrogram_shows_high_notes_above_low_ones():
    t = np.arange(16_000) / 16_000
    rows = []
    for hertz in (200, 4000):
        wave = np.sin(2 * np.pi * hertz * t).astype(np.float32)
        picture = np.asarray(Image.open(io.BytesIO(figures.spectrogram(wave))))
        rows.append(int(picture.mean(axis=1).argmax()))
    assert rows[1] < 30 < 60 < rows[0]
    figures.spectrogram(np.zeros(16_000, np.float32))


def test_figures_take_the_pages_colours_and_hold_their_text():
    svg = figures.bars(["dog <&>", "rain"], [50.0, 60.0], [55.0, 58.0], ("real", "+160G"))
    assert "dog &lt;&amp;&gt;" in svg and "+5.0" in svg and "−2.0" in svg
    assert not set(re.findall(r"#[0-9a-f]{6}", svg)), "no colour is fixed"
    assert svg == figures.bars(["dog <&>", "rain"], [50.0, 60.0], [55.0, 58.0], ("real", "+160G"))
