"""The ladder of references: what its rungs sound like, that all are measured alike, and what is told."""

import csv
import itertools
import json
from collections import Counter

import numpy as np
import pytest
import soundfile
from scipy.signal import welch
from typer.testing import CliRunner

from ajbench import classifiers, codec, compare, ladder, protocols, rungs
from ajbench.cli import app
from ajbench.clipsets import open_set
from ajbench.embeddings import embed
from ajbench.errors import MissingError
from ajbench.metrics.distribution import frechet_distance, inception_score, kl_divergence

PLAIN = protocols.find("ajbench")
RATE, N = 16_000, 24


class Ear:
    """Log levels of ten bands as features, and some sums of them as logits."""

    name, labels, mids, weights_hash = "ear", tuple("abcde"), None, "w1"
    sample_rate, least, most = RATE, 240, None

    def __init__(self):
        self.heard = 0
        self.mix = 0.4 * np.random.default_rng(3).normal(size=(10, 5)).astype(np.float32)

    def __call__(self, wav):
        self.heard += len(wav)
        power = np.abs(np.fft.rfft(np.asarray(wav), axis=1)) ** 2 / wav.shape[1]
        edges = np.geomspace(40, power.shape[1], 11).astype(int)
        bands = np.stack([power[:, a:b].mean(axis=1) for a, b in itertools.pairwise(edges)], axis=1)
        features = np.log10(bands + 1e-5).astype(np.float32)
        return features, features @ self.mix


def tones(path, seed, seconds=0.5, rate=RATE):
    """Write a chord of decaying harmonics, each clip with its own pitch and colour."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch, fall = rng.uniform(200, 900), rng.uniform(0.3, 2)
    wave = sum(np.sin(2 * np.pi * pitch * k * t + k) / k**fall for k in range(1, 8))
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * rng.uniform(0.3, 1) * wave * np.exp(-2 * t) + 1e-4 * rng.normal(size=len(t))
    soundfile.write(path, wave, rate, subtype="PCM_16")


@pytest.fixture
def folders(tmp_path):
    for k in range(N):
        tones(tmp_path / "gen" / f"clip-{k:02d}.wav", k)
        tones(tmp_path / "ref" / f"clip-{k:02d}.wav", 1000 + k)
    return tmp_path


@pytest.fixture(scope="module")
def tiny():
    return codec.load("tiny")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Features, which tests share: they are known by what is heard."""
    return tmp_path_factory.mktemp("kept")


def climb(folders, tiny, kept, ear=None, *, gen="gen", metrics=None, resamples=20, seed=0, **more):
    how = open_set(folders / gen), open_set(folders / "ref"), ear or Ear(), PLAIN, kept
    draws = {"pairs": compare.pairs_of(*how[:2]), "resamples": resamples, "seed": seed}
    found = compare.compare(*how, metrics=metrics, **draws, **more)
    return ladder.beside(found, *how, tiny, **draws)


def by_row(found, metric):
    return {line["row"]: line for line in found.rows if line["metric"] == metric}


# Sounds


def test_pink_noise_falls_by_3_db_an_octave_at_the_level_and_length_of_the_clip():
    for rate in (16_000, 44_100):
        clip = 0.1 * np.random.default_rng(0).normal(size=(20 * rate, 2)).astype(np.float32)
        wave = rungs.pink_noise(0).make("a", clip, rate)
        assert wave.shape == (20 * rate, 1) and wave.dtype == np.float32
        assert np.sqrt(np.mean(wave**2)) == pytest.approx(np.sqrt(np.mean(clip**2)), rel=1e-3)
        hz, power = welch(wave[:, 0], rate, nperseg=8192)
        octaves = [
            10 * np.log10(power[(hz >= low) & (hz < 2 * low)].mean()) for low in (50 * 2**k for k in range(7))
        ]
        assert np.polyfit(range(7), octaves, 1)[0] == pytest.approx(-3.01, abs=0.1)
        assert np.abs(np.diff(octaves) + 3.01).max() < 1
        infrasonic = power[(hz > 0) & (hz < 12)].mean() / power[(hz > 22) & (hz < 30)].mean()
        assert infrasonic < 2  # flat where nobody hears


def test_noise_is_that_of_a_seed_and_a_name():
    clip = np.ones((1000, 1), np.float32)
    made = rungs.pink_noise(1).make("a", clip, RATE)
    assert np.array_equal(made, rungs.pink_noise(1).make("a", clip, RATE))
    for other in (rungs.pink_noise(2).make("a", clip, RATE), rungs.pink_noise(1).make("b", clip, RATE)):
        assert abs(np.corrcoef(made[:, 0], other[:, 0])[0, 1]) < 0.3


def test_the_round_trip_is_the_codec_s_own_at_16_khz(folders, tiny):
    wave = open_set(folders / "gen").samples(0)[0]
    made = rungs.round_trip(tiny).make("a", wave[:6400], RATE)
    assert np.array_equal(made[:, 0], tiny.decode(tiny.encode(wave[:6400].T)).numpy()[0])
    tones(folders / "other" / "a.wav", 5, seconds=0.4567, rate=44_100)
    stereo = np.repeat(open_set(folders / "other").samples(0)[0], 2, axis=1)
    change = rungs.round_trip(tiny)
    assert change.rate == RATE and change.make("a", stereo, 44_100).shape == (round(0.4567 * RATE), 1)


def test_contents_differ_by_source_rung_seed_codec_and_name(folders, tiny):
    def other():
        changed = codec.load("tiny")
        changed.weights_hash = "another"
        return changed

    soundfile.write(folders / "gen" / "copy.wav", *soundfile.read(folders / "gen" / "clip-00.wav"))
    plain = open_set(folders / "gen")
    copy = plain.names.index("copy")
    assert plain.content(copy) == plain.content(0)
    changes = [rungs.pink_noise(0), rungs.pink_noise(1), rungs.silence(), rungs.round_trip(tiny)]
    sets = [plain, *(plain.changed(change) for change in (*changes, rungs.round_trip(other())))]
    contents = [clips.content(n) for clips in sets for n in (0, 1)]
    assert len(set(contents)) == 2 * len(sets)
    noise = plain.changed(rungs.pink_noise(0))
    assert noise.content(copy) != noise.content(0)  # it is another noise


def test_what_is_taken_of_a_set_keeps_its_place(folders):
    whole = open_set(folders / "gen")
    part = whole.take(np.array([7, 2]))
    assert list(part.names) == ["clip-07", "clip-02"] and len(part) == 2
    assert part.content(0) == whole.content(7) and part.rates() == Counter({RATE: 2})
    assert np.array_equal(part.samples(1)[0], whole.samples(2)[0])
    assert not part.changed(rungs.silence()).samples(1)[0].any()


def test_silence_is_measured_on_purpose_and_refused_by_accident(folders):
    quiet = open_set(folders / "gen").changed(rungs.silence())
    assert embed(quiet, Ear(), PLAIN, folders / "cache").computed == N
    soundfile.write(folders / "gen" / "clip-03.wav", np.zeros(8000), RATE)
    for clips in (open_set(folders / "gen"), open_set(folders / "gen").changed(rungs.silence())):
        found = embed(clips, Ear(), PLAIN, folders / "other")
        assert [one.number for one in found.left_out] == [3]


# Pairs


def test_shuffled_labels_give_every_clip_the_counterpart_of_another():
    pairs = {f"gen-{k}": f"ref-{k // 2}" for k in range(40)}
    for seed in range(20):
        other = ladder.deranged(pairs, np.random.default_rng(seed))
        assert other.keys() == pairs.keys() and all(other[one] != real for one, real in pairs.items())
        assert Counter(other.values()) == Counter(pairs.values())
        assert all(other[f"gen-{2 * k}"] == other[f"gen-{2 * k + 1}"] for k in range(20))
    assert ladder.deranged(pairs, np.random.default_rng(0)) != other


# Measurements


def test_rungs_stand_in_their_order_at_one_n(folders, tiny, kept):
    found = climb(folders, tiny, kept)
    half = N // 2
    fd = by_row(found, "fd")
    assert list(fd) == ["gen", ladder.HALVES, ladder.CODEC, f"gen, {half} clips", ladder.PINK, ladder.SILENCE]
    values = {row: line["value"] for row, line in fd.items()}
    assert values[ladder.HALVES] < values[ladder.CODEC] < min(values[ladder.PINK], values[ladder.SILENCE])
    assert values[f"gen, {half} clips"] < values[ladder.PINK]
    assert (fd["gen"]["n"], fd["gen"]["n_reference"]) == (N, N)
    assert {(line["n"], line["n_reference"]) for row, line in fd.items() if row != "gen"} == {(half, half)}
    for line in fd.values():
        assert line["ci_low"] < line["value"] < line["ci_high"] and line["features"] == "ear"
    assert by_row(found, "is")[ladder.SILENCE]["value"] == pytest.approx(1)
    kl = by_row(found, "kl")
    assert list(kl) == ["gen", ladder.CODEC, ladder.SHUFFLED, ladder.PINK, ladder.SILENCE]
    assert kl[ladder.CODEC]["value"] < kl["gen"]["value"] and kl[ladder.SHUFFLED]["n"] == N
    assert any(f"compare them with the row 'gen, {half} clips'" in note for note in found.notes)


def test_values_are_of_the_halves_and_of_each_clip_with_its_own(folders, tiny, kept):
    found, ear, ref = climb(folders, tiny, kept, seed=4), Ear(), open_set(folders / "ref")
    order = np.random.default_rng(4).permutation(N)
    first, second = np.sort(order[: N // 2]), np.sort(order[N // 2 :])
    real = embed(ref, ear, PLAIN, kept)
    fd, kl, score = (by_row(found, metric) for metric in ("fd", "kl", "is"))
    x, y = real.features[first], real.features[second]
    assert fd[ladder.HALVES]["value"] == pytest.approx(frechet_distance(x, y), rel=1e-9)
    changes = {
        ladder.CODEC: rungs.round_trip(tiny),
        ladder.PINK: rungs.pink_noise(4),
        ladder.SILENCE: rungs.silence(),
    }
    for row, change in changes.items():
        made = embed(ref.take(first).changed(change), ear, PLAIN, kept)
        assert fd[row]["value"] == pytest.approx(frechet_distance(made.features, y), rel=1e-6)
        assert score[row]["value"] == pytest.approx(inception_score(made.logits)[0], rel=1e-6)
        assert kl[row]["value"] == pytest.approx(kl_divergence(made.logits, real.logits[first]), rel=1e-6)


def test_a_smaller_generated_set_sets_the_n(folders, tiny, kept):
    for k in range(7, N):
        (folders / "gen" / f"clip-{k:02d}.wav").unlink()
    found = climb(folders, tiny, kept, metrics=["fd", "kl"], allow_partial=True)
    fd = by_row(found, "fd")
    assert {(line["n"], line["n_reference"]) for row, line in fd.items() if row != "gen"} == {(7, N // 2)}
    assert "gen, 7 clips" in fd and by_row(found, "kl")[ladder.SHUFFLED]["n"] == 7


def test_only_shuffled_pairs_change_and_only_what_is_paired(folders, tiny, kept):
    for k in range(N):  # each generated clip a louder copy of its own counterpart
        wave = soundfile.read(folders / "ref" / f"clip-{k:02d}.wav")[0]
        soundfile.write(folders / "gen" / f"clip-{k:02d}.wav", 1.5 * wave, RATE)
    found = climb(folders, tiny, kept)
    kl = by_row(found, "kl")
    assert kl["gen"]["value"] < 0.2 * kl[ladder.SHUFFLED]["value"]
    assert kl["gen"]["n"] == kl[ladder.SHUFFLED]["n"] == N
    assert not {ladder.SHUFFLED} & (by_row(found, "fd").keys() | by_row(found, "is").keys())


def test_it_is_the_same_by_seed_and_what_was_computed_is_kept(folders, tiny, tmp_path):
    ear = Ear()
    first = climb(folders, tiny, tmp_path / "cache", ear)
    heard = ear.heard
    assert heard == 2 * N + 3 * (N // 2)  # both sets, and three sounds of half of the real clips
    again = climb(folders, tiny, tmp_path / "cache", ear)
    assert ear.heard == heard and again.rows == first.rows
    other = by_row(climb(folders, tiny, tmp_path / "cache", ear, seed=1), "fd")
    assert other[ladder.HALVES]["value"] != by_row(first, "fd")[ladder.HALVES]["value"]
    assert other["gen"]["value"] == by_row(first, "fd")["gen"]["value"]


def test_sets_without_pairs_have_no_paired_rungs(folders, tiny, kept):
    for k in range(N):
        (folders / "gen" / f"clip-{k:02d}.wav").rename(folders / "gen" / f"made-{k:02d}.wav")
    found = climb(folders, tiny, kept)
    assert {line["metric"] for line in found.rows} == {"fd", "is"}
    assert not any(ladder.SHUFFLED in note for note in found.notes)


def test_broken_real_clips_are_no_rung(folders, tiny, kept):
    soundfile.write(folders / "ref" / "clip-04.wav", np.zeros(8000), RATE)
    with pytest.raises(MissingError, match="silent"):
        climb(folders, tiny, kept)
    found = climb(folders, tiny, kept, allow_partial=True)
    fd = by_row(found, "fd")
    assert fd["gen"]["n_reference"] == 23
    assert {(line["n"], line["n_reference"]) for row, line in fd.items() if row != "gen"} == {(11, 12)}
    assert by_row(found, "kl")[ladder.SHUFFLED]["n"] == 23
    for k in range(3, N):
        for name in ("gen", "ref"):
            (folders / name / f"clip-{k:02d}.wav").unlink()
    with pytest.raises(MissingError, match="3 usable real clips; at least 4"):
        climb(folders, tiny, kept)


# What is told


def test_noise_and_copies_are_told_of_and_good_clips_are_not(folders, tiny, kept):
    fewer = f"{N // 2} clips"
    good = by_row(climb(folders, tiny, kept, metrics=["fd"]), "fd")
    assert all(line["note"] == "" for line in good.values())
    for k in range(N):
        clip = soundfile.read(folders / "ref" / f"clip-{k:02d}.wav", dtype="float32", always_2d=True)[0]
        (folders / "hiss").mkdir(exist_ok=True)
        noise = rungs.pink_noise(9).make(str(k), clip, RATE)
        soundfile.write(folders / "hiss" / f"clip-{k:02d}.wav", noise, RATE)
    found = climb(folders, tiny, kept, gen="hiss", metrics=["fd"])
    assert "fd is not clearly better than that of pink noise" in by_row(found, "fd")[f"hiss, {fewer}"]["note"]
    assert any("hiss" in note and "pink noise" in note for note in found.notes)
    found = climb(folders, tiny, kept, gen="ref")
    assert "suspicious: look for copies" in by_row(found, "kl")["ref"]["note"]
    found = climb(folders, tiny, kept, gen="ref", resamples=0)  # without intervals nobody is accused
    assert not any("suspicious" in note for note in found.notes)


def test_silence_that_passes_for_good_is_told_of():
    def line(value, width=0.1):
        return {"value": value, "ci_low": value - width, "ci_high": value + width, "note": ""}

    lines = {"gen": line(2), ladder.CODEC: line(1), ladder.PINK: line(4), ladder.SILENCE: line(0.9)}
    ladder._judge(lines, "gen", "kl")
    assert lines["gen"]["note"] == "kl is not clearly better than that of silence"
    assert lines[ladder.SILENCE]["note"] == (
        "kl is no worse than that of codec round trip: it says little here"
    )
    assert not lines[ladder.PINK]["note"] and not lines[ladder.CODEC]["note"]
    lines = {"gen": line(1), ladder.CODEC: line(1), ladder.SHUFFLED: line(4), ladder.SILENCE: line(3)}
    ladder._judge(lines, "gen", "kl")
    assert lines[ladder.SILENCE]["note"].startswith("kl is no worse than that of shuffled labels")
    assert not lines[ladder.SHUFFLED]["note"] and not lines["gen"]["note"]
    lines = {"gen": line(2), ladder.HALVES: line(3), ladder.PINK: line(1.9), ladder.SILENCE: line(1, 0)}
    ladder._judge(lines, "gen", "is")  # where more is better, and more than real clips have is no sign
    assert lines["gen"]["note"] == "is is not clearly better than that of pink noise"


def test_fd_is_suspicious_below_what_real_clips_of_that_many_have():
    halves = {"value": 8.0, "ci_low": 6.0, "ci_high": 10.0, "n": 50, "n_reference": 50}

    def told(value, n):
        whole = {"value": value, "ci_low": value - 0.5, "ci_high": value + 0.5, "note": "before"}
        whole |= {"n": n, "n_reference": n}
        ladder._suspect(whole, halves, "fd")
        return whole["note"]

    # Of twice as many real clips FD is 4, and at least 3.
    assert told(2.4, 100).startswith("before; fd is better than of real, two halves, as n goes")
    assert told(2.6, 100) == told(5.4, 60) == "before" != told(5.4, 50) and "as n goes" not in told(5.4, 50)


def test_the_drawing_shows_the_rungs_of_one_n(folders, tiny, kept):
    found = climb(folders, tiny, kept, gen="ref")  # copies: FD of all of them is 0
    drawn = ladder.drawing(found.rows)
    assert drawn.startswith("<svg") and 'xmlns="http://www.w3.org/2000/svg"' in drawn
    for row in (ladder.HALVES, ladder.CODEC, f"ref, {N // 2} clips", ladder.PINK, ladder.SILENCE):
        assert f">{row}<" in drawn
    assert f"FD (ear) of {N // 2} clips to {N // 2} real ones" in drawn and ">ref<" not in drawn


# The command


def test_the_command_writes_table_and_drawing(folders):
    saved = {"name": "taltrans-small", "labels": ["rain", "dog"], "clip_samples": 80_640, "options": {}}
    classifiers.save(classifiers.build("taltrans-small", 2), folders / "judge", **saved, extra={})
    for k in range(6, N):
        for name in ("gen", "ref"):
            (folders / name / f"clip-{k:02d}.wav").unlink()
    sets = ["eval-gen", "--gen", str(folders / "gen"), "--ref", str(folders / "ref"), "--json", "-q"]
    command = [*sets, "--features", f"reference={folders / 'judge'}", "--work", str(folders / "w")]
    command += ["--bootstrap", "10", "--ladder"]
    files = ["--out", str(folders / "out.csv"), "--ladder-figure", str(folders / "ladder.svg")]
    done = CliRunner().invoke(app, [*command, *files])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    rows = [(line["row"], line["metric"]) for line in shown["rows"]]
    assert rows[:4] == [("gen", "fd"), (ladder.HALVES, "fd"), (ladder.CODEC, "fd"), ("gen, 3 clips", "fd")]
    assert any("compare them with the row" in note for note in shown["notes"])
    lines = list(csv.DictReader((folders / "out.csv").read_text().splitlines()))
    assert [(line["row"], line["metric"]) for line in lines] == rows and "note" in lines[0]
    assert (folders / "ladder.svg").read_text().startswith("<svg")
    assert CliRunner().invoke(app, [*command, *files[2:]]).exit_code == 2  # it is there
    for wrong in (
        [*sets, "--ladder-figure", "a.svg"],
        ["eval-gen", "--ladder"],
        [*command, "--ladder-figure", "a.png"],
        [*command, "--ladder-figure", "a.svg", "--metrics", "kl"],
        [*command, "--codec", "tinny"],
    ):
        done = CliRunner().invoke(app, wrong)
        assert done.exit_code == 2 and done.stderr.count("\n") == 1, done.output
