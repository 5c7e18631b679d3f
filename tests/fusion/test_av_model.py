"""The whole audio-visual model on given tokens: its masks, its score, and the order of tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from ajbench.fusion.av_model import AudioVisual
from ajbench.fusion.pooling import DISCOUNTS

B, T, W, C = 3, 5, 4, 2
EVERY = torch.ones(B, dtype=torch.bool)
NONE = ~EVERY


def model(discount="renormalised", seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = AudioVisual(C, audio_width=8, video_width=6, width=16, discount=discount, **options)
    return made.eval()


def tokens(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, 8, generator=generator), torch.randn(B, W, 6, generator=generator)


seeds = st.integers(0, 2**20)


@given(seeds)
def test_score_0_is_the_audio_alone_bit_for_bit(seed):
    (audio, video), one = tokens(seed), model(seed=seed)
    with torch.no_grad():
        scored = one(audio, video, EVERY, EVERY, torch.zeros(B))
        assert torch.equal(scored, one(audio, video, EVERY, NONE, torch.rand(B)))
        assert torch.equal(scored, one(audio, 7 * video, EVERY, NONE, torch.ones(B)))


@given(seeds, st.sampled_from(DISCOUNTS))
def test_score_1_is_naive_fusion_bit_for_bit(seed, discount):
    (audio, video), one = tokens(seed), model(discount, seed)
    naive = model("renormalised", seed)  # the same weights
    with torch.no_grad():
        scored = one(audio, video, EVERY, EVERY, torch.ones(B))
        assert torch.equal(scored, naive(audio, video, EVERY, EVERY, torch.ones(B)))
        assert torch.equal(scored, one(audio, video, EVERY, EVERY, torch.full((B,), 3.0)))  # clamped


@given(seeds, st.floats(0, 1), st.sampled_from(DISCOUNTS))
def test_the_score_does_not_change_a_clip_with_one_modality(seed, score, discount):
    (audio, video), one = tokens(seed), model(discount, seed)
    with torch.no_grad():
        for has in ((EVERY, NONE), (NONE, EVERY)):
            found = one(audio, video, *has, torch.full((B,), score))
            assert torch.equal(found, one(audio, video, *has, torch.ones(B)))
            other = (torch.zeros_like(audio) if has[0] is NONE else audio), video * has[1].any()
            assert torch.equal(found, one(*other, *has, torch.ones(B)))


@given(seeds, st.floats(0, 1), st.sampled_from(DISCOUNTS), st.randoms(use_true_random=False))
def test_the_order_of_tokens_does_not_matter(seed, score, discount, random):
    (audio, video), one = tokens(seed), model(discount, seed)
    mixed = audio[:, random.sample(range(T), T)], video[:, random.sample(range(W), W)]
    with torch.no_grad():
        scores = torch.full((B,), score)
        found = one(*mixed, EVERY, EVERY, scores)
        torch.testing.assert_close(found, one(audio, video, EVERY, EVERY, scores), atol=1e-5, rtol=1e-5)


def test_other_clips_of_a_batch_do_not_matter_and_a_clip_without_anything_has_the_logits_of_the_bias():
    (audio, video), one = tokens(0), model()
    has_audio, has_video = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    found = one(audio, video, has_audio, has_video, torch.full((B,), 0.5))
    assert torch.isfinite(found).all()
    assert torch.equal(found[2], one.head.bias)
    alone = one(audio[1:2], video[1:2], has_audio[1:2], has_video[1:2], torch.ones(1))
    torch.testing.assert_close(alone[0], found[1])
    found.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in one.parameters())


def test_a_score_as_feature_does_not_discount():
    (audio, video), one = tokens(0), model(feature=True)
    with torch.no_grad():
        one.head.weight[:, -1] = 0
        low, high = (one(audio, video, EVERY, EVERY, torch.full((B,), score)) for score in (0.0, 1.0))
        assert torch.equal(low, high)
        one.head.weight[:, -1] = 2
        low, high = (one(audio, video, EVERY, EVERY, torch.full((B,), score)) for score in (0.0, 1.0))
        torch.testing.assert_close(high - low, torch.full((B, C), 2.0))
        middle = one(audio, video, EVERY, NONE, torch.ones(B))
        assert torch.equal(middle, one(audio, video, EVERY, NONE, torch.zeros(B)))


@pytest.mark.parametrize("name", ["taltrans-small", "ast-tiny"])
def test_a_backbone_gives_the_tokens_of_waves(name):
    from ajbench import classifiers

    options = {"clip_samples": 13_440} if name == "ast-tiny" else {}
    backbone = classifiers.build(name, C, **options).eval()
    waves = torch.randn(2, 13_440)
    with torch.no_grad():
        given = backbone.tokens(waves)
        assert given.shape[0::2] == (2, backbone.token_width)
        pooled = given if name == "taltrans-small" else given[:, :2]  # of an AST, the class tokens
        torch.testing.assert_close(pooled.mean(dim=1), backbone.embed(waves), atol=1e-5, rtol=1e-5)
        whole = AudioVisual(C, audio_width=backbone.token_width, video_width=6, backbone=backbone).eval()
        video, has = torch.randn(2, W, 6), torch.ones(2, dtype=torch.bool)
        found = whole(waves, video, has, has, torch.ones(2))
        whole.backbone = None
        assert torch.equal(found, whole(given, video, has, has, torch.ones(2)))


def test_the_model_joins_what_audio_and_video_know_apart():
    """Four classes: the audio knows one bit of the class, the video the other."""
    draw = torch.Generator().manual_seed(0)

    def clips(n=400):
        y = torch.randint(0, 4, (n,), generator=draw)
        audio, video = (torch.randn(n, tokens, 8, generator=draw) for tokens in (6, 4))
        audio[:, :, :2] += 3 * functional.one_hot(y // 2, 2)[:, None]
        video[:, :, :2] += 3 * functional.one_hot(y % 2, 2)[:, None]
        return audio, video, y

    with torch.random.fork_rng():
        torch.manual_seed(0)
        fused = AudioVisual(4, audio_width=8, video_width=8, width=16)
    optimizer = torch.optim.AdamW(fused.parameters(), lr=1e-2)
    audio, video, y = clips()
    for _ in range(100):
        drop = torch.rand(len(y), generator=draw)
        logits = fused(audio, video, drop > 0.2, drop < 0.8, torch.ones(len(y)))
        optimizer.zero_grad()
        functional.cross_entropy(logits, y).backward()
        optimizer.step()
    audio, video, y = clips()
    every = torch.ones(len(y), dtype=torch.bool)
    right = {}
    for name, masks in (("A", (every, ~every)), ("V", (~every, every)), ("A+V", (every, every))):
        with torch.no_grad():
            logits = fused(audio, video, *masks, torch.ones(len(y)))
        right[name] = float((logits.argmax(1) == y).float().mean())
    assert right["A"] < 0.6 and right["V"] < 0.6 and right["A+V"] > 0.95
