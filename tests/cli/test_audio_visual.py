import json

import pyarrow.parquet as pq
import pytest
from fakes import FakeLanguageModel, caption_table_of, hum_captions, hum_record, hum_store
from typer.testing import CliRunner

from ajbench import classifiers
from ajbench.captions import backends, score_file
from ajbench.cli.app import app


def run(*line):
    return CliRunner().invoke(app, ["entail", *map(str, line)])


@pytest.fixture
def store(tmp_path):
    return hum_store(tmp_path / "store", [hum_record(i) for i in range(24)])


@pytest.fixture
def captions(store, tmp_path):
    texts = {clip_id: hum_captions(i) for i, clip_id in enumerate(store.clip_ids) if i != 7}
    return caption_table_of(tmp_path / "captions", texts, "visual")


def test_a_dry_run_lists_what_would_be_scored(store, captions, tmp_path):
    line = ["--store", store.path, "--captions", captions, "--comparison", "true"]
    line += ["--scorer", "minilm,bert=nowhere", "--out", tmp_path / "scores.parquet", "--dry-run", "--json"]
    planned = run(*line)
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.stdout) == [
        {"comparison": "true", "scorer": name, "clips": 24} for name in ("minilm", "bert")
    ]
    assert not (tmp_path / "scores.parquet").exists()


def test_clips_of_a_store_are_scored(store, captions, tmp_path):
    module = classifiers.build("taltrans-small", 2).eval()
    about = {"name": "taltrans-small", "labels": store.meta.labels, "clip_samples": store.meta.clip_samples}
    classifiers.save(module, tmp_path / "model", **about, options={}, extra={"loss": "bce"})
    out, line = tmp_path / "x" / "scores.parquet", ["--store", store.path, "--captions", captions]
    line += ["--classifier", tmp_path / "model", "--comparison", "true,predicted", "--device", "cpu"]
    done = run(*line, "--out", out, "--page", tmp_path / "page", "--json")
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert [(one["comparison"], one["scored"]) for one in shown["scores"]] == [
        ("true", 23),
        ("predicted", 23),
    ]
    assert len(shown["correlations"]) == 2 and (tmp_path / "page" / "entailment.html").exists()
    assert "Pearson 0.63 [0.14, 0.87]" in done.stderr
    assert "leaks" in done.stderr and "tables/a8" in done.stderr and "1 of 24 clips" in done.stderr
    table = pq.read_table(out)
    assert table["scaled"].null_count == 2 and table.num_rows == 48
    recorded = json.loads(pq.read_schema(out).metadata[score_file.ABOUT])
    assert recorded["scorers"]["minilm"]["model_hash"] and set(recorded["scalings"]) == {
        "minilm/true",
        "minilm/predicted",
    }
    before = out.read_bytes()
    for options in (["--out", out], ["--out", tmp_path / "other.parquet", "--page", tmp_path / "page"]):
        refused = run(*line, *options)
        assert refused.exit_code == 2 and "--force" in refused.stderr, (
            "neither scores nor page are overwritten"
        )
    assert run(*line, "--out", out, "--force").exit_code == 0 and out.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "code", "named"),
    [
        (["--scorer", "minilmm"], 2, "minilm"),
        (["--scorer", "minilm,minilm"], 2, "--scorer"),
        (["--scorer", "bert=nowhere"], 3, "nowhere"),
        (["--scorer", "minilm=nowhere"], 2, "minilm"),
        (["--comparison", "constant"], 2, "constant"),
        (["--comparison", "predicted"], 2, "--classifier"),
        (["--url", "http://here"], 2, "--url"),
        (["--captions", "nowhere"], 3, "nowhere"),
        (["--store", "nowhere"], 3, "nowhere"),
    ],
)
def test_bad_options_are_refused_in_one_line(store, captions, tmp_path, line, code, named):
    given = {"--store": store.path, "--captions": captions, "--comparison": "true", "--out": tmp_path / "s"}
    given |= dict([line])
    done = run(*(part for pair in given.items() for part in pair))
    assert done.exit_code == code and named in done.stderr, done.output
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "s").exists()


def test_a_recipe_beside_a_store_is_refused(store, tmp_path):
    for more in (["--recipe", "mini"], ["data.n_clips=3"]):
        done = run("--store", store.path, "--out", tmp_path / "s", *more)
        assert done.exit_code == 2 and more[0] in done.stderr and "--store" in done.stderr


def test_answers_of_a_model_outlive_a_server_that_fails(store, captions, tmp_path, monkeypatch):
    answers = iter(["0.5", "0.1"])
    model = FakeLanguageModel(lambda _: next(answers, ""))
    monkeypatch.setattr(backends, "load", lambda *_, **__: model)
    line = ["--store", store.path, "--captions", captions, "--comparison", "true", "--scorer", "llm"]
    line += ["--backend", "openai", "--out", tmp_path / "s.parquet"]
    done = run(*line)
    assert done.exit_code == 3 and "1 unusable answer about 3 pairs" in done.stderr, done.output
    assert not (tmp_path / "s.parquet").exists()
    pairs = len(model.prompts)
    monkeypatch.setattr(backends, "load", lambda *_, **__: FakeLanguageModel(lambda _: "0.3"))
    assert run(*line).exit_code == 0
    raw = pq.read_table(tmp_path / "s.parquet")["raw"].to_pylist()
    assert set(raw) == {0.5, 0.1, 0.3, None} and pairs == 3
    assert [path.name for path in tmp_path.glob("*s.parquet*")] == ["s.parquet"]


def test_a_second_command_with_the_same_file_is_refused(store, captions, tmp_path, monkeypatch):
    line = ["--store", store.path, "--captions", captions, "--comparison", "true", "--scorer", "llm"]
    line += ["--out", tmp_path / "s.parquet"]
    refused = []

    def answer(_):
        if not refused:
            refused.append(None)
            refused[0] = run(*line)
        return "0.3"

    monkeypatch.setattr(backends, "load", lambda *_, **__: FakeLanguageModel(answer))
    assert run(*line).exit_code == 0
    assert refused[0].exit_code == 3 and len(refused[0].stderr.strip().splitlines()) == 1
    assert "s.parquet.lock: held by process" in refused[0].stderr
    assert [path.name for path in tmp_path.glob("*s.parquet*")] == ["s.parquet"]


def test_an_unprepared_recipe_and_a_folder_for_the_file_are_refused(tmp_path):
    done = run("--recipe", "mini", "--work", tmp_path / "work", "--out", tmp_path / "s")
    assert done.exit_code == 3 and "prepare" in done.stderr
    assert run("--recipe", "mini", "--out", tmp_path).exit_code == 2
