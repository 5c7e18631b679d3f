"""Classical augmentation: a function of clip, seed and backgrounds, whatever else draws random numbers."""

import random
import sys

import numpy as np
import pytest

from ajbench.core.errors import MissingError
from ajbench.data import audio, wave_chain

N = 8_000


def augment(tone, seed, amplitude=0.3):
    clips = [tone(300 + 100 * k, N / 16_000, amplitude=amplitude) for k in range(4)]
    return wave_chain.augment(clips[0], seed, len(clips), lambda k: clips[k])


def test_a_clip_depends_on_its_seed_only(audiomentations, tone):
    first = [augment(tone, seed) for seed in range(8)]
    random.random(), np.random.random()
    again = [augment(tone, seed) for seed in reversed(range(8))][::-1]
    assert all(map(np.array_equal, first, again))
    assert len({wave.tobytes() for wave in first}) >= 7  # each of six transforms is left out half the time
    assert all(wave.shape == (N,) and wave.dtype == np.float32 for wave in first)


def test_the_global_random_state_is_left_as_it_was(audiomentations, tone):
    random.seed(3), np.random.seed(3)
    wanted = random.random(), np.random.random()
    random.seed(3), np.random.seed(3)
    augment(tone, 1)
    assert (random.random(), np.random.random()) == wanted


def test_loud_clips_are_scaled_to_full_scale_and_not_clipped(audiomentations, tone):
    made = [augment(tone, seed, amplitude=0.95) for seed in range(20)]
    peaks = np.array([np.abs(wave).max() for wave in made])
    assert peaks.max() == pytest.approx(1) and all(audio.defect(wave) is None for wave in made)


def test_the_background_has_the_drawn_level(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: 20.0)
    clip, other = np.random.default_rng(0).normal(0, [[0.1], [0.3]], (2, 50_000)).astype(np.float32)
    added = wave_chain._mixed(clip, other) - clip
    assert np.std(clip) / np.std(added) == pytest.approx(10, rel=1e-3)
    assert np.corrcoef(added, other)[0, 1] > 0.999


def test_a_clip_whose_only_sound_is_lost_stays_as_it_was(monkeypatch, audiomentations, tone):
    monkeypatch.setattr(wave_chain, "_transformed", lambda *names: lambda wave, rate: 0 * wave)
    monkeypatch.setattr(wave_chain, "PROBABILITY", 0)
    assert np.array_equal(augment(tone, 1), tone(300, N / 16_000))


def test_without_the_library_the_install_command_is_named(monkeypatch, tone):
    monkeypatch.setitem(sys.modules, "audiomentations", None)
    with pytest.raises(MissingError, match=r"ajbench\[aug\]"):
        augment(tone, 1)
