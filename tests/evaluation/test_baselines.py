from collections import Counter
from copy import copy
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from fakes import CHORD_RATE, CHORDS, BandExtractor, FrameExtractor, measured, pair_of, write_chord
from scipy.signal import welch

from ajbench.core.errors import MissingError
from ajbench.data.clip_set import open_set
from ajbench.evaluation import baselines
from ajbench.evaluation.baselines import CODEC, HALVES, PINK, SHUFFLED, SILENCE
from ajbench.evaluation.feature_cache import embed
from ajbench.metrics.distribution import frechet_distance, inception_score, kl_divergence

HALF = CHORDS // 2


@pytest.fixture
def ladder(tiny, chords):
    """ladder(folder, extractor=None, gen="gen", metrics=None, **of the pair) -> comparison with baselines."""

    def run(folder, extractor=None, *, gen="gen", metrics=None, allow_partial=False, **more):
        given = {"cache": chords / "cache", "resamples": 20, "gen": open_set(folder / gen)} | more
        pair = pair_of(folder, extractor or BandExtractor(), labels=None, **given)
        return baselines.add_baselines(measured(pair, metrics, allow_partial=allow_partial), pair, tiny)

    return run


def by_row(found, metric):
    return {line["row"]: line for line in found.rows if line["metric"] == metric}


def sizes(lines):
    """Numbers of clips, generated and real, in the rows of baselines."""
    return {(line["n"], line["n_reference"]) for row, line in lines.items() if row != "gen"}


def line_of(value, width=0.1, **more):
    return {"value": value, "ci_low": value - width, "ci_high": value + width, "note": ""} | more


# Measurements


def test_baselines_are_in_their_order_at_one_n(chords, ladder):
    found = ladder(chords)
    fd, kl, fewer = by_row(found, "fd"), by_row(found, "kl"), f"gen, {HALF} clips"
    assert list(fd) == ["gen", HALVES, CODEC, fewer, PINK, SILENCE]
    values = {row: line["value"] for row, line in fd.items()}
    assert values[HALVES] < values[CODEC] < min(values[PINK], values[SILENCE])
    assert values[fewer] < values[PINK]
    assert (fd["gen"]["n"], fd["gen"]["n_reference"]) == (CHORDS, CHORDS)
    assert sizes(fd) == {(HALF, HALF)}
    for line in fd.values():
        assert line["ci_low"] < line["value"] < line["ci_high"] and line["features"] == "bands"
    assert by_row(found, "is")[SILENCE]["value"] == pytest.approx(1)
    assert list(kl) == ["gen", CODEC, SHUFFLED, PINK, SILENCE]
    assert kl[CODEC]["value"] < kl["gen"]["value"] and kl[SHUFFLED]["n"] == CHORDS
    assert any(fewer in note for note in found.notes)


def test_values_are_of_the_halves_and_of_each_clip_with_its_own(chords, ladder, tiny):
    found, extractor, ref = ladder(chords, seed=4), BandExtractor(), open_set(chords / "ref")
    first, second = map(np.sort, baselines._halves(ref, np.random.default_rng(4)))
    protocol = pair_of(chords, labels=None).protocol
    real = embed(ref, extractor, protocol, chords / "cache")
    fd, kl, score = (by_row(found, metric) for metric in ("fd", "kl", "is"))
    x, y = real.vectors()[first], real.vectors()[second]
    assert fd[HALVES]["value"] == pytest.approx(frechet_distance(x, y), rel=1e-9)
    changes = {CODEC: baselines.round_trip(tiny), PINK: baselines.pink_noise(4), SILENCE: baselines.silence()}
    for row, change in changes.items():
        made = embed(ref.take(first).changed(change), extractor, protocol, chords / "cache")
        assert fd[row]["value"] == pytest.approx(frechet_distance(made.vectors(), y), rel=1e-6)
        assert score[row]["value"] == pytest.approx(
            inception_score(made.logits, len(made.logits) // 10)[0], rel=1e-6
        )
        assert kl[row]["value"] == pytest.approx(kl_divergence(made.logits, real.logits[first]), rel=1e-6)


@pytest.mark.parametrize(
    ("recordings", "smaller"),
    [("aaabbbccccdd", 5), ("abcdefghijkl", 6), ("aaaaaaaaaaaa", 6), ("aaaaaaaaaaab", 1)],
)
def test_halves_are_of_whole_recordings(recordings, smaller):
    clips = SimpleNamespace(recordings=list(recordings))
    for seed in range(20):
        both = baselines._halves(clips, np.random.default_rng(seed))
        assert sorted(np.concatenate(both)) == list(range(12))
        assert min(map(len, both)) >= smaller
        if len(set(recordings)) > 1:
            first, second = ({recordings[n] for n in half} for half in both)
            assert not first & second


def test_a_smaller_generated_set_sets_the_n(own_chords, ladder):
    for k in range(7, CHORDS):
        (own_chords / "gen" / f"clip-{k:02d}.wav").unlink()
    found = ladder(own_chords, metrics=["fd", "kl"], allow_partial=True)
    fd = by_row(found, "fd")
    assert sizes(fd) == {(7, HALF)} and "gen, 7 clips" in fd
    assert by_row(found, "kl")[SHUFFLED]["n"] == 7


def test_only_paired_metrics_have_shuffled_labels(own_chords, ladder):
    for k in range(CHORDS):  # each generated clip a louder copy of its own real clip
        wave = soundfile.read(own_chords / "ref" / f"clip-{k:02d}.wav")[0]
        soundfile.write(own_chords / "gen" / f"clip-{k:02d}.wav", 1.5 * wave, CHORD_RATE)
    found = ladder(own_chords)
    kl = by_row(found, "kl")
    assert kl["gen"]["value"] < 0.2 * kl[SHUFFLED]["value"]
    assert kl["gen"]["n"] == kl[SHUFFLED]["n"] == CHORDS
    assert SHUFFLED not in by_row(found, "fd").keys() | by_row(found, "is").keys()


def test_the_seed_decides_and_features_are_cached(chords, ladder, tmp_path):
    extractor = BandExtractor()
    first, again = (ladder(chords, extractor, cache=tmp_path) for _ in range(2))
    assert extractor.seen == 2 * CHORDS + 3 * HALF  # both sets, and three sounds of half of the real clips
    assert again.rows == first.rows
    fd, other = (by_row(found, "fd") for found in (first, ladder(chords, extractor, cache=tmp_path, seed=1)))
    assert other[HALVES]["value"] != fd[HALVES]["value"] and other["gen"]["value"] == fd["gen"]["value"]


def test_sets_without_pairs_have_no_paired_baselines(chords, ladder):
    found = ladder(chords, pairs={})
    assert {line["metric"] for line in found.rows} == {"fd", "is"}
    assert not any(SHUFFLED in note for note in found.notes)


def test_unusable_real_clips_are_in_no_baseline(own_chords, ladder):
    soundfile.write(own_chords / "ref" / "clip-04.wav", np.zeros(8000), CHORD_RATE)
    with pytest.raises(MissingError, match="clip-04"):
        ladder(own_chords)
    found = ladder(own_chords, allow_partial=True)
    fd = by_row(found, "fd")
    assert fd["gen"]["n_reference"] == 23 and sizes(fd) == {(11, 12)}
    assert by_row(found, "kl")[SHUFFLED]["n"] == 23
    for k in range(3, CHORDS):
        for name in ("gen", "ref"):
            (own_chords / name / f"clip-{k:02d}.wav").unlink()
    with pytest.raises(MissingError, match="--ladder: 3 "):
        ladder(own_chords)


def test_fad_has_baselines(chords, ladder):
    fad = {row: line["value"] for row, line in by_row(ladder(chords, FrameExtractor()), "fad").items()}
    assert fad[HALVES] < min(fad[PINK], fad[SILENCE])


def test_a_set_with_the_name_of_a_baseline_keeps_its_own_row(own_chords, ladder):
    (own_chords / "gen").rename(own_chords / "silence")
    (own_chords / "gen").symlink_to(own_chords / "silence")
    fd = by_row(ladder(own_chords, gen="silence", metrics=["fd"]), "fd")
    assert len(fd) == 6 and fd[SILENCE]["n"] == HALF
    assert fd["silence (generated)"]["n"] == CHORDS and f"silence (generated), {HALF} clips" in fd


# Notes


def test_noise_and_copies_are_noted_and_good_clips_are_not(own_chords, ladder):
    good = by_row(ladder(own_chords, metrics=["fd"]), "fd")
    assert all(line["note"] == "" for line in good.values())
    (own_chords / "hiss").mkdir()
    for k in range(CHORDS):
        path = own_chords / "ref" / f"clip-{k:02d}.wav"
        clip = soundfile.read(path, dtype="float32", always_2d=True)[0]
        noise = baselines.pink_noise(9).make(str(k), clip, CHORD_RATE)
        soundfile.write(own_chords / "hiss" / path.name, noise, CHORD_RATE)
    found = ladder(own_chords, gen="hiss", metrics=["fd"])
    assert PINK in by_row(found, "fd")[f"hiss, {HALF} clips"]["note"]
    assert any("hiss" in note and PINK in note for note in found.notes)
    copies = ladder(own_chords, gen="ref")
    assert "copies" in by_row(copies, "kl")["ref"]["note"]
    assert by_row(copies, "kl_sigmoid")["ref"]["note"] == ""  # equal clips are not its minimum
    without = ladder(own_chords, gen="ref", resamples=0)  # without intervals nobody is accused
    assert not any("copies" in note for note in without.notes)


def test_a_baseline_out_of_order_is_noted():
    lines = {"gen": line_of(2), CODEC: line_of(1), PINK: line_of(4), SILENCE: line_of(0.9)}
    baselines._note_order(lines, "gen", "kl")
    assert SILENCE in lines["gen"]["note"] and PINK not in lines["gen"]["note"]
    assert CODEC in lines[SILENCE]["note"]
    assert not lines[PINK]["note"] and not lines[CODEC]["note"]
    lines = {"gen": line_of(1), CODEC: line_of(1), SHUFFLED: line_of(4), SILENCE: line_of(3)}
    baselines._note_order(lines, "gen", "kl")
    assert SHUFFLED in lines[SILENCE]["note"]
    assert not lines[SHUFFLED]["note"] and not lines["gen"]["note"]
    # Higher is better, and to be better than real clips is no sign of copies.
    lines = {"gen": line_of(2), HALVES: line_of(3), PINK: line_of(1.9), SILENCE: line_of(1, 0)}
    baselines._note_order(lines, "gen", "is")
    assert PINK in lines["gen"]["note"] and SILENCE not in lines["gen"]["note"]


def test_fd_below_that_of_as_many_real_clips_is_suspicious():
    halves = {"value": 8.0, "ci_low": 6.0, "ci_high": 10.0, "n": 50, "n_reference": 50}

    def note(value, n):
        whole = line_of(value, 0.5, note="before", n=n, n_reference=n)
        baselines._note_copies(whole, halves, "fd")
        return whole["note"]

    # With twice as many real clips FD is 4, and at least 3.
    assert note(2.4, 100).startswith("before; ") and "at the same n" in note(2.4, 100)
    assert note(2.6, 100) == note(5.4, 60) == "before" != note(5.4, 50)
    assert "at the same n" not in note(5.4, 50)


@pytest.mark.parametrize("metric", ["fd", "fad", "kl", "kl_sigmoid", "kad"])
def test_copies_are_suspected_only_by_metrics_that_they_minimise(metric):
    values = {"gen": 1, HALVES: 3, CODEC: 3}
    lines = {row: line_of(value, n=9, n_reference=9) for row, value in values.items()}
    baselines._annotate(lines, metric, "gen", "gen")
    assert ("copies" in lines["gen"]["note"]) is (metric in ("fd", "fad", "kl"))


# Sounds and pairs


def test_shuffled_labels_give_every_clip_another_s_real_clip():
    pairs = {f"gen-{k}": f"ref-{k // 2}" for k in range(40)}
    for seed in range(20):
        other = baselines.deranged(pairs, np.random.default_rng(seed))
        assert other.keys() == pairs.keys() and all(other[one] != real for one, real in pairs.items())
        assert Counter(other.values()) == Counter(pairs.values())
        assert all(other[f"gen-{2 * k}"] == other[f"gen-{2 * k + 1}"] for k in range(20))
    assert baselines.deranged(pairs, np.random.default_rng(0)) != other


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_pink_noise_falls_by_3_db_per_octave_at_level_and_length_of_the_clip(rate):
    clip = 0.1 * np.random.default_rng(0).normal(size=(20 * rate, 2)).astype(np.float32)
    wave = baselines.pink_noise(0).make("a", clip, rate)
    assert wave.shape == (20 * rate, 1) and wave.dtype == np.float32
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(np.sqrt(np.mean(clip**2)), rel=1e-3)
    hz, power = welch(wave[:, 0], rate, nperseg=8192)
    starts = [50 * 2**k for k in range(7)]
    octaves = [10 * np.log10(power[(hz >= low) & (hz < 2 * low)].mean()) for low in starts]
    assert np.polyfit(range(7), octaves, 1)[0] == pytest.approx(-3.01, abs=0.1)
    assert np.abs(np.diff(octaves) + 3.01).max() < 1
    assert power[(hz > 0) & (hz < 12)].mean() < 2 * power[(hz > 22) & (hz < 30)].mean()  # inaudible: flat


def test_noise_depends_on_seed_and_name():
    clip = np.ones((1000, 1), np.float32)
    made = baselines.pink_noise(1).make("a", clip, CHORD_RATE)
    assert np.array_equal(made, baselines.pink_noise(1).make("a", clip, CHORD_RATE))
    for seed, name in ((2, "a"), (1, "b")):
        other = baselines.pink_noise(seed).make(name, clip, CHORD_RATE)
        assert abs(np.corrcoef(made[:, 0], other[:, 0])[0, 1]) < 0.3


def test_the_round_trip_is_the_codec_s_own_at_16_khz(chords, tiny, tmp_path):
    wave, change = open_set(chords / "gen").samples(0)[0], baselines.round_trip(tiny)
    made = change.make("a", wave[:6400], CHORD_RATE)
    assert np.array_equal(made[:, 0], tiny.decode(tiny.encode(wave[:6400].T)).numpy()[0])
    write_chord(tmp_path / "a.wav", 5, seconds=0.4567, rate=44_100)
    stereo = np.repeat(open_set(tmp_path).samples(0)[0], 2, axis=1)
    made = change.make("a", stereo, 44_100)
    assert change.rate == CHORD_RATE and made.shape == (round(0.4567 * CHORD_RATE), 1)


def test_codes_are_decoded_by_name_as_stored_or_shuffled(tiny, rng):
    codes = rng.integers(0, 1024, (3, 8, 6)).astype(np.uint16)
    shuffled = baselines.shuffled(codes, 0)
    assert shuffled.dtype == np.uint16 and not np.array_equal(shuffled, codes)
    for book in range(8):
        assert np.array_equal(np.sort(shuffled[:, book], axis=None), np.sort(codes[:, book], axis=None))
    change = baselines.decoded(tiny, ["a", "b", "c"], codes)
    made = change.make("b", np.zeros((1900, 1), np.float32), CHORD_RATE)
    assert np.array_equal(made[:, 0], tiny.decode(codes[1:2]).numpy()[0, :1900])
    assert change.key != baselines.decoded(tiny, ["a", "b", "c"], shuffled).key


def test_changes_have_keys_of_their_own(tiny):
    other = copy(tiny)
    other.weights_hash = "another"
    noises = [baselines.pink_noise(0), baselines.pink_noise(1), baselines.silence()]
    keys = {change.key for change in [*noises, baselines.round_trip(tiny), baselines.round_trip(other)]}
    assert len(keys) == 5


def test_clips_without_labels_have_no_distance_of_classes():
    assert baselines._of_classes(SimpleNamespace(requests=None)) == []


def test_too_few_clips_for_an_inception_score_lose_its_baselines_alone(chords, ladder):
    few = open_set(chords / "ref").take(np.arange(14))
    for metrics in (None, ["fd", "is"]):
        found = ladder(chords, ref=few, allow_partial=True, metrics=metrics)
        assert list(by_row(found, "is")) == ["gen"] and HALVES in by_row(found, "fd")
        assert "no baselines of is: it needs 10 clips, half of the reference are 7" in found.notes
