import numpy as np
import pytest
from fakes import hum_captions, hum_record, hum_store

from ajbench.core.errors import MissingError
from ajbench.fusion import label_free


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    records = [hum_record(i, visual_caption=None if i == 7 else hum_captions(i)) for i in range(24)]
    return hum_store(tmp_path_factory.mktemp("label_free") / "store", records)


def test_scores_agree_with_the_caption_of_the_predicted_class(store):
    indices = np.arange(24)
    weights = np.tile([0.9, 0.1], (24, 1))  # the audio model always predicts a hum
    how = {"scorer": "minilm", "labels": "predicted"}
    top = label_free.score(store, indices, weights.__getitem__, top_k=1, **how)
    machine = np.array([hum_captions(i).startswith("a humming") for i in range(24)])
    assert np.isnan(top.raw[7])
    known = indices != 7
    assert top.raw[machine & known].min() > top.raw[~machine & known].max()
    assert set(top.scaled[known]) == {0.0, 1.0}
    both = label_free.score(store, indices, weights.__getitem__, top_k=2, **how)
    other = label_free.score(store, indices, (1 - weights).__getitem__, top_k=1, **how)
    np.testing.assert_allclose(both.raw, 0.9 * top.raw + 0.1 * other.raw)


def test_true_labels_score_whether_caption_and_label_agree(store):
    indices = np.arange(24)
    found = label_free.score(
        store, indices, store.targets().__getitem__, scorer="minilm", labels="true", top_k=1
    )
    agree = np.array([hum_captions(i) == hum_captions(i % 2) for i in range(24)])
    known = indices != 7
    assert found.scaled[agree & known].min() > found.scaled[~agree & known].max()


def test_weights_are_read_in_chunks(store, monkeypatch):
    how = {"scorer": "minilm", "labels": "predicted", "top_k": 2}
    weights, asked = np.random.default_rng(0).uniform(size=(24, 2)), []
    whole = label_free.score(store, np.arange(24), weights.__getitem__, **how)
    monkeypatch.setattr(label_free, "CHUNK", 7)
    found = label_free.score(
        store, np.arange(24), lambda part: asked.append(part.start) or weights[part], **how
    )
    assert asked == [0, 7, 14, 21]
    np.testing.assert_allclose(found.raw, whole.raw, atol=1e-6)


def test_captions_are_needed(store, tmp_path):
    bare = hum_store(tmp_path / "bare", [hum_record(i) for i in range(3)])
    with pytest.raises(MissingError, match=r"fusion\.captions"):
        label_free.visual_captions(bare)


def test_parts_keep_recordings_together_and_are_alike_in_size(tmp_path):
    records = [hum_record(i, recording=f"r{i // 3}", split="train") for i in range(30)]
    one = hum_store(tmp_path / "store", records)
    parts = label_free.parts_of(one, np.arange(30), 3, 0)
    assert sorted(np.bincount(parts)) == [9, 9, 12]
    assert (parts.reshape(-1, 3) == parts[::3, None]).all()
    assert parts.tolist() == label_free.parts_of(one, np.arange(30), 3, 0).tolist()
    with pytest.raises(MissingError, match=r"fusion\.cross_fit"):
        label_free.parts_of(one, np.arange(30), 11, 0)


@pytest.mark.parametrize(("loss", "expected"), [("ce", [0.5, 0.5]), ("bce", [0.731059, 0.731059])])
def test_probabilities_follow_the_loss(loss, expected):
    np.testing.assert_allclose(label_free.probabilities(np.array([[1.0, 1.0]]), loss), [expected], atol=1e-6)
