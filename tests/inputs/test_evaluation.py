"""Odd inputs of audit and eval-gen: repeated clips, partly shared names, long clips."""

import json
import unicodedata

import numpy as np
import pytest
import soundfile
from fakes import (
    BandExtractor,
    EnvelopeExtractor,
    FrameExtractor,
    pair_of,
    write_chord,
    write_chords,
    write_clip,
    write_kinds,
)
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console
from ajbench.core.errors import MissingError
from ajbench.data import audio
from ajbench.data.clip_set import open_set
from ajbench.evaluation import compare, feature_cache, protocols
from ajbench.evaluation.audit import audit_sets
from ajbench.metrics import spectral_distance


@pytest.fixture
def invoke():
    """invoke(*arguments) -> result of an ajbench command."""
    yield lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])
    console.configure()


def split_with_copies(root, waves, copies, gain):
    """Write 30 eval and 40 train clips, `copies` of them eval clips, and 20 synthetic ones, 3 of them too."""
    held_out, other, made = waves(0, 30), waves(30, 40), waves(70, 20)
    for k, wave in enumerate(held_out):
        write_clip(root / "eval", f"e{k}", wave)
    for k, wave in enumerate(other):
        write_clip(root / "train", f"t{k}", gain * held_out[k] if k < copies else wave)
    for k, wave in enumerate(made):
        write_clip(root / "synth", f"s{k}", held_out[29 - k] if k < 3 else wave)
    return [open_set(root / name) for name in ("synth", "train", "eval")]


@pytest.mark.parametrize("gain", [1.0, 0.8])
def test_train_clips_that_repeat_eval_clips_are_reported_and_do_not_calibrate(tmp_path, mini_waves, gain):
    found = audit_sets(*split_with_copies(tmp_path, mini_waves, 15, gain))
    pairs = {one.clip: one.match for one in found.of("split") if one.kinds != ("near",)}
    assert pairs == {f"t{k}": f"e{k}" for k in range(15)}
    leaks = {one.clip: one.match for one in found.of("leak") if one.kinds != ("near",)}
    assert leaks == {f"s{k}": f"e{29 - k}" for k in range(3)}
    for calibration in found.calibrations:  # copies stand out by 20 and more
        assert calibration.threshold < 18
    assert [len(one.real) for one in found.calibrations] == [25, 15]


def test_an_audit_that_cannot_be_calibrated_says_so(tmp_path, mini_waves, invoke):
    with pytest.raises(MissingError, match="train"):
        audit_sets(*split_with_copies(tmp_path, mini_waves, 30, 0.8)[:2], open_set(tmp_path / "eval"))
    sets = [part for name in ("synth", "train", "eval") for part in (f"--{name}", tmp_path / name)]
    done = invoke("audit", *sets)
    assert done.exit_code == 3 and done.stderr.count("\n") <= 3 and "such as t" in done.stderr


def test_strict_fails_where_train_repeats_eval(tmp_path, mini_waves, invoke):
    split_with_copies(tmp_path, mini_waves, 2, 1.0)
    for k in range(3):  # no leak of synthetic clips
        (tmp_path / "synth" / f"s{k}.wav").unlink()
    sets = [part for name in ("synth", "train", "eval") for part in (f"--{name}", tmp_path / name)]
    assert invoke("audit", *sets).exit_code == 0
    done = invoke("audit", *sets, "--strict")
    assert done.exit_code == 4 and "t0 and e0" in done.stderr


def test_repeated_eval_clips_leave_no_copy_in_the_calibration(tmp_path, mini_waves):
    sets = split_with_copies(tmp_path, mini_waves, 2, 1.0)
    write_clip(tmp_path / "eval", "e0-again", mini_waves(0)[0])
    found = audit_sets(*sets[:2], open_set(tmp_path / "eval"))
    assert [len(one.real) for one in found.calibrations] == [38, 28]


@pytest.fixture
def compared(tmp_path, monkeypatch, invoke):
    """compared(*arguments) -> result of eval-gen of gen and ref, by an extractor without weights."""
    monkeypatch.setattr("ajbench.features.extractor.LazyExtractor", lambda *_: BandExtractor())
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: invoke(
        "eval-gen", "--gen", "gen", "--ref", "ref", "--bootstrap", "0", *arguments
    )


@pytest.mark.parametrize("metrics", ["fd", "fd,kad"])
def test_metrics_of_whole_sets_need_no_pairs(tmp_path, compared, metrics):
    write_chords(tmp_path, 8)
    for k in range(3):
        (tmp_path / "gen" / f"clip-{k:02d}.wav").rename(tmp_path / "gen" / f"other{k}.wav")
    done = compared("--metrics", metrics, "--json")
    assert done.exit_code == 0, done.output
    assert {row["n"] for row in json.loads(done.stdout)["rows"]} == {8}
    assert compared("--metrics", f"{metrics},lsd").exit_code == 3


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("table", [True, False])
def test_names_in_both_forms_of_accents_pair(tmp_path, compared, forms, table):
    write_chords(tmp_path, 4)
    for form, name in zip(forms, ("gen", "ref"), strict=True):
        for k in range(4):
            (tmp_path / name / f"clip-{k:02d}.wav").rename(
                tmp_path / name / (unicodedata.normalize(form, f"é{k}ü") + ".wav")
            )
    lines = [" gen , ref", *(f"é{k}ü, {unicodedata.normalize('NFD', f'é{k}ü')}" for k in range(4))]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = compared("--metrics", "lsd", "--json", *(["--pairs", "pairs.csv"] if table else []))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"][0]["n"] == 4


@pytest.mark.parametrize("seconds", [4.0, 9.0])
def test_clips_of_very_different_lengths_are_told(tmp_path, compared, seconds):
    write_chords(tmp_path, 4)
    write_chord(tmp_path / "gen" / "long.wav", 9, seconds=seconds)
    done = compared("--metrics", "fd")
    assert done.exit_code == 0 and f"{seconds:g} s" in done.stderr, done.output


@pytest.mark.parametrize("n", [6, 9, 10, 25])
def test_the_inception_score_is_left_out_of_few_clips(tmp_path, n):
    write_kinds(tmp_path)
    pair = pair_of(tmp_path, EnvelopeExtractor())
    object.__setattr__(pair, "gen", pair.gen.take(np.arange(n) % len(pair.gen)))
    found = compare.measure(pair, compare.choose(pair, ["is"], required=False), allow_partial=True)
    assert bool(found.rows) == (n >= 10)
    assert any("inception score" in note for note in found.notes)


class SecondFrames(FrameExtractor):
    """The same of every second, so that longer sounds have more frames."""

    def __call__(self, wav):
        seconds = np.asarray(wav).reshape(len(wav), -1, 16_000).transpose(1, 0, 2)
        features = np.stack([BandExtractor.__call__(self, one)[0] for one in seconds], axis=1)
        return features, np.zeros((len(wav), 0), np.float32)


@pytest.mark.parametrize("frames", [False, True])
def test_long_clips_are_read_in_pieces(tmp_path, monkeypatch, frames):
    extractor = SecondFrames() if frames else BandExtractor()
    longest = []
    decode = audio.decode
    monkeypatch.setattr(audio, "decode", lambda *how: longest.append(decode(*how)) or longest[-1])
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, (200, 16_000)).astype(np.float32)
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "short.wav", sound[:2].reshape(-1), 16_000)
    sound[60:120] = 0  # a silent minute is left out
    soundfile.write(tmp_path / "a" / "long.wav", sound.reshape(-1), 16_000)
    found = feature_cache.embed(
        open_set(tmp_path / "a"), extractor, protocols.find("ajbench"), tmp_path / "cache"
    )
    assert len(found.numbers) == 2 and not found.left_out
    assert max(len(samples) for samples, _ in longest) <= 120 * 16_000
    assert np.isfinite(np.concatenate(found.rows)).all() and len(found.vectors()) == 2
    assert sum(map(len, found.rows)) == (60 + 80 + 2 if frames else 2)


@pytest.fixture
def longest(monkeypatch):
    """Frames of every part of a file that is decoded."""
    decode, found = audio.decode, []

    def watch(*how):
        samples, rate = decode(*how)
        found.append(len(samples) / rate)
        return samples, rate

    monkeypatch.setattr(audio, "decode", watch)
    return found


def write_long(path, seed, seconds=150, rate=16_000):
    """Write noise whose level moves."""
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.uniform(0.01, 0.2, seconds * 4), rate // 4)
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, rng.normal(0, 1, seconds * rate) * levels, rate)


@pytest.mark.parametrize(
    ("protocol", "rate"), [("ajbench", 16_000), ("ajbench", 8_000), ("av-benchmark", 8_000)]
)
def test_the_spectral_distance_of_long_clips_is_that_of_their_pieces(tmp_path, longest, protocol, rate):
    for name, seed in (("gen", 1), ("ref", 2)):
        write_long(tmp_path / name / "a.wav", seed, 150 + seed, rate)
        write_long(tmp_path / name / "b.wav", seed + 2, 2, rate)
    pair = pair_of(tmp_path, BandExtractor(), protocol, None)
    longest.clear()
    found = [spectral_distance.distance_of_pieces(*waves) for waves in pair.waves(16_000)]
    assert max(longest) < 120
    whole = [
        [pair.protocol.wave(*clips.samples(number), 16_000) for clips in (pair.gen, pair.ref)]
        for number in (0, 1)
    ]
    assert found == pytest.approx(
        [spectral_distance.log_spectral_distance(*waves) for waves in whole], rel=1e-3
    )


@pytest.mark.parametrize("whole", [True, False])
def test_long_clips_are_audited_in_pieces(tmp_path, mini_waves, longest, whole):
    sets = split_with_copies(tmp_path, mini_waves, 2, 1.0)
    write_long(tmp_path / "eval" / "long.wav", 1)
    copy = soundfile.read(tmp_path / "eval" / "long.wav")[0]
    soundfile.write(
        tmp_path / "synth" / "copy.wav", 0.5 * copy[(0 if whole else 70 * 16_000) :][: 140 * 16_000], 16_000
    )
    longest.clear()
    found = audit_sets(open_set(tmp_path / "synth"), sets[1], open_set(tmp_path / "eval"))
    leak = next(one for one in found.of("leak") if one.clip == "copy")
    assert leak.match == "long" and "waveform" in leak.kinds
    assert max(longest) < 120


def test_extractors_that_cut_clips_get_the_beginning_of_long_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(BandExtractor, "max_samples", 160_000)
    sound = np.random.default_rng(0).normal(0, 0.1, 150 * 16_000)
    sound[60 * 16_000 :] *= 0.01
    (tmp_path / "a").mkdir()
    for name, seconds in (("long", 150), ("short", 10)):
        soundfile.write(tmp_path / "a" / f"{name}.wav", sound[: seconds * 16_000], 16_000)
    vectors = feature_cache.embed(
        open_set(tmp_path / "a"), BandExtractor(), protocols.find("ajbench"), tmp_path / "cache"
    ).vectors()
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-5)


def test_long_clips_without_sound_are_left_out_by_name(tmp_path, compared):
    write_chords(tmp_path, 4)
    soundfile.write(tmp_path / "gen" / "clip-00.wav", np.zeros(150 * 16_000), 16_000)
    done = compared("--metrics", "fd")
    assert done.exit_code == 3 and "clip-00: silent" in done.stderr, done.output


@pytest.mark.parametrize("metrics", ["fd", "fd,kad"])
def test_a_folder_has_no_distance_to_itself(tmp_path, compared, metrics):
    write_chords(tmp_path, 12)
    (tmp_path / "same").symlink_to(tmp_path / "ref")
    done = compared("--gen", "same", "--metrics", metrics, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"][0]["value"] == 0
