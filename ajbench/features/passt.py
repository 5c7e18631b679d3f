"""PaSST (Koutini et al. 2022), through the package `hear21passt`."""

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ajbench.core import weights
from ajbench.features.extractor import AudioSetTagger

SECONDS = 10
ARCHITECTURE = "passt_s_swa_p16_128_ap476"


class Passt(AudioSetTagger):
    """PaSST-S (mAP 47.6): 768-d embeddings and 527 AudioSet logits; needs the package hear21passt.

    Clips are cut after 10 s and shorter ones padded with zeros, as in av-benchmark and stable-audio-metrics,
    which does not pad those of up to 1.5 s.
    """

    sample_rate = 32_000
    min_samples = max_samples = SECONDS * sample_rate

    def __init__(self, name: str, path: Path | str | None = None, device: torch.device | None = None) -> None:
        super().__init__(name, path, device)
        network, self.spectrogram = _built()
        with self.reading():
            network.load_state_dict(weights.unpickled(self.weights))
        self.model = network.eval().requires_grad_(False).to(self.device)
        self.spectrogram.eval().to(self.device)

    def compute(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings [B, 768] and the logits [B, 527], before the sigmoid."""
        x = wav[:, : self.max_samples]
        x = functional.pad(x, (0, self.max_samples - x.shape[1]))
        logits, features = self.model(self.spectrogram(x)[:, None])
        return features, logits


def _built() -> tuple[Any, Any]:
    """Return the untrained network and its spectrogram, with the settings of `get_basic_model`."""
    from hear21passt.models import passt, preprocess

    passt.first_RUN = False  # else it prints every shape
    stft = {"n_mels": 128, "sr": Passt.sample_rate, "win_length": 800, "hopsize": 320, "n_fft": 1024}
    augmentation = {"freqm": 48, "timem": 192, "fmin_aug_range": 10, "fmax_aug_range": 2000}
    with contextlib.redirect_stdout(io.StringIO()):  # which prints the network
        network = passt.get_model(ARCHITECTURE, pretrained=False)
        return network, preprocess.AugmentMelSTFT(**stft, **augmentation, fmin=0.0, fmax=None)
