"""From text to sound, and what a damaged or foreign folder is met with."""

import numpy as np
import pytest
import torch
from fakes import CLIP_SAMPLES, FakeCodec, make_generator, make_store, make_tokens

import ajbench
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.generation import checkpoint
from ajbench.generation.pipeline import AudioJourneyPipeline

torch.set_num_threads(1)
CODEC = FakeCodec()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("real") / "store")


@pytest.fixture(scope="module")
def paths(real, tmp_path_factory):
    home = tmp_path_factory.mktemp("pipeline")
    return make_generator(home / "g", real), make_tokens(home / "t")


@pytest.fixture(scope="module")
def pipeline(paths):
    return ajbench.AudioJourneyPipeline.from_pretrained(*paths, codec=CODEC)


def test_text_becomes_a_wave_that_follows_seed_and_prompt(pipeline):
    wave = pipeline("The sound of dog", seed=1, steps=4)
    assert wave.shape == (CLIP_SAMPLES,) and wave.dtype == np.float32 and np.isfinite(wave).all()
    assert np.array_equal(wave, pipeline("The sound of dog", seed=1, steps=4))
    assert not np.array_equal(wave, pipeline("The sound of dog", seed=2, steps=4))
    assert not np.array_equal(wave, pipeline("The sound of rain", seed=1, steps=4))
    several = pipeline(["rain", "rain"], seed=1, steps=4)
    assert several.shape == (2, CLIP_SAMPLES) and not np.array_equal(several[0], several[1])


def test_labels_in_angle_brackets_are_class_tokens(pipeline, paths):
    def sound(prompt):
        return pipeline(prompt, steps=4)

    assert np.array_equal(sound("The sound of <Clock tick>"), sound("The sound of <aj-clock-tick>"))
    assert not np.array_equal(sound("The sound of <Clock tick>"), sound("The sound of clock tick"))


def test_a_negative_text_is_led_away_from_and_rescaling_takes_loudness_back(pipeline, real):
    def grid(negative="", rescale=0.0):
        return pipeline.grids(["rain"], None, [1], 1.0, 6.0, 4, "ddim", negative, rescale)

    assert torch.equal(grid(), grid(negative=""))
    assert not torch.equal(grid(), grid(negative="dog"))
    assert grid(rescale=1.0).std() < grid().std()
    assert not np.array_equal(pipeline("rain", steps=2, negative="<Dog>"), pipeline("rain", steps=2))


def test_little_strength_stays_near_the_guide(pipeline, real):
    guide = real.audio([0])[0]
    heard = CODEC.decode(CODEC.encode(guide[None]))[0].numpy()
    near, far = (pipeline("", guide=guide, strength=s, steps=40, guidance=1.0) for s in (0.05, 0.95))
    assert np.std(near - heard) < 0.3 * np.std(far - heard)
    with pytest.raises(UsageError, match="guide"):
        pipeline("rain", strength=0.5)


def test_the_attention_mask_reaches_the_unet(real, tmp_path, paths):
    masked = AudioJourneyPipeline.from_pretrained(
        make_generator(tmp_path / "g", real, mask=True), codec=CODEC
    )
    plain = AudioJourneyPipeline.from_pretrained(paths[0], codec=CODEC)
    assert not np.array_equal(masked("rain", steps=2), plain("rain", steps=2))


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", "whitening.json", "generator.json"]
)
def test_one_changed_byte_is_found(real, tmp_path, name):
    path = make_generator(tmp_path / "g", real)
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 0x80
    (path / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=name.rpartition("/")[2]):
        AudioJourneyPipeline.from_pretrained(path, codec=CODEC)


def test_what_is_missing_or_foreign_is_named(real, tmp_path, paths):
    with pytest.raises(MissingError, match="train-gen"):
        AudioJourneyPipeline.from_pretrained(tmp_path / "nowhere", codec=CODEC)
    with pytest.raises(MissingError, match="invert"):
        AudioJourneyPipeline.from_pretrained(paths[0], tmp_path / "nowhere", codec=CODEC)
    with pytest.raises(IntegrityError, match="gen9"):
        AudioJourneyPipeline.from_pretrained(
            paths[0], make_tokens(tmp_path / "t", generator="gen9"), codec=CODEC
        )
    other = FakeCodec()
    other.weights_hash = "else"
    with pytest.raises(IntegrityError, match="else"):
        AudioJourneyPipeline.from_pretrained(paths[0], codec=other)


def test_the_leak_rule_looks_at_ids(real, tmp_path):
    checkpoint.refuse_leak(tmp_path, real.clip_ids[:12], real)
    with pytest.raises(IntegrityError, match="1 of the 3 evaluation clips"):
        checkpoint.refuse_leak(tmp_path, real.clip_ids[:13], real)
