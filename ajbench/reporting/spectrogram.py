"""Spectrograms of the report as PNG."""

import io

import matplotlib
import numpy as np
from PIL import Image

from ajbench.data import audio

RANGE_DB = 70.0


def spectrogram(wav: np.ndarray, width: int = 320, bands: int = 80) -> bytes:
    """Return the log-mel spectrogram of wav [n] at 16 kHz as PNG, over 70 dB below the peak of the clip."""
    hop = max(1, len(wav) // width)
    import torch

    sound = torch.from_numpy(np.ascontiguousarray(wav, dtype=np.float32))[None]
    mel = audio.log_mel(sound, n_fft=1024, win=1024, hop=hop, n_mels=bands, f_min=50.0, f_max=8000.0)
    level = 20 * mel[0].numpy()
    shade = np.clip((level - level.max()) / RANGE_DB + 1, 0, 1)
    image = Image.fromarray(np.round(255 * shade[::-1]).astype(np.uint8), mode="P")
    palette = matplotlib.colormaps["magma"](np.arange(256))[:, :3]
    image.putpalette(np.round(255 * palette).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
