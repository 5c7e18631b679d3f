import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from fakes import Unsafe

from ajbench import features
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.features import panns
from ajbench.features.fast_conv import Winograd

RATES = {"panns16k": 16_000, "panns32k": 32_000}


def drawn(shapes):
    """Return a random state dict of these shapes, drawn in order of names; activations do not die out."""
    rng, state = np.random.default_rng(0), {}
    for name in sorted(name for name in shapes if not name.endswith(("num_batches_tracked", "mel"))):
        shape = shapes[name]
        if len(shape) > 1:
            value = (rng.random(shape, np.float32) - np.float32(0.5)) * np.float32(
                np.sqrt(24 / np.prod(shape[1:]))
            )
        elif name.endswith(("running_var", "weight")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        if name == "bn0.running_mean":
            value -= 30  # dB
        if name == "bn0.running_var":
            value *= 200
        state[name] = torch.as_tensor(value, dtype=torch.float32)
    return state


def sweep(rate, seconds=2.0, seed=0):
    """Return a tone that rises to 0.3 of the rate, plus noise: float32 [1, n]."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.01, len(t))
    rising = 0.3 * np.sin(2 * np.pi * (100 * t + 0.15 * rate / seconds * t * t))
    return torch.tensor(rising + noise, dtype=torch.float32)[None]


# By audioldm_eval's own Cnn14 (commit 8dc07ee, torchlibrosa 0.1.0) with `drawn` weights, on `sweep`.
PUBLISHED = {
    "panns16k": {
        "embedding": {0: 0.2527413, 1: 1.6235950, 2: 0.9298941, 4: 0.5102340},
        "norm": 48.4910545,
        "top": {135: 4.2752657, 112: 3.8955400, 515: 3.8876517, 280: 3.8737161},
        "mean": -0.0320792,
        "spread": 1.4968674,
    },
    "panns32k": {
        "embedding": {0: 0.2560027, 1: 1.1949399, 2: 0.7084869, 4: 0.4521564},
        "norm": 40.7171974,
        "top": {135: 3.5738902, 280: 3.4829245, 515: 3.2449987, 112: 3.1771078},
        "mean": -0.0331785,
        "spread": 1.2710797,
    },
}


def empty_cnn14(name):
    with init_empty_weights():
        return panns.Cnn14(panns.SETTINGS[name]).eval()


@pytest.fixture(scope="module")
def state():
    return drawn({name: value.shape for name, value in empty_cnn14("panns16k").state_dict().items()})


@pytest.fixture(scope="module", params=RATES)
def outputs(request, state):
    """Name; (embedding [2048], logits [527]) of the sweep from the network: plain, folded, as on a CPU."""

    def build():
        model = empty_cnn14(request.param)
        model.load_state_dict(state, strict=False, assign=True)
        return model

    wav, model, quick = sweep(RATES[request.param]), build(), build().fuse(cpu=True)
    with torch.inference_mode():
        plain = model(wav)
        folded = model.fuse()(wav)
        fast = quick(torch.cat([wav, *5 * [wav.flip(1)]]))
    assert isinstance(model.conv_block1.bn1, torch.nn.Identity)
    assert isinstance(quick.conv_block4.conv1, Winograd)
    assert quick.held < 6 * wav.shape[1] // quick.setting.hop * panns.MELS * panns.WIDTHS[0], "one part"
    return request.param, *([value[0].numpy() for value in pair] for pair in (plain, folded, fast))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """small(name) → (path, state) of a checkpoint as PANNs' are, of a network of few channels."""
    monkeypatch.setattr(panns, "WIDTHS", (4, 4, 8, 8, 8, 16))

    def make(name="panns16k"):
        setting = panns.SETTINGS[name]
        model = panns.Cnn14(setting)
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        counts = {key: torch.tensor(9) for key in shapes if key.endswith("num_batches_tracked")}
        kernel = torch.zeros(setting.window // 2 + 1, 1, setting.window)
        kernels = {f"spectrogram_extractor.stft.conv_{part}.weight": kernel for part in ("real", "imag")}
        state = drawn(shapes) | counts | kernels | {"logmel_extractor.melW": model.mel.clone()}
        path = tmp_path / f"{name}.pth"
        torch.save({"iteration": 600_000, "model": state}, path, _use_new_zipfile_serialization=False)
        return path, state

    return make


def test_equals_the_original_implementation(outputs):
    name, (embedding, logits), *_ = outputs
    expected = PUBLISHED[name]
    assert embedding.shape == (2048,) and logits.shape == (527,)
    for values, key in ((embedding, "embedding"), (logits, "top")):
        assert values[list(expected[key])] == pytest.approx(list(expected[key].values()), rel=2e-5)
    assert np.linalg.norm(embedding) == pytest.approx(expected["norm"], rel=1e-5)
    assert np.argsort(-logits)[:4].tolist() == list(expected["top"])
    assert logits.mean() == pytest.approx(expected["mean"], abs=2e-5)
    assert logits.std() == pytest.approx(expected["spread"], rel=1e-5)


def test_folded_batch_norms_and_the_fast_path_of_a_cpu_change_nothing(outputs):
    for plain, *others in zip(*outputs[1:], strict=True):
        assert all(np.abs(plain - one).max() < 1e-5 * np.abs(plain).max() for one in others)


@pytest.mark.parametrize("name", RATES)
def test_a_checkpoint_of_panns_gives_named_logits_and_embeddings(small, name):
    path, state = small(name)
    extractor = features.load(name, path)
    wav = torch.cat([sweep(RATES[name], 1.0), sweep(RATES[name], 1.0, seed=1).flip(1)])
    embedding, logits = extractor(wav)
    assert (extractor.name, extractor.sample_rate, len(extractor.labels)) == (name, RATES[name], 527)
    assert embedding.shape == (2, 16) and logits.shape == (2, 527)
    assert embedding.dtype == logits.dtype == np.float32
    assert (extractor.labels[0], extractor.mids[0]) == ("Speech", "/m/09x0r")
    model = panns.Cnn14(panns.SETTINGS[name]).eval()
    model.load_state_dict({k: v for k, v in state.items() if "extractor" not in k}, strict=False)
    with torch.inference_mode():
        assert logits == pytest.approx(model(wav)[1].numpy(), rel=1e-4, abs=1e-5)
    for i in range(2):
        one = wav[i : i + 1]
        assert extractor.features(one.numpy())[0] == pytest.approx(embedding[i], rel=1e-4, abs=1e-5)
        assert extractor.logits(one)[0] == pytest.approx(logits[i], rel=1e-4, abs=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 0.05


def test_the_checkpoints_own_filters_are_used(small):
    path, state = small()
    state["logmel_extractor.melW"] *= 2
    torch.save({"model": state}, path)
    model = panns.Cnn14(panns.SETTINGS["panns16k"])
    louder = features.load("panns16k", path).model.spectrogram(sweep(16_000))
    assert torch.allclose(louder, model.spectrogram(sweep(16_000)) + 10 * np.log10(2), atol=1e-3)


def test_a_checkpoint_with_the_arrays_of_its_sampler_is_read_and_no_code_is_run(small, tmp_path):
    path, state = small()
    sampler = {"indexes": np.arange(5), "pointer": 3}  # as in the published one of 16 kHz
    torch.save({"model": state, "sampler": sampler}, path, _use_new_zipfile_serialization=False)
    assert features.load("panns16k", path)(sweep(16_000))[0].shape == (1, 16)

    torch.save({"model": state, "sampler": Unsafe(tmp_path / "ran")}, path)
    with pytest.raises(IntegrityError, match=str(path)):
        features.load("panns16k", path)
    assert not (tmp_path / "ran").exists()


def test_short_clips_are_refused(small):
    extractor = features.load("panns16k", small()[0])
    extractor(np.zeros((1, extractor.min_samples), np.float32))
    with pytest.raises(UsageError, match="panns16k"):
        extractor(np.zeros((1, 4800), np.float32))


def test_weights_of_another_network_are_refused(small, tmp_path):
    found, state = small()
    path = tmp_path / "other.pth"
    foreign = [
        state | {"fc_audioset.bias": torch.zeros(10)},
        {key: value for key, value in state.items() if key != "bn0.weight"},
        state | {"att.weight": torch.zeros(1)},
        state | {"logmel_extractor.melW": 3},
    ]
    for content in foreign:
        torch.save({"model": content}, path)
        with pytest.raises(IntegrityError, match=str(path)) as error:
            features.load("panns16k", path)
        assert "\n" not in str(error.value)
    # Only the mel filters differ between the two rates.
    with pytest.raises(IntegrityError, match="panns32k"):
        features.load("panns32k", found)
