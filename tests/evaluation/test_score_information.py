import numpy as np
import pytest

from ajbench.evaluation import score_information as information

C = 4


def corpus(n, seed, leaky):
    """Captions of a class; scores that depend on caption and label (leaky), or on the caption alone."""
    rng = np.random.default_rng(seed)
    label, caption = rng.integers(0, C, n), rng.integers(0, C, n)
    table = np.random.default_rng(0).permutation(C * C).reshape(C, C) / (C * C)
    score = table[caption, label if leaky else caption]
    return score, np.eye(C)[caption], np.eye(C)[label]


def accuracy(kind, leaky):
    score, caption, targets = corpus(600, 1, leaky)
    x = information.inputs(kind, score, caption)
    held_out = corpus(400, 2, leaky)
    logits = information.linear_logits(x, targets, information.inputs(kind, *held_out[:2]))
    return (logits.argmax(axis=1) == held_out[2].argmax(axis=1)).mean()


@pytest.mark.parametrize("leaky", [True, False])
def test_a_score_computed_from_labels_tells_them_together_with_the_caption(leaky):
    found = {kind: accuracy(kind, leaky) for kind in information.INPUTS}
    assert found["caption"] < 0.4
    if leaky:
        assert found["caption+score"] > found["caption"] + 0.25
    else:
        assert found["caption+score"] < 0.4


def test_many_train_clips_are_thinned_and_all_others_evaluated(monkeypatch):
    monkeypatch.setattr(information, "MOST_CLIPS", 4)
    clips = np.array([10, 12, 14, 16, 18, 20, 22, 11, 13])
    assert information.thinned(clips, np.array([11, 13, 15])).tolist() == [10, 14, 18, 22, 11, 13]
    assert information.thinned(clips[:3], np.empty(0, int)).tolist() == [10, 12, 14]


def test_several_labels_are_fitted_one_by_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    targets = (x[:, :2] > 0).astype(float)
    logits = information.linear_logits(x, targets, x)
    assert ((logits > 0) == (targets > 0)).mean() > 0.95
