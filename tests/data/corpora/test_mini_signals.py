"""The building blocks of the synthesisers against closed forms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import signal

from ajbench.data.corpora import mini_signals


def test_modes_are_the_sum_of_damped_sines():
    n = 3000
    freq, t60, amp = np.array([[440.0, 1234.5, 5000.0], [0.3, 0.05, 1.0], [1.0, 0.5, -0.2]])
    t = np.arange(n)[:, None] / mini_signals.RATE
    expected = (amp * np.sin(2 * np.pi * freq * t) * 10 ** (-3 * t / t60)).sum(1)
    assert_allclose(mini_signals.modes(freq, t60, amp, n), expected, atol=2e-5)


def test_partials_that_would_alias_are_left_out():
    assert not mini_signals.modes([7_900.0], 0.5, 1.0, 500).any()
    table = mini_signals.harmonics(np.ones(30), top_hz=1_000)
    strength = np.abs(np.fft.rfft(table)) / (mini_signals.TABLE / 2)
    assert_allclose(strength[1:8], 1, atol=1e-5)
    assert strength[8:].max() < 1e-5


def test_an_oscillator_at_constant_pitch_is_a_sine():
    n, freq = 16_000, 437.0
    tone = mini_signals.oscillator(np.full(n, freq, np.float32), mini_signals.harmonics([1.0], 1_000))
    assert_allclose(tone, np.sin(2 * np.pi * freq * np.arange(1, n + 1) / mini_signals.RATE), atol=2e-3)


def test_noise_has_unit_power_and_the_requested_spectrum():
    wav = mini_signals.noise(np.random.default_rng(0), 160_001, mini_signals.band(500, 2000, 4, 4))
    assert wav.dtype == np.float32 and wav.shape == (160_001,)
    assert_allclose(np.sqrt(np.mean(wav**2)), 1, rtol=1e-5)
    freq, power = signal.welch(wav, mini_signals.RATE, nperseg=1024)
    at = np.interp([125, 500, 1000, 2000, 7000], freq, power)
    inside = at[2]
    # gain 1/(1 + (500/f)^4 + (f/2000)^4): about a half at the edges, so a quarter of the power
    assert_allclose(at[[1, 3]] / inside, [0.32, 0.32], rtol=0.2)
    assert at[0] < 1e-3 * inside and at[4] < 1e-3 * inside


def test_a_filter_keeps_phase_and_scales_each_frequency():
    t = np.arange(8_000) / mini_signals.RATE
    wav = (np.sin(2 * np.pi * 500 * t) * np.hanning(8_000)).astype(np.float32)
    assert_allclose(mini_signals.filtered(wav, np.ones_like), wav, atol=1e-6)
    peak = mini_signals.resonances([500], [50], [3.0], 0.0)
    assert_allclose(mini_signals.filtered(wav, peak), 3 * wav, atol=0.02)


def test_strikes_add_up_and_end_with_the_signal():
    kernel = np.array([1, 2, 3], np.float32)
    out = mini_signals.strike(6, kernel, np.array([0, 1, 5, 9]) / mini_signals.RATE, [1, 10, 100, 1000])
    assert out.tolist() == [1, 12, 23, 30, 0, 100]


@pytest.mark.parametrize("period_s", [0.05, 0.4, 9.0])
def test_onsets_start_early_and_keep_their_period(period_s):
    times = mini_signals.onsets(np.random.default_rng(1), 80_640, period_s)
    assert 0 <= times[0] <= 0.3 * 5.04
    assert times[-1] < 5.04 < times[-1] + 2 * period_s
    assert_allclose(np.diff(times), period_s)
