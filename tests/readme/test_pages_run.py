"""README and docs/: every command that has --dry-run is run with it, on small data of its layout."""

import itertools
import re
import shutil

import numpy as np
import pytest
import soundfile
from fakes import ESC10_LABELS, make_store
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.data.corpora import audioset
from ajbench.pipeline import estimates

from .test_readme import COMMANDS, of_all_pages

RATE = 16_000
CLASSES = "dog", "rain"
SPEAKERS = "george", "jackson", "lucas", "nicolas", "theo", "yweweler"
# Other names of the folders below, and a variable of a shell loop.
MEANT = {
    "PATH/TO/ESC-50": "ESC50",
    "free-spoken-digit-dataset": "FSDD",
    "as2m/$name": "as2m/t5",
    "fsdd.csv": "FSDD/fsdd.csv",
    "kitchen20.csv": "KITCHEN20/clips.csv",
}
# An earlier command has to be run, or weights or an extra are missing: the message names the command.
FIRST = re.compile(r"`ajbench [a-z-]+|pip install 'ajbench\[")


def sound(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, RATE // 4), RATE)


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_esc50(folder):
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    takes = itertools.product(range(1, 6), enumerate(ESC10_LABELS), "AB")
    for fold, (target, category), take in takes:  # as many train clips as the recipes' shots
        name = f"{fold}-{100 + target}-{take}-{target}.wav"
        sound(folder / "audio" / name, len(lines))
        lines.append(f"{name},{fold},{target},{category},True,{fold}{target}{take},{take}")
    write(folder / "meta/esc50.csv", *lines)


def write_audioset(folder):
    mids = audioset.label_set().mids
    for part, name in enumerate(("balanced_train", "unbalanced_train", "eval")):
        lines = (f'part{part}_{k:05d}, 0.000, 10.000, "{mid}"' for k, mid in enumerate(mids))
        write(folder / f"{name}_segments.csv", "# comment", "# comment", "# comment", *lines)
        for k in range(6):
            sound(folder / name / f"part{part}_{k:05d}.wav", 10 * part + k)


def write_audiocaps(folder):
    for part, name in enumerate(("train", "val", "test")):
        lines = (f"{part}{k},caps{part}_{k:05d},0,A dog barks" for k in range(4))
        write(folder / f"{name}.csv", "audiocap_id,youtube_id,start_time,caption", *lines)
        for k in range(4):
            sound(folder / f"{part}{k}.wav", k)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """What the pages name, by their names."""
    home = tmp_path_factory.mktemp("pages")
    write_esc50(home / "ESC50")
    write_audioset(home / "AUDIOSET")
    write_audiocaps(home / "AUDIOCAPS")
    for name in ("balanced_train_segments.csv", "eval_segments.csv"):
        shutil.copy(home / "AUDIOSET" / name, home)
    two = ("FOLDER_OR_TABLE", "REAL", "GENERATED", "REAL_TRAIN", "REAL_EVAL", "clips")
    for (k, name), number in itertools.product(enumerate(two), range(24)):
        sound(home / name / CLASSES[number % 2] / f"{number}.wav", 100 * k + number)
    for number in range(320):
        sound(home / "SYNTHETIC" / CLASSES[number % 2] / f"{number}.wav", 1000 + number)
    for digit, speaker in itertools.product(range(10), SPEAKERS):
        sound(home / "FSDD/recordings" / f"{digit}_{speaker}_0.wav", digit)
        sound(home / "digits" / str(digit) / f"take_{speaker}_0.wav", digit)
    files = (f"{name}/{number}.wav,{name}" for number in range(24) for name in [CLASSES[number % 2]])
    write(home / "labels.csv", "file,label", *files)
    digits = (
        f"recordings/{digit}_{speaker}_0.wav,{1 + digit % 5},digit"
        for digit in range(10)
        for speaker in SPEAKERS
    )
    write(home / "FSDD/fsdd.csv", "path,fold,labels", *digits)
    kitchen = [f"audio/{number}.wav,{1 + number % 5},{CLASSES[number // 10]}" for number in range(20)]
    for number in range(20):
        sound(home / f"KITCHEN20/audio/{number}.wav", number)
    write(home / "KITCHEN20/clips.csv", "path,fold,labels", *kitchen)
    make_store(home / "STORE", captions=2)
    return home


def planned():
    """Return the commands of all pages that have --dry-run, without it."""
    plans = (words for words in of_all_pages() if "--dry-run" in options(words[0]))
    kept = {tuple(word for word in words if word != "--dry-run"): None for words in plans}
    return list(kept)


def options(command):
    return {name for option in COMMANDS.commands[command].params for name in option.opts}


@pytest.mark.parametrize("words", planned(), ids=" ".join)
def test_a_command_of_a_page_plans_or_names_what_comes_first(words, data, tmp_path, monkeypatch):
    monkeypatch.chdir(data)
    monkeypatch.setenv("AJBENCH_WORK", str(tmp_path / "work"))
    monkeypatch.delenv("AJBENCH_WEIGHTS", raising=False)
    monkeypatch.setattr(estimates, "step_seconds", lambda *_: 1.0)  # else it trains full-size classifiers
    done = CliRunner().invoke(app, [*(MEANT.get(word, word) for word in words), "--dry-run"])
    (data / "my.yaml").unlink(missing_ok=True)  # of several pages, for different clips
    assert done.exit_code == 0 or (done.exit_code == 3 and FIRST.search(done.output)), done.output


def test_a_fault_in_a_command_is_noticed(data, monkeypatch):
    monkeypatch.chdir(data)
    faulty = "eval-gen", "--gen", "GENERATED", "--ref", "REAL", "--metrics", "kl", "--dry-run"
    assert CliRunner().invoke(app, faulty).exit_code == 2
