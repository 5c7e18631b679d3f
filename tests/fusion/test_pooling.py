"""Attention pooling: published values, closed forms and laws of the three discounts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ajbench.core.errors import UsageError
from ajbench.fusion import pool

DISCOUNTS = ("renormalised", "paper", "logit")
# Two audio tokens (1 and 2) and a video token (4) with attention 1/6, 1/3, 1/2: weights and pooled value.
EXAMPLES = [
    (0.0, "paper", (0.166667, 0.333333, 0.0), 0.833333),
    (0.0, "renormalised", (0.333333, 0.666667, 0.0), 1.666667),
    (0.0, "logit", (0.25, 0.5, 0.25), 2.25),
    (0.5, "paper", (0.166667, 0.333333, 0.25), 1.833333),
    (0.5, "renormalised", (0.222222, 0.444444, 0.333333), 2.444444),
    (0.5, "logit", (0.211325, 0.422650, 0.366025), 2.520726),
    *[(1.0, name, (0.166667, 0.333333, 0.5), 2.833333) for name in DISCOUNTS],
]


@st.composite
def clips(draw):
    """Draw tokens [B, T, d], logits [B, T], is_video [T] with audio and video, and scores [B]."""
    batch, length, width = draw(st.integers(1, 3)), draw(st.integers(2, 5)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    numbers = st.floats(-20, 20, width=32)
    tokens = draw(hnp.arrays(dtype, (batch, length, width), elements=numbers))
    logits = draw(hnp.arrays(dtype, (batch, length), elements=numbers))
    split = draw(st.integers(1, length - 1))
    is_video = np.array(draw(st.permutations([False] * split + [True] * (length - split))))
    return tokens, logits, is_video, draw(hnp.arrays(dtype, batch, elements=st.floats(0, 1, width=32)))


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def weights_of(logits, is_video, score, discount):
    """Return the weights [B, T]: the pooled value of one-hot tokens."""
    one_hot = np.repeat(np.eye(logits.shape[1], dtype=logits.dtype)[None], len(logits), axis=0)
    return pool(one_hot, logits, is_video, score, discount)


@pytest.mark.parametrize(("score", "discount", "weights", "value"), EXAMPLES)
def test_published_values(score, discount, weights, value):
    logits, is_video = np.log([[1.0, 2.0, 3.0]]), np.array([False, False, True])
    np.testing.assert_allclose(weights_of(logits, is_video, [score], discount), [weights], atol=1e-6)
    pooled = pool(np.array([[[1.0], [2.0], [4.0]]]), logits, is_video, [score], discount)
    np.testing.assert_allclose(pooled, [[value]], atol=1e-6)


@given(clips(), st.sampled_from(DISCOUNTS))
def test_score_1_is_plain_attention_pooling(clip, discount):
    tokens, logits, is_video, score = clip
    expected = np.einsum("bt,btd->bd", softmax(logits), tokens)
    pooled = pool(tokens, logits, is_video, np.ones_like(score), discount)
    assert pooled.dtype == tokens.dtype
    np.testing.assert_allclose(pooled, expected, atol=1e-4)


@given(clips())
def test_score_0_leaves_the_audio_alone(clip):
    tokens, logits, is_video, score = clip
    audio = ~is_video
    alone = np.einsum("bt,btd->bd", softmax(logits[:, audio]), tokens[:, audio])
    np.testing.assert_allclose(pool(tokens, logits, is_video, 0 * score), alone, atol=1e-4)
    mass = softmax(logits)[:, audio].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(pool(tokens, logits, is_video, 0 * score, "paper"), mass * alone, atol=1e-4)


@given(clips(), st.floats(2**-20, 1, width=32))
def test_renormalised_adds_log_score_to_the_logits(clip, score):
    _, logits, is_video, _ = clip
    logits = logits.astype(np.float64)
    weights = weights_of(logits, is_video, np.full(len(logits), score), "renormalised")
    np.testing.assert_allclose(weights, softmax(logits + is_video * np.log(score)), atol=1e-6)


@given(clips(), st.floats(0, 1, width=32))
def test_video_gets_more_weight_with_a_higher_score(clip, other):
    _, logits, is_video, score = clip
    low, high = np.minimum(score, other), np.maximum(score, other)
    for discount in ("renormalised", "paper"):
        video = [weights_of(logits, is_video, one, discount)[:, is_video].sum(axis=1) for one in (low, high)]
        assert (video[0] <= video[1] + 1e-6).all()


@given(clips(), st.sampled_from(DISCOUNTS), st.randoms(use_true_random=False))
def test_the_order_of_tokens_does_not_matter(clip, discount, random):
    tokens, logits, is_video, score = clip
    order = random.sample(range(len(is_video)), len(is_video))
    shuffled = pool(tokens[:, order], logits[:, order], is_video[order], score, discount)
    np.testing.assert_allclose(shuffled, pool(tokens, logits, is_video, score, discount), atol=1e-4)


@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("discount", DISCOUNTS)
def test_gradients_flow(discount, score):
    generator = torch.Generator().manual_seed(0)
    made = (torch.randn(*shape, generator=generator).double() for shape in ((2, 4, 3), (2, 4)))
    tokens, logits = (tensor.requires_grad_() for tensor in made)
    is_video, scores = torch.tensor([False, True] * 2), torch.full((2,), score, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t, x: pool(t, x, is_video, scores, discount), (tokens, logits))
    if 0 < score < 1:  # at the ends the score is clamped, and has one-sided differences only
        scores.requires_grad_()
        assert torch.autograd.gradcheck(lambda s: pool(tokens, logits, is_video, s, discount), scores)
    else:
        pool(tokens, logits, is_video, scores.requires_grad_(), discount).sum().backward()
        assert torch.isfinite(scores.grad).all()


def test_extreme_logits_and_scores_stay_finite():
    tokens, is_video = torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([False, False, True])
    logits = torch.tensor([[0.0, 0.0, 1000.0]], requires_grad=True)
    pooled = pool(tokens, logits, is_video, torch.zeros(1))
    assert pooled.item() == 1.5
    pooled.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert pool(tokens, logits, is_video, torch.tensor([7.0])).item() == 4.0  # clamped to 1
    assert pool(tokens, logits, torch.ones(3), torch.zeros(1)).item() == 0.0  # no audio token


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"tokens": np.zeros((2, 3))}, "tokens"),
        ({"tokens": np.zeros((2, 3, 4), int)}, "tokens"),
        ({"logits": np.zeros((2, 4))}, "logits"),
        ({"is_video": np.zeros(2, bool)}, "is_video"),
        ({"score": np.zeros(1)}, "score"),
        ({"discount": "none"}, "'none'.* renormalised, paper, logit"),
    ],
)
def test_bad_arguments_are_refused(changes, word):
    arguments = {"tokens": np.zeros((2, 3, 4)), "logits": np.zeros((2, 3))}
    arguments |= {"is_video": np.zeros(3, bool), "score": np.zeros(2)}
    with pytest.raises(UsageError, match=word):
        pool(**(arguments | changes))
