"""The command that compares two sets of clips: what it writes, and what it refuses before it hears a clip."""

import csv
import json

import pytest
from chords import Ear, FrameEar, fill
from commanded import untrained
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console, registry
from ajbench.core.errors import NumericError
from ajbench.evaluation import baselines
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
    fill(tmp_path, 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    monkeypatch.delenv("AJBENCH_WEIGHTS", raising=False)

    def invoke(*arguments, sets=True):
        both = ["--gen", "gen", "--ref", "ref"] if sets else []
        return CliRunner().invoke(app, ["eval-gen", *both, *arguments])

    yield invoke
    console.configure()


@pytest.fixture
def ears(monkeypatch):
    """Networks that need no weights, by the names of real ones; all that were made."""
    made = []

    def late(name, path=None):
        ear = FrameEar() if registry.FEATURES[name].frames else Ear()
        ear.name = name
        made.append(ear)
        return ear

    monkeypatch.setattr("ajbench.features.extractor.LazyExtractor", late)
    return made


def refused(done, code=2):
    """Return the one line of a refusal."""
    assert done.exit_code == code, done.output
    assert done.stdout == "" and done.stderr.count("\n") == 1, done.output
    return done.stderr


def test_table_and_drawing_are_written(eval_gen, tmp_path):
    untrained(tmp_path / "judge", ("rain", "dog"), 80_640)
    options = ["--features", " reference = judge", "--bootstrap", "10", "--ladder", "--json", "-q"]
    files = ["--out", "out.csv", "--ladder-figure", "new/ladder.svg"]
    done = eval_gen(*options, *files)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    rows = [(line["row"], line["metric"]) for line in shown["rows"]]
    assert rows[:4] == [
        ("gen", "fd"),
        (baselines.HALVES, "fd"),
        (baselines.CODEC, "fd"),
        ("gen, 4 clips", "fd"),
    ]
    assert any("compare them with the row" in note for note in shown["notes"])
    lines = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [(line["row"], line["metric"]) for line in lines] == rows and "note" in lines[0]
    assert (tmp_path / "new" / "ladder.svg").read_text().startswith("<svg")
    assert "--ladder-figure new/ladder.svg: is there already" in refused(eval_gen(*options, *files[2:]))


def test_every_network_has_its_rows_and_its_drawing(eval_gen, ears, tmp_path):
    done = eval_gen(
        *("--features", "mn04, vggish", "--metrics", "all", "--bootstrap", "0", "--json", "--ladder"),
        *("--ladder-figure", "a.svg", "--worst", "1"),
    )
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    found = {(line["features"], line["metric"]) for line in shown["rows"] if line["row"] == baselines.PINK}
    assert found == {*(("mn04", m) for m in ("fd", "is", "kad", "kl", "kl_sigmoid"))} | {
        ("vggish", "fad"),
        ("vggish", "kad"),
    }
    assert list(shown["worst"]) == ["mn04", "vggish"]
    drawn = (tmp_path / "a.svg").read_text()
    assert "FD (mn04)" in drawn and "FAD (vggish)" in drawn


def test_a_drawing_that_fails_takes_no_table_with_it(eval_gen, ears, tmp_path, monkeypatch):
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
        (["--features", "mn04,nosuch"], "features 'nosuch' is unknown"),
        (["--features", "mn04,"], "features '' is unknown"),
        (["--features", "mn04=a, mn04=b"], "mn04 is there twice"),
        (["--features", "mn04,vggish", "--metrics", "fd"], "--metrics fd: vggish hears frames"),
        (["--features", "vggish,mn04", "--metrics", "fad"], "--metrics fad: mn04 has one vector a clip"),
        (["--features", "mn04,clap", "--metrics", "kad,kl"], "--metrics kl: clap knows no classes"),
        (["--features", "clap,mn04", "--metrics", "clap_score"], "--metrics clap_score: mn04 has no text"),
        (["--metrics", "fd,"], "--metrics : unknown"),
        (["--ladder", "--codec", "nosuch"], "codec 'nosuch' is unknown"),
        (["--ladder", "--metrics", "coverage, lsd"], "one of fd, fad, kad, is, kl, kl_sigmoid, all"),
        (["--ladder", "--ladder-figure", "a.png"], "an .svg"),
        (["--ladder", "--ladder-figure", "a.svg", "--metrics", "kl"], "one of fd, fad, all"),
        (["--ladder-figure", "a.svg"], "--ladder-figure: there is no ladder; add --ladder"),
        (["--codec", "tiny"], "--codec: there is no ladder; add --ladder"),
        (["--out", "a.csv", "--clips", "a.csv"], "--clips a.csv: is what --out names"),
        (["--curve", "a.svg", "--ladder", "--ladder-figure", "./b/../a.svg"], "is what --curve names"),
        (["--recipe", "esc10", "--data", "d"], "--recipe, --data: of a recipe"),
        (["evaluate.features=mn10"], "KEY=VALUE: of a recipe"),
    ],
)
def test_what_options_tell_to_be_wrong_is_refused_before_a_clip_is_heard(
    eval_gen, ears, arguments, part, more
):
    assert part in refused(eval_gen(*arguments, *more))
    assert not any(ear.heard for ear in ears)


def test_a_dry_run_refuses_missing_weights_and_tells_the_plan(eval_gen, tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    shown = refused(eval_gen("--features", "mn04=w.pt,mn10=nowhere.pt", "--dry-run"), 3)
    assert "features mn10: nowhere.pt is missing" in shown
    done = eval_gen("--features", "mn04=w.pt,mn10=w.pt", "--metrics", "fd", "--dry-run", "--json")
    assert json.loads(done.stdout) == {"gen": 8, "ref": 8, "pairs": 8, "features": ["mn04", "mn10"]}


@pytest.mark.parametrize("arguments", OF_SETS, ids=lambda arguments: arguments[0])
def test_options_of_two_sets_are_refused_with_a_recipe(eval_gen, arguments):
    options = ", ".join(word for word in arguments if word.startswith("--"))
    shown = refused(eval_gen(*arguments, "--recipe", "mini", "--dry-run", sets=False))
    for option in options.split(", "):
        assert option in shown and "of two sets of clips alone" in shown
