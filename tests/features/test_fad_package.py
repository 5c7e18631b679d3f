"""FAD through frechet-audio-distance, with a small network in place of its CLAP."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from fakes import Unsafe, noise

from ajbench import features
from ajbench.core import weights
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.metrics.distribution import frechet_distance

FILE = "630k-audioset-best.pt"
installed = pytest.mark.skipif(
    importlib.util.find_spec("frechet_audio_distance") is None, reason="needs the extra ajbench[fad]"
)


class Bands:
    """Stands in for laion_clap.CLAP_Module: the mean magnitude in eight bands."""

    def __init__(self, enable_fusion, device):
        self.loaded = None

    def load_ckpt(self, path):
        sys.stdout.write(f"Loaded {path}\n")
        self.loaded = weights.unpickled(path)

    def to(self, device):
        return self

    eval = to_cpu = lambda self: self

    def get_audio_embedding_from_data(self, x, use_tensor):
        assert use_tensor and x.shape[0] == 1
        bands = torch.fft.rfft(x).abs().chunk(8, 1)
        return torch.stack([band.mean(1) for band in bands], 1) * self.loaded["scale"]


@pytest.fixture
def package(monkeypatch):
    """The package, with `Bands` for CLAP."""
    from ajbench.features import fad_package

    with fad_package._offline():
        import frechet_audio_distance as package
    monkeypatch.setattr(package.fad.laion_clap, "CLAP_Module", Bands)
    return package


@installed
def test_our_fad_is_the_packages_over_its_own_embeddings(package, tmp_path, capfd):
    folder = torch.hub.get_dir()
    torch.save({"scale": 0.5, "epoch": np.float64(3)}, tmp_path / FILE)
    extractor = features.load("laion-clap", tmp_path / FILE)
    wav = noise(1, 48_000, clips=40)
    found, logits = extractor(wav)
    assert found.shape == (40, 8) and found.dtype == np.float32 and logits.shape == (40, 0)
    theirs = extractor.model
    x, y = (theirs.get_embeddings(list(part), sr=48_000) for part in (wav[::2], wav[1::2]))
    assert np.array_equal(found[::2], x) and np.array_equal(found[1::2], y)
    statistics = [value for part in (x, y) for value in theirs.calculate_embd_statistics(part)]
    expected = theirs.calculate_frechet_distance(*statistics)
    assert expected > 1e-3 and frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)
    long = noise(11, 48_000, clips=1)
    assert np.array_equal(extractor(long)[0], extractor(long[:, :480_000])[0])
    assert torch.hub.get_dir() == folder and capfd.readouterr().out == ""


@installed
def test_an_error_that_the_package_only_prints_is_raised(package, tmp_path, monkeypatch):
    torch.save({"scale": 0.5}, tmp_path / FILE)
    extractor = features.load("laion-clap", tmp_path / FILE)
    plain = Bands.get_audio_embedding_from_data

    def second_fails(self, x, use_tensor):
        if x.abs().max() > 1:
            raise RuntimeError("out of paper")
        return plain(self, x, use_tensor)

    monkeypatch.setattr(Bands, "get_audio_embedding_from_data", second_fails)
    with pytest.raises(IntegrityError, match="out of paper"):
        extractor(np.stack([np.zeros(48_000), np.full(48_000, 2)]).astype(np.float32))


@installed
def test_files_of_another_name_and_pickles_of_code_are_refused(tmp_path):
    torch.save({"scale": 0.5}, tmp_path / "clap.pt")
    with pytest.raises(UsageError, match=FILE):
        features.load("laion-clap", tmp_path / "clap.pt")
    torch.save({"scale": Unsafe(tmp_path / "ran")}, tmp_path / FILE)
    with pytest.raises(IntegrityError, match=FILE):
        features.load("laion-clap", tmp_path / FILE)
    assert not (tmp_path / "ran").exists()
