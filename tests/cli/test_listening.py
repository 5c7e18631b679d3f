import json

from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.evaluation.listening_sheets import FORMAT


def test_sheets_are_counted(tmp_path):
    trial = {"sounds": [{"set": "real"}], "options": ["real", "generated"], "right": "real", "answer": "real"}
    about = {"format": FORMAT, "recipe": "mini", "task": "single", "set": "", "seed": 1, "started": ""}
    for name in "ab":
        text = json.dumps({**about, "listener": name, "trials": [trial] * 4})
        (tmp_path / f"{name}.json").write_text(text)
    files = [str(tmp_path / f"{name}.json") for name in "ab"]
    run = CliRunner().invoke(app, ["score-listening", *files, "--json"])
    assert [line["right"] for line in json.loads(run.stdout)] == [8, 8] and run.exit_code == 0
    shown = CliRunner().invoke(app, ["score-listening", *files])
    assert "accuracy" in shown.stdout and "single" in shown.stdout
    assert CliRunner().invoke(app, ["score-listening", *files, files[0]]).exit_code == 2
    assert CliRunner().invoke(app, ["score-listening", str(tmp_path / "none.json")]).exit_code == 3
