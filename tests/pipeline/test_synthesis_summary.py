"""What a dry run of a synthesis shows, also from a label table without audio."""

import json
import resource
import subprocess
import sys

import pytest
from scipy import stats
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.generation.plan import ListedClips


def ajbench(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_audiosets_label_table_is_enough_for_the_papers_plan(audioset_dir, tmp_path):
    command = [sys.executable, "-m", "ajbench", "synth", "--recipe", "as20k-self"]
    command += ["--data", str(audioset_dir), "--work", str(tmp_path), "--classes", "527", "--n", "80000"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, "--dry-run", "--json"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor, as other work on the machine may make it wait.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 40
    found = json.loads(done.stdout)
    assert (found["clips"], found["shards"]) == (80000, 157)
    assert found["classes"] == {"used": 527, "asked": 527, "unguided": [], "unguided_are": "leave_out"}
    assert list(found["labels_a_clip"]) == ["1", "2", "3"]
    assert stats.chisquare(list(found["labels_a_clip"].values())).pvalue > 1e-3
    assert found["guides"]["holding_an_asked_class"] == found["guides"]["clips"] == 80000
    assert 20_000 < found["guides"]["different"] <= 22_160
    assert found["audio"] == "no audio found: planned from the label table alone"
    assert found["seconds"] is None and "stages" not in found
    assert found["disk_mb"] == pytest.approx(80000 * 161280 * 2 * 0.6 / 1e6, rel=0.05)
    assert not list(tmp_path.iterdir())
    real = ajbench(*command[3:])
    assert real.exit_code == 3 and str(audioset_dir) in real.stderr
    assert len(real.stderr.strip().splitlines()) == 1


def test_the_label_table_lists_every_segment_once(audioset_dir):
    from ajbench.core.recipe import Data
    from ajbench.data.corpora import audioset

    manifest = audioset.read(Data(corpus="audioset"), audioset_dir, need_files=False)
    assert len(manifest.split("train")) == 22_160 and len(manifest.split("eval")) == 20_371
    targets = ListedClips.of_manifest(manifest, "here").targets.toarray()
    labels = [row.labels for row in manifest.split("train")]
    assert (targets == manifest.label_set.multi_hot(labels)).all()


def test_a_corpus_with_its_audio(esc10_dir, tmp_path):
    places = ("--data", str(esc10_dir), "--work", str(tmp_path))
    found = json.loads(ajbench("synth", "--recipe", "esc10", *places, "--dry-run", "--json").stdout)
    assert (found["clips"], found["classes"]["used"], found["labels_a_clip"]) == (640, 10, {"1": 640})
    assert found["guides"] == {"clips": 640, "holding_an_asked_class": 640, "different": 320}
    assert (found["audio"], found["planned_from"]) == ("320 of 320 train clips found", "files")
    assert [stage["stage"] for stage in found["stages"]] == ["prepare", "train-gen", "invert", "synth"]


def test_without_audio_and_label_table_the_corpus_is_missing(tmp_path):
    (tmp_path / "dog").mkdir()
    shown = ajbench("synth", "data.corpus=folder", "--data", str(tmp_path), "--dry-run")
    assert shown.exit_code == 3 and str(tmp_path) in shown.stderr
