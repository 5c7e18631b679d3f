"""Clips of another generator that are real clips decoded, noise with labels, or copies of eval clips."""

import json

import numpy as np
import pytest
import soundfile
from fakes import prepared_store
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console
from ajbench.core.errors import NumericError
from ajbench.core.recipe import Data
from ajbench.data import external_clips
from ajbench.data.clip_reader import read_clip
from ajbench.data.corpora.recordings import read_corpus
from ajbench.pipeline import external_store

DATA = Data(n_clips=100, duration_s=1.26)
KEYS = (
    "data.n_clips=100", "data.duration_s=1.26", "evaluate.models=[{name: taltrans-small, aug: none}]",
    "evaluate.bootstrap=200", "classifier.warmup_steps=1",
)  # fmt: skip
TRAINED = ("classifier.train_steps=60", "evaluate.seeds=[0, 1, 2]", "evaluate.doses=[80]")


@pytest.fixture(scope="module")
def sets(tmp_path_factory, tiny):
    """Folders `decoded`, `noise`, `smuggled` and `smuggled, decoded`: class folders of 1.26-s clips."""
    root, rng = tmp_path_factory.mktemp("external"), np.random.default_rng(0)
    manifest = read_corpus(DATA, None)

    def write(kind, row, wave):
        path = root / kind / row.labels[0] / f"{row.clip_id.replace('/', '-')}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, 16_000)

    for row in manifest.rows:
        wave = read_clip(row, DATA.duration_s).wav
        through_codec = tiny.decode(tiny.encode(wave[None]))[0]
        if row.split == "eval":
            write("smuggled", row, 0.8 * wave)
            write("smuggled, decoded", row, through_codec)
        else:
            write("decoded", row, through_codec)
            write("noise", row, rng.normal(0, 0.1, len(wave)))
    return root


@pytest.fixture
def run(sets, tmp_path, monkeypatch, no_workers):
    """run(kind, *keys) -> result of `ajbench run mini` with the clips of this kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AJBENCH_WORK", raising=False)
    yield lambda kind, *keys: CliRunner().invoke(
        app, ["run", "mini", "--json", "--synthetic", str(sets / kind), *KEYS, *keys]
    )
    console.configure()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The store of the real clips."""
    return prepared_store(tmp_path_factory.mktemp("real") / "store", None, DATA)


@pytest.mark.parametrize(
    ("kind", "leaks"),
    [
        ("decoded", ""),
        ("noise", ""),
        ("smuggled", r": \d+ of \d+ synthetic clips repeat eval clips"),
        (
            "smuggled, decoded",
            r": [1-9]\d* of \d+ synthetic clips are close to eval clips .* more than chance",
        ),
    ],
)
def test_only_copies_of_eval_clips_are_leaks(sets, real, tmp_path, kind, leaks):
    external = external_clips.read(sets / kind, read_corpus(DATA, None))
    assert not external.manifest.problems
    if leaks:
        with pytest.raises(NumericError, match=f"{leaks}.*--allow-leaks"):
            external_store.audit_clips(external, real.path, tmp_path, tmp_path / "cache", False)
    else:
        external_store.audit_clips(external, real.path, tmp_path, tmp_path / "cache", False)
        assert json.loads((tmp_path / external_store.AUDIT).read_text())["leaks"] == 0


@pytest.mark.slow
def test_a_run_with_copies_of_eval_clips_ends_before_training(run):
    done = run("smuggled", *TRAINED, "evaluate.doses=[20]")
    assert done.exit_code == 4 and done.stderr.count("ajbench: ") == 1, done.output


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "never"), [("decoded", "No, it hurts"), ("noise", "Yes")])
def test_decoded_clips_do_no_harm_and_noise_does_not_help(run, kind, never):
    done = run(kind, *TRAINED)
    assert done.exit_code == 0, done.output
    assert not json.loads(done.stdout)["verdict"]["headline"].startswith(never)
