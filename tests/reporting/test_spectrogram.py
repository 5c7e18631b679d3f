import io

import numpy as np
from PIL import Image

from ajbench.reporting.spectrogram import spectrogram


def test_a_spectrogram_has_high_frequencies_on_top():
    t = np.arange(16_000) / 16_000
    rows = []
    for hertz in (200, 4000):
        wave = np.sin(2 * np.pi * hertz * t).astype(np.float32)
        picture = np.asarray(Image.open(io.BytesIO(spectrogram(wave))))
        rows.append(int(picture.mean(axis=1).argmax()))
    assert rows[1] < 30 < 60 < rows[0]
    spectrogram(np.zeros(16_000, np.float32))
