"""PaSST against its package."""

import pytest
import torch
from fakes import noise

from ajbench import features
from ajbench.core.errors import IntegrityError


def test_embeddings_and_logits_are_those_of_the_package(tmp_path):
    base = pytest.importorskip("hear21passt.base", reason="needs the extra ajbench[passt]")
    from hear21passt.models.passt import get_model

    torch.manual_seed(0)
    network = get_model("passt_s_swa_p16_128_ap476", pretrained=False).eval()
    torch.nn.init.normal_(network.head[1].weight, std=0.1)
    path = tmp_path / "passt.pt"
    torch.save(network.state_dict(), path)
    extractor = features.load("passt", path)
    wav = noise(4, 32_000, clips=1)
    whole = base.PasstBasicWrapper(mel=extractor.spectrogram, net=network, mode="all").eval()
    padded = torch.nn.functional.pad(torch.tensor(wav), (0, 320_000 - wav.shape[1]))
    with torch.no_grad():
        expected = whole.get_scene_embeddings(padded).numpy()
    found, logits = extractor(wav)
    assert logits == pytest.approx(expected[:, :527], abs=1e-4)
    assert found == pytest.approx(expected[:, 527:], abs=1e-4) and found.shape == (1, 768)
    torch.save({"head.1.bias": torch.zeros(3)}, path)
    with pytest.raises(IntegrityError, match=str(path)):
        features.load("passt", path)
