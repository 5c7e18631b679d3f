import re

import numpy as np
import pytest
from fakes import audit_of_standouts, flagged_audit, make_store, write_clip

from ajbench.data.clip_set import ClipSet, open_set
from ajbench.evaluation.audit_findings import ALPHA, KINDS, Finding, Pairs
from ajbench.evaluation.audit_similarity import UsableClips


def usable(clips, rows=(0, 1, 2), start=0):
    return UsableClips(clips, list(rows), hashes=[f"{start + k}" for k in rows])


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


def test_clips_of_one_recording_meet_under_the_names_of_any_downloader(tmp_path):
    one, two, other = "youtube:abcdefghijk", "youtube:-_cdefghijk", "youtube:Zbcdefghijk"
    train = make_store(tmp_path / "train", 3, recordings={0: one, 1: other})
    held_out = make_store(tmp_path / "eval", 1, 4, prefix="held", recordings={1: one, 2: one, 3: two})
    parents = ["clip00", "-_cdefghijk_30.000.flac", "clip01", "abcdefghijz_10", "clip02", None]
    synth = ClipSet(tmp_path, [f"made{k}" for k in range(6)], parents)
    sets = {"synth": usable(synth, range(6)), "train": usable(open_set(train.path, "train"), start=10)}
    pairs = Pairs(sets | {"eval": usable(open_set(held_out.path, "eval"), range(4), start=20)})
    assert {(one.clip, one.match, one.kinds) for one in pairs.listed()} == {
        ("made0", "held01", ("parent",)),
        ("made1", "held03", ("parent",)),
        ("clip00", "held01", ("recording",)),
    }
    for row, kinds in ((1, ("near",)), (2, ())):
        pairs.add("train", row, "eval", 0, kinds)
    assert pairs.independent("train", "eval").tolist() == [False, True, True]
    assert pairs.independent("eval", "train").tolist() == [False, False, True, True]
    assert list(pairs.origins.values()) == [one, two, other, "abcdefghijz_10", "clip02", "made5"]


@pytest.mark.parametrize(
    ("n", "clips", "kinds", "holds"),
    [
        (0, 200, ("near",), False),
        (1, 200, ("near",), False),
        (4, 200, ("near", "embedding"), False),  # P(X ≥ 4) = 0.196 of BetaBinomial(200, 1, 100)
        (7, 200, ("near",), False),  # 0.0565
        (8, 200, ("near",), True),  # 0.0372
        (1, 5, ("near",), True),  # 0.0476
        (1, 6, ("near",), False),  # 0.0566
        *((1, 200, (kind, "near"), True) for kind in KINDS[:5]),
    ],
)
def test_similar_clips_are_a_leak_if_chance_does_not_explain_them(n, clips, kinds, holds):
    assert flagged_audit(n, clips, kinds).tally("leak").holds == holds


@pytest.mark.parametrize(
    ("audit", "line", "numbers", "leaks"),
    [
        (flagged_audit(5), 0, ["0", "200"], False),
        (flagged_audit(7), 1, ["7", "200", "2.0", "0.056"], False),
        (flagged_audit(9), 1, ["9", "200", "2.0", "0.024"], False),
        (flagged_audit(3, kinds=("exact", "near")), 0, ["3", "200", "3"], False),
        (flagged_audit(1, relation="split"), -1, ["1", "120", "1", "0", "0"], False),
        (flagged_audit(99, kinds=("id",), relation="split"), -1, ["99", "120", "0", "0"], True),
    ],
)
def test_sentences_have_the_numbers_and_an_example(audit, line, numbers, leaks):
    sentence = audit.sentences()[line]
    assert re.findall(r"\d+(?:\.\d+)?", sentence) == numbers
    assert ("s0" in sentence and "e0" in sentence) == bool(audit.of("split"))
    assert ("real splits" in sentence) == leaks


def test_sentences_agree_in_number():
    one, many = (flagged_audit(n, kinds=("exact",)).sentences()[0] for n in (1, 2))
    single = flagged_audit(1, clips=1, relation="memorised").sentences()[1]
    assert one.startswith("1 of 200 synthetic clips repeats an eval clip")
    assert many.startswith("2 of 200 synthetic clips repeat eval clips")
    assert single.startswith("1 of 1 synthetic clip resembles")


def test_counts_tell_sure_leaks_from_similar_clips():
    counts = flagged_audit(5).counts()
    assert (counts["leaked"], counts["leaked_surely"], counts["near_alone"]) == (5, 0, 5)
    assert counts["near_by_chance"] == pytest.approx(200 / 101) and counts["near_alone_p"] == pytest.approx(
        0.1295, abs=1e-4
    )


def test_clips_of_one_guide_count_once_and_sure_clips_are_not_tested():
    origins = {f"s{k}": f"guide {k // 4}" for k in range(200)}
    assert flagged_audit(12, origins=origins).tally("leak").p == flagged_audit(3, 50).tally("leak").p
    assert flagged_audit(3, origins=origins).tally("leak").p == 1.0
    mixed = flagged_audit(8, 210)
    mixed.findings.extend(Finding("leak", f"s{k}", "e", ("exact",), False) for k in range(200, 210))
    assert mixed.tally("leak").p == flagged_audit(8).tally("leak").p
    assert (mixed.tally("leak").sure, mixed.tally("leak").weak) == (10, 8)


@pytest.mark.parametrize(
    ("views", "real", "clips", "per_guide", "relation"),
    [
        *((1, 320, clips, 1, relation) for clips in (320, 640) for relation in ("leak", "memorised")),
        (1, 12, 100, 1, "leak"),
        (2, 320, 320, 1, "leak"),
        (1, 320, 640, 2, "leak"),
    ],
)
def test_clean_clips_are_called_leaks_in_five_percent_of_audits_at_most(
    views, real, clips, per_guide, relation
):
    rng = np.random.default_rng(7)
    origins = {f"s{k}": f"g{k // per_guide}" for k in range(clips)}
    repetitions, wrong = 600, 0
    for _ in range(repetitions):
        own, of_guide = rng.standard_t(3, (views, clips)), rng.standard_t(3, (views, clips // per_guide))
        # Half of a guide's clips, on average, sound alike.
        made = np.where(rng.random(clips) < 0.5 * (per_guide > 1), of_guide.repeat(per_guide, axis=1), own)
        found = audit_of_standouts(rng.standard_t(3, (views, real)), made, origins, relation)
        wrong += found.tally(relation).p < ALPHA
    assert wrong / repetitions <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / repetitions) ** 0.5
    assert wrong
