"""From text, and optionally a guide clip, to audio."""

import numpy as np
import pytest
import torch
from fakes import CLIP_SAMPLES, FakeCodec, make_generator

import ajbench
from ajbench.core.errors import UsageError

CODEC = FakeCodec()


@pytest.fixture(scope="module")
def pipeline(generator, tokens):
    return ajbench.AudioJourneyPipeline.from_pretrained(generator, tokens, codec=CODEC)


def test_the_waveform_depends_on_seed_and_prompt(pipeline):
    wave = pipeline("The sound of dog", seed=1, steps=4)
    assert wave.shape == (CLIP_SAMPLES,) and wave.dtype == np.float32 and np.isfinite(wave).all()
    assert np.array_equal(wave, pipeline("The sound of dog", seed=1, steps=4))
    assert not np.array_equal(wave, pipeline("The sound of dog", seed=2, steps=4))
    assert not np.array_equal(wave, pipeline("The sound of rain", seed=1, steps=4))
    several = pipeline(["rain", "rain"], seed=1, steps=4)
    assert several.shape == (2, CLIP_SAMPLES) and not np.array_equal(several[0], several[1])


def test_labels_in_angle_brackets_are_class_tokens(pipeline):
    bracketed, token, plain = (
        pipeline(f"The sound of {name}", steps=4)
        for name in ("<Clock tick>", "<aj-clock-tick>", "clock tick")
    )
    assert np.array_equal(bracketed, token) and not np.array_equal(bracketed, plain)


def test_a_negative_prompt_and_rescaling_change_the_result(pipeline):
    def grid(negative="", rescale=0.0):
        return pipeline.grids(["rain"], None, [1], 1.0, 6.0, 4, "ddim", negative, rescale)

    assert torch.equal(grid(), grid(negative=""))
    assert not torch.equal(grid(), grid(negative="dog"))
    assert grid(rescale=1.0).std() < grid().std()
    assert not np.array_equal(pipeline("rain", steps=2, negative="<Dog>"), pipeline("rain", steps=2))


def test_at_low_strength_the_result_stays_near_the_guide(pipeline, real):
    guide = real.audio([0])[0]
    decoded = CODEC.decode(CODEC.encode(guide[None]))[0].numpy()
    near, far = (pipeline("", guide=guide, strength=s, steps=40, guidance=1.0) for s in (0.05, 0.95))
    assert np.std(near - decoded) < 0.3 * np.std(far - decoded)
    with pytest.raises(UsageError, match="strength"):
        pipeline("rain", strength=0.5)


def test_the_attention_mask_reaches_the_unet(real, tmp_path, generator):
    masked, plain = (
        ajbench.AudioJourneyPipeline.from_pretrained(path, codec=CODEC)
        for path in (make_generator(tmp_path / "g", real, mask=True), generator)
    )
    assert not np.array_equal(masked("rain", steps=2), plain("rain", steps=2))
