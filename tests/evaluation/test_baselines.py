"""The ladder of references: that all rungs are measured alike, and what is told."""

from collections import Counter

import numpy as np
import pytest
import soundfile
from chords import RATE, Ear, FrameEar, N

from ajbench.core.errors import MissingError, UsageError
from ajbench.data.clip_set import open_set
from ajbench.evaluation import baselines, compare, protocols, rungs
from ajbench.evaluation.feature_cache import embed
from ajbench.metrics.distribution import frechet_distance, inception_score, kl_divergence
from ajbench.reporting import comparison_figures

PLAIN = protocols.find("ajbench")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Features, which tests share: they are known by what is heard."""
    return tmp_path_factory.mktemp("kept")


def climb(chord_folders, tiny, kept, ear=None, *, gen="gen", metrics=None, resamples=20, seed=0, **more):
    how = open_set(chord_folders / gen), open_set(chord_folders / "ref"), ear or Ear(), PLAIN, kept
    draws = {"pairs": compare.pairs_of(*how[:2]), "resamples": resamples, "seed": seed}
    found = compare.compare(*how, metrics=metrics, **draws, **more)
    return baselines.beside(found, *how, tiny, **draws)


def by_row(found, metric):
    return {line["row"]: line for line in found.rows if line["metric"] == metric}


# Pairs


def test_shuffled_labels_give_every_clip_the_counterpart_of_another():
    pairs = {f"gen-{k}": f"ref-{k // 2}" for k in range(40)}
    for seed in range(20):
        other = baselines.deranged(pairs, np.random.default_rng(seed))
        assert other.keys() == pairs.keys() and all(other[one] != real for one, real in pairs.items())
        assert Counter(other.values()) == Counter(pairs.values())
        assert all(other[f"gen-{2 * k}"] == other[f"gen-{2 * k + 1}"] for k in range(20))
    assert baselines.deranged(pairs, np.random.default_rng(0)) != other


# Measurements


def test_rungs_stand_in_their_order_at_one_n(chord_folders, tiny, kept):
    found = climb(chord_folders, tiny, kept)
    half = N // 2
    fd = by_row(found, "fd")
    assert list(fd) == [
        "gen",
        baselines.HALVES,
        baselines.CODEC,
        f"gen, {half} clips",
        baselines.PINK,
        baselines.SILENCE,
    ]
    values = {row: line["value"] for row, line in fd.items()}
    assert (
        values[baselines.HALVES]
        < values[baselines.CODEC]
        < min(values[baselines.PINK], values[baselines.SILENCE])
    )
    assert values[f"gen, {half} clips"] < values[baselines.PINK]
    assert (fd["gen"]["n"], fd["gen"]["n_reference"]) == (N, N)
    assert {(line["n"], line["n_reference"]) for row, line in fd.items() if row != "gen"} == {(half, half)}
    for line in fd.values():
        assert line["ci_low"] < line["value"] < line["ci_high"] and line["features"] == "ear"
    assert by_row(found, "is")[baselines.SILENCE]["value"] == pytest.approx(1)
    kl = by_row(found, "kl")
    assert list(kl) == ["gen", baselines.CODEC, baselines.SHUFFLED, baselines.PINK, baselines.SILENCE]
    assert kl[baselines.CODEC]["value"] < kl["gen"]["value"] and kl[baselines.SHUFFLED]["n"] == N
    assert any(f"compare them with the row 'gen, {half} clips'" in note for note in found.notes)


def test_values_are_of_the_halves_and_of_each_clip_with_its_own(chord_folders, tiny, kept):
    found, ear, ref = climb(chord_folders, tiny, kept, seed=4), Ear(), open_set(chord_folders / "ref")
    order = np.random.default_rng(4).permutation(N)
    first, second = np.sort(order[: N // 2]), np.sort(order[N // 2 :])
    real = embed(ref, ear, PLAIN, kept)
    fd, kl, score = (by_row(found, metric) for metric in ("fd", "kl", "is"))
    x, y = real.features[first], real.features[second]
    assert fd[baselines.HALVES]["value"] == pytest.approx(frechet_distance(x, y), rel=1e-9)
    changes = {
        baselines.CODEC: rungs.round_trip(tiny),
        baselines.PINK: rungs.pink_noise(4),
        baselines.SILENCE: rungs.silence(),
    }
    for row, change in changes.items():
        made = embed(ref.take(first).changed(change), ear, PLAIN, kept)
        assert fd[row]["value"] == pytest.approx(frechet_distance(made.features, y), rel=1e-6)
        assert score[row]["value"] == pytest.approx(inception_score(made.logits)[0], rel=1e-6)
        assert kl[row]["value"] == pytest.approx(kl_divergence(made.logits, real.logits[first]), rel=1e-6)


def test_a_smaller_generated_set_sets_the_n(chord_folders, tiny, kept):
    for k in range(7, N):
        (chord_folders / "gen" / f"clip-{k:02d}.wav").unlink()
    found = climb(chord_folders, tiny, kept, metrics=["fd", "kl"], allow_partial=True)
    fd = by_row(found, "fd")
    assert {(line["n"], line["n_reference"]) for row, line in fd.items() if row != "gen"} == {(7, N // 2)}
    assert "gen, 7 clips" in fd and by_row(found, "kl")[baselines.SHUFFLED]["n"] == 7


def test_only_shuffled_pairs_change_and_only_what_is_paired(chord_folders, tiny, kept):
    for k in range(N):  # each generated clip a louder copy of its own counterpart
        wave = soundfile.read(chord_folders / "ref" / f"clip-{k:02d}.wav")[0]
        soundfile.write(chord_folders / "gen" / f"clip-{k:02d}.wav", 1.5 * wave, RATE)
    found = climb(chord_folders, tiny, kept)
    kl = by_row(found, "kl")
    assert kl["gen"]["value"] < 0.2 * kl[baselines.SHUFFLED]["value"]
    assert kl["gen"]["n"] == kl[baselines.SHUFFLED]["n"] == N
    assert not {baselines.SHUFFLED} & (by_row(found, "fd").keys() | by_row(found, "is").keys())


def test_it_is_the_same_by_seed_and_what_was_computed_is_kept(chord_folders, tiny, tmp_path):
    ear = Ear()
    first = climb(chord_folders, tiny, tmp_path / "cache", ear)
    heard = ear.heard
    assert heard == 2 * N + 3 * (N // 2)  # both sets, and three sounds of half of the real clips
    again = climb(chord_folders, tiny, tmp_path / "cache", ear)
    assert ear.heard == heard and again.rows == first.rows
    other = by_row(climb(chord_folders, tiny, tmp_path / "cache", ear, seed=1), "fd")
    assert other[baselines.HALVES]["value"] != by_row(first, "fd")[baselines.HALVES]["value"]
    assert other["gen"]["value"] == by_row(first, "fd")["gen"]["value"]


def test_sets_without_pairs_have_no_paired_rungs(chord_folders, tiny, kept):
    for k in range(N):
        (chord_folders / "gen" / f"clip-{k:02d}.wav").rename(chord_folders / "gen" / f"made-{k:02d}.wav")
    found = climb(chord_folders, tiny, kept)
    assert {line["metric"] for line in found.rows} == {"fd", "is"}
    assert not any(baselines.SHUFFLED in note for note in found.notes)


def test_broken_real_clips_are_no_rung(chord_folders, tiny, kept):
    soundfile.write(chord_folders / "ref" / "clip-04.wav", np.zeros(8000), RATE)
    with pytest.raises(MissingError, match="silent"):
        climb(chord_folders, tiny, kept)
    found = climb(chord_folders, tiny, kept, allow_partial=True)
    fd = by_row(found, "fd")
    assert fd["gen"]["n_reference"] == 23
    assert {(line["n"], line["n_reference"]) for row, line in fd.items() if row != "gen"} == {(11, 12)}
    assert by_row(found, "kl")[baselines.SHUFFLED]["n"] == 23
    for k in range(3, N):
        for name in ("gen", "ref"):
            (chord_folders / name / f"clip-{k:02d}.wav").unlink()
    with pytest.raises(MissingError, match="3 usable real clips; at least 4"):
        climb(chord_folders, tiny, kept)


# What is told


def test_noise_and_copies_are_told_of_and_good_clips_are_not(chord_folders, tiny, kept):
    fewer = f"{N // 2} clips"
    good = by_row(climb(chord_folders, tiny, kept, metrics=["fd"]), "fd")
    assert all(line["note"] == "" for line in good.values())
    for k in range(N):
        clip = soundfile.read(chord_folders / "ref" / f"clip-{k:02d}.wav", dtype="float32", always_2d=True)[0]
        (chord_folders / "hiss").mkdir(exist_ok=True)
        noise = rungs.pink_noise(9).make(str(k), clip, RATE)
        soundfile.write(chord_folders / "hiss" / f"clip-{k:02d}.wav", noise, RATE)
    found = climb(chord_folders, tiny, kept, gen="hiss", metrics=["fd"])
    assert "fd is not clearly better than that of pink noise" in by_row(found, "fd")[f"hiss, {fewer}"]["note"]
    assert any("hiss" in note and "pink noise" in note for note in found.notes)
    found = climb(chord_folders, tiny, kept, gen="ref")
    assert "suspicious: look for copies" in by_row(found, "kl")["ref"]["note"]
    assert by_row(found, "kl_sigmoid")["ref"]["note"] == ""  # of which equal clips have no least value
    found = climb(chord_folders, tiny, kept, gen="ref", resamples=0)  # without intervals nobody is accused
    assert not any("suspicious" in note for note in found.notes)


def test_fad_has_rungs_and_is_drawn_beside_fd(chord_folders, tiny, kept):
    found = climb(chord_folders, tiny, kept, FrameEar())
    fad = {row: line["value"] for row, line in by_row(found, "fad").items()}
    assert fad[baselines.HALVES] < min(fad[baselines.PINK], fad[baselines.SILENCE])
    drawn = comparison_figures.baseline_figure([*found.rows, *climb(chord_folders, tiny, kept).rows])
    for head in ("FAD (vggish)", "FD (ear)"):
        assert f"{head} of {N // 2} clips to {N // 2} real ones" in drawn
    with pytest.raises(UsageError, match="neither FD nor FAD"):
        comparison_figures.baseline_figure([line for line in found.rows if line["metric"] != "fad"])


def test_a_set_of_a_rung_s_name_keeps_a_row_of_its_own(chord_folders, tiny, kept):
    (chord_folders / "gen").rename(chord_folders / "silence")
    fd = by_row(climb(chord_folders, tiny, kept, gen="silence", metrics=["fd"]), "fd")
    assert len(fd) == 6 and fd[baselines.SILENCE]["n"] == N // 2
    assert fd["silence (generated)"]["n"] == N and f"silence (generated), {N // 2} clips" in fd


def test_silence_that_passes_for_good_is_told_of():
    def line(value, width=0.1):
        return {"value": value, "ci_low": value - width, "ci_high": value + width, "note": ""}

    lines = {"gen": line(2), baselines.CODEC: line(1), baselines.PINK: line(4), baselines.SILENCE: line(0.9)}
    baselines._judge(lines, "gen", "kl")
    assert lines["gen"]["note"] == "kl is not clearly better than that of silence"
    assert lines[baselines.SILENCE]["note"] == (
        "kl is no worse than that of codec round trip: it says little here"
    )
    assert not lines[baselines.PINK]["note"] and not lines[baselines.CODEC]["note"]
    lines = {
        "gen": line(1),
        baselines.CODEC: line(1),
        baselines.SHUFFLED: line(4),
        baselines.SILENCE: line(3),
    }
    baselines._judge(lines, "gen", "kl")
    assert lines[baselines.SILENCE]["note"].startswith("kl is no worse than that of shuffled labels")
    assert not lines[baselines.SHUFFLED]["note"] and not lines["gen"]["note"]
    lines = {
        "gen": line(2),
        baselines.HALVES: line(3),
        baselines.PINK: line(1.9),
        baselines.SILENCE: line(1, 0),
    }
    baselines._judge(lines, "gen", "is")  # where more is better, and more than real clips have is no sign
    assert lines["gen"]["note"] == "is is not clearly better than that of pink noise"


def test_fd_is_suspicious_below_what_real_clips_of_that_many_have():
    halves = {"value": 8.0, "ci_low": 6.0, "ci_high": 10.0, "n": 50, "n_reference": 50}

    def told(value, n):
        whole = {"value": value, "ci_low": value - 0.5, "ci_high": value + 0.5, "note": "before"}
        whole |= {"n": n, "n_reference": n}
        baselines._suspect(whole, halves, "fd")
        return whole["note"]

    # Of twice as many real clips FD is 4, and at least 3.
    assert told(2.4, 100).startswith("before; fd is better than of real, two halves, as n goes")
    assert told(2.6, 100) == told(5.4, 60) == "before" != told(5.4, 50) and "as n goes" not in told(5.4, 50)


@pytest.mark.parametrize(
    ("metric", "accused"), [("fd", True), ("fad", True), ("kl", True), ("kl_sigmoid", False), ("kad", False)]
)
def test_only_metrics_whose_least_value_is_of_copies_accuse_of_them(metric, accused):
    def line(value):
        return {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "n": 9, "n_reference": 9}

    lines = {"gen": line(1), baselines.HALVES: line(3), baselines.CODEC: line(3)}
    baselines._tell(lines, metric, "gen", "gen")
    assert ("suspicious" in lines["gen"]["note"]) is accused


def test_the_drawing_shows_the_rungs_of_one_n(chord_folders, tiny, kept):
    found = climb(chord_folders, tiny, kept, gen="ref")  # copies: FD of all of them is 0
    drawn = comparison_figures.baseline_figure(found.rows)
    assert drawn.startswith("<svg") and 'xmlns="http://www.w3.org/2000/svg"' in drawn
    for row in (baselines.HALVES, baselines.CODEC, f"ref, {N // 2} clips", baselines.PINK, baselines.SILENCE):
        assert f">{row}<" in drawn
    assert f"FD (ear) of {N // 2} clips to {N // 2} real ones" in drawn and ">ref<" not in drawn
