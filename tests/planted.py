"""Copies to be found: what becomes of a clip on its way into a synthetic set."""

import io

import numpy as np
import soundfile

RATE = 16_000
KINDS = ("copy", "codec", "gain", "shift", "noise")


def noise(wave, rng, colour="white", snr_db=10.0):
    """Add noise, 10 dB below the clip's own level."""
    made = rng.normal(size=len(wave))
    if colour == "pink":
        spectrum = np.fft.rfft(made)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0
        made = np.fft.irfft(spectrum, len(wave))
    scale = np.sqrt(np.mean(wave.astype(np.float64) ** 2) / np.mean(made**2) / 10 ** (snr_db / 10))
    return (wave + scale * made).astype(np.float32)


def encoded(wave, how):
    """Send a clip through a codec: libsndfile's at low rates, or `tiny`."""
    if how == "tiny":
        import torch

        from ajbench import codec
        from ajbench.data import audio

        tiny = codec.load("tiny")
        with torch.inference_mode():
            whole = audio.fit(wave, -(-len(wave) // 6720) * 6720)[None]
            return np.asarray(tiny.decode(tiny.encode(whole)))[0, : len(wave)].astype(np.float32)
    format, subtype, level = {
        "opus": ("OGG", "OPUS", 1.0),
        "vorbis": ("OGG", "VORBIS", 1.0),
        "mp3": ("MP3", "MPEG_LAYER_III", 0.9),
    }[how]
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, RATE, format=format, subtype=subtype, compression_level=level)
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")[0]


def plant(kind, number, wave, rng):
    """Return a copy of a wave [n] of one of KINDS, in the number's variant (name, wave)."""
    if kind == "copy":
        return kind, wave
    if kind == "codec":
        how = ("tiny", "opus", "vorbis", "mp3")[number % 4]
        return how, encoded(wave, how)
    if kind == "gain":
        return ("+6 dB", "-6 dB")[number % 2], wave * np.float32((2, 0.5)[number % 2])
    if kind == "shift":
        late = np.concatenate([np.zeros(RATE // 5, np.float32), wave[: -RATE // 5]])
        early = np.concatenate([wave[RATE // 5 :], np.zeros(RATE // 5, np.float32)])
        return ("+0.2 s", "-0.2 s")[number % 2], (late, early)[number % 2]
    colour = ("white", "pink")[number % 2]
    return colour, noise(wave, rng, colour)
