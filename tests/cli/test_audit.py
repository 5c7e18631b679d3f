import csv
import json

import numpy as np
import pytest
from browser import check
from fakes import add_noise, flagged_audit, make_store, write_clip
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.data import clip_set
from ajbench.evaluation import audit
from ajbench.pipeline import stage
from ajbench.reporting import audit_page


def run(*line):
    return CliRunner().invoke(app, ["audit", *map(str, line)])


def named(root, synth, *more):
    return run("--synth", root / synth, "--train", root / "train", "--eval", root / "eval", *more)


def refused(*line):
    done = run(*line)
    assert done.exit_code == 2 and len(done.stderr.strip().splitlines()) == 1, done.output
    return done.stderr


def test_the_page_in_chromium(audit_folders, tmp_path, chromium):
    done = named(audit_folders, "planted", "-q", "--report", tmp_path / "a.html", "--work", tmp_path / "w")
    assert done.exit_code == 0, done.output
    check(chromium, tmp_path / "a.html")


def test_pairs_and_page_are_written_and_strict_exits_with_4(audit_folders, tmp_path):
    files = ["--out", tmp_path / "a.csv", "--report", tmp_path / "a.html", "--work", tmp_path / "w"]
    done = named(audit_folders, "planted", "--json", "--strict", *files)
    assert done.exit_code == 4, done.output
    shown = json.loads(done.stdout)
    assert shown["counts"]["leaked"] >= 9 and shown["counts"]["synth"] == 40
    assert "ajbench: " in done.stderr and shown["findings"][0]["clip"] in done.stderr
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert len(rows) == len(shown["findings"]) and {"clip", "match", "kinds", "threshold"} <= set(rows[0])
    page = (tmp_path / "a.html").read_text()
    assert page.count("<audio") == 2 * min(10, len(shown["findings"]))
    assert "data:audio/flac;base64," in page and "http" not in page.replace("http://www.w3.org", "")
    assert named(audit_folders, "planted", *files).exit_code == 2  # the files exist
    assert named(audit_folders, "planted", "-q").exit_code == 0
    clean = named(audit_folders, "clean", "--strict", "--out", tmp_path / "b.csv")
    assert clean.exit_code == 0, clean.output
    assert "0 of 30 synthetic clips" in clean.stderr
    assert (tmp_path / "b.csv").read_text().startswith("relation,set,clip,")
    assert clean.stdout.splitlines()[0].split()[:2] == ["view", "set"]


def test_equal_file_names_mean_nothing_and_copies_under_them_are_found(mini_waves, tmp_path):
    for part, first in (("train", 0), ("eval", 40), ("made", 70)):
        for k, wave in enumerate(mini_waves(first, 30)):
            write_clip(tmp_path / part, f"{k:04d}", wave)
    done = named(tmp_path, "made", "--strict", "--json")
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["counts"]["leaked_surely"] == 0 and {one["kinds"] for one in shown["findings"]} <= {"near"}
    write_clip(tmp_path / "made", "0003", *mini_waves(43))
    write_clip(tmp_path / "made", "0008", add_noise(*mini_waves(48), np.random.default_rng(1)))
    done = named(tmp_path, "made", "--strict", "--json")
    assert done.exit_code == 4
    leaks = [one for one in json.loads(done.stdout)["findings"] if one["relation"] == "leak"]
    found = {
        (one["clip"], one["match"], one["kinds"].split("+")[0]) for one in leaks if one["kinds"] != "near"
    }
    assert found == {("0003", "0003", "exact"), ("0008", "0008", "waveform")}


@pytest.mark.parametrize(("n", "code"), [(7, 0), (8, 4)])
def test_strict_exits_with_4_beyond_chance(audit_folders, monkeypatch, n, code):
    monkeypatch.setattr(audit, "audit_sets", lambda *sets, **more: flagged_audit(n))
    done = named(audit_folders, "clean", "--strict")
    assert done.exit_code == code, done.output
    assert f"{n} of 200 synthetic clips" in done.stderr
    assert ("s0 and e0" in done.stderr) == bool(code)


@pytest.fixture
def of_folds(monkeypatch):
    """Let all stages be finished, and the audit of fold 4 find leaks."""
    monkeypatch.setattr(stage.Stage, "need", lambda self: (self.path, self.recipe.data.eval_fold))
    monkeypatch.setattr(clip_set, "open_set", lambda place, split=None: [place])

    def audited(synth, train, evaluated, **_):
        assert synth[0][1] == train[0][1] == evaluated[0][1] and train[0][0] == evaluated[0][0]
        return flagged_audit(8 if synth[0][1] == 4 else 0)

    monkeypatch.setattr(audit, "audit_sets", audited)
    monkeypatch.setattr(audit_page, "render", lambda found, sets, page: page.write_text(str(sets[0][0][1])))


@pytest.mark.parametrize(("folds", "code"), [([4, 5], 4), ([2, 5], 0), ([4], 4), ([3], 0)])
def test_every_fold_that_is_evaluated_is_audited(of_folds, tmp_path, folds, code):
    files = ["--out", tmp_path / "a.csv", "--report", tmp_path / "a.html", "--work", tmp_path / "w"]
    done = run("--recipe", "mini", f"evaluate.folds={folds}", "--strict", "--json", *files)
    assert done.exit_code == code, done.output
    shown = json.loads(done.stdout)
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    if len(folds) == 1:
        assert shown["counts"]["leaked"] == 8 * (folds == [4]) and "fold" not in (rows or [{}])[0]
        assert (tmp_path / "a.html").read_text() == str(folds[0]), "data.eval_fold is 5"
        return
    assert [one["fold"] for one in shown["folds"]] == folds
    assert [one["counts"]["leaked"] for one in shown["folds"]] == [8 * (fold == 4) for fold in folds]
    assert {row["fold"] for row in rows} == ({"4"} if code else set())
    assert [(tmp_path / f"a_fold{fold}.html").read_text() for fold in folds] == list(map(str, folds))
    assert all(f"fold {fold}: " in done.stderr for fold in folds)
    assert ("ajbench: fold 4: " in done.stderr) == bool(code)


def test_folds_that_are_not_there_or_not_audited_are_refused(tmp_path):
    work = ("--recipe", "mini", "--work", tmp_path / "w")
    assert "allowed: 1, 2, 3, 4, 5" in refused(*work, "evaluate.folds=[7]")
    assert "evaluate.folds=[1]" in refused(*work, "evaluate.folds=[4,5]", "data.eval_fold=1")


def test_options_without_effect_are_refused(audit_folders, tmp_path):
    sets = [word for name in ("train", "eval") for word in (f"--{name}", audit_folders / name)]
    sets += ["--synth", audit_folders / "clean"]
    assert "--probe noise" in refused(*sets, "--probe", "noise")
    work = ("--work", tmp_path / "w")
    assert "--train-split train" in refused("--recipe", "mini", "--train-split", "train", *work)
    assert "--eval-split val" in refused("--recipe", "mini", "--eval-split", "val", *work)
    one = tmp_path / "one"
    message = refused(*sets, "--out", one, "--report", tmp_path / "w" / ".." / "one")
    assert "--out and --report" in message and not one.exists()


def test_a_dry_run_checks_the_features(audit_folders, tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    missing = f"mn04={tmp_path / 'none.pt'}"
    assert named(audit_folders, "clean", "--dry-run", "--features", "nosuch").exit_code == 2
    assert named(audit_folders, "clean", "--dry-run", "--features", missing).exit_code == 3
    assert named(audit_folders, "clean", "--dry-run").exit_code == 0


def test_all_sets_and_the_splits_of_one_store_must_be_named(audit_folders, tmp_path):
    store = make_store(tmp_path / "real")
    one = ["--synth", audit_folders / "clean", "--train", store.path, "--eval", store.path]
    assert "--train-split train" in refused(*one)
    plan = run(*one, "--train-split", "train", "--eval-split", "eval", "--dry-run")
    assert json.loads(plan.stdout)["eval"] == len(store.split_indices("eval"))
    assert "--train and --eval missing" in refused("--synth", audit_folders / "clean")
