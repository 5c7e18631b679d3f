"""docs/extending.md: its blocks are taken from the page and run as written."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import noise

from ajbench.data.store import ClipStore

REPOSITORY = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```", (REPOSITORY / "docs/extending.md").read_text(), re.MULTILINE | re.DOTALL
)
FILES = {re.match(r"# (\w+\.py)\n", text)[1]: text for language, text in BLOCKS if language == "python"}


@pytest.fixture
def run(tmp_path):
    """run(number, *more) -> None: run a shell block of the page, among its files, and return its output."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    shell = [text.replace("\\\n", " ").strip() for language, text in BLOCKS if language == "sh"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(REPOSITORY)}

    def run_block(plugin, *more):
        (command,) = (line for line in shell if re.search(rf"\b{plugin} +ajbench", line))
        words = ["bash", "-c", " ".join((command, *more))]
        how = {"capture_output": True, "text": True, "timeout": 120}
        return subprocess.run(words, cwd=tmp_path, env=environment, **how)

    return run_block


@pytest.fixture
def sets(tmp_path):
    for seed, name in enumerate(("generated", "real")):
        (tmp_path / name).mkdir()
        for i, clip in enumerate(noise(1, 16_000, clips=8, seed=seed)):
            soundfile.write(tmp_path / name / f"{i}.wav", clip, 16_000)


def rows(path):
    with path.open(newline="") as file:
        return {row["metric"]: row for row in csv.DictReader(file)}


def test_an_extractor_is_one_file_and_one_registration(run, sets, tmp_path):
    done = run("envelope.py", "--out out.csv --bootstrap 5")
    assert done.returncode == 0, done.stderr
    fd = rows(tmp_path / "out.csv")["fd"]
    assert fd["features"] == "envelope" and float(fd["value"]) >= 0 and fd["n"] == "8"


def test_a_corpus_is_one_file_and_one_registration(run, tmp_path):
    (tmp_path / "recordings").mkdir()
    for label, level in (("hum", 1), ("hiss", 2)):
        for i, clip in enumerate(noise(1.3, 16_000, clips=20, seed=level)):
            soundfile.write(tmp_path / "recordings" / f"{label}_{i}.wav", clip, 16_000)
    done = run("prefixes.py", "-q")
    assert done.returncode == 0, done.stderr
    store = ClipStore.open(tmp_path / done.stdout.strip())
    assert len(store) == 40 and store.meta.labels == ["hiss", "hum"] and store[0].labels == ["hiss"]


def test_a_metric_is_one_file_and_one_registration(run, sets, tmp_path):
    done = run("envelope.py:mean_gap.py", "--out out.csv --bootstrap 20")
    assert done.returncode == 0, done.stderr
    row = rows(tmp_path / "out.csv")["mean_gap"]
    assert 0 <= float(row["ci_low"]) <= float(row["value"]) < 1 and float(row["ci_high"]) > 0
    loudness = []
    for name in ("generated", "real"):
        clips = [soundfile.read(path)[0] for path in sorted((tmp_path / name).iterdir())]
        power = np.array([[part.mean() for part in np.split(clip**2, 16)] for clip in clips])
        loudness.append(10 * np.log10(power).mean(axis=0))
    assert float(row["value"]) == pytest.approx(np.linalg.norm(loudness[0] - loudness[1]), rel=1e-4)
