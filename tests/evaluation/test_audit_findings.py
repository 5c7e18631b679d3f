import re

import numpy as np
import pytest
from fakes import make_store, write_clip

from ajbench.data.clip_set import ClipSet, open_set
from ajbench.evaluation.audit_findings import Audit, Calibration, Finding, Pairs
from ajbench.evaluation.audit_similarity import UsableClips


def usable(clips, rows=(0, 1, 2), start=0):
    return UsableClips(clips, list(rows), hashes=[f"{start + k}" for k in rows])


def flagged(n, clips=200, kinds=("near",), relation="leak"):
    """An audit in which n clips are flagged."""
    found = [Finding(relation, f"s{k}", f"e{k}", kinds, False) for k in range(n)]
    calibration = Calibration("near", "eval", np.zeros(100), np.zeros(clips), 1.0)
    return Audit(found, [calibration], {"synth": clips, "train": 120, "eval": 50}, [], 0)


def test_equal_ids_mean_one_recording_in_stores_only(tmp_path):
    store = open_set(make_store(tmp_path / "store").path)
    for name in store.names:
        write_clip(tmp_path / "folder", name, np.zeros(400))
    folder = open_set(tmp_path / "folder")
    stores, mixed = (
        Pairs({"synth": usable(store), "train": usable(real, start=3), "eval": usable(real, start=6)})
        for real in (store, folder)
    )
    assert [one.kinds for one in stores.listed()] == 9 * [("id",)]
    assert not stores.independent("train", "eval").any()
    assert mixed.listed() == [] and mixed.independent("train", "eval").all()


def test_a_guide_whose_name_is_in_both_folders_is_ambiguous(tmp_path):
    for name in ("a", "b"):
        write_clip(tmp_path, name, np.zeros(400))
    real, synth = open_set(tmp_path), ClipSet(tmp_path, ["one", "two"], ["a", "b"])
    sets = {"synth": usable(synth, (0, 1)), "train": usable(real, (0,), 5), "eval": usable(real, (0, 1), 7)}
    found = [(one.clip, one.match, one.kinds) for one in Pairs(sets).listed()]
    assert found == [("two", "b", ("parent",))]


@pytest.mark.parametrize(
    ("n", "clips", "kinds", "holds"),
    [
        (0, 200, ("near",), False),
        (1, 200, ("near",), False),
        (4, 200, ("near", "embedding"), False),  # P(X ≥ 4) = 0.142 of Binomial(200, 0.01)
        (5, 200, ("near",), False),  # 0.0517
        (6, 200, ("embedding",), True),  # 0.0160
        (1, 5, ("near",), True),  # 0.0490
        (1, 6, ("near",), False),  # 0.0585
        *((1, 200, (kind, "near"), True) for kind in ("exact", "waveform", "parent", "id")),
    ],
)
def test_similar_clips_are_a_leak_if_chance_does_not_explain_them(n, clips, kinds, holds):
    assert flagged(n, clips, kinds).tally("leak").holds == holds


@pytest.mark.parametrize(
    ("audit", "line", "numbers", "leaks"),
    [
        (flagged(5), 0, ["0", "200"], False),
        (flagged(5), 1, ["5", "200", "2.0", "0.052"], False),
        (flagged(6), 1, ["6", "200", "2.0", "0.016"], False),
        (flagged(3, kinds=("exact", "near")), 0, ["3", "200", "3"], False),
        (flagged(1, relation="split"), -1, ["1", "100", "1.0", "0.63", "0", "0"], False),
        (flagged(99, kinds=("id",), relation="split"), -1, ["99", "120", "0", "0"], True),
    ],
)
def test_sentences_have_the_numbers_and_an_example(audit, line, numbers, leaks):
    sentence = audit.sentences()[line]
    assert re.findall(r"\d+(?:\.\d+)?", sentence) == numbers
    assert ("s0" in sentence and "e0" in sentence) == bool(audit.of("split"))
    assert ("real splits" in sentence) == leaks


def test_sentences_agree_in_number():
    one, many = (flagged(n, kinds=("exact",)).sentences()[0] for n in (1, 2))
    single = flagged(1, clips=1, relation="memorised").sentences()[1]
    assert one.startswith("1 of 200 synthetic clips repeats an eval clip")
    assert many.startswith("2 of 200 synthetic clips repeat eval clips")
    assert single.startswith("1 of 1 synthetic clip resembles")


def test_counts_tell_sure_leaks_from_similar_clips():
    counts = flagged(5).counts()
    assert (counts["leaked"], counts["leaked_surely"], counts["near_alone"]) == (5, 0, 5)
    assert counts["near_by_chance"] == 2.0 and counts["near_alone_p"] == pytest.approx(0.0517, abs=1e-4)
