"""The leak audit: planted copies are found, honest clips are not, and bad input is told in a line."""

import csv
import json
import mmap

import numpy as np
import pytest
import soundfile
import torch
from fakes import PLANT_KINDS, add_noise, encode_lossy, plant_copy
from small_generator import make_store
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.data import audio
from ajbench.data.clip_set import ClipSet, open_set
from ajbench.data.corpora import mini
from ajbench.evaluation import audit, audit_findings, audit_similarity
from ajbench.metrics.audio_fingerprint import fingerprints

SECONDS = 2.0


def write(folder, name, wave):
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.wav", np.clip(wave, -1, 1), 16_000, subtype="PCM_16")


@pytest.fixture(scope="session")
def sounds():
    """sounds(first, n): waves of `mini`, each another one."""
    made = {k: mini.render(11, k, SECONDS)[0] for k in range(110)}
    return lambda first, n: [made[k] for k in range(first, first + n)]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, sounds):
    """Folders train (40), eval (30), clean (30) and planted (30 clean, 10 planted)."""
    root, rng = tmp_path_factory.mktemp("leaks"), np.random.default_rng(5)
    for part, first, n in (("train", 0, 40), ("eval", 40, 30), ("clean", 70, 30), ("planted", 70, 30)):
        for k, wave in enumerate(sounds(first, n)):
            write(root / part, f"{part}-{k}", wave)
    for number in range(10):
        kind = PLANT_KINDS[number // 2]
        variant, wave = plant_copy(kind, number, sounds(40 + 2 * number, 1)[0], rng)
        write(root / "planted", f"leak-{kind}-{number}-{variant.replace(' ', '')}", wave)
    return root


def look(root, synth="planted", **more):
    return audit.audit(*(open_set(root / name) for name in (synth, "train", "eval")), **more)


@pytest.fixture(scope="session")
def found(corpus):
    return look(corpus)


def test_fingerprints_are_those_of_the_clips_and_on_disk_in_a_file_that_goes_with_them(corpus, tmp_path):
    heard = audit_similarity.hear("eval", open_set(corpus / "eval"), [], lambda n: None, tmp_path / "new")
    assert len(heard.details) == len(heard.numbers) == 30 and not list((tmp_path / "new").iterdir())
    for row in (0, 17, 29):
        wave = audit_similarity.wave_of(heard.clips, heard.numbers[row])
        expected = fingerprints(torch.from_numpy(wave)[None])[0]
        assert np.abs(heard.details[row] - expected).max() < 1e-3  # half precision
    root = heard.details[3]
    while isinstance(root, np.ndarray):
        root = root.base
    assert isinstance(root, mmap.mmap)


def test_planted_leaks_are_found_and_clean_clips_are_not(found):
    pairs = {one.clip: one.match for one in found.of("leak") if one.clip.startswith("leak")}
    assert len(pairs) >= 9
    assert all(match == f"eval-{2 * int(clip.split('-')[2])}" for clip, match in pairs.items())
    assert not {one.clip for one in found.of("leak")} - set(pairs)
    assert not found.of("memorised")
    assert found.clips == {"synth": 40, "train": 40, "eval": 30}


def test_kinds_say_how_sure_it_is(found):
    kinds = {one.clip.split("-")[1] + one.clip.split("-")[2]: one for one in found.of("leak")}
    assert kinds["copy0"].kinds[:1] == ("exact",) and kinds["copy0"].waveform == pytest.approx(1)
    assert "exact" in kinds["gain5"].kinds and "waveform" in kinds["shift6"].kinds
    assert kinds["noise8"].waveform == pytest.approx(0.953, abs=0.01)
    assert "exact" not in kinds["noise8"].kinds
    assert found.findings[0].kinds[0] == "exact"


def test_the_yardstick_is_that_of_train_against_eval(found):
    yard = found.yardsticks[0].row()
    assert (yard["view"], yard["set"], yard["honest_clips"]) == ("near", "eval", 40)
    assert yard["honest_max"] < yard["threshold"] < yard["synthetic_max"]
    assert yard["above"] >= 9


def test_short_cuts_and_long_mixtures_of_eval_clips_are_found(corpus, sounds, tmp_path):
    for k, wave in enumerate(sounds(70, 20)):
        write(tmp_path / "synth", f"clean-{k}", wave[: 16_000 + 320 * k])
    for number in (2, 5, 9, 14):
        wave = sounds(40 + number, 1)[0]
        write(tmp_path / "synth", f"cut-{number}", wave[8_000:30_000])
        write(tmp_path / "synth", f"long-{number}", np.concatenate([np.zeros(7_000, np.float32), wave]))
    for name in ("train", "eval"):
        (tmp_path / name).symlink_to(corpus / name)
    pairs = {(one.clip, one.match) for one in look(tmp_path, "synth").of("leak")}
    wanted = {(f"{kind}-{n}", f"eval-{n}") for kind in ("cut", "long") for n in (2, 5, 9, 14)}
    assert len(wanted & pairs) >= 7
    assert not [clip for clip, _ in pairs if clip.startswith("clean")]


def test_copies_shared_by_train_and_eval_are_told_and_hide_no_leak(corpus, sounds, tmp_path):
    for k, wave in enumerate(sounds(0, 40)):
        rng = np.random.default_rng(k)
        shared = add_noise(sounds(40 + k, 1)[0], rng) if k < 3 else wave
        write(tmp_path / "train", f"train-{k}", shared)
    for name in ("planted", "eval"):
        (tmp_path / name).symlink_to(corpus / name)
    found = look(tmp_path)
    assert {one.clip for one in found.of("split")} == {"train-0", "train-1", "train-2"}
    assert len({one.clip for one in found.of("leak")}) >= 9
    assert "split itself leaks" in " ".join(found.told())


def test_a_parent_is_a_leak_in_eval_and_memory_in_train(corpus, sounds, tmp_path):
    for k, wave in enumerate(sounds(70, 12)):
        write(tmp_path, f"syn-{k}", wave)
    write(tmp_path, "syn-like", encode_lossy(sounds(3, 1)[0], "mp3"))
    plain = open_set(tmp_path)
    parents = {"syn-0": "eval-4", "syn-1": "train-7", "syn-like": "train-3"}
    synth = ClipSet(plain.path, plain.names, [parents.get(n) for n in plain.names], _files=plain._files)
    found = audit.audit(synth, open_set(corpus / "train"), open_set(corpus / "eval"))
    assert [(one.clip, one.match, one.kinds) for one in found.of("leak")] == [
        ("syn-0", "eval-4", ("parent",))
    ]
    (one,) = found.of("memorised")
    assert (one.clip, one.match, one.own_parent) == ("syn-like", "train-3", True)
    counts = found.counts()
    assert (counts["guided_by_train"], counts["like_their_parent"], counts["leaked"]) == (2, 1, 1)


def test_fingerprints_of_any_lengths_are_compared_as_one_by_one(rng):
    details = [rng.normal(size=(n, 64)).astype(np.float16) for n in (20, 24, 51, 55, 130, 23)]
    like, prominence = audit_similarity.scores(details[:3], details[1:])
    assert like.shape == prominence.shape == (3, 5)
    for q, query in enumerate(details[:3]):
        for r, reference in enumerate(details[1:]):
            alone = audit_similarity.scores([query], [reference])[0][0, 0]
            assert like[q, r] == pytest.approx(alone, abs=0.06)  # padding weighs a little
    assert like[1, 0] == pytest.approx(1.0, abs=0.1) and like[2, 1] == pytest.approx(1.0, abs=0.1)


class Ear:
    """Where a spectrum rises and falls, as features."""

    name, labels, mids, weights_hash = "ear", (), None, "w1"
    sample_rate, min_samples, max_samples = 16_000, 240, None

    def __call__(self, wav):
        parts = np.abs(np.fft.rfft(np.asarray(wav)))[:, :16_000].reshape(len(wav), 200, -1).mean(axis=2)
        return np.sign(np.diff(np.log(parts + 1e-3))).astype(np.float32), np.zeros((len(wav), 1), np.float32)


def test_embeddings_are_a_second_view_that_is_kept(corpus, tmp_path):
    found = look(corpus, extractor=Ear(), cache=tmp_path)
    assert [(one.view, one.set) for one in found.yardsticks] == [
        *(("near", "eval"), ("embedding", "eval"), ("near", "train"), ("embedding", "train"))
    ]
    copy = next(one for one in found.of("leak") if one.clip.startswith("leak-copy"))
    assert "embedding" in copy.kinds and copy.embedding > copy.embedding_threshold
    assert list(tmp_path.rglob("*.arrow"))


def test_bad_input_is_told_in_a_line(corpus, tmp_path, capsys):
    console.configure()  # commands of other tests may have been told to be quiet
    with pytest.raises(UsageError, match=r"--synth and --train are the same 40 clips"):
        look(corpus, "train")
    with pytest.raises(UsageError, match=r"--eval and --synth are the same 30 clips"):
        look(corpus, "eval")
    write(tmp_path / "eval", "one", np.sin(np.arange(16_000)))
    (tmp_path / "train").symlink_to(corpus / "train")
    (tmp_path / "clean").symlink_to(corpus / "clean")
    with pytest.raises(MissingError, match="1 usable clips for --eval; at least 10 needed"):
        look(tmp_path, "clean")
    (tmp_path / "broken").mkdir()
    for path in (corpus / "clean").iterdir():
        (tmp_path / "broken" / path.name).symlink_to(path)
    (tmp_path / "broken" / "none.wav").write_bytes(b"RIFF")
    write(tmp_path / "broken", "short", np.sin(np.arange(900)))
    (tmp_path / "eval").rename(tmp_path / "few")
    (tmp_path / "eval").symlink_to(corpus / "eval")
    with pytest.raises(MissingError, match=r"2 of 102 clips cannot be heard: .*--allow-partial"):
        look(tmp_path, "broken")
    assert capsys.readouterr().err.count("cannot be heard: synth") == 2
    found = look(tmp_path, "broken", allow_partial=True)
    assert found.clips["synth"] == 30 and {one.clip for one in found.troubles} == {"none", "short"}


def command(root, synth, *more):
    sets = ["--synth", root / synth, "--train", root / "train", "--eval", root / "eval"]
    return CliRunner().invoke(app, ["audit", *map(str, (*sets, *more))])


def test_the_command_lists_shows_and_with_strict_exits_with_4(corpus, tmp_path):
    files = ["--out", tmp_path / "a.csv", "--report", tmp_path / "a.html", "--work", tmp_path / "w"]
    done = command(corpus, "planted", "--json", "--strict", *files)
    assert done.exit_code == 4, done.output
    shown = json.loads(done.stdout)
    assert shown["counts"]["leaked"] >= 9 and shown["counts"]["synth"] == 40
    assert "ajbench: " in done.stderr and "repeat eval clips" in done.stderr
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert len(rows) == len(shown["findings"]) and {"clip", "match", "kinds", "threshold"} <= set(rows[0])
    page = (tmp_path / "a.html").read_text()
    assert page.count("<audio") == 2 * min(10, len(shown["findings"]))
    assert "data:audio/flac;base64," in page and "http" not in page.replace("http://www.w3.org", "")
    assert command(corpus, "planted", *files).exit_code == 2  # they are there
    assert command(corpus, "planted", "-q").exit_code == 0
    clean = command(corpus, "clean", "--strict", "--out", tmp_path / "b.csv")
    assert clean.exit_code == 0, clean.output
    assert "0 of 30 synthetic clips repeat eval clips" in clean.stderr
    assert clean.stdout.splitlines()[0].split()[:2] == ["view", "set"]


def test_equal_file_names_are_no_identity_and_copies_under_them_are_found(sounds, tmp_path):
    for part, first in (("train", 0), ("eval", 40), ("made", 70)):
        for k, wave in enumerate(sounds(first, 30)):
            write(tmp_path / part, f"{k:04d}", wave)
    done = command(tmp_path, "made", "--strict", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["findings"] == []
    for k, made in ((3, sounds(43, 1)[0]), (8, add_noise(sounds(48, 1)[0], np.random.default_rng(1)))):
        write(tmp_path / "made", f"{k:04d}", made)
    pairs = {one.clip: (one.match, one.kinds[0]) for one in look(tmp_path, "made").of("leak")}
    assert pairs == {"0003": ("0003", "exact"), "0008": ("0008", "waveform")}
    assert command(tmp_path, "made", "--strict").exit_code == 4


def test_equal_ids_are_one_recording_in_stores_alone(tmp_path):
    def heard(clips, start):
        return audit_similarity.Heard(clips, [0, 1, 2], hashes=[f"{start + k}" for k in range(3)])

    store = open_set(make_store(tmp_path / "store").path)
    for name in store.names:
        write(tmp_path / "folder", name, np.zeros(400))
    folder = open_set(tmp_path / "folder")
    stores = audit_findings.Pairs(
        {"synth": heard(store, 0), "train": heard(store, 3), "eval": heard(store, 6)}
    )
    assert [one.kinds for one in stores.listed()] == 9 * [("id",)]
    assert not stores.honest("train", "eval").any()
    mixed = audit_findings.Pairs(
        {"synth": heard(store, 0), "train": heard(folder, 3), "eval": heard(folder, 6)}
    )
    assert mixed.listed() == [] and mixed.honest("train", "eval").all()


def test_a_parent_by_a_name_that_both_folders_have_is_not_told(tmp_path):
    folder = tmp_path / "real"
    for name in ("a", "b"):
        write(folder, name, np.zeros(400))
    real, synth = open_set(folder), ClipSet(tmp_path, ["one", "two"], ["a", "b"])
    held_out = audit_similarity.Heard(real, [0, 1], hashes=["1", "2"])
    made = audit_similarity.Heard(synth, [0, 1], hashes=["3", "4"])
    sets = {"synth": made, "train": audit_similarity.Heard(real, [0], hashes=["5"]), "eval": held_out}
    assert [(one.clip, one.match, one.kinds) for one in audit_findings.Pairs(sets).listed()] == [
        ("two", "b", ("parent",))
    ]


def near(n, clips=200, kinds=("near",), relation="leak"):
    """An audit in which n clips are flagged."""
    yard = audit_findings.Yardstick("near", "eval", np.zeros(100), np.zeros(clips), 1.0)
    found = [audit_findings.Finding(relation, f"s{k}", f"e{k}", kinds, False) for k in range(n)]
    return audit_findings.Audit(found, [yard], {"synth": clips, "train": 120, "eval": 50}, [], 0)


@pytest.mark.parametrize(
    ("n", "clips", "kinds", "holds"),
    [
        (0, 200, ("near",), False),
        (1, 200, ("near",), False),
        (4, 200, ("near", "embedding"), False),  # P(X ≥ 4) = 0.142 of Binomial(200, 0.01)
        (5, 200, ("near",), False),  # 0.0517
        (6, 200, ("embedding",), True),  # 0.0160
        (1, 5, ("near",), True),  # 0.0490
        (1, 6, ("near",), False),  # 0.0585
        *((1, 200, (kind, "near"), True) for kind in ("exact", "waveform", "parent", "id")),
    ],
)
def test_near_clips_hold_where_they_are_more_than_chance_explains(n, clips, kinds, holds):
    assert near(n, clips, kinds).tally("leak").holds == holds


def test_what_chance_alone_would_flag_is_told():
    told = near(5).told()
    assert told[0] == "0 of 200 synthetic clips repeat eval clips"
    assert "5 of 200 synthetic clips are near eval" in told[1] and "up to 2.0, which may explain" in told[1]
    assert "more than that explains (p = 0.02)" in near(6).told()[1]
    assert near(3, kinds=("exact", "near")).told()[0].startswith("3 of 200")
    split = near(1, relation="split").told()[-1]
    assert split.startswith("1 of 100 train clips are near eval") and "leaks" not in split
    copies = near(99, kinds=("id",), relation="split").told()[-1]
    assert copies == "99 of 120 train clips repeat eval clips, such as s0 of e0; the split itself leaks"
    counts = near(5).counts()
    assert (counts["leaked"], counts["leaked_surely"], counts["near_alone"]) == (5, 0, 5)
    assert counts["near_by_chance"] == 2.0 and counts["near_alone_p"] == pytest.approx(0.0517, abs=1e-4)


@pytest.mark.parametrize(("n", "code"), [(5, 0), (6, 4)])
def test_strict_exits_with_4_beyond_chance(corpus, monkeypatch, n, code):
    monkeypatch.setattr(audit, "audit", lambda *sets, **more: near(n))
    done = command(corpus, "clean", "--strict")
    assert done.exit_code == code, done.output
    assert f"{n} of 200 synthetic clips are near eval clips" in done.stderr
    assert ("such as s0 of e0" in done.stderr) == bool(code)


def test_options_that_say_nothing_are_refused(corpus, tmp_path):
    def refused(*line):
        done = CliRunner().invoke(app, ["audit", *map(str, line)])
        assert done.exit_code == 2 and len(done.stderr.strip().splitlines()) == 1, done.output
        return done.stderr

    sets = [word for name in ("clean", "train", "eval") for word in (f"--{name}", corpus / name)]
    sets[0] = "--synth"
    assert "--probe noise: is of a recipe's sets" in refused(*sets, "--probe", "noise")
    work = ("--work", tmp_path / "w")
    assert "--train-split train" in refused("--recipe", "mini", "--train-split", "train", *work)
    assert "--eval-split val" in refused("--recipe", "mini", "--eval-split", "val", *work)
    one = tmp_path / "one"
    said = refused(*sets, "--out", one, "--report", tmp_path / "w" / ".." / "one")
    assert "--out and --report are both" in said and not one.exists()


def test_a_dry_run_knows_which_features_there_are(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    assert command(corpus, "clean", "--dry-run", "--features", "nosuch").exit_code == 2
    assert command(corpus, "clean", "--dry-run", "--features", f"mn04={tmp_path / 'none.pt'}").exit_code == 3
    assert command(corpus, "clean", "--dry-run").exit_code == 0


def test_splits_of_one_store_are_named(corpus, tmp_path):
    store = make_store(tmp_path / "real")
    one = ["audit", "--synth", str(corpus / "clean"), "--train", str(store.path), "--eval", str(store.path)]
    done = CliRunner().invoke(app, one)
    assert done.exit_code == 2 and "--train-split train" in done.stderr
    plan = CliRunner().invoke(app, [*one, "--train-split", "train", "--eval-split", "eval", "--dry-run"])
    assert json.loads(plan.stdout)["eval"] == len(store.split_indices("eval"))
    done = CliRunner().invoke(app, ["audit", "--synth", str(corpus / "clean")])
    assert done.exit_code == 2 and "--train and --eval missing" in done.stderr


def test_twenty_leaks_planted_in_esc10_are_found(esc10_dir, tmp_path):
    rng = np.random.default_rng(2)
    files = {path.stem: path for path in sorted((esc10_dir / "audio").iterdir())}
    planted = set(rng.choice([name for name in files if name[0] == "5"], 20, replace=False))
    for name, path in files.items():
        if name[0] == "1":  # the other folds will do as train clips
            continue
        part = {"5": "eval", "4": "synth"}.get(name[0], "train")
        wave = audio.read(path)
        write(tmp_path / part, f"clean-{name}" if part == "synth" else name, wave)
        if part == "synth":  # more clean clips: their reversed selves
            write(tmp_path / part, f"clean-back-{name}", wave[::-1])
        if name in planted:
            number = sorted(planted).index(name)
            _, made = plant_copy(PLANT_KINDS[number // 4], number, wave, rng)
            write(tmp_path / "synth", f"leak-{name}", made)
    found = look(tmp_path, "synth").of("leak")
    assert len({one.clip for one in found if one.clip == f"leak-{one.match}"}) >= 19
    assert len({one.clip for one in found if one.clip.startswith("clean")}) <= 1  # of 160
