"""The command that compares two sets of clips: what it writes, and what it refuses before it reads a clip."""

import csv
import json

import pytest
import soundfile
from fakes import (
    KIND_CLIPS,
    KINDS,
    BandExtractor,
    EnvelopeExtractor,
    FrameExtractor,
    save_untrained_classifier,
    write_chords,
)
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console, registry
from ajbench.core.errors import NumericError
from ajbench.evaluation import baselines, generation_metrics
from ajbench.reporting import comparison_figures

OF_SETS = [
    *(["--metrics", "kad"], ["--features", "mn04"], ["--protocol", "ajbench"], ["--bootstrap", "200"]),
    *(["--worst", "3", "--curve", "a.svg"], ["--captions", "a.csv"], ["--labels", "parent"]),
    *(["--pairs", "a.csv"], ["--out", "a.csv"], ["--clips", "a.csv"], ["--allow-partial"], ["--ladder"]),
    *(["--ref-split", "eval"], ["--codec", "tiny"], ["--ladder-figure", "a.svg"]),
]


@pytest.fixture
def eval_gen(tmp_path, monkeypatch):
    """eval_gen(*arguments, sets=True) -> result, of two small folders."""
    write_chords(tmp_path, 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    monkeypatch.delenv("AJBENCH_WEIGHTS", raising=False)

    def invoke(*arguments, sets=True):
        both = ["--gen", "gen", "--ref", "ref"] if sets else []
        return CliRunner().invoke(app, ["eval-gen", *both, *arguments])

    yield invoke
    console.configure()


@pytest.fixture
def extractors(monkeypatch):
    """Extractors that need no weights, by the names of real ones; all that were made."""
    made = []

    def lazy(name, path=None):
        registry.check("features", name)
        extractor = FrameExtractor() if registry.FEATURES[name].frames else BandExtractor()
        extractor.name, extractor.classes = name, registry.FEATURES[name].classes
        made.append(extractor)
        return extractor

    monkeypatch.setattr("ajbench.features.extractor.LazyExtractor", lazy)
    return made


@pytest.fixture
def eval_kinds(own_kinds, monkeypatch):
    """eval_kinds(*arguments) -> result, of the folders of six kinds by a fake extractor."""
    monkeypatch.setattr("ajbench.features.extractor.LazyExtractor", lambda *_: EnvelopeExtractor())
    command = ["eval-gen", "--gen", "gen", "--ref", "ref", "--bootstrap", "5", "--labels", "parent"]
    monkeypatch.chdir(own_kinds)
    yield lambda *arguments: CliRunner().invoke(app, [*command, *arguments])
    console.configure()


def refused(done, code=2):
    """Return the one line of a refusal."""
    assert done.exit_code == code, done.output
    assert done.stdout == "" and done.stderr.count("\n") == 1, done.output
    return done.stderr


def test_table_and_drawing_are_written(eval_gen, tmp_path):
    save_untrained_classifier(tmp_path / "judge", ("rain", "dog"), 80_640)
    options = ["--features", " reference = judge", "--bootstrap", "10", "--ladder", "--json", "-q"]
    files = ["--out", "out.csv", "--ladder-figure", "new/ladder.svg"]
    done = eval_gen(*options, *files)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    rows = [(line["row"], line["metric"]) for line in shown["rows"]]
    first = ["gen", baselines.HALVES, baselines.CODEC, "gen, 4 clips"]
    assert rows[:4] == [(row, "fd") for row in first]
    assert any("compare them with the row" in note for note in shown["notes"])
    lines = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [(line["row"], line["metric"]) for line in lines] == rows and "note" in lines[0]
    assert (tmp_path / "new" / "ladder.svg").read_text().startswith("<svg")
    assert "--ladder-figure new/ladder.svg" in refused(eval_gen(*options, *files[2:]))
    assert eval_gen(*options, *files, "--force").exit_code == 0


def test_every_extractor_has_its_rows_and_its_drawing(eval_gen, extractors, tmp_path):
    done = eval_gen(
        *("--features", "mn04, vggish", "--metrics", "all", "--bootstrap", "0", "--json", "--ladder"),
        *("--ladder-figure", "a.svg", "--worst", "1"),
    )
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    found = {(line["features"], line["metric"]) for line in shown["rows"] if line["row"] == baselines.PINK}
    expected = {("mn04", metric) for metric in ("fd", "kad", "kl", "kl_sigmoid")}
    assert found == expected | {("vggish", "fad"), ("vggish", "kad")}
    assert list(shown["worst"]) == ["mn04", "vggish"]
    drawn = (tmp_path / "a.svg").read_text()
    assert "FD (mn04)" in drawn and "FAD (vggish)" in drawn


def test_a_drawing_that_fails_takes_no_table_with_it(eval_gen, extractors, tmp_path, monkeypatch):
    def fail(*arguments):
        raise NumericError("no drawing")

    monkeypatch.setattr(comparison_figures, "baseline_figure", fail)
    tables = ["--out", "a.csv", "--clips", "b.csv", "--bootstrap", "0"]
    assert eval_gen("--ladder", "--ladder-figure", "a.svg", *tables).exit_code == NumericError.exit_code
    assert (tmp_path / "a.csv").stat().st_size and (tmp_path / "b.csv").stat().st_size


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--features", "mn04,nosuch"], "'nosuch'"),
        (["--features", "mn04,"], "features ''"),
        (["--features", "mn04=a, mn04=b"], "--features mn04=a, mn04=b: mn04"),
        (["--features", "mn04,vggish", "--metrics", "fd"], "--metrics fd: vggish"),
        (["--features", "vggish,mn04", "--metrics", "fad"], "--metrics fad: mn04"),
        (["--features", "mn04,clap", "--metrics", "kad,kl"], "--metrics kl: clap"),
        (["--features", "mn04", "--metrics", "label_agreement"], "--metrics label_agreement: gen"),
        (["--features", "mn04", "--metrics", "clap_score"], "--metrics clap_score: gen"),
        (["--metrics", "fd,"], "--metrics : "),
        (["--ladder", "--codec", "nosuch"], "codec 'nosuch'"),
        (["--ladder", "--metrics", "coverage, lsd"], "--ladder: --metrics"),
        (["--ladder", "--ladder-figure", "a.png"], "--ladder-figure a.png"),
        (["--ladder", "--ladder-figure", "a.svg", "--metrics", "kl"], "--ladder-figure a.svg: --metrics"),
        (["--ladder-figure", "a.svg"], "--ladder-figure: "),
        (["--codec", "tiny"], "--codec: "),
        (["--curve", "fd.pdf"], "--curve fd.pdf"),
        (["--out", "a.csv", "--clips", "a.csv"], "--clips a.csv: is also the file of --out"),
        (["--curve", "a.svg", "--ladder", "--ladder-figure", "./b/../a.svg"], "is also the file of --curve"),
        (["--recipe", "esc10", "--data", "d"], "--recipe, --data: "),
        (["evaluate.features=mn10"], "KEY=VALUE: "),
    ],
)
def test_wrong_options_are_refused_before_a_clip_is_read(eval_gen, extractors, arguments, part, more):
    assert part in refused(eval_gen(*arguments, *more))
    assert not any(one.seen for one in extractors)


def test_one_set_alone_is_refused(eval_gen):
    assert "--ref" in refused(eval_gen("--gen", "gen", sets=False))


def test_a_dry_run_refuses_missing_weights_and_tells_the_plan(eval_gen, tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    shown = refused(eval_gen("--features", "mn04=w.pt,mn10=nowhere.pt", "--dry-run"), 3)
    assert "nowhere.pt" in shown
    done = eval_gen("--features", "mn04=w.pt,mn10=w.pt", "--metrics", "fd", "--dry-run", "--json")
    assert json.loads(done.stdout) == {"gen": 8, "ref": 8, "pairs": 8, "features": ["mn04", "mn10"]}


@pytest.mark.parametrize("arguments", OF_SETS, ids=lambda arguments: arguments[0])
def test_options_of_two_sets_are_refused_with_a_recipe(eval_gen, arguments):
    options = ", ".join(word for word in arguments if word.startswith("--"))
    shown = refused(eval_gen(*arguments, "--recipe", "mini", "--dry-run", sets=False))
    for option in options.split(", "):
        assert option in shown and "--gen and --ref" in shown


def test_rows_clips_and_curve_are_written(eval_kinds, own_kinds):
    files = ["--out", "rows.csv", "--clips", "clips.csv", "--curve", "fd.svg"]
    done = eval_kinds("--metrics", "all", "--worst", "2", "--json", "-q", *files)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    missing = {"fad", "fd_class", "clap_score", *generation_metrics.GUIDED}
    assert {row["metric"] for row in shown["rows"]} == {*generation_metrics.METRICS} - missing
    assert {row["of"] for row in shown["rows"]} == {"", *KINDS}
    assert shown["counts"]["gen"] == {"clips": KIND_CLIPS, "other files": 0}
    assert len(shown["worst"]["envelope"]["kl"]) == 2 and shown["curve"][-1]["n"] == "inf"
    lines = list(csv.DictReader((own_kinds / "rows.csv").read_text().splitlines()))
    assert len(lines) == len(shown["rows"]) and all(line["definition"] for line in lines)
    assert len((own_kinds / "clips.csv").read_text().splitlines()) == 1 + KIND_CLIPS
    assert "FD∞" in (own_kinds / "fd.svg").read_text()
    for kind, begin in (("png", b"\x89PNG"), ("csv", b"features,n,draws,fd")):
        assert eval_kinds("--metrics", "fd", "--curve", f"fd.{kind}").exit_code == 0
        assert (own_kinds / f"fd.{kind}").read_bytes().startswith(begin)


def test_the_screen_has_definitions_notes_and_no_rows_by_class(eval_kinds):
    done = eval_kinds("--worst", "1", "--metrics", "fd,label_agreement")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["metric", "fd", "label_agreement"]
    assert "covariances over n-1" in lines[1]
    assert "6 rows by class" in done.stderr and "worst by rank: " in done.stderr


def test_captions_and_pairs_come_from_tables(eval_kinds, own_kinds):
    (own_kinds / "pairs.csv").write_text("gen,ref\ndog/clip-1,dog/clip-7\nbell/clip-0,bell/clip-6\n")
    files = ["--captions", "captions.csv", "--pairs", "pairs.csv", "--allow-partial"]
    done = eval_kinds("--metrics", "clap_score,kl", "--json", "-q", *files)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert [(row["metric"], row["n"]) for row in shown["rows"]] == [("clap_score", 24), ("kl", 2)]
    assert {one["reason"].split()[0] for one in shown["skipped"]} == {"extra", "missing"}


def test_an_unusable_clip_stops_the_command_unless_allowed(eval_kinds, own_kinds):
    soundfile.write(own_kinds / "gen" / "dog" / "clip-1.wav", [0.0] * 8_000, 16_000)
    assert "--allow-partial" in eval_kinds("-q").stderr and eval_kinds("-q").exit_code == 3
    done = eval_kinds("--allow-partial", "--json", "-q")
    assert done.exit_code == 0 and json.loads(done.stdout)["skipped"][0]["clip"] == "dog/clip-1"


def test_two_folders_need_no_weights(eval_gen):
    shown = eval_gen("--json", "--bootstrap", "0")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert {row["features"] for row in found["rows"]} == {"tiny"}
    measured = ["fad", "fd_inf", "kad", "precision", "recall", "density", "coverage", "lsd"]
    assert [row["metric"] for row in found["rows"]] == measured
    assert any("panns16k" in note and "doctor" in note for note in found["notes"])
    assert not any(
        "doctor" in note for note in json.loads(eval_gen("--metrics", "fad", "--json").stdout)["notes"]
    )
