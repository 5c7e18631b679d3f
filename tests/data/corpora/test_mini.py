"""The embedded corpus: properties of its clips, and that each class sounds like its name."""

import csv
import functools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from ajbench.core.errors import UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import mini
from ajbench.data.corpora.mini_sounds import SYNTHESIZERS

NAMES = [name for name, _ in mini.CLASSES]
RATE = 16_000


@functools.cache
def events(name, count=6, n=80_000):
    return [mini.render_event(name, np.random.default_rng([7, k]), n) for k in range(count)]


def envelope(wav, frame=160):
    """RMS over 10 ms frames."""
    return np.sqrt(np.mean(wav[: len(wav) // frame * frame].reshape(-1, frame).astype(float) ** 2, axis=1))


def spectrum(wav):
    freq, power = signal.welch(wav, RATE, nperseg=2048)
    return freq[2:], power[2:]


def flatness(wav):
    """Spectral flatness: 1 for white noise, near 0 for tones."""
    power = spectrum(wav)[1]
    return stats.gmean(power + 1e-20) / power.mean()


def track(wav, low=100, high=8000, frame=512, hop=256):
    """Strongest frequency in Hz of each frame that is not quiet."""
    freq, _, bins = signal.stft(wav, RATE, nperseg=frame, nfft=4096, noverlap=frame - hop)
    keep = (freq >= low) & (freq <= high)
    power = np.abs(bins[keep]) ** 2
    loud = power.sum(0) > 0.02 * power.sum(0).max()
    return freq[keep][power.argmax(0)][loud]


def modulation(wav, low, high):
    """Share of the envelope's modulation at low … high Hz."""
    level = envelope(wav, 80)
    freq, power = signal.periodogram(level - level.mean(), RATE / 80)
    return power[(freq >= low) & (freq <= high)].sum() / power.sum()


def test_clips_depend_on_seed_and_index_only():
    first, labels, caption = mini.render(3, 11)
    mini.render(3, 12)
    np.random.seed(0)
    again = mini.render(3, 11)
    assert np.array_equal(first, again[0]) and (labels, caption) == again[1:]
    assert len({mini.scene(0, index).reverb_s for index in range(400)}) == 400
    assert not np.array_equal(first, mini.render(3, 12)[0])
    assert not np.array_equal(first, mini.render(4, 11)[0])


@pytest.mark.parametrize(
    ("index", "labels", "caption", "rms"),
    [
        (0, ("Bark",), "A dog barks", 0.01548),
        (1, ("Baby cry, infant cry", "Rain"), "An infant is wailing while rain is pouring down", 0.01612),
        (2, ("Siren",), "An emergency siren sounds", 0.10057),
    ],
)
def test_the_corpus_of_seed_0_never_changes(index, labels, caption, rms):
    wav, *words = mini.render(0, index)
    assert words == [labels, caption] and np.sqrt(np.mean(wav**2)) == pytest.approx(rms, rel=1e-3)


@settings(max_examples=40)
@given(st.integers(0, 2**40), st.integers(0, 10**6), st.sampled_from([0.42, 0.84, 1.26, 5.04]))
def test_every_clip_has_one_to_three_labels(seed, index, duration_s):
    wav, labels, caption = mini.render(seed, index, duration_s)
    assert wav.dtype == np.float32 and wav.shape == (round(duration_s * RATE),)
    assert 0.09 < np.abs(wav).max() <= 0.96
    assert 1 <= len(labels) == len(set(labels)) <= 3
    assert set(labels) <= set(NAMES)
    assert (labels, caption) == (mini.scene(seed, index).labels, mini.scene(seed, index).caption)
    for label in labels:
        assert any(clause.lower() in caption.lower() for clause in mini.CLAUSES[label])


def test_every_label_is_audible_and_no_other(monkeypatch):
    """If each class is a sine of another frequency, a clip has the lines of its labels only."""
    pitch = {name: 300 + 400 * k for k, name in enumerate(NAMES)}

    def sine(name, rng, n):
        return np.sin(2 * np.pi * pitch[name] * np.arange(n) / RATE).astype(np.float32)

    monkeypatch.setattr(mini, "render_event", sine)
    for index in range(40):
        wav, labels, _ = mini.render(0, index)
        freq, _, bins = signal.stft(wav, RATE, nperseg=1600)
        level = np.abs(bins).max(axis=1)
        line = {name: level[np.argmin(np.abs(freq - pitch[name]))] for name in NAMES}
        assert {name for name in NAMES if line[name] > level.max() / 8} == set(labels)


def test_first_labels_are_balanced_over_classes_and_folds():
    rows = mini.read(Data(n_clips=240)).rows
    assert set(Counter((row.labels[0], row.fold) for row in rows).values()) == {3}
    for start in range(0, 240, 16):
        assert {row.labels[0] for row in rows[start : start + 16]} == set(NAMES)
    counts = Counter(len(row.labels) for row in rows)
    assert counts[1] > counts[2] > counts[3] > 10


def test_a_corpus_is_a_prefix_of_every_larger_one():
    assert mini.read(Data(n_clips=90)).rows == mini.read(Data(n_clips=170)).rows[:90]
    assert mini.read(Data(corpus_seed=1)).rows[0] != mini.read(Data()).rows[0]


def test_the_manifest_lists_clips_that_can_be_rendered():
    manifest = mini.read(Data(n_clips=32, corpus_seed=5, duration_s=0.84), Path("/nowhere"))
    assert manifest.label_set.names == tuple(NAMES) and manifest.problems == []
    assert len({row.clip_id for row in manifest.rows}) == 32
    row = manifest.rows[9]
    corpus, seed, index = row.path.split(":")
    wav, labels, caption = mini.render(int(seed), int(index), row.duration_s)
    assert (corpus, len(wav), labels, caption) == ("mini", 13_440, row.labels, row.caption)
    assert {row.fold for row in manifest.rows if row.split == "eval"} == {5}
    chosen = mini.read(Data(n_clips=32, eval_fold=2))
    assert {(row.fold == 2, row.split) for row in chosen.rows} == {(True, "eval"), (False, "train")}


def test_classes_have_audiosets_names_and_mids(audioset_dir):
    with (audioset_dir / "class_labels_indices.csv").open(encoding="utf-8", newline="") as file:
        known = {(row["display_name"], row["mid"]) for row in csv.DictReader(file)}
    assert set(mini.CLASSES) <= known
    assert set(NAMES) == set(SYNTHESIZERS) == set(mini.CLAUSES) and sorted(NAMES) == NAMES


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: mini.render(-1, 0), "mini:-1:0"),
        (lambda: mini.render(0, 0, 0.2), "duration_s=0.2"),
        (lambda: mini.render_event("Brak", np.random.default_rng(0), 16_000), "Bark"),
        (lambda: mini.render_event("Bark", np.random.default_rng(0), 100), "4000"),
        (lambda: mini.read(Data(eval_fold=6)), r"data\.eval_fold=6"),
        (lambda: mini.read(Data(n_clips=4)), r"data\.n_clips=4"),
    ],
)
def test_impossible_requests_are_refused(call, word):
    with pytest.raises(UsageError, match=word):
        call()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [4_000, 12_345])
def test_an_event_fills_any_length_with_a_peak_of_one(name, n):
    for wav in events(name, 20, n):
        assert wav.shape == (n,) and wav.dtype == np.float32
        assert np.abs(wav).max() == pytest.approx(1) and np.isfinite(wav).all()
    assert abs(np.corrcoef(*events(name, 2))[0, 1]) < 0.5


def test_noises_are_flat_and_tones_are_not():
    flat = {name: np.median([flatness(wav) for wav in events(name)]) for name in NAMES}
    assert flat["Rain"] > 0.4 and max(flat, key=flat.get) == "Rain"
    assert flat["Snare drum"] > 0.3 and flat["Crackle"] > 0.1
    for name in ("Church bell", "Siren", "Cricket", "Whistle", "Telephone bell ringing", "Bark"):
        assert flat[name] < 0.05, (name, flat[name])


def test_engines_and_rotors_repeat_and_wind_does_not():
    def repetition(wav):
        half = wav[20_000:32_000].astype(float)
        lags = signal.correlate(half, half)[len(half) - 1 :]
        return lags[200:3200].max() / lags[0]

    for name in ("Engine", "Helicopter"):
        assert np.median([repetition(wav) for wav in events(name)]) > 0.5, name
    for name in ("Wind", "Rain", "Waves, surf"):
        assert max(repetition(wav) for wav in events(name)) < 0.25, name


def test_brightness_orders_the_classes():
    spectra = {name: map(spectrum, events(name)) for name in NAMES}
    bright = {name: np.median([np.average(f, weights=power) for f, power in spectra[name]]) for name in NAMES}
    assert bright["Wind"] < 500 and bright["Engine"] < 900 and bright["Helicopter"] < 1500
    assert bright["Cricket"] > 3000 and bright["Chirp, tweet"] > 2500 and bright["Crackle"] > 1500


def test_a_siren_moves_between_two_pitches_more_than_a_tone_apart():
    for wav in events("Siren"):
        low, high = np.percentile(track(wav, 300, 2000), [5, 95])
        assert high / low > 1.2


def test_a_clock_ticks_at_a_steady_rate():
    for wav in events("Tick-tock"):
        peaks, _ = signal.find_peaks(envelope(wav), height=0.25 * envelope(wav).max(), distance=12)
        gaps = np.diff(peaks) / 100
        assert len(gaps) >= 6 and 0.18 < np.median(gaps) < 0.66
        assert np.std(gaps) < 0.06 * np.median(gaps) + 0.01


def test_a_bell_has_an_attack_and_a_long_decay():
    for wav in events("Church bell"):
        level = envelope(wav)
        start = int(np.argmax(level > 0.1 * level.max()))
        assert level[start : start + 12].max() > 2 * level[start + 55 : start + 65].min() > 0
        assert level[start + 60] > 0.005 * level.max()


def test_rotors_and_telephone_bells_pulse_at_their_rates():
    for wav in events("Helicopter"):
        assert modulation(wav, 8, 60) > 0.5
    for wav in events("Telephone bell ringing"):
        loud = envelope(wav, 1600) > 0.3 * envelope(wav, 1600).max()
        assert 0.3 < loud.mean() < 0.95
        start = int(np.argmax(loud)) * 1600
        assert modulation(wav[start : start + 14_000], 8, 60) > 0.35


def test_waves_swell_slowly_while_rain_is_steady():
    def spread(name):
        return np.median([stats.variation(envelope(wav, 4000)) for wav in events(name)])

    assert spread("Waves, surf") > 0.25 and spread("Wind") > 0.25 and spread("Rain") < 0.15


def test_snaps_ticks_and_drum_beats_are_impulsive():
    for name, least in (("Crackle", 20), ("Tick-tock", 20), ("Snare drum", 4)):
        assert np.median([stats.kurtosis(wav) for wav in events(name)]) > least, name
    assert abs(np.median([stats.kurtosis(wav) for wav in events("Wind")])) < 8


def test_whistles_and_insects_are_nearly_pure():
    for name, low, high in (("Whistle", 500, 4000), ("Cricket", 2500, 6700)):
        for wav in events(name):
            freq, power = spectrum(wav)
            inside = (freq > low) & (freq < high)
            assert power[inside].sum() > 0.9 * power.sum(), name
    for wav in events("Whistle"):
        steps = np.abs(np.diff(np.log2(track(wav, 500, 4000))))
        assert np.median(steps) < 0.12


def test_birds_sweep_while_whistles_and_insects_hold_their_pitch():
    moving = {}
    for name in ("Chirp, tweet", "Whistle", "Cricket"):
        shares = []
        for wav in events(name):
            steps = np.abs(np.diff(np.log2(track(wav, 800, 7500, frame=256, hop=64))))
            shares.append(((steps > 0.02) & (steps < 0.4)).mean())
        moving[name] = np.median(shares)
    assert moving["Chirp, tweet"] > 0.25 > 0.15 > max(moving["Whistle"], moving["Cricket"])


def test_voices_are_harmonic_and_a_baby_cries_longer_than_a_dog_barks():
    active = {}
    for name, low, high in (("Bark", 180, 800), ("Baby cry, infant cry", 170, 760)):
        shares, pitches, regular = [], [], []
        for wav in events(name):
            level = envelope(wav)
            shares.append((level > 0.2 * level.max()).mean())
            middle = int(np.argmax(level)) * 160
            frame = wav[max(0, middle - 500) : middle + 500].astype(float)
            lags = signal.correlate(frame, frame, mode="full")[len(frame) - 1 :]
            window = slice(RATE // high, RATE // low)
            best = window.start + int(np.argmax(lags[window]))
            pitches.append(RATE / best)
            regular.append(lags[best] / lags[0])
        active[name] = np.median(shares)
        assert low < np.median(pitches) < high and np.median(regular) > 0.3
    assert active["Baby cry, infant cry"] > 1.5 * active["Bark"]
