"""Log-mel front ends, and eval-gen with a Cnn14 of random weights; parts of benchmarks/gpu.py."""

import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from gpu import Report, device, measured

from ajbench.classifiers.frontend import Fbank, TalMel
from ajbench.evaluation.compare import compare
from ajbench.features.panns import SETTINGS, Cnn14


def front_ends(tiny: bool, report: Report) -> None:
    """Measure the front ends of AST and TALtrans."""
    samples = 16_000 if tiny else 161_280
    for name, front in (("AST", Fbank()), ("TALtrans", TalMel())):
        front.to(device())
        for batch in (4,) if tiny else (32, 256):
            wav = 0.1 * torch.randn(batch, samples, device=device())
            row = measured(lambda front=front, wav=wav: front(wav), batch, rounds=1 if tiny else 5)
            report({"work": "front end", "model": name, "precision": "fp32"} | row)


def evaluation(tiny: bool, report: Report) -> None:
    """Measure Cnn14 on waves in memory, then eval-gen of two folders of clips, with all its metrics."""
    clips, seconds = (12, 1) if tiny else (400, 10)
    model = Cnn14(SETTINGS["panns16k"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save({"model": model.state_dict()}, folder / "cnn14.pth")
        model = model.fuse(cpu=device() == "cpu").requires_grad_(False).to(device())
        for batch in (2,) if tiny else (8, 64):
            wav = 0.1 * torch.randn(batch, 16_000 * seconds, device=device())
            flops = _flops(seconds)
            row = measured(lambda wav=wav: model(wav), batch, flops, rounds=1 if tiny else 3)
            report({"work": "features", "model": "Cnn14", "precision": "fp32"} | row)
        rng = np.random.default_rng(0)
        for kind in ("gen", "ref"):
            (folder / kind).mkdir()
            for k in range(clips):
                wave = rng.normal(0, 0.02 + 0.1 * rng.random(), 16_000 * seconds)
                soundfile.write(folder / kind / f"{k}.wav", wave.astype(np.float32), 16_000)
        began = time.perf_counter()
        how = {"features": f"panns16k={folder / 'cnn14.pth'}", "cache": folder / "cache"}
        table = compare(folder / "gen", folder / "ref", **how, resamples=10)
        took = time.perf_counter() - began
        row = {"work": "eval-gen", "model": "Cnn14", "precision": "fp32", "batch": 2 * clips}
        row |= {"seconds": f"{took:.4g}", "clips_per_second": f"{2 * clips / took:.4g}"}
        report(row | {"value": len(table), "unit": "metrics"})


def _flops(seconds: int) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    model = Cnn14(SETTINGS["panns16k"]).eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 16_000 * seconds, device="meta"))
    return counter.get_total_flops()
