"""What the rungs of a ladder sound like, and that they are known apart."""

from collections import Counter
from copy import copy

import numpy as np
import pytest
import soundfile
from chords import RATE, Ear, N, tones
from scipy.signal import welch

from ajbench.data.clip_set import open_set
from ajbench.evaluation import protocols, rungs
from ajbench.evaluation.feature_cache import embed

PLAIN = protocols.find("ajbench")


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


def test_the_round_trip_is_the_codec_s_own_at_16_khz(chord_folders, tiny):
    wave = open_set(chord_folders / "gen").samples(0)[0]
    made = rungs.round_trip(tiny).make("a", wave[:6400], RATE)
    assert np.array_equal(made[:, 0], tiny.decode(tiny.encode(wave[:6400].T)).numpy()[0])
    tones(chord_folders / "other" / "a.wav", 5, seconds=0.4567, rate=44_100)
    stereo = np.repeat(open_set(chord_folders / "other").samples(0)[0], 2, axis=1)
    change = rungs.round_trip(tiny)
    assert change.rate == RATE and change.make("a", stereo, 44_100).shape == (round(0.4567 * RATE), 1)


def test_contents_differ_by_source_rung_seed_codec_and_name(chord_folders, tiny):
    def other():
        changed = copy(tiny)
        changed.weights_hash = "another"
        return changed

    sounds = chord_folders / "gen"
    soundfile.write(sounds / "copy.wav", *soundfile.read(sounds / "clip-00.wav"))
    plain = open_set(sounds)
    twin = plain.names.index("copy")
    assert plain.content(twin) == plain.content(0)
    changes = [rungs.pink_noise(0), rungs.pink_noise(1), rungs.silence(), rungs.round_trip(tiny)]
    sets = [plain, *(plain.changed(change) for change in (*changes, rungs.round_trip(other())))]
    contents = [clips.content(n) for clips in sets for n in (0, 1)]
    assert len(set(contents)) == 2 * len(sets)
    noise = plain.changed(rungs.pink_noise(0))
    assert noise.content(twin) != noise.content(0)  # it is another noise


def test_what_is_taken_of_a_set_keeps_its_place(chord_folders):
    whole = open_set(chord_folders / "gen")
    part = whole.take(np.array([7, 2]))
    assert list(part.names) == ["clip-07", "clip-02"] and len(part) == 2
    assert part.content(0) == whole.content(7) and part.rates() == Counter({RATE: 2})
    assert np.array_equal(part.samples(1)[0], whole.samples(2)[0])
    assert not part.changed(rungs.silence()).samples(1)[0].any()


def test_silence_is_measured_on_purpose_and_refused_by_accident(chord_folders):
    quiet = open_set(chord_folders / "gen").changed(rungs.silence())
    assert embed(quiet, Ear(), PLAIN, chord_folders / "cache").computed == N
    soundfile.write(chord_folders / "gen" / "clip-03.wav", np.zeros(8000), RATE)
    for clips in (open_set(chord_folders / "gen"), open_set(chord_folders / "gen").changed(rungs.silence())):
        found = embed(clips, Ear(), PLAIN, chord_folders / "other")
        assert [one.number for one in found.left_out] == [3]
