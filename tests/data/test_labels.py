"""Label sets: order, look-ups, targets. Scores on disk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data.labels import LabelSet, load_scores, save_scores

names = st.lists(st.text("abcäß ,'", min_size=1).filter(str.strip), min_size=1, max_size=12, unique=True)


@given(names, st.data())
def test_multi_hot_is_sklearns(classes, data):
    rows = data.draw(st.lists(st.lists(st.sampled_from(classes), max_size=4), max_size=10))
    targets = LabelSet(tuple(classes)).multi_hot(rows)
    assert targets.dtype == np.float32 and targets.shape == (len(rows), len(classes))
    if rows:
        np.testing.assert_array_equal(targets, MultiLabelBinarizer(classes=classes).fit_transform(rows))


@given(names)
def test_json_round_trip_and_index(classes):
    for mids in (None, tuple(f"/m/{i}" for i in range(len(classes)))):
        labels = LabelSet(tuple(classes), mids)
        assert LabelSet.from_json(labels.to_json()) == labels
        assert [labels.index(name) for name in classes] == list(range(len(labels)))


def test_from_names_is_sorted_and_distinct():
    labels = LabelSet.from_names(["dog", "cat", "dog", "bell"])
    assert labels.names == ("bell", "cat", "dog") and "cat" in labels and "cow" not in labels


def test_names_that_differ_only_in_case_or_blanks_are_alike():
    assert LabelSet(("Dog bark", "Rain", "dog  BARK", "Rainy")).alike() == [("Dog bark", "dog  BARK")]


def test_an_unknown_label_is_refused_with_a_suggestion():
    labels = LabelSet(("siren", "engine"))
    with pytest.raises(UsageError, match=r"'sirene'.*did you mean 'siren'.*siren, engine"):
        labels.index("sirene")
    with pytest.raises(UsageError, match="'rain'"):
        labels.multi_hot([["siren"], ["rain"]])


@pytest.mark.parametrize(
    ("classes", "mids", "word"),
    [
        (("a", "b", "a"), None, "label 'a' occurs 2 times"),
        (("a", "b"), ("/m/1", "/m/1"), "mid '/m/1' occurs 2 times"),
        (("a", "b"), ("/m/1",), "names: 2, mids: 1"),
        (("a", " "), None, "empty"),
    ],
)
def test_inconsistent_label_sets_are_refused(classes, mids, word):
    with pytest.raises(UsageError, match=word):
        LabelSet(classes, mids)


def predictions(n=60, labels=("clock", "dog", "rain")):
    """Return what `save_scores` takes: scores, targets, clip ids, labels, recordings."""
    rng = np.random.default_rng(0)
    targets = np.eye(len(labels), dtype=np.uint8)[rng.integers(0, len(labels), n)]
    scores = rng.standard_normal(targets.shape).astype(np.float32)
    ids, recordings = (tuple(f"{what}-{i // k}" for i in range(n)) for what, k in (("clip", 1), ("video", 2)))
    return scores, targets, ids, labels, recordings


def test_saved_scores_can_be_loaded(tmp_path):
    made = predictions()
    path = save_scores(tmp_path / "scores.npz", *made)
    back = load_scores(path)
    np.testing.assert_array_equal(back.scores, made[0])
    np.testing.assert_array_equal(back.targets, made[1])
    assert (back.clip_ids, back.labels, back.recordings) == made[2:]
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    assert set(arrays) == {"scores", "targets", "clip_ids", "labels", "recordings"}


def test_no_flipped_bit_changes_scores_in_silence(tmp_path):
    """A flip may hide the recordings, or claim a password or another compression."""
    path = save_scores(tmp_path / "scores.npz", *predictions(6))
    whole, expected = path.read_bytes(), repr(load_scores(path))
    refused = 0
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            assert repr(load_scores(path)) == expected, place
        except IntegrityError as error:
            assert "scores.npz" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > len(whole) / 2


def test_missing_mismatched_and_damaged_scores_are_refused(tmp_path):
    path = tmp_path / "scores.npz"
    with pytest.raises(MissingError, match=r"scores\.npz"):
        load_scores(path)
    made = predictions()
    with pytest.raises(UsageError, match=r"scores\.npz.* 59 "):
        save_scores(path, made[0], made[1], made[2][:-1], *made[3:])
    with pytest.raises(UsageError, match=r"scores\.npz.* 59 "):
        save_scores(path, *made[:4], made[4][:-1])
    cut = save_scores(tmp_path / "cut-scores.npz", *made)
    cut.write_bytes(cut.read_bytes()[:200])
    np.savez(path, scores=np.array([{"a": 1}], dtype=object))
    for damaged in (cut, path):
        with pytest.raises(IntegrityError, match=r"scores\.npz"):
            load_scores(damaged)
