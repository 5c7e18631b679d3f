import cmath

import numpy as np
import pytest

from ajbench.core.errors import UsageError
from ajbench.metrics.spectral_distance import distance_of_pieces, log_spectral_distance


def waves(n=2000, m=2300, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) * 0.1 + 0.05, rng.normal(size=m) * 0.2


def by_loops(gen, ref, rate):
    """The formula of audioldm_eval and ssr_eval on librosa's frames, one Fourier sum after another."""
    n = min(len(gen), len(ref))
    gen, ref = (wave - wave.mean() for wave in (gen, ref))
    size, hop = int(2048 / (44100 / rate)), rate // 100
    spectra = []
    for wave in (gen, ref):
        wave = np.pad((wave / np.abs(wave).max())[:n], size // 2)
        hann = [0.5 - 0.5 * np.cos(2 * np.pi * i / size) for i in range(size)]
        bins = range(size // 2 + 1)
        turns = [[cmath.exp(-2j * cmath.pi * k * i / size) for i in range(size)] for k in bins]
        starts = range(0, len(wave) - size + 1, hop)
        spectra.append([[abs(np.dot(turn, hann * wave[s : s + size])) for turn in turns] for s in starts])
    frames = []
    for g, r in zip(*spectra, strict=True):
        squares = [np.log10(b**2 / (a + 1e-12) ** 2 + 1e-12) ** 2 for a, b in zip(g, r, strict=True)]
        frames.append(np.sqrt(np.mean(squares)))
    return np.mean(frames)


@pytest.mark.parametrize("rate", [1600, 3000])
def test_it_is_the_formula_of_audioldm_eval(rate):
    gen, ref = waves(400, 300)
    gen[350:] = 4  # not compared, but part of level and mean
    for pair in ((gen, ref), (ref, gen)):
        assert log_spectral_distance(*pair, rate) == pytest.approx(by_loops(*pair, rate), rel=1e-5)


# Values of librosa 0.11.0 (0.10.2 alike) with the formula of ssr_eval 0.0.7, on float32 waves centred and
# scaled as in audioldm_eval: clips of 10 s at 16 kHz, padded ones with zeros after 5 s.
@pytest.mark.parametrize(
    ("gen", "ref", "tools"),
    [
        ("full", "full", 0.790812),
        ("padded", "padded", 4.541377),
        ("same", "same", 4.139462),
        ("padded", "full", 12.714551),
        ("full", "padded", 6.338254),
    ],
)
def test_values_of_padded_clips_are_those_of_audioldm_eval(gen, ref, tools):
    def clip(kind, seed):
        seed, n = (0 if kind == "same" else seed), 160_000 if kind == "full" else 80_000
        wave = np.random.default_rng(seed).normal(size=n) * 0.1 + 0.01
        return np.pad(wave, (0, 160_000 - n)).astype(np.float32)

    # In the padding, values are rounding errors of a transform, which differ between machines.
    loose = 1e-5 if gen == ref == "full" else 0.1
    assert log_spectral_distance(clip(gen, 0), clip(ref, 1)) == pytest.approx(tools, rel=loose)


def test_level_and_offset_do_not_matter_but_a_filter_does():
    gen, ref = waves()
    value = log_spectral_distance(gen, ref)
    assert log_spectral_distance(gen * 0.3 + 0.2, ref) == pytest.approx(value, rel=1e-4)
    assert log_spectral_distance(gen, gen * 2) == pytest.approx(0, abs=1e-4)
    assert log_spectral_distance(gen, np.convolve(gen, [1, 0.9], "same")) > 0.3


def test_a_clip_below_10_ms_is_refused():
    with pytest.raises(UsageError, match="100 samples"):
        log_spectral_distance(*waves(100))


@pytest.mark.parametrize("cuts", [([700, 1500], [100]), ([1], [1999]), ([], [5, 10, 2290])])
@pytest.mark.parametrize("block", [3, 2000])
def test_pieces_give_the_distance_of_the_whole(monkeypatch, cuts, block):
    monkeypatch.setattr("ajbench.metrics.spectral_distance.BLOCK", block)
    pair = waves(9000, 11_000)
    pieces = [np.split(wave, where) for wave, where in zip(pair, cuts, strict=True)]
    monkeypatch.setattr("ajbench.metrics.spectral_distance.BLOCK", 10**6)
    whole = log_spectral_distance(*pair)
    monkeypatch.setattr("ajbench.metrics.spectral_distance.BLOCK", block)
    assert distance_of_pieces(*pieces) == pytest.approx(whole, rel=1e-5)
    assert distance_of_pieces(*pieces[::-1]) == pytest.approx(log_spectral_distance(*pair[::-1]), rel=1e-5)
