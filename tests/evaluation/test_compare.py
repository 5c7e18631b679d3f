import numpy as np
import pytest
import soundfile
from fakes import (
    KINDS,
    EnvelopeExtractor,
    measured,
    overall,
    pair_of,
    save_untrained_classifier,
    write_envelope,
)

import ajbench
from ajbench.core.errors import MissingError, UsageError
from ajbench.data import annotations
from ajbench.evaluation import compare
from ajbench.metrics.distribution import frechet_distance, inception_score, kl_divergence


def test_values_are_those_of_the_metrics_on_these_features(kinds):
    pair = pair_of(kinds, labels=None, captions=None, resamples=50)
    found, x, y = measured(pair), pair.ours, pair.theirs
    expected = {
        "fd": frechet_distance(x.vectors(), y.vectors()),
        "is": inception_score(x.logits, len(x.logits) // 10)[0],
    }
    expected |= {"kl": kl_divergence(x.logits, y.logits)}
    expected |= {"kl_sigmoid": kl_divergence(x.logits, y.logits, "sigmoid")}
    assert [row["metric"] for row in found.rows] == list(expected) and not found.skipped
    assert overall(found) == pytest.approx(expected, rel=1e-9)
    for row in found.rows:
        assert row["ci_low"] < row["value"] < row["ci_high"]
        assert (row["n"], row["protocol"], row["features"]) == (24, "ajbench", "envelope")


def test_the_python_function_returns_the_table(kinds, tmp_path):
    save_untrained_classifier(tmp_path / "judge", ("rain", "dog"), 4_000)
    features = f"reference={tmp_path / 'judge'}"
    about = {"features": features, "cache": tmp_path / "cache", "resamples": 5}
    table = ajbench.compare(kinds / "gen", str(kinds / "ref"), metrics=["fd", "kl"], **about)
    assert list(table["metric"]) == ["fd", "kl"]
    assert {"value", "ci_low", "ci_high", "n", "definition"} <= {*table}
    assert "FD of 24 clips" in table.attrs["notes"][0]
    other = ajbench.compare(kinds / "gen", kinds / "ref", metrics=["kl"], protocol="av-benchmark", **about)
    assert "eps 0" in other["definition"][0]
    with pytest.raises(UsageError, match="mn4"):
        ajbench.compare(kinds / "gen", kinds / "ref", features="mn4")


@pytest.mark.parametrize(
    ("protocol", "how"), [("av-benchmark", {"eps": 0}), ("stable-audio-metrics", {"direction": "gen||ref"})]
)
def test_direction_and_epsilon_of_kl_are_the_protocol_s(kinds, protocol, how):
    pair = pair_of(kinds, protocol=protocol)
    expected = kl_divergence(pair.ours.logits, pair.theirs.logits, **how)
    assert overall(measured(pair, ["kl"]))["kl"] == pytest.approx(expected, rel=1e-9)


def test_sets_without_a_common_name_have_no_kl_unless_paired_by_a_table(own_kinds):
    for kind in KINDS:
        (own_kinds / "gen" / kind).rename(own_kinds / "gen" / f"made-{kind}")
    (own_kinds / "captions.csv").unlink()
    found = measured(pair_of(own_kinds, labels=None))
    assert list(overall(found)) == ["fd", "is"] and not found.skipped
    assert any("kl, kl_sigmoid" in note and "--pairs" in note for note in found.notes)
    with pytest.raises(UsageError, match=r"--metrics kl: .*made-bell/clip-0.*bell/clip-0.*--pairs"):
        compare.choose(pair_of(own_kinds, labels=None), ["fd", "kl"])
    plain = pair_of(own_kinds, labels=None)
    lines = map(",".join, zip(plain.gen.names, reversed(plain.ref.names), strict=True))
    (own_kinds / "pairs.csv").write_text("\n".join(["gen,ref", *lines]))
    pairs = annotations.read_pairs(plain.gen, plain.ref, own_kinds / "pairs.csv")
    value = overall(measured(pair_of(own_kinds, labels=None, pairs=pairs), ["kl"]))["kl"]
    assert value == pytest.approx(kl_divergence(plain.ours.logits, plain.theirs.logits[::-1]), rel=1e-9)


def test_unusable_and_unpaired_clips_are_refused_or_left_out_and_counted(own_kinds, capsys):
    gen, ref = own_kinds / "gen", own_kinds / "ref"
    soundfile.write(gen / "dog" / "clip-1.wav", np.zeros(8_000), 16_000)
    (gen / "rain" / "clip-2.wav").write_bytes(b"RIFF nothing")
    soundfile.write(gen / "siren" / "clip-3.wav", np.full(8_000, np.nan), 16_000, subtype="FLOAT")
    (ref / "train" / "clip-4.wav").write_bytes(b"")
    (gen / "wind" / "clip-5.wav").rename(gen / "wind" / "new.wav")
    (own_kinds / "captions.csv").unlink()
    with pytest.raises(MissingError, match=r"^6 of 48 clips .*--allow-partial"):
        measured(pair_of(own_kinds, labels=None))
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 6 and any("gen dog/clip-1" in line and "silent" in line for line in shown)
    pair = pair_of(own_kinds, labels=None)
    found = measured(pair, allow_partial=True)
    assert {(one.set, one.clip): one.reason.partition(" (")[0] for one in found.skipped} == {
        ("gen", "dog/clip-1"): "silent",
        ("gen", "rain/clip-2"): "unreadable",
        ("gen", "siren/clip-3"): "not finite",
        ("ref", "train/clip-4"): "empty",
        ("gen", "wind/new"): "extra",
        ("ref", "wind/clip-5"): "missing",
    }
    counted = {row["metric"]: (row["n"], row["n_reference"]) for row in found.rows}
    assert counted == {"fd": (21, 23), "is": (21, 0), "kl": (19, 19), "kl_sigmoid": (19, 19)}
    reasons = {"extra": 1, "silent": 1, "unreadable": 1, "not finite": 1}
    gen = compare.counts(pair.gen, pair.ref, found.skipped)["gen"]
    assert gen == {"clips": 24, "other files": 0} | reasons


def test_few_equal_names_are_no_pairs(own_kinds, capsys):
    (own_kinds / "captions.csv").unlink()
    for number, path in enumerate(sorted((own_kinds / "gen").rglob("*.wav"))):
        if number >= 2:
            path.rename(path.with_name(f"made-{number}.wav"))
    found = measured(pair_of(own_kinds, labels=None))
    assert list(overall(found)) == ["fd", "is"] and not found.skipped
    (note,) = (note for note in found.notes if "kl, kl_sigmoid" in note)
    assert "only 2 of 24 clips" in note and "--pairs" in note
    with pytest.raises(MissingError, match=r"22 gen extra .*; 22 ref missing"):
        measured(pair_of(own_kinds, labels=None), ["kl"])
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == compare.LISTED + 1 and f"{44 - compare.LISTED} more" in shown[-1]


def test_several_sample_rates_in_a_folder_are_noted(own_kinds):
    assert not any("Hz" in note for note in measured(pair_of(own_kinds), ["fd"]).notes)
    write_envelope(own_kinds / "gen" / "dog" / "clip-7.wav", 7, rate=44_100)
    (note,) = (note for note in measured(pair_of(own_kinds), ["fd"]).notes if "Hz" in note)
    assert note.startswith("gen: ") and "23 at 16000 Hz, 1 at 44100 Hz" in note


def test_a_set_of_one_clip_and_unknown_metrics_are_refused(kinds):
    pair = pair_of(kinds)
    one = pair_of(kinds, gen=pair.gen.take(np.array([0])))
    with pytest.raises(MissingError, match=f": 1 in {kinds / 'gen'}"):
        measured(one, ["fd"], allow_partial=True)
    for unknown, similar in (("fdd", "fd"), ("agreement", "label_agreement")):
        with pytest.raises(UsageError, match=f"--metrics {unknown}: .*'{similar}'"):
            compare.choose(pair, [unknown])


def test_a_second_run_computes_nothing(kinds, tmp_path):
    extractor = EnvelopeExtractor()
    first, again = (measured(pair_of(kinds, extractor, cache=tmp_path), ["fd", "is"]) for _ in range(2))
    assert extractor.seen == 48 and again.rows == first.rows
