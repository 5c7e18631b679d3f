"""benchmarks/feed.py in a tiny run: every source gives clips, and the table accounts for their time."""

import csv
import importlib
from pathlib import Path

import pytest

from ajbench.classifiers import selection
from ajbench.data import clip_audio

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.skipif(not hasattr(__import__("os"), "sched_setaffinity"), reason="chooses cores as Linux does")
def test_every_source_is_measured_over_readers_and_cores(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(selection, "CACHE_BYTES", 0)
    monkeypatch.setattr(clip_audio, "readers", clip_audio.readers)  # the script changes both
    out = tmp_path / "feed.csv"
    tiny = ["--clips", "8", "--seconds", "0.42", "--batch", "6", "--rounds", "2", "--readers", "1", "2"]
    importlib.import_module("feed").main(
        [*tiny, "--cores", "1", "--folder", str(tmp_path), "--out", str(out)]
    )
    rows = list(csv.DictReader(out.open()))
    found = [(row["source"], row["readers"]) for row in rows if not row["source"].startswith("part")]
    assert found == [
        *(("flac", "1"), ("flac", "2"), ("taltrans batch, flac", "2")),
        *((name, readers) for name in ("files", "parquet") for readers in "12"),
        *(("pcm", "1"), ("taltrans batch, pcm", "2")),
    ]
    for row in rows:
        assert float(row["clips_per_s"]) > 0 and row["rounds"] == "2"
        each = float(row["cpu_ms"]) * int(row["clips"])
        assert float(row["cpu_ms_of_all"]) == pytest.approx(each, rel=2e-3)
    assert not list(tmp_path.glob("*/*.flac"))
