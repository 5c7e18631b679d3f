"""Caption metrics: reference values of human captions, closed forms, missing parts."""

import csv
import shutil
import sys

import numpy as np
import pytest

from ajbench.captions import caption_metrics
from ajbench.captions.caption_metrics import METRICS, measure
from ajbench.core.errors import MissingError, UsageError

CAPTIONS = {f"c{n}": f"a dog number {n} barks near the sea" for n in range(12)}


@pytest.fixture(scope="module")
def human(audioset_dir):
    """AudioCaps' test set: caption 1, and captions 2–5."""
    clips = {}
    with (audioset_dir / "audiocaps_test.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            clips.setdefault(f"{row['youtube_id']}_{row['start_time']}", []).append(row["caption"])
    return {clip: texts[0] for clip, texts in clips.items()}, {c: texts[1:] for c, texts in clips.items()}


@pytest.fixture
def no_meteor(monkeypatch):
    """METEOR's program takes tens of seconds."""
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setattr(caption_metrics, "_meteor", lambda *_: "left out")


@pytest.mark.parametrize("line", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_human_captions_score_as_published_code_does(human, golden_dir, line, monkeypatch):
    pytest.importorskip("pycocoevalcap")
    if line:
        monkeypatch.setattr(caption_metrics, "_meteor", lambda *_: "left out")
    with (golden_dir / "caption_metrics_human.csv").open(encoding="utf-8", newline="") as file:
        golden = list(csv.DictReader(file))[line]
    tokenizer = "ptb" if golden["tokenizer"] == "ptb" else "plain"
    if tokenizer == "ptb" and not shutil.which("java"):
        pytest.skip("the PTB tokenizer needs Java")
    captions, references = human
    one = {clip: texts[:1] for clip, texts in references.items()}
    monkeypatch.setattr(caption_metrics, "_similarity", lambda clips, *_: np.linspace(0, 1, len(clips)))
    found = measure(captions, references, tokenizer)
    assert found.n == int(golden["n"]) == 975 and found.vocabulary > 800
    for name in METRICS[1:]:
        if golden[name]:
            assert found.values[name].value == pytest.approx(float(golden[name]), abs=1e-3), name
    for name in ("bleu_1", "bleu_4", "rouge_l", "cider"):
        value, low, high = found.values[name]
        assert low < value < high and high - low < 0.15 * value + 0.02, name
    if line:
        assert measure(captions, one).values["bleu_1"].value < found.values["bleu_1"].value


def test_equal_captions_score_one_and_their_words_are_counted(no_meteor):
    found = measure(CAPTIONS, {clip: [text] for clip, text in CAPTIONS.items()})
    for name in ("similarity", "bleu_1", "bleu_4", "rouge_l"):
        assert found.values[name].value == pytest.approx(1, abs=1e-6), name
    assert found.values["cider"].value == pytest.approx(10)
    assert (found.n, found.vocabulary) == (12, 19)


def test_similarity_is_a_mean_over_references(no_meteor):
    texts = {"a": ["rain falls", "a dog barks"], "b": ["a dog barks"]}
    found = measure({"a": "rain falls", "b": "a dog barks"}, texts).values["similarity"].value
    cosine = caption_metrics.entailment([("rain falls", "a dog barks")])[0]
    assert found == pytest.approx(((1 + cosine) / 2 + 1) / 2)


def test_without_java_meteor_is_absent_with_its_reason(monkeypatch):
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setenv("PATH", "")
    references = {clip: [text] for clip, text in CAPTIONS.items()}
    found = measure(CAPTIONS, references)
    assert "meteor" not in found.values and found.reasons == {"meteor": caption_metrics.NO_JAVA}
    with pytest.raises(MissingError, match="ptb"):
        measure(CAPTIONS, references, "ptb")


def test_a_broken_meteor_is_absent_too(monkeypatch, tmp_path):
    pytest.importorskip("pycocoevalcap")
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nread line\necho no number\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = measure(CAPTIONS, {clip: [text] for clip, text in CAPTIONS.items()})
    assert "meteor" not in found.values and found.reasons["meteor"]


def test_bad_input_is_named(monkeypatch):
    with pytest.raises(UsageError, match="tokenizer"):
        measure({"a": "x"}, {"a": ["x"]}, "bpe")
    with pytest.raises(UsageError, match="references"):
        measure({"a": "x"}, {"b": ["x"]})
    with pytest.raises(UsageError, match="clip a"):
        measure({"a": "x"}, {"a": []})
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(MissingError, match="pycocoevalcap"):
        measure({"a": "x"}, {"a": ["x"]})


def test_bleu_without_a_common_n_gram_has_no_interval(no_meteor):
    captions = {str(k): f"dog {k} barks" for k in range(12)}
    found = measure(captions, {clip: ["a bell rings twice", "dog and bell"] for clip in captions})
    assert found.values["bleu_4"].value < 1e-6 and np.isnan(found.values["bleu_4"].low)
    assert found.values["bleu_1"].low <= found.values["bleu_1"].value
