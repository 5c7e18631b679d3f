"""PaSST (Koutini et al. 2022) as features, through the package `hear21passt`."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ajbench.core import weights
from ajbench.core.device import Array, device_of
from ajbench.core.errors import IntegrityError
from ajbench.data.corpora.audioset import label_set
from ajbench.features import weights as places

SECONDS = 10
ARCHITECTURE = "passt_s_swa_p16_128_ap476"


class Passt:
    """PaSST-S (mAP 47.6): 768-d embeddings and 527 AudioSet logits; needs the package hear21passt.

    Clips are cut after 10 s, shorter ones padded with zeros, as av-benchmark and stable-audio-metrics do.

    Args:
        path: the checkpoint `passt-s-f128-p16-s10-ap.476-swa.pt`; None is the folder named by
            AJBENCH_WEIGHTS, or torch's cache.
        device: where it computes; None is that of this process.

    Raises:
        MissingError: no such file, or the package is not installed.
        IntegrityError: the file is not a state dict of this network, or not the published one.
    """

    name = "passt"
    sample_rate = 32_000
    min_samples = max_samples = SECONDS * sample_rate
    frames = False

    def __init__(self, path: Path | str | None = None, device: torch.device | None = None) -> None:
        classes = label_set()
        self.labels, self.mids = classes.names, classes.mids
        self.device = device or device_of()
        file = places.checked(self.name, path)
        network, self.spectrogram = _built()
        try:
            network.load_state_dict(weights.unpickled(file))
        except (RuntimeError, AttributeError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise IntegrityError(f"features passt: {file} is not a state dict of PaSST ({reason})") from None
        self.model = network.eval().requires_grad_(False).to(self.device)
        self.spectrogram.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, 768], logits [B, 527]) of wav [B, n] at 32 kHz."""
        x = torch.as_tensor(wav, dtype=torch.float32, device=self.device)[:, : self.max_samples]
        x = functional.pad(x, (0, self.max_samples - x.shape[1]))
        logits, features = self.model(self.spectrogram(x)[:, None])
        return features.cpu().numpy(), logits.cpu().numpy()

    def features(self, wav: Array) -> np.ndarray:
        """Return the embeddings [B, 768] of wav [B, n]."""
        return self(wav)[0]

    def logits(self, wav: Array) -> np.ndarray:
        """Return the logits [B, 527], before the sigmoid, of wav [B, n]."""
        return self(wav)[1]


def _built() -> tuple[Any, Any]:
    """Return the package's network, untrained, and its spectrogram, as its `get_basic_model` sets them."""
    from hear21passt.models import passt, preprocess

    passt.first_RUN = False  # it would tell of every shape
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the network
        network = passt.get_model(ARCHITECTURE, pretrained=False)
        spectrogram = preprocess.AugmentMelSTFT(
            n_mels=128,
            sr=Passt.sample_rate,
            win_length=800,
            hopsize=320,
            n_fft=1024,
            freqm=48,
            timem=192,
            fmin=0.0,
            fmax=None,
            fmin_aug_range=10,
            fmax_aug_range=2000,
        )
    return network, spectrogram
