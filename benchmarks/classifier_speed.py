"""Seconds of a forward pass and of a training step of the classifiers, compared with transformers' AST.

python benchmarks/classifier_speed.py [--rounds 5] [--device cpu|cuda] [--batch N] [--out FILE.csv]

A training step is forward and backward. AST-base (10.08 s: 1,024 frames; 527 classes) is compared with
transformers' ASTForAudioClassification with fused (sdpa) and plain (eager) attention, in one process. Every
round runs each of them once in turn, so that other load on the machine affects all. Inputs are random
features. Rows in bf16 (autocast) are written where the hardware multiplies it. `times_sdpa` and
`times_eager` are speed-ups over transformers: the median over rounds of the ratio within a round.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
import transformers
from recorded import precisions, processor, record, timed
from torch import nn

from ajbench import classifiers
from ajbench.core import console

CLASSES, SAMPLES = 527, 161_280
PASSES = ("forward", "step")
KEY = ("model", "pass", "patchout", "precision", "batch")
PATCHOUT = (0.0, 0.5, 0.6)
Run = Callable[[], None]


def theirs(attention: str) -> nn.Module:
    """Build transformers' AST."""
    config = transformers.ASTConfig(num_labels=CLASSES)
    config._attn_implementation = attention
    return transformers.ASTForAudioClassification(config)


def run(module: nn.Module, features: torch.Tensor, kind: str, precision: str) -> None:
    """One forward pass without gradients, or one training step without its optimiser."""
    module.train(kind == "step")
    with (
        torch.set_grad_enabled(kind == "step"),
        torch.autocast(features.device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        out = module(features)
        logits = getattr(out, "logits", out)
        if kind == "forward":
            return
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits.float(), torch.zeros_like(logits.float())
        )
    loss.backward()
    module.zero_grad(set_to_none=True)


def contestants(
    device: str, precision: str, batch: int, small: int
) -> Iterator[tuple[tuple[str, str, float, str, int], Run]]:
    """Yield what identifies a row (`KEY`) and what to time."""
    ours = classifiers.build("ast", CLASSES).to(device)
    features = torch.randn(batch, 1024, 128, device=device)

    def with_patchout(share: float, kind: str) -> Run:
        def once() -> None:
            ours.patchout = share
            run(ours, features, kind, precision)

        return once

    for attention in ("sdpa", "eager"):
        peer = theirs(attention).to(device)
        for kind in PASSES:
            key = (f"transformers {attention}", kind, 0.0, precision, batch)
            yield key, lambda peer=peer, kind=kind: run(peer, features, kind, precision)
    yield ("ast", "forward", 0.0, precision, batch), with_patchout(0.0, "forward")
    for share in PATCHOUT:
        yield ("ast", "step", share, precision, batch), with_patchout(share, "step")
    for name in ("ast-tiny", "taltrans"):
        module = classifiers.build(name, CLASSES).to(device)
        x = torch.randn(small, module.frontend.frames(SAMPLES), module.frontend.bands, device=device)
        share = getattr(module, "patchout", 0.0)
        yield (name, "step", share, precision, small), lambda m=module, x=x: run(m, x, "step", precision)


def main() -> None:
    """Measure and write one row per model, pass and precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, help="of AST-base and its peers: 1 on a CPU, 12 on a GPU")
    parser.add_argument("--small-batch", type=int, default=16, help="of ast-tiny and taltrans")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    device, batch = options.device, options.batch or (12 if options.device == "cuda" else 1)
    torch.manual_seed(0)
    where = {
        "device": processor(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "timm": timm.__version__,
    }
    rows = []
    for precision in precisions(device):
        entries = list(contestants(device, precision, batch, options.small_batch))
        for _, once in entries:  # the first call allocates, and on a GPU chooses kernels
            once()
        seconds = {key: [] for key, _ in entries}
        for number in range(options.rounds):
            for key, once in entries:
                seconds[key].append(timed(once, device))
            console.say(f"{precision}: round {number + 1} of {options.rounds}")
        for key, values in seconds.items():
            median, large = statistics.median(values), key[0] == "ast" or key[0].startswith("transformers")
            row = dict(zip(KEY, key, strict=True)) | {
                "rounds": options.rounds,
                "seconds": f"{median:.4g}",
                "fastest": f"{min(values):.4g}",
                "clips_per_second": f"{key[-1] / median:.4g}",
            }
            for attention in ("sdpa", "eager"):
                peer = seconds[f"transformers {attention}", key[1], 0.0, precision, batch] if large else []
                ratios = [a / b for a, b in zip(peer, values, strict=False)]
                row[f"times_{attention}"] = f"{statistics.median(ratios):.2f}" if large else ""
            rows.append(row | where)
    header = list(rows[0])
    record(header, [list(row.values()) for row in rows], len(header) - len(where), options.out)


if __name__ == "__main__":
    main()
