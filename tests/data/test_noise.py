import numpy as np
import pytest
import soundfile

from ajbench.core.recipe import Data
from ajbench.data import noise
from ajbench.data.clip_reader import read_clip
from ajbench.data.manifest import Row
from ajbench.data.noise import Noise

N = 13_440


@pytest.fixture
def tone():
    """A quiet tone of 4,000 samples, padded with silence."""
    wave = np.zeros(N, np.float32)
    wave[:4000] = 0.02 * np.sin(2 * np.pi * np.arange(4000) / 40)
    return wave


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 20.0])
def test_the_noise_is_white_and_at_the_asked_ratio_to_what_sounds(tone, snr_db):
    noisy = Noise(snr_db, 3).added(tone, 4000, "a")
    added = noisy.astype(float) - tone
    assert 10 * np.log10(np.mean(tone[:4000] ** 2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.2)
    quarters = np.square(np.abs(np.fft.rfft(added)))[:-1].reshape(4, -1).mean(axis=1)
    assert quarters.max() / quarters.min() < 1.3


def test_noise_depends_on_seed_and_clip_only(tone):
    first = Noise(0.0, 3).added(tone, 4000, "a")
    assert np.array_equal(first, Noise(0.0, 3).added(tone, 4000, "a"))
    for other in (Noise(0.0, 4).added(tone, 4000, "a"), Noise(0.0, 3).added(tone, 4000, "b")):
        assert abs(np.corrcoef(first - tone, other - tone)[0, 1]) < 0.05


def test_loud_noise_makes_the_clip_quieter_instead_of_clipping(tone):
    loud = 30 * tone
    quiet, noisy = Noise(-20.0, 0).added(tone, 4000, "a"), Noise(-20.0, 0).added(loud, 4000, "a")
    assert np.abs(noisy).max() == pytest.approx(0.999) and (np.abs(noisy) > 0.998).sum() == 1
    assert np.corrcoef(quiet, noisy)[0, 1] > 0.999999


def test_a_clip_is_read_with_its_noise(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.2 * np.sin(np.arange(8000) / 5), 16_000)
    row = Row("a", str(path))
    plain, noisy = (read_clip(row, 0.84, link=True, noise=one) for one in (None, Noise(10.0, 0)))
    assert plain.flac is None and noisy.flac and len(noisy.wav) == N
    # The power of the tone is that of its half second, not of the whole clip.
    assert np.mean(noisy.wav[8000:] ** 2) == pytest.approx(0.02 / 10, rel=0.05)
    short = read_clip(Row("a", str(path), 0.1, 0.2), 0.84, noise=Noise(10.0, 0))
    assert np.mean(short.wav[8000:] ** 2) == pytest.approx(0.02 / 10, rel=0.05)


def test_a_recipe_has_noise_only_where_it_asks_for_it():
    assert noise.of(Data()) is None and "snr_db" not in Data().identity()
    asked = Data(snr_db=-5, corpus_seed=2)
    assert noise.of(asked) == (-5.0, 2) and asked.identity()["snr_db"] == -5
