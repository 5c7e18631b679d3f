"""The leak audit finds planted copies and leaves independent clips alone."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import PLANT_KINDS, BandExtractor, add_noise, encode_lossy, plant_copy, write_clip

import ajbench
from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.data import audio
from ajbench.data.clip_set import open_set
from ajbench.evaluation.audit import audit_sets


def audited(root, synth="planted", **more):
    return audit_sets(*(open_set(root / name) for name in (synth, "train", "eval")), **more)


def linked(root, folders, *names):
    """Put links to some of the folders into another one."""
    for name in names:
        (root / name).symlink_to(folders / name)
    return root


@pytest.fixture(scope="session")
def found(audit_folders):
    return audited(audit_folders)


def test_planted_leaks_are_found_and_clean_clips_are_not(found):
    pairs = {one.clip: one.match for one in found.of("leak") if one.clip.startswith("leak")}
    assert len(pairs) >= 9
    assert all(match == f"eval-{2 * int(clip.split('-')[2])}" for clip, match in pairs.items())
    assert not {one.clip for one in found.of("leak")} - set(pairs)
    assert not found.of("memorised")
    assert found.clips == {"synth": 40, "train": 40, "eval": 30}


def test_the_public_function_returns_the_pairs_as_a_table(audit_folders, found, tmp_path):
    real = (audit_folders / "train", str(audit_folders / "eval"))
    table = ajbench.audit(audit_folders / "planted", *real, cache=tmp_path)
    rows = [one.row() for one in found.findings]
    assert list(table.columns) == list(rows[0]) and list(table["clip"]) == [row["clip"] for row in rows]
    clean = ajbench.audit(audit_folders / "clean", *real, cache=tmp_path)
    assert clean.empty and list(clean.columns) == list(table.columns)


def test_kinds_show_how_sure_a_finding_is(found):
    kinds = {one.clip.split("-")[1] + one.clip.split("-")[2]: one for one in found.of("leak")}
    assert kinds["copy0"].kinds[:1] == ("exact",) and kinds["copy0"].waveform == pytest.approx(1)
    assert "exact" in kinds["gain5"].kinds and "waveform" in kinds["shift6"].kinds
    assert kinds["noise8"].waveform == pytest.approx(0.953, abs=0.01)
    assert "exact" not in kinds["noise8"].kinds
    assert found.findings[0].kinds[0] == "exact"


def test_the_threshold_is_calibrated_on_train_against_eval(found):
    row = found.calibrations[0].row()
    assert (row["view"], row["set"], row["real_clips"]) == ("near", "eval", 40)
    assert row["real_90"] < row["threshold"] <= row["real_max"] < row["synthetic_max"]
    assert row["above"] >= 9 and found.calibrations[0].rank == 1


@pytest.mark.parametrize(("per_recording", "clips"), [(1, 40), (2, 20), (20, 40)])
def test_every_recording_calibrates_once_unless_there_are_too_few(audit_folders, per_recording, clips):
    sets = [open_set(audit_folders / name) for name in ("clean", "train", "eval")]
    vars(sets[1])["recordings"] = [f"recording {k // per_recording}" for k in range(40)]
    assert len(audit_sets(*sets).calibrations[0].real) == clips


def test_excerpts_and_longer_clips_with_an_eval_clip_are_found(audit_folders, mini_waves, tmp_path):
    for k, wave in enumerate(mini_waves(70, 20)):
        write_clip(tmp_path / "synth", f"clean-{k}", wave[: 16_000 + 320 * k])
    for number in (2, 5, 9, 14):
        (wave,) = mini_waves(40 + number)
        write_clip(tmp_path / "synth", f"cut-{number}", wave[8_000:30_000])
        write_clip(tmp_path / "synth", f"long-{number}", np.concatenate([np.zeros(7_000, np.float32), wave]))
    found = audited(linked(tmp_path, audit_folders, "train", "eval"), "synth")
    pairs = {(one.clip, one.match) for one in found.of("leak")}
    wanted = {(f"{kind}-{n}", f"eval-{n}") for kind in ("cut", "long") for n in (2, 5, 9, 14)}
    assert len(wanted & pairs) >= 7
    assert not [clip for clip, _ in pairs if clip.startswith("clean")]


def test_copies_shared_by_train_and_eval_are_reported_and_hide_no_leak(audit_folders, mini_waves, tmp_path):
    for k, wave in enumerate(mini_waves(0, 40)):
        shared = add_noise(*mini_waves(40 + k), np.random.default_rng(k)) if k < 3 else wave
        write_clip(tmp_path / "train", f"train-{k}", shared)
    found = audited(linked(tmp_path, audit_folders, "planted", "eval"))
    shared = {"train-0", "train-1", "train-2"}
    assert {one.clip for one in found.of("split") if "waveform" in one.kinds} == shared
    assert len(found.calibrations[0].real) == 37 and found.calibrations[0].rank == 1
    assert found.tally("split").holds
    assert len({one.clip for one in found.of("leak")}) >= 9


def test_copies_are_found_where_all_clips_are_alike(tmp_path):
    """Struck bells share their detail, and some nearly their waveform: only the residual tells a copy."""
    t = np.arange(audio.SAMPLE_RATE) / audio.SAMPLE_RATE

    def bell(seed, noise=1e-3):
        rng = np.random.default_rng(seed)
        pitch = 2 * np.pi * rng.uniform(300, 900) * t
        wave = sum(np.sin(pitch * k) * np.exp(-t * k * 3) / k for k in (1, 2.0, 2.4, 3.0, 4.5))
        return (0.2 * wave + noise * rng.standard_normal(len(t))).astype(np.float32)

    for number in range(40):
        write_clip(tmp_path / "train", f"{number}", bell(number))
        write_clip(tmp_path / "eval", f"{number}", bell(500 + number))
        copied = 500 + number if number in (3, 17, 31) else None
        wave = bell(400 + number, noise=0.02) if copied is None else 0.5 * bell(copied)
        write_clip(tmp_path / "planted", f"{number}", wave)
    leaks = audited(tmp_path).of("leak")
    assert {(one.clip, one.match) for one in leaks} == {(name, name) for name in ("3", "17", "31")}
    assert all("exact" in one.kinds for one in leaks)


def test_a_guide_is_a_leak_in_eval_and_memorisation_in_train(audit_folders, mini_waves, tmp_path):
    for k, wave in enumerate(mini_waves(70, 12)):
        write_clip(tmp_path, f"syn-{k}", wave)
    write_clip(tmp_path, "syn-like", encode_lossy(*mini_waves(3), "mp3"))
    plain, parents = open_set(tmp_path), {"syn-0": "eval-4", "syn-1": "train-7", "syn-like": "train-3"}
    synth = replace(plain, parents=[parents.get(name) for name in plain.names])
    found = audit_sets(synth, open_set(audit_folders / "train"), open_set(audit_folders / "eval"))
    (leak,), (one,) = found.of("leak"), found.of("memorised")
    assert (leak.clip, leak.match, leak.kinds) == ("syn-0", "eval-4", ("parent",))
    assert (one.clip, one.match, one.own_parent) == ("syn-like", "train-3", True)
    counts = found.counts()
    assert (counts["guided_by_train"], counts["like_their_parent"], counts["leaked"]) == (2, 1, 1)


class SignExtractor(BandExtractor):
    """Where a spectrum rises and falls, as features."""

    def __call__(self, wav):
        parts = np.abs(np.fft.rfft(np.asarray(wav)))[:, :16_000].reshape(len(wav), 200, -1).mean(axis=2)
        return np.sign(np.diff(np.log(parts + 1e-3))).astype(np.float32), np.zeros((len(wav), 1), np.float32)


def test_embeddings_are_a_second_view_and_are_cached(audit_folders, tmp_path):
    found = audited(audit_folders, extractor=SignExtractor(), cache=tmp_path)
    expected = [(view, split) for split in ("eval", "train") for view in ("near", "embedding")]
    assert [(one.view, one.set) for one in found.calibrations] == expected
    copy = next(one for one in found.of("leak") if one.clip.startswith("leak-copy"))
    assert "embedding" in copy.kinds and copy.embedding > copy.embedding_threshold
    assert list(tmp_path.rglob("*.arrow"))


@pytest.mark.parametrize(
    ("synth", "sets"), [("train", "--synth and --train"), ("eval", "--eval and --synth")]
)
def test_one_set_given_twice_is_refused(audit_folders, synth, sets):
    with pytest.raises(UsageError, match=sets):
        audited(audit_folders, synth)


def test_too_few_real_clips_are_refused(audit_folders, tmp_path):
    write_clip(tmp_path / "eval", "one", np.sin(np.arange(16_000)))
    with pytest.raises(MissingError, match="--eval"):
        audited(linked(tmp_path, audit_folders, "train", "clean"), "clean")


def test_unusable_clips_are_named_and_can_be_skipped(audit_folders, tmp_path, capsys):
    console.configure()  # tests of commands may have made it quiet
    (tmp_path / "broken").mkdir()
    for path in (audit_folders / "clean").iterdir():
        (tmp_path / "broken" / path.name).symlink_to(path)
    (tmp_path / "broken" / "none.wav").write_bytes(b"RIFF")
    write_clip(tmp_path / "broken", "short", np.sin(np.arange(900)))
    root = linked(tmp_path, audit_folders, "train", "eval")
    with pytest.raises(MissingError, match=r"2 of 102 .*--allow-partial"):
        audited(root, "broken")
    shown = capsys.readouterr().err
    assert "synth none" in shown and "synth short" in shown
    found = audited(root, "broken", allow_partial=True)
    assert found.clips["synth"] == 30 and {one.clip for one in found.skipped} == {"none", "short"}


def test_twenty_leaks_planted_in_esc10_are_found(esc10_dir, tmp_path):
    rng = np.random.default_rng(2)
    files = {path.stem: path for path in sorted((esc10_dir / "audio").iterdir())}
    planted = set(rng.choice([name for name in files if name[0] == "5"], 20, replace=False))
    for name, path in files.items():
        if name[0] == "1":  # the other folds are enough train clips
            continue
        part = {"5": "eval", "4": "synth"}.get(name[0], "train")
        wave = audio.read(path)
        write_clip(tmp_path / part, f"clean-{name}" if part == "synth" else name, wave)
        if part == "synth":  # reversed, they are more clean clips
            write_clip(tmp_path / part, f"clean-back-{name}", wave[::-1])
        if name in planted:
            number = sorted(planted).index(name)
            _, made = plant_copy(PLANT_KINDS[number // 4], number, wave, rng)
            write_clip(tmp_path / "synth", f"leak-{name}", made)
    found = audited(tmp_path, "synth").of("leak")
    assert len({one.clip for one in found if one.clip == f"leak-{one.match}"}) >= 19
    assert len({one.clip for one in found if one.clip.startswith("clean")}) <= 1  # of 160


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_same_offset_in_independent_clips_is_no_copy(tmp_path, share):
    rng = np.random.default_rng(5)
    for name in ("synth", "train", "eval"):
        for k in range(40):
            offset = 0.012 * (rng.random() < share)
            write_clip(tmp_path / name, f"{name}{k}", rng.normal(0, 0.002, 16_000) + offset)
    assert not audited(tmp_path, "synth").tally("leak").holds


def test_sets_without_usable_sound_are_refused_in_a_line_with_embeddings_too(audit_folders, tmp_path):
    linked(tmp_path, audit_folders, "planted", "eval")
    for k in range(12):
        write_clip(tmp_path / "train", f"silent{k}", np.zeros(16_000))
    with pytest.raises(MissingError, match="too few usable clips"):
        audited(tmp_path, extractor=BandExtractor(), cache=tmp_path / "cache", allow_partial=True)
