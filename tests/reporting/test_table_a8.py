import csv
import io

import pandas as pd
import pytest

from ajbench.core.recipe import load
from ajbench.core.rows import ROW_COLUMNS, Context, make_row
from ajbench.reporting import table_a8

NOTES = ["clips with video: train 90 of 96 clips (2 missing, 4 undecodable), eval 24 of 24 clips"]


@pytest.fixture
def rows():
    context = Context("run", "mini", "f", "", "mini fold 5")
    made = []
    for line, value in (("naive", 0.5), ("minilm/predicted", 0.6), ("minilm/true", 0.7)):
        for column in ("A", "V", "A+V"):
            for seed in (0, 1):
                made.append(make_row(context, "A8", line, column, "map", value + seed / 50, n=24, seed=seed))
            ends = (value - 0.1, value + 0.1)
            made.append(make_row(context, "A8", line, column, "map_mean", value, ends, n=24, seed="0;1"))
            if line != "naive":
                delta = value - 0.5
                row = make_row(context, "A8", line, column, "map_delta", delta, (0.0, 0.2), n=24, seed="0;1")
                made.append(row)
    made.append(make_row(context, "A8", "naive", "A+V", "mu_mean", 0.05, (0.0, 0.1), n=24, seed="0;1"))
    made.append(
        make_row(context, "A8", "minilm/true", "A+V", "map_leak", 0.1, (0.05, 0.15), n=24, seed="0;1")
    )
    row = make_row(context, "A8", "minilm/true", "caption+score", "map", 0.9, (0.8, 1), n=24, seed=0)
    made.append(row)
    made.append(make_row(context, "A11", "naive", "A", "map", 0.1, n=24, seed=0))
    return pd.DataFrame(made, columns=list(ROW_COLUMNS))


def written(rows, **evaluate):
    overrides = [f"evaluate.{key}={value}" for key, value in evaluate.items()]
    return table_a8.write(rows, load("mini", overrides), NOTES)


def test_lines_have_values_in_percent_and_differences_in_points(rows):
    lines, files = written(rows)
    by_key = {(line["model"], line["modality"]): line for line in lines}
    line = by_key["minilm, true labels (label leak)", "A+V"]
    values = [line[name] for name in ("map", "map_low", "map_delta", "map_leak")]
    assert values == pytest.approx([70.0, 60.0, 20.0, 10.0])
    assert line["map_std"] == pytest.approx(1.41, abs=0.01)
    assert table_a8.LEAK in line["note"]
    assert table_a8.LEAK not in by_key["minilm, predicted labels", "A+V"]["note"]
    assert by_key["Naive fusion", "A+V"]["mu"] == 5.0
    assert by_key["minilm, true labels (label leak)", "caption+score"]["map"] == 90.0
    assert {*files} == {"table_a8.csv", "table_a8.md", "table_a8.tex"}
    assert "(2 missing, 4 undecodable)" in files["table_a8.md"]
    assert "minilm, true labels (label leak): +10.0 [+5.0, +15.0] points of mAP" in files["table_a8.md"]


def test_of_one_seed_the_interval_is_over_clips(rows):
    for seeds, said in ((("0", "1", "0;1"), "interval, also over seeds"), (("0",), "interval, over clips")):
        mine = rows[rows["seed"].astype(str).isin(seeds)]
        alone = mine.assign(seed="0") if len(seeds) == 1 else mine
        text = written(alone)[1]["table_a8.md"]
        assert said in text and ("In percent, of 1 seed;" in text) == (len(seeds) == 1)


def test_published_rows_stand_beside_with_notes_on_suspect_cells(rows):
    _, files = written(rows)
    published = [
        line for line in csv.DictReader(io.StringIO(files["table_a8.csv"])) if line["source"] == "published"
    ]
    assert len(published) == 38
    noted = {(line["model"], line["dataset"], line["modality"]) for line in published if ";" in line["note"]}
    assert ("Naive Fusion", "AS-20k", "A") in noted
    assert ("T5 score Fusion", "AS-2M", "A+V") in noted
    assert ("MBT (Nagrani et al., 2021)", "AS-2M", "V") in noted
    assert ("CAV-MAE (Gong et al., 2022)", "AS-2M", "V") not in noted
    assert ("Naive Fusion", "AS-2M", "V") not in noted
    _, files = written(rows, published="none")
    assert "published" not in files["table_a8.csv"]
