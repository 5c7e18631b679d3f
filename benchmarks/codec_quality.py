"""Quality of the codec on unseen clips, compared with Opus: log-mel L1, SI-SDR, a tagger, and speed.

python benchmarks/codec_quality.py ESC10 [--codec tiny tiny@HASH FILE.safetensors] [--out FILE.csv]

Opus runs at its lowest bitrate, the closest to the codec's 4 kbit/s (50 frames × 8 codebooks × 10 bits). The
tagger is mn04, an AudioSet model that no part of the codec was trained with: how often it ranks the right one
of ten categories first. Its weights are in the folder AJBENCH_WEIGHTS; --no-judge leaves it out.
"""

import argparse
import csv
import functools
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from judge import CATEGORIES, clips, rank_esc10

from ajbench import codec
from ajbench.core import console
from ajbench.data import audio

REPEATS = 5


def log_mel_l1(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean |difference| [B] of log10-mel magnitudes of waves [B, n]; 80 bands, window 1024, floor 1e-4."""
    mel = [audio.log_mel(torch.from_numpy(x), 1024, 1024, 256, 80, 0.0, 8000.0, floor=1e-4) for x in (a, b)]
    return (mel[0] - mel[1]).abs().mean(dim=(1, 2)).numpy()


def si_sdr(estimate: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019) of waves [B, n], dB [B]."""
    e, t = (x - x.mean(1, keepdims=True) for x in (estimate, target))
    scaled = (e * t).sum(1, keepdims=True) / (t * t).sum(1, keepdims=True) * t
    return 10 * np.log10(((scaled**2).sum(1) + 1e-12) / (((e - scaled) ** 2).sum(1) + 1e-12))


def opus(wavs: np.ndarray) -> tuple[np.ndarray, float]:
    """Return waves [B, n] after Ogg Opus at its lowest bitrate, and that bitrate in kbit/s."""
    decoded, size = np.zeros_like(wavs), 0
    for row, wav in enumerate(wavs):
        buffer = io.BytesIO()
        soundfile.write(buffer, wav, audio.SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=1.0)
        size += buffer.tell()
        buffer.seek(0)
        heard, rate = soundfile.read(buffer, dtype="float32")
        decoded[row] = audio.fit(soxr.resample(heard, rate, audio.SAMPLE_RATE), wavs.shape[1])
    return decoded, size * 8 / (wavs.size / audio.SAMPLE_RATE) / 1000


def effective_rank(network: codec.Codec, codes: np.ndarray) -> float:
    """Return exp of the entropy of the shares of variance of the latents' principal components."""
    frames = network.latents(codes).transpose(1, 2).flatten(0, 1).double()
    share = torch.linalg.eigvalsh(torch.cov(frames.T)).clamp(min=1e-12)
    share = share / share.sum()
    return float((-share * share.log()).sum().exp())


def times_real_time(function: Callable[[], object], seconds_of_audio: float) -> float:
    """Median over five runs of seconds of audio per second."""
    function()
    took = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        took.append(time.perf_counter() - start)
    return seconds_of_audio / statistics.median(took)


def main() -> None:
    """Measure and print; write one row per system."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--codec", nargs="+", default=["tiny"])
    parser.add_argument("--every", type=int, default=1, help="use every K-th clip only")
    parser.add_argument("--no-judge", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    chosen = clips(options.folder)[:: options.every]
    n = audio.clip_samples(5.04)
    wavs = np.stack([audio.fit(audio.read(file), n) for file, _ in chosen])
    asked = np.array([category for _, category in chosen])
    networks = {name: codec.load(name) for name in options.codec}
    codes = {name: network.encode(wavs) for name, network in networks.items()}
    decoded = [
        (
            name,
            network.n_codebooks * 10 * network.sample_rate / network.hop / 1000,
            network.decode(codes[name]),
        )
        for name, network in networks.items()
    ]
    opus_decoded, opus_kbps = opus(wavs)
    judge = None
    if not options.no_judge:
        from ajbench import features

        judge = features.load("mn04")
    rows = []
    for name, rate, heard in (
        ("original", 256.0, wavs),
        *((name, kbps, heard.numpy()) for name, kbps, heard in decoded),
        ("opus", opus_kbps, opus_decoded),
    ):
        row: dict[str, object] = {"system": name, "kbit_s": round(rate, 2), "clips": len(wavs)}
        if name != "original":
            row["log_mel_l1"] = round(float(log_mel_l1(heard, wavs).mean()), 4)
            row["si_sdr_db"] = round(float(np.median(si_sdr(heard, wavs))), 2)
        if judge is not None:
            first = np.concatenate([rank_esc10(heard[i : i + 16], judge) for i in range(0, len(heard), 16)])
            row["judge_right"] = round(float((first == asked).mean()), 4)
            for index, category in enumerate(CATEGORIES):
                row[category] = round(float((first == asked)[asked == index].mean()), 3)
        if name in networks:
            network, few = networks[name], codes[name][:8]
            row["effective_rank"] = round(effective_rank(network, codes[name][::4]), 2)
            probe, seconds = wavs[:8], wavs[:8].size / audio.SAMPLE_RATE
            for key, function in (
                ("encode_x_real_time", functools.partial(network.encode, probe)),
                ("decode_x_real_time", functools.partial(network.decode, few)),
            ):
                row[key] = round(times_real_time(function, seconds), 1)
        rows.append(row)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = [[row.get(column, "") for column in columns] for row in rows]
    console.emit(rows, table=(columns, table))
    if options.out:
        with options.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([columns, *table])


if __name__ == "__main__":
    main()
