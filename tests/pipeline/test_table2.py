"""Table 2 of a small run: sizes and times are those of its stages."""

import csv

import pytest
from fakes import mini_pipeline

from ajbench.pipeline import table2
from ajbench.reporting.table_2 import size

SMALL = [
    "data.n_clips=24", "data.duration_s=1.68", "generator.train_steps=2", "generator.warmup_steps=1",
    "generator.batch_size=4", "invert.train_steps=0", "synth.prompt=names", "synth.n=6",
    "synth.sampler_steps=2",
]  # fmt: skip


def test_waves_and_codes_of_a_recipe(tmp_path):
    pipeline = mini_pipeline(
        *SMALL, base="mini", expression="tables/t2", work=tmp_path / "work", results=tmp_path
    )
    done = table2.run(pipeline, "cpu")
    waves, flac, codes = done["lines"]
    n = 24
    assert waves["disk_bytes"] == n * 26_880 * 2 > flac["disk_bytes"] > codes["disk_bytes"] == n * 8 * 84 * 2
    assert (waves["z_shape"], codes["z_shape"]) == ("1x26880", "8x84")
    assert (codes["batch_size"], codes["train_steps"]) == (4, 2)
    seconds = pipeline.synth().folder.info()["seconds"]
    assert codes["inference_time_s"] == pytest.approx(seconds / 6)
    with done["files"][0].open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["source"] for line in lines].count("published") == 6
    assert {line["pipeline"]: line["disk"] for line in lines}["Encodec"] == "63 GB"
    assert not table2.run(pipeline, "cpu")["ran"]


@pytest.mark.parametrize(
    ("n", "text"), [(None, ""), (12, "12 B"), (63_000_000_000, "63 GB"), (1.41e12, "1.41 TB")]
)
def test_sizes_in_words(n, text):
    assert size(n) == text
