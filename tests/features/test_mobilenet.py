import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ajbench import features
from ajbench.core.errors import IntegrityError
from ajbench.data import audio
from ajbench.features.mobilenet import MobileNet


def drawn(shapes):
    """Return a random state dict of these shapes, drawn in order of names; activations do not die out."""
    rng, state = np.random.default_rng(0), {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("num_batches_tracked"):
            value = 9
        elif len(shape) > 1:
            value = rng.normal(0, np.sqrt(1.5 / np.prod(shape[1:])), shape)
        elif name.endswith(("running_var", "weight")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        state[name] = torch.as_tensor(value, dtype=torch.float32)
    return state


@pytest.fixture(scope="module")
def wide():
    """mn10 with random weights, and its state dict under EfficientAT's names."""
    model = MobileNet(1.0)
    # EfficientAT has one more level in squeeze-and-excitation.
    theirs = lambda name: re.sub(r"(block\.\d\.)(fc[12])", r"\1conc_se_layers.0.\2", name)  # noqa: E731
    state = drawn({theirs(name): value.shape for name, value in model.state_dict().items()})
    model.load_state_dict({key.replace("conc_se_layers.0.", ""): value for key, value in state.items()})
    return model.eval(), state


def on_sweep(model):
    """Return embedding and logits of one sweep."""
    t = torch.arange(160_000) / 32_000
    with torch.inference_mode():
        found = model(0.3 * torch.sin(6.283185307 * (300 * t + 200 * t * t))[None])
    return [values[0].numpy() for values in found]


@pytest.fixture(scope="module")
def tagger(tagger_path):
    return features.load("mn04", tagger_path)


@pytest.fixture(scope="module")
def judge():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "judge.py"
    spec = importlib.util.spec_from_file_location("judge", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Values of EfficientAT's own MN and AugmentMelSTFT (commit a425fdc): width 0.4 with the published weights,
# 1.0 with `drawn` ones.
def test_equals_the_original_implementation(tagger):
    embedding, logits = on_sweep(tagger.model)
    top = {501: -0.5374063, 503: -1.7402337, 137: -2.4173343, 158: -3.6631305}
    assert np.argsort(-logits)[:4].tolist() == list(top)
    assert logits[list(top)] == pytest.approx(list(top.values()), abs=1e-4)
    assert logits.mean() == pytest.approx(-8.9187555, abs=1e-4)
    assert embedding[:4] == pytest.approx([-0.2924272, -0.0470684, -0.1135480, 0.1491927], abs=1e-4)
    assert np.linalg.norm(embedding) == pytest.approx(4.1169558, abs=1e-4)


def test_width_one_equals_the_original_implementation(wide):
    embedding, logits = on_sweep(wide[0])
    top = {517: 46.1891708, 321: 44.978817, 22: 44.0331879, 383: 38.6092262}
    assert np.argsort(-logits)[:4].tolist() == list(top)
    assert logits[list(top)] == pytest.approx(list(top.values()), rel=2e-5)
    assert logits.mean() == pytest.approx(1.2164742, rel=1e-4)
    assert logits.std() == pytest.approx(15.597795, rel=2e-5)
    assert embedding[:4] == pytest.approx([0.1825221, 2.3949194, 6.9263415, 0.5689103], rel=1e-4)
    assert np.linalg.norm(embedding) == pytest.approx(438.35522, rel=2e-5)


def test_widths_are_those_of_torchvisions_network_and_of_the_checkpoint(wide):
    # The same architecture for images: three channels come in, and its gates are convolutions.
    from torchvision.models import mobilenet_v3_large

    model, state = wide
    ours = {key: value.squeeze().shape for key, value in model.features.state_dict().items()}
    images = {key: value.squeeze().shape for key, value in mobilenet_v3_large().features.state_dict().items()}
    images["0.0.weight"] = torch.Size([16, 3, 3])
    assert ours == images
    assert (len(state), sum(value.numel() for value in state.values())) == (312, 4_901_277)


def test_mn10_is_loaded_by_its_name(wide, tmp_path, tone):
    model, state = wide
    torch.save(state, tmp_path / "mn10.pt")
    extractor = features.load("mn10", tmp_path / "mn10.pt")
    wav = tone(440, 1.0)[None]
    embedding, logits = extractor(wav)
    with torch.inference_mode():
        expected = model(extractor.resample(torch.tensor(wav)))
    assert embedding.shape == (1, 960) and embedding == pytest.approx(expected[0].numpy(), rel=1e-5)
    assert logits == pytest.approx(expected[1].numpy(), rel=1e-5)
    assert (extractor.name, extractor.labels[0]) == ("mn10", "Speech")
    with pytest.raises(IntegrityError, match="mn04"):
        features.load("mn04", tmp_path / "mn10.pt")


def test_extractor_gives_named_logits_and_embeddings(tagger, tone):
    wav = np.stack([tone(440, 2.0), tone(3000, 2.0)])
    embedding, logits = tagger(wav)
    assert embedding.shape == (2, 384) and logits.shape == (2, 527)
    assert embedding.dtype == logits.dtype == np.float32
    assert np.array_equal(tagger.features(wav), embedding)
    assert np.array_equal(tagger.logits(torch.tensor(wav)), logits)
    assert tagger.labels[0] == "Speech" and tagger.mids[0] == "/m/09x0r" and len(tagger.labels) == 527
    assert tagger.labels[int(logits[0].argmax())] in ("Sine wave", "Beep, bleep", "Tuning fork")


def test_it_predicts_the_categories_of_esc10(tagger, judge, esc10_dir):
    by_category = sorted(judge.clips(esc10_dir), key=lambda clip: (clip[1], clip[0]))
    assert len(by_category) == 400
    chosen = by_category[::20]
    wavs = np.stack([audio.fit(audio.read(path), 80_640) for path, _ in chosen])
    predicted = judge.rank_esc10(wavs, tagger)
    assert np.mean(predicted == [category for _, category in chosen]) >= 0.85


def test_weights_of_another_shape_are_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.save(MobileNet(0.4).state_dict() | {"classifier.5.bias": torch.zeros(10)}, path)
    with pytest.raises(IntegrityError, match=str(path)):
        features.load("mn04", path)
