"""Clips per second of the log-mel front ends, compared with the per-clip functions they replace.

python benchmarks/frontend_speed.py [--clips 8] [--rounds 9] [--out FILE.csv]

Clips are 10 s of noise. AST's features: torchaudio's `kaldi.fbank` called clip by clip as in AST's own loader
(the base of the ratios), transformers' ASTFeatureExtractor, and `Fbank`: its reference, its fast log-mel and
the whole front end (padded and normalised). TALtrans' features: torchaudio's MelSpectrogram and
AmplitudeToDB (the base), and `TalMel`. They take turns within a round; printed are medians over rounds, and
of each round's ratio to the base. Differences from the base are in log-mel units (TALtrans: dB). Run it on
an idle machine.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torchaudio
import transformers
from recorded import processor, record
from torch import Tensor

from ajbench.classifiers.frontend import Fbank, TalMel

SAMPLES = 160_000
Kinds = dict[str, Callable[[Tensor], Tensor]]


def ast_kinds(device: str) -> Kinds:
    """Implementations of AST's features of waves [B, n], the base first; the last two pad and normalise."""
    front = Fbank().to(device)
    extractor = transformers.ASTFeatureExtractor()

    def extract(waves: Tensor) -> Tensor:
        parts = [extractor(wav.numpy(), sampling_rate=16_000, return_tensors="pt") for wav in waves]
        return torch.cat([part["input_values"] for part in parts])

    kinds: Kinds = {"kaldi.fbank per clip": kaldi, "Fbank.reference": front.reference}
    kinds |= {"Fbank.log_mel": front.log_mel, "Fbank": front}
    return kinds if device == "cuda" else kinds | {"ASTFeatureExtractor per clip": extract}


def kaldi(waves: Tensor) -> Tensor:
    """AST's call, clip by clip: waves [B, n] → [B, t, 128]."""
    options = {"htk_compat": True, "sample_frequency": 16_000, "use_energy": False, "window_type": "hanning"}
    options |= {"num_mel_bins": 128, "dither": 0.0, "frame_shift": 10}
    clips = [(wav - wav.mean())[None] for wav in waves]
    return torch.stack([torchaudio.compliance.kaldi.fbank(clip, **options) for clip in clips])


def tal_kinds(device: str) -> Kinds:
    """Implementations of TALtrans' features of waves [B, n], the base first."""
    front = TalMel().to(device)
    transform = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=4096, win_length=1024, hop_length=400, pad_mode="constant", n_mels=64, norm="slaney",
        mel_scale="slaney",
    ).to(device)  # fmt: skip
    decibel = torchaudio.transforms.AmplitudeToDB(stype="magnitude")

    def separate(waves: Tensor) -> Tensor:
        spectrum = transform(waves - waves.mean(dim=1, keepdim=True))
        return decibel(spectrum).transpose(1, 2)[:, : front.frames(SAMPLES)]

    return {"MelSpectrogram": separate, "TalMel": front}


def measure(kinds: Kinds, waves: Tensor, rounds: int) -> list[list]:
    """Return rows [kind, ms per clip, clips per second, ratio to the first, mean and max |difference|]."""
    base = next(iter(kinds))
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):  # the first warms up
        for kind, function in kinds.items():
            _wait(waves)
            began = time.perf_counter()
            function(waves)
            _wait(waves)
            if number:
                seconds[kind].append((time.perf_counter() - began) / len(waves))
    expected, rows = kinds[base](waves), []
    for kind, function in kinds.items():
        ratio = median(a / b for a, b in zip(seconds[base], seconds[kind], strict=True))
        found, typical = function(waves), median(seconds[kind])
        if kind == "TalMel":
            found = found * (2 * TalMel.std) + TalMel.mean
        elif found.shape != expected.shape or kind == "Fbank":
            found = found[:, : expected.shape[1]] * (2 * Fbank.std) + Fbank.mean
        difference = (found - expected).abs()
        figures = [f"{difference.mean():.1e}", f"{difference.max():.1e}"]
        rows.append([kind, round(typical * 1e3, 3), round(1 / typical, 1), round(ratio, 2), *figures])
    return rows


def _wait(waves: Tensor) -> None:
    if waves.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Measure with one and with two threads, and on a GPU if there is one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    waves = 0.1 * torch.randn(options.clips, SAMPLES, generator=torch.Generator().manual_seed(0))
    versions = [torch.__version__, torchaudio.__version__, transformers.__version__]
    places = [("cpu", 1), ("cpu", 2)] + [("cuda", 1)] * torch.cuda.is_available()
    rows: list[list] = []
    for device, threads in places:
        torch.set_num_threads(threads)
        name = torch.cuda.get_device_name() if device == "cuda" else processor()
        for kinds in (ast_kinds(device), tal_kinds(device)):
            measured = measure(kinds, waves.to(device), options.rounds)
            rows += [[device, threads, *row, options.rounds, name, *versions] for row in measured]
    header = ["device", "threads", "kind", "ms_a_clip", "clips_a_second", "ratio", "mean_diff", "max_diff"]
    header += ["rounds", "processor", "torch", "torchaudio", "transformers"]
    record(header, rows, 8, options.out)


if __name__ == "__main__":
    main()
