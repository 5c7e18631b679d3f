"""What a single evaluation adds to the rows that tables are made of."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fakes import ESC10_CONTEXT, flip_in, mini_pipeline, reseal

from ajbench.core.errors import IntegrityError
from ajbench.core.recipe import dump, load
from ajbench.core.rows import append_rows, make_row, read_rows
from ajbench.core.sealed_json import write_sealed
from ajbench.pipeline import preflight, results_folder
from ajbench.reporting import current_rows


def evaluation(folder, fingerprint, column, table="A11", features=""):
    """A finished evaluation with one row."""
    path = folder / f"stage-{fingerprint}"
    context, about = replace(ESC10_CONTEXT, fingerprint=fingerprint), {"n": 80, "features": features}
    append_rows(path / "rows.csv", [make_row(context, table, "m/-/none", column, "map", 0.5, **about)])
    name = "eval-cls" if table == "A11" else "eval-gen"
    return SimpleNamespace(name=name, path=path, fingerprint=fingerprint)


def test_an_evaluation_by_other_keys_replaces_that_of_the_run(tmp_path):
    results = SimpleNamespace(results=tmp_path / "results")
    state = {"fingerprints": ["prepared"], "stages": [], "fingerprint": "of the run"}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "run.json").write_text(json.dumps(state))
    for fingerprint, table, features, counted in (
        ("few", "A11", "", {"prepared", "few"}),
        ("clips", "1", "tiny", {"prepared", "few", "clips"}),
        ("all", "A11", "", {"prepared", "all", "clips"}),
        ("heard", "generation", "mn04", {"prepared", "all", "clips", "heard"}),
        ("others", "1", "tiny", {"prepared", "all", "heard", "others"}),
    ):
        results_folder.add_rows(results, evaluation(tmp_path, fingerprint, "esc10", table, features))
        assert set(results_folder.counted_fingerprints(results.results)) == counted
    alone = evaluation(tmp_path, "a cell", "+160G")
    alone.fingerprint = "of the evaluation"  # which has no comparison without real clips alone
    results_folder.add_rows(results, alone)
    assert {"a cell", "of the evaluation"} <= set(results_folder.counted_fingerprints(results.results))
    found = json.loads((tmp_path / "results" / "run.json").read_text())
    assert found["fingerprint"] == "", "so that the next run writes its own tables again"
    reseal(tmp_path / "results" / "run.json", fingerprint="of the run")
    results_folder.add_rows(results, evaluation(tmp_path, "others", "esc10", "1", "tiny"))
    assert json.loads((tmp_path / "results" / "run.json").read_text())["fingerprint"] == "of the run"


@pytest.mark.parametrize(("table", "stage"), [("A11", "eval-cls"), ("1", "eval-gen")])
def test_without_a_run_json_the_last_evaluation_counts_even_if_it_is_an_earlier_one_again(
    tmp_path, table, stage
):
    results = SimpleNamespace(results=tmp_path / "results")
    metric, made = "map" if table == "A11" else "fd", {}
    for name, value in (("a", 0.25), ("b", 0.5)):
        context = replace(ESC10_CONTEXT, fingerprint=name, run=f"{stage}-{name}", codec=f"tiny@{name}")
        path = tmp_path / name
        rows = [make_row(context, table, "m/-/none", c, metric, value, n=80, seed=0) for c in ("x", "y")]
        append_rows(path / "rows.csv", rows)
        made[name] = SimpleNamespace(name=stage, path=path, fingerprint=name)
    path = results.results / "rows.csv"
    for name, value in (("a", 0.25), ("b", 0.5), ("a", 0.25), ("a", 0.25), ("b", 0.5)):
        results_folder.add_rows(results, made[name])
        counted = current_rows.select(read_rows(path), load("esc10"))
        assert set(counted["fingerprint"]) == {name} and set(counted["value"]) == {value}
        assert len(counted) == 2
    assert len(read_rows(path)) == 8 and not (results.results / "run.json").exists()
    (results.results / "run.json").write_text(json.dumps({"fingerprints": ["b"]}))
    results_folder.add_rows(results, made["a"])
    assert len(read_rows(path)) == 8, "the run.json tells which rows count"


def test_a_damaged_run_json_is_not_taken_for_a_missing_one(tmp_path):
    write_sealed(tmp_path / "run.json", {"fingerprints": ["a1"]})
    assert results_folder.counted_fingerprints(tmp_path) == ["a1"]
    flip_in(tmp_path / "run.json", '"a1')
    for text in ((tmp_path / "run.json").read_text(), "{", "[]", "{}"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(IntegrityError, match=r"run\.json: damaged"):
            results_folder.counted_fingerprints(tmp_path)


def test_notes_are_read_as_they_were_written_or_refused(tmp_path):
    stage, path = SimpleNamespace(path=tmp_path), tmp_path / "notes.json"
    assert results_folder.notes_of(stage) == []
    path.write_text('["of an older version"]')
    assert results_folder.notes_of(stage) == ["of an older version"]
    write_sealed(path, {"notes": ["n = 12"]})
    assert results_folder.notes_of(stage) == ["n = 12"]
    flip_in(path, "n = 12")
    for text in (path.read_text(), "{", "{}", "3", "[" * 9000):
        path.write_text(text)
        with pytest.raises(IntegrityError, match=r"notes\.json: damaged"):
            results_folder.notes_of(stage)


def test_tables_have_the_keys_of_the_last_run(tmp_path):
    out = tmp_path / "esc10"
    rows = [
        make_row(ESC10_CONTEXT, "A11", "m/-/none", "esc10", "map_mean", 0.5, n=80, seed="0;1"),
        make_row(ESC10_CONTEXT, "A11", "m/-/none", "esc10", "map", 0.5, n=80, seed=0),
    ]
    append_rows(out / "rows.csv", rows)
    drawn = lambda *changes: any(  # noqa: E731
        "other real clips" in note
        for note in results_folder.write_tables(load("esc10"), out, changes)["table"]["notes"]
    )
    assert not drawn()
    (out / "recipe.yaml").write_text(dump(load("esc10", ("mix.real=shots=4", "evaluate.redraw=true"))))
    assert not drawn(), "without a run.json the folder is not of one run"
    (out / "run.json").write_text(json.dumps({"fingerprints": [ESC10_CONTEXT.fingerprint]}))
    assert drawn() and not drawn("evaluate.redraw=false")


@pytest.fixture
def rewritten(tmp_path, monkeypatch):
    """Writes the results of a run again, whose earlier run.json is given; returns the names of all files."""
    parts = {"_counts": {}, "_scores": {}, "_shortcomings": [], "_evaluations_of_clips": set()}
    for name, found in parts.items():
        monkeypatch.setattr(results_folder, name, lambda pipeline, found=found: found)
    out = tmp_path / "esc10"
    rows = [make_row(ESC10_CONTEXT, "A11", "m/-/none", "esc10", "map", 0.5, n=80, seed=k) for k in (0, 1)]
    append_rows(out / "rows.csv", rows)
    stage = SimpleNamespace(
        name="train-cls", what="", fingerprint=ESC10_CONTEXT.fingerprint, folder=SimpleNamespace(info=dict)
    )

    def write(before):
        recipe = load("esc10", ("table=a11", "evaluate.published=none"))
        pipeline = SimpleNamespace(results=out, recipe=recipe)
        state = results_folder._write(pipeline, [stage], [], before, "key")
        return state["files"], {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}

    return out, write


def test_a_run_removes_what_an_earlier_one_wrote_and_it_does_not(rewritten):
    out, write = rewritten
    (out / "report").mkdir()
    former = [
        "gain_by_real.csv", "generation.csv", "table_tail.csv", "table_tail.md", "table_1.tex", "tune.csv",
        "report/index.html", "of_an_older_version.csv",
    ]  # fmt: skip
    mine = ["notes.txt", "earlier.csv", "sweep_guidance.csv", "report/clips.html", "audit.csv"]
    for name in (*former, *mine):
        (out / name).touch()
    files, found = write({"files": ["table_a11.csv", "report/index.html", "of_an_older_version.csv"]})
    assert found == {*files, *mine, "rows.csv", "run.json", "recipe.yaml"}
    (out / "tune.csv").touch()
    assert write({})[1] == found, "even if no run.json lists it"


def test_a_run_removes_nothing_that_is_not_its_own(rewritten, tmp_path):
    out, write = rewritten
    (tmp_path / "outside.csv").touch()
    (out / "link.csv").symlink_to(tmp_path / "outside.csv")
    (out / "t2").mkdir()
    kept = ["rows.csv", "earlier.csv", "recipe.yaml", "origin.json", "run.json", "sweep_guidance.csv"]
    for name in kept[1:]:
        (out / name).touch()
    listed = [*kept, "t2", "t2/../rows.csv", "../outside.csv", str(tmp_path / "outside.csv"), "link.csv"]
    files, found = write({"files": [*listed, "./table_a11.csv", "never written.csv"]})
    assert found == {*files, *kept, "link.csv"} and (out / "t2").is_dir()
    assert (tmp_path / "outside.csv").exists()


def test_a_report_of_other_keys_lets_the_next_run_write_both(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results_folder, "render_report", lambda pipeline, stages: tmp_path / "index.html")
    results, stages = SimpleNamespace(results=tmp_path), [SimpleNamespace(fingerprint="a")]
    assert results_folder.write_report(results, stages) == tmp_path / "index.html"
    for counted, kept in ((["a", "b"], "key"), (["b"], "")):
        (tmp_path / "run.json").write_text(json.dumps({"fingerprints": counted, "fingerprint": "key"}))
        results_folder.write_report(results, stages)
        assert json.loads((tmp_path / "run.json").read_text())["fingerprint"] == kept
    assert "of other keys" in capsys.readouterr().err


def test_what_splits_lack_is_about_the_clips_of_the_store(tmp_path, monkeypatch):
    made = mini_pipeline(work=tmp_path)
    before = {*results_folder._shortcomings(made)}
    first = made.manifest.split("eval")[0].labels[0]
    left = [row for row in made.manifest.rows if row.split == "eval" or first not in row.labels]
    monkeypatch.setattr(preflight, "usable", lambda manifest, prepared: replace(manifest, rows=left))
    told = {*results_folder._shortcomings(made)} - before
    assert f"class {first} has 1 clip" in " ".join(told)


def test_evaluations_of_clips_are_those_of_a_whole_run(tmp_path):
    def found(*changes):
        return results_folder._evaluations_of_clips(mini_pipeline(*changes, work=tmp_path))

    whole = found()
    assert len(whole) == 1 and found("table=a11") == whole
    assert found("table=a11", "synth.guidance=7") != whole
    assert len(found("table=a11", "evaluate.folds=[1,2]")) == 2
