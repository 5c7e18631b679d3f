"""Sounds for the training of the codec: where they come from, how segments are cut."""

import numpy as np
import pytest

from ajbench.codec import sounds as training_sounds
from ajbench.codec.sounds import SEGMENT, Sounds, gather, sampling_share
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.data import audio


def test_sounds_come_from_folders_and_the_mini_corpus(tmp_path, write_wav, capsys):
    hiss = np.random.default_rng(0).normal(0, 0.1, 70 * audio.SAMPLE_RATE)
    write_wav("sounds/bells/a.wav", hiss[: 2 * audio.SAMPLE_RATE])
    write_wav("sounds/rain/b.wav", hiss)
    (tmp_path / "sounds/rain/broken.wav").write_bytes(b"not a sound")
    sounds = gather([tmp_path / "sounds"], tmp_path / "out", mini_clips=2, mini_seed=0)
    assert len(sounds.lengths) == 4
    assert "1 file left out: broken.wav (" in capsys.readouterr().err
    assert sounds.lengths.max() == 60 * audio.SAMPLE_RATE and sounds.lengths.sum() == len(sounds.samples)
    assert len(set(sounds.groups)) == 3
    share = sampling_share(sounds)
    assert share.min() > 0
    drawn = sounds.draw(np.random.default_rng(5), 6, share)
    assert drawn.shape == (6, SEGMENT) and drawn.dtype == np.float32
    assert np.array_equal(drawn, sounds.draw(np.random.default_rng(5), 6, share))
    assert 0 < np.abs(drawn).max() <= 1


def test_gathered_sounds_are_on_disk_before_they_are_listed(unsynced, one_tone, tmp_path):
    assert not unsynced(tmp_path / "out")


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.wav").write_bytes(b"not a sound")
    for name in ("none", "empty", "broken"):
        for rendered in (0, 2):
            with pytest.raises(MissingError, match=name):
                gather([tmp_path / name], tmp_path / "out", mini_clips=rendered, mini_seed=0)


@pytest.fixture
def one_tone(tmp_path, write_wav):
    """A sound of 3 s at 1 kHz, alone in its folder."""
    time = np.arange(3 * audio.SAMPLE_RATE) / audio.SAMPLE_RATE
    write_wav("sounds/tone/a.wav", 0.5 * np.sin(2 * np.pi * 1000 * time))
    return gather([tmp_path / "sounds"], tmp_path / "out", mini_clips=0, mini_seed=0)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_list_of_gathered_sounds_is_named(one_tone, tmp_path, text):
    (tmp_path / "out" / "sounds.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"sounds\.json: damaged .*; delete it"):
        gather([tmp_path / "sounds"], tmp_path / "out", mini_clips=0, mini_seed=0)


@pytest.mark.parametrize("kind", ["MIXED", "DULL", "PACED"])
def test_segments_are_changed_in_the_way_that_is_asked_for(one_tone, monkeypatch, kind):
    for name in ("MIXED", "DULL", "PACED"):
        monkeypatch.setattr(training_sounds, name, float(name == kind))
    drawn = one_tone.draw(np.random.default_rng(0), 40, sampling_share(one_tone))
    power = np.abs(np.fft.rfft(drawn * np.hanning(SEGMENT))) ** 2
    hertz = np.fft.rfftfreq(SEGMENT, 1 / audio.SAMPLE_RATE)
    peaks = hertz[power.argmax(1)]
    if kind == "PACED":
        assert peaks.min() < 850 and peaks.max() > 1150
    else:
        assert np.abs(peaks - 1000).max() < 5
    levels = 20 * np.log10(np.abs(drawn).max(1))
    assert levels.min() >= -24.1 and levels.max() <= 1e-3 and np.ptp(levels) > 15


def test_dull_segments_have_no_high_frequencies(tmp_path, write_wav, monkeypatch):
    write_wav("sounds/hiss/a.wav", np.random.default_rng(0).normal(0, 0.1, 5 * audio.SAMPLE_RATE))
    hiss = gather([tmp_path / "sounds"], tmp_path / "out", mini_clips=0, mini_seed=0)
    for share, expected in ((0.0, 0.0), (1.0, 1.0)):
        monkeypatch.setattr(training_sounds, "DULL", share)
        power = np.abs(np.fft.rfft(hiss.draw(np.random.default_rng(1), 20, sampling_share(hiss)))) ** 2
        top = power[:, -SEGMENT // 40 :].sum(1) / power.sum(1)
        assert np.mean(top < 1e-6) == expected


def test_silence_stays_silence():
    one = np.zeros(1, np.int64)
    none = Sounds(np.zeros(SEGMENT, np.int16), one, one + SEGMENT, one)
    assert not none.draw(np.random.default_rng(0), 4, sampling_share(none)).any()
