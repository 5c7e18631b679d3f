"""Draw docs/mini.png: log-mel spectrograms of two events of every class of `mini` and of four whole clips.

Run from the repository root: `python benchmarks/draw_mini.py [OUT.png]`.
"""

import io
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

from ajbench.data import audio
from ajbench.data.corpora import mini

SAMPLES = 80_640
SEED = 0
CLIPS = (1, 6, 14, 25)
TICKS_HZ = (125, 500, 2000, 7500)


def mel(hz: float) -> float:
    """HTK mel of a frequency, the scale of the vertical axis."""
    return float(2595 * np.log10(1 + hz / 700))


def spectrogram(wav: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram in dB below the loudest point → [80, T]."""
    shape = {"n_fft": 1024, "win": 640, "hop": 160, "n_mels": 80, "f_min": 0, "f_max": 8000, "mel": "htk"}
    level = audio.log_mel(torch.from_numpy(wav)[None], **shape)[0].numpy()
    return 20 * (level - level.max())


def main(out: Path) -> None:
    """Render and draw everything into the PNG `out`."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [
        (name if take == 0 else "", mini.render_event(name, np.random.default_rng([SEED, take]), SAMPLES))
        for name, _ in mini.CLASSES
        for take in range(2)
    ]
    for index in CLIPS:
        wav, labels, _ = mini.render(SEED, index)
        panels.append((f"clip {index}: " + " + ".join(labels), wav))
    figure, axes = plt.subplots(9, 4, figsize=(14, 18), sharex=True, sharey=True, constrained_layout=True)
    top = mel(8000)
    for axis, (title, wav) in zip(axes.flat, panels, strict=True):
        scale = {"cmap": "magma", "vmin": -80, "vmax": 0, "extent": (0, SAMPLES / audio.SAMPLE_RATE, 0, top)}
        image = axis.imshow(spectrogram(wav), origin="lower", aspect="auto", **scale)
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_yticks([mel(hz) for hz in TICKS_HZ], [f"{hz} Hz" for hz in TICKS_HZ], fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("seconds", fontsize=8)
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.4, aspect=50, pad=0.01)
    bar.set_label("dB below the loudest point")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=80)
    # A palette of 256 colours: a third of the size without a visible difference.
    Image.open(buffer).convert("RGB").quantize(256).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "mini.png")
