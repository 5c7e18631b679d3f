import numpy as np
import pytest
import torch
from fakes import add_noise, encode_lossy
from hypothesis import given
from hypothesis import strategies as st

from ajbench.core.errors import UsageError
from ajbench.data.corpora import mini
from ajbench.metrics import audio_fingerprint as fp
from ajbench.metrics import standout


def rain(seed, seconds=2.0):
    """Steady noise, louder at low frequencies: any two are alike in everything but detail."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.normal(size=int(16_000 * seconds)))
    spectrum /= 1 + np.arange(len(spectrum)) / 4000
    wave = np.fft.irfft(spectrum)
    return (0.1 * wave / wave.std()).astype(np.float32)


def prints(*waves):
    return fp.fingerprints(torch.from_numpy(np.stack(waves)))


@pytest.fixture(scope="module")
def sounds():
    return [rain(seed) for seed in range(6)] + [mini.render(3, k, 2.0)[0] for k in range(6)]


def test_a_fingerprint_has_no_level_spectrum_or_slow_course(sounds):
    found = prints(*sounds)
    assert found.shape == (12, 101, 64) and found.dtype == np.float32
    assert np.abs(found).max() <= fp.MAX_DETAIL + 1e-6
    assert np.abs(found[:6].mean(axis=1)).max() < 0.03  # steady sounds; clipping leaves a bias in the others
    louder = prints(*(7 * wave for wave in sounds))
    assert np.abs(louder - found).max() < 1e-3


@given(gain=st.floats(0.01, 30), shift=st.integers(-6000, 6000), seed=st.integers(0, 5))
def test_a_copy_matches_at_any_gain_and_shift_and_another_rain_does_not(gain, shift, seed):
    wave, other = rain(seed), rain(seed + 100)
    copy = (gain * np.roll(wave, shift)).astype(np.float32)
    like, prominence = fp.likeness(prints(copy), prints(wave, other))
    assert like[0, 0] > 0.6 and prominence[0, 0] > 0.5
    assert like[0, 1] < 0.2 and prominence[0, 1] < 0.1


def test_a_shared_rhythm_is_not_a_match():
    pulses = np.repeat(np.random.default_rng(2).uniform(0.05, 1, 40), 800).astype(np.float32)
    like, _ = fp.likeness(prints(pulses * rain(1)), prints(pulses * rain(2), pulses * rain(1)))
    assert like[0, 0] < 0.25 and like[0, 1] > 0.99


def test_a_copy_of_steady_noise_survives_noise_and_codecs():
    wave = rain(1)
    rng = np.random.default_rng(0)
    copies = [add_noise(wave, rng), add_noise(wave, rng, "pink")]
    copies += [encode_lossy(wave, how) for how in ("opus", "tiny")]
    like, _ = fp.likeness(prints(*copies), prints(wave, *(rain(seed) for seed in range(50, 80))))
    assert (like[:, 0] > 2 * like[:, 1:].max(axis=1)).all()


def test_likeness_is_the_correlation_at_the_best_lag(rng):
    whole = rng.normal(size=(1, 90, 64)).astype(np.float32)
    piece = whole[:, 30:70] + 0.5 * rng.normal(size=(1, 40, 64)).astype(np.float32)
    like, prominence = fp.likeness(piece, whole)
    parts = [whole[0, lag : lag + 40] for lag in range(51)]
    direct = max((piece[0] * part).sum() / np.linalg.norm(part) for part in parts)
    assert like[0, 0] == pytest.approx(direct / np.linalg.norm(piece[0]), rel=1e-5)
    assert 0.8 < prominence[0, 0] < like[0, 0]
    # A copy of which two fifths lie beyond the end is found, with a lower score.
    over, _ = fp.likeness(whole[:, 66:], np.ascontiguousarray(whole[:, :81]))
    assert over[0, 0] == pytest.approx((15 / 24) ** 0.5, abs=0.1)


def slid(piece, whole):
    """Return likeness and prominence of two fingerprints, computed lag by lag."""
    length, extent, norm = len(piece), len(whole), np.linalg.norm(piece)
    lags = -(-(extent + 1) // fp.LAG_BIN) * fp.LAG_BIN
    padded = np.concatenate([np.zeros((length // 2, 64)), whole, np.zeros((lags + length, 64))])
    parts = [padded[lag : lag + length] for lag in range(lags)]
    values = np.array([(piece * p).sum() / max(np.linalg.norm(p), norm / 2) / norm for p in parts])
    bins = values.reshape(-1, fp.LAG_BIN).max(axis=1)
    at = int(bins.argmax())
    others = np.delete(bins, range(max(0, at - 1), min(len(bins), at + 2)))
    return bins[at], bins[at] - 0.6 * max(0.0, others.max(initial=0.0))


@pytest.mark.parametrize(("length", "extent"), [(40, 40), (41, 41), (64, 65), (13, 200), (50, 77), (99, 101)])
def test_scores_are_those_of_every_lag_on_its_own(rng, length, extent):
    pieces = rng.normal(size=(3, length, 64)).astype(np.float32)
    wholes = rng.normal(size=(4, extent, 64)).astype(np.float32)
    wholes[1, : length - 9] += pieces[0, 9:]  # begins before the whole
    wholes[2, extent - length // 2 - 3 :] += pieces[1, : length // 2 + 3]  # ends after it
    wholes[3, : extent // 2] *= 1e-3
    sliding = fp.Sliding(pieces)
    for _ in range(2):  # the second time with the spectra kept
        like, prominence = fp.likeness(sliding, wholes)
        for a, piece in enumerate(pieces):
            for b, whole in enumerate(wholes):
                assert (like[a, b], prominence[a, b]) == pytest.approx(slid(piece, whole), abs=2e-5)


def test_a_match_at_many_lags_is_not_prominent(rng):
    beat = np.tile(rng.normal(size=(1, 15, 64)).astype(np.float32), (1, 6, 1))
    other = beat + 0.3 * rng.normal(size=beat.shape).astype(np.float32)
    like, prominence = fp.likeness(other, beat)
    assert like[0, 0] > 0.9 and prominence[0, 0] < 0.5


def test_blocks_do_not_change_the_answer(sounds, monkeypatch):
    found = prints(*sounds)
    whole = fp.likeness(found[:5], found[5:])
    monkeypatch.setattr(fp, "_BLOCK", 1)
    for one, two in zip(whole, fp.likeness(found[:5], found[5:]), strict=True):
        assert np.allclose(one, two, atol=1e-6)


def test_everything_is_computed_on_the_device_and_copied_at_the_end(sounds):
    # On the device `meta`, an operation that mixes devices fails with another error.
    with pytest.raises(NotImplementedError, match="copy out of meta tensor"):
        fp.likeness(prints(*sounds[:2]), prints(*sounds[2:]), torch.device("meta"))


def test_pieces_longer_than_wholes_are_refused(sounds):
    found = prints(*sounds)
    with pytest.raises(UsageError, match="likeness"):
        fp.likeness(found, found[:, :-1])


def test_standouts_are_comparable_between_similar_and_dissimilar_sounds(rng):
    others = np.abs(rng.normal(size=(200, 40))).astype(np.float32)
    made = np.abs(rng.normal(size=(30, 40))).astype(np.float32)
    scale = np.where(np.arange(40) % 2, 0.2, 0.01).astype(np.float32)  # barks and rain
    columns = standout.spread((others * scale).T)
    made[3, 4] = made[3, 5] = 20.0
    found = standout.standout(made * scale, columns, epsilon=0.0)
    assert found[:, 1::2].std() < 3 * found[:, ::2].std()
    assert found.max(axis=1).argmax() == 3
    assert found[3, 4] > 5 and found[3, 5] > 5


def test_a_calibration_clip_is_left_out_of_the_spread_it_is_compared_with(rng):
    scores = rng.normal(size=(5, 12)).astype(np.float32)  # of 5 references with 12 clips
    found = standout.spread_of_others(scores)
    for clip in range(12):
        alone = standout.spread(np.delete(scores, clip, axis=1))
        assert found.median[clip] == pytest.approx(alone.median, abs=1e-6)
        assert found.high[clip] == pytest.approx(alone.high, abs=1e-6)


@pytest.mark.parametrize(("n", "rank"), [(10, 1), (40, 1), (198, 1), (320, 3), (999, 10)])
@pytest.mark.parametrize("draw", ["gumbel", "normal", "standard_cauchy"])
def test_independent_clips_exceed_the_threshold_as_often_as_its_rank_tells(n, rank, draw):
    rng = np.random.default_rng(n)
    alarms, expected = [], []
    for _ in range(300):
        scores = getattr(rng, draw)(size=n)
        limit, found = standout.threshold(scores, 0.01)
        assert found >= rank and (found == rank or draw != "normal" or n < 100)
        assert (scores > limit).sum() == found - 1
        alarms.append((getattr(rng, draw)(size=500) > limit).mean())
        expected.append(found / (n + 1))
    assert np.mean(alarms) < 1.1 * np.mean(expected)
    assert np.mean(alarms) > 0.8 * np.mean(expected) or draw == "standard_cauchy"


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_copies_in_the_calibration_do_not_raise_the_threshold(n):
    rng = np.random.default_rng(n)
    for _ in range(50):
        scores = np.concatenate([rng.gumbel(1.0, 0.5, n - n // 20), np.full(n // 20, 50.0)])
        limit, rank = standout.threshold(scores, 0.01)
        assert limit < 1.0 + 0.5 * 30 and rank == n // 20 + 1


def test_the_score_of_a_piece_does_not_depend_on_the_other_pieces(rng):
    whole = rng.normal(size=(1, 500, 64)).astype(np.float32)
    other = rng.normal(size=(262, 64)).astype(np.float32)
    piece = np.zeros((2, 262, 64), np.float32)
    piece[0, :217], piece[1] = whole[0, 100:317], other
    alone, beside = fp.likeness(whole[:, 100:317], whole)[0][0, 0], fp.likeness(piece, whole)[0][0, 0]
    assert alone == pytest.approx(1, abs=1e-5) and beside == pytest.approx(alone, abs=1e-5)


def test_waveforms_match_at_their_lag_and_gain(rng):
    wave = rain(4)
    assert fp.waveform_match(wave, -0.3 * wave) == pytest.approx((1.0, -100.0), abs=1e-6)
    correlation, residual = fp.waveform_match(wave[5000:], 2 * wave)
    assert correlation == pytest.approx(1.0, abs=1e-9) and residual < -80
    late = np.concatenate([rain(9)[:3200], wave[:-3200]])
    assert fp.waveform_match(wave, late)[0] > 0.8
    correlation, residual = fp.waveform_match(wave, add_noise(wave, rng))
    assert correlation == pytest.approx((1 / 1.1) ** 0.5, abs=0.005)
    assert residual == pytest.approx(10 * np.log10(0.1 / 1.1), abs=0.3)
    assert fp.waveform_match(wave, rain(5))[0] < 0.1


@pytest.mark.parametrize("cuts", [[16_000], [10_000, 10_001, 41_234], [6_400 * k for k in range(1, 12)]])
def test_pieces_give_the_fingerprint_of_the_whole(cuts):
    wave = np.random.default_rng(3).normal(0, 0.1, 80_500).astype(np.float32)
    wave[30_000:50_000] *= 0.01
    whole = fp.fingerprints(torch.from_numpy(wave)[None])[0]
    found = fp.fingerprint_of_pieces(np.split(wave, cuts))
    np.testing.assert_allclose(found, whole, atol=1e-5)
