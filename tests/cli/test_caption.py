import json
import random
import signal
import subprocess
import sys

import pytest
from fakes import FakeLanguageModel
from typer.testing import CliRunner

from ajbench.captions import backends, caption_table
from ajbench.cli.app import app


def run(*line):
    return CliRunner().invoke(app, ["caption", *map(str, line)])


def shown(*line):
    done = run(*line, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def labels(tmp_path):
    lines = [f"c{i:03d},{';'.join(['Dog', 'Rain', 'Wind'][: 1 + i % 3])},train,a dog" for i in range(60)]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["clip_id,labels,split,visual_caption", *lines, "e,Dog,eval,a cat"]) + "\n")
    return path


def test_labels_become_a_table(labels, tmp_path):
    out = tmp_path / "out"
    plan = shown("--labels", labels, "--out", out, "--dry-run", "--chunk", 25)
    assert plan["clips"] == 60 and plan["chunks"] == 3 and not out.exists()
    made = shown("--labels", labels, "--out", out, "--kind", "all", "--chunk", 25)
    assert made["rows"] == {"audio": 60, "visual": 60, "merge": 60} and sum(made["excluded"].values()) == 1
    assert "e" not in caption_table.texts(out, "audio")
    assert not shown("--labels", labels, "--out", out, "--kind", "all", "--chunk", 25)["ran"]
    assert run("--labels", labels, "--out", out).exit_code == 5
    assert shown("--labels", labels, "--out", out, "--force", "--include-eval")["clips"] == 61
    assert "e" in caption_table.texts(out, "audio")


def test_the_clips_of_a_recipe_are_captioned(tmp_path):
    made = shown("--recipe", "mini", "data.n_clips=40", "--out", tmp_path / "out")
    assert made["clips"] < 40 == made["clips"] + sum(made["excluded"].values())


def test_options_of_a_model_reach_its_backend(labels, tmp_path, monkeypatch):
    given = {}

    def load(name, **options):
        given.update(options, name=name)
        return FakeLanguageModel(lambda _: "" if given.get("silent") else "a sentence")

    monkeypatch.setattr(backends, "load", load)
    line = ["--labels", labels, "--out", tmp_path / "out", "--backend", "openai"]
    line += ["--url", "http://here", "--model", "m", "--retries", 0, "--shots", 1]
    shown(*line)
    assert given == {
        "name": "openai", "url": "http://here", "model": "m", "retries": 0, "concurrency": None,
        "timeout_s": None, "threads": None, "api": None,
    }  # fmt: skip
    about = caption_table.info(tmp_path / "out")["settings"]
    assert about["writer"]["model_hash"] == "0123456789abcdef" and about["writer"]["shots"] == 1
    given["silent"] = True
    done = run(*line, "--force")
    assert done.exit_code == 3 and "empty answer" in done.stderr
    assert run(*line, "--max-fallback", 1).exit_code == 0


@pytest.mark.parametrize(
    ("line", "code", "named"),
    [
        (["--store", "a", "--labels", "b"], 2, "--store"),
        (["--labels", "none.csv"], 3, "none.csv"),
        (["--store", "none"], 3, "none"),
        (["--shots", "1"], 2, "--shots"),
        (["--timeout-s", "1"], 2, "--timeout-s"),
    ],
)
def test_bad_options_are_refused_in_one_line(labels, tmp_path, line, code, named):
    given = line if {"--store", "--labels"} & set(line) else ["--labels", labels, *line]
    done = run(*given, "--out", tmp_path / "out")
    assert done.exit_code == code and named in done.stderr, done.output
    assert len(done.stderr.strip().splitlines()) == 1


# The first argument: how many writes are made durable before the process is killed.
KILLED = """
import os, signal, sys
plain, left = os.fsync, [int(sys.argv.pop(1))]
def fsync(descriptor):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    plain(descriptor)
os.fsync = fsync
from ajbench.cli.app import app
app()"""


def test_a_killed_run_continues_to_the_same_bytes(tmp_path):
    names = ";".join(["Dog", "Rain", "Wind"])
    path = tmp_path / "labels.csv"
    path.write_text("clip_id,labels\n" + "".join(f"clip{i},{names}\n" for i in range(4000)))
    line, out = ["--labels", str(path), "--chunk", "40", "-q", "--out"], str(tmp_path / "killed")
    assert run(*line, tmp_path / "whole").exit_code == 0
    draw, parts = random.Random(3), [0]
    for _ in range(5):
        command = [sys.executable, "-c", KILLED, str(draw.randint(6, 37)), "caption", *line, out]
        assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
        parts.append(len(list((tmp_path / "killed").glob("part-*"))))
    assert sorted(set(parts)) == parts and parts[-1] < 100
    assert run(*line, out).exit_code == 0
    content = [
        {one.name: one.read_bytes() for one in (tmp_path / name).iterdir()} for name in ("whole", "killed")
    ]
    assert content[0] == content[1]


def test_captions_are_checked(labels, tmp_path):
    shown("--labels", labels, "--out", tmp_path / "out", "--no-single-class-filter")
    done = CliRunner().invoke(
        app, ["check-captions", str(tmp_path / "out"), "--out", str(tmp_path), "--json"]
    )
    found = json.loads(done.stdout)["audio"]
    assert found["captions"] == 60 and found["invented"] == 0 and "rain" in found["top_words"]
    assert (tmp_path / "captions.html").exists() and (tmp_path / "captions.csv").exists()
    (tmp_path / "captions.csv").write_text("mine")
    again = ["check-captions", str(tmp_path / "out"), "--out", str(tmp_path)]
    refused = CliRunner().invoke(app, again)
    assert refused.exit_code == 2 and "--force" in refused.stderr
    assert (tmp_path / "captions.csv").read_text() == "mine"
    assert CliRunner().invoke(app, [*again, "--force"]).exit_code == 0
    assert (tmp_path / "captions.csv").read_text() != "mine"
    missing = CliRunner().invoke(app, ["check-captions", str(tmp_path)])
    assert missing.exit_code == 3 and len(missing.stderr.splitlines()) == 1
