"""Files that change behind their first 64 kB without a change of size."""

import os

import numpy as np
import pytest
import soundfile

from ajbench.core.recipe import load
from ajbench.pipeline.places import Places
from ajbench.pipeline.recipe_stages import Pipeline
from ajbench.pipeline.stage import run_stages

RATE = 44_100


@pytest.fixture
def corpus(tmp_path):
    """Folder of 8 clips of 2 s in 16 bits: 176 kB each."""
    for k in range(8):
        path = tmp_path / "clips" / ("dog", "cat")[k % 2] / f"{k}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(k).normal(0, 0.1, 2 * RATE), RATE, subtype="PCM_16")
    return tmp_path


def prepare_stage(root, *more):
    """Prepare the corpus unless that is done; return the stage and whether it ran."""
    recipe = load("mini", ["data.corpus=folder", "data.duration_s=1.68", *more])
    stage = Pipeline(recipe, Places(root / "clips", root / "work", root / "results")).prepare
    return stage, bool(run_stages([stage], "cpu"))


def test_a_file_that_changed_behind_its_beginning_is_noticed(corpus):
    first, ran = prepare_stage(corpus)
    assert ran and not prepare_stage(corpus)[1]
    path = corpus / "clips" / "dog" / "0.wav"
    content = bytearray(path.read_bytes())
    content[90_000:100_000] = content[80_000:90_000]
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as `cp -p` of another file would do
    second, ran = prepare_stage(corpus)
    assert ran and second.fingerprint != first.fingerprint
    assert not prepare_stage(corpus)[1]
    content[110_000:120_000] = content[80_000:90_000]
    path.write_bytes(content)
    third, ran = prepare_stage(corpus)
    assert ran and third.fingerprint not in (first.fingerprint, second.fingerprint)


@pytest.mark.parametrize(("how", "more"), [("touched", []), ("copied", []), ("copied", ["data.snr_db=0"])])
def test_a_file_with_a_new_date_only_is_not_prepared_again(corpus, how, more):
    first, _ = prepare_stage(corpus, *more)
    for path in (corpus / "clips").rglob("*.wav"):
        content = path.read_bytes()
        if how == "copied":
            path.unlink()
        path.write_bytes(content)
    second, ran = prepare_stage(corpus, *more)
    assert not ran and second.fingerprint == first.fingerprint
