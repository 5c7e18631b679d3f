"""Full-size training steps on a GPU: generator, AST, TALtrans, R(2+1)D; parts of benchmarks/gpu.py.

A step is front end (classifiers, from waves on the device), forward, backward and AdamW. The batch doubles
until memory runs out. FLOPs are three times those of the forward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
from gpu import Report, device, measured
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ajbench import classifiers
from ajbench.generation import train, unet

ROWS, STATES, TEXT_DIM, CLASSES, SAMPLES = 24, 50, 1024, 527, 161_280
BATCHES = {
    "generator": (8, 24, 48, 96, 192), "ast": (32, 64, 128, 256), "taltrans": (64, 128, 256, 448),
    "r2plus1d": (8, 16, 32, 64),
}  # fmt: skip
FIRST_COMPILED = {"taltrans": 256, "ast": 64, "generator": 24}
Loss = Callable[[Any, int], Tensor]  # module, or compiled module, and clips → loss


def models(tiny: bool) -> dict[str, tuple[Callable[[], nn.Module], Loss]]:
    """Return how each model is built, and its loss on random input made on the device."""

    def of_generator(module: Any, clips: int) -> Tensor:
        noisy, target = torch.randn(2, clips, 128, ROWS, 21, device=where(module))
        t = torch.randint(0, 1000, (clips,), device=where(module))
        states = torch.randn(clips, STATES, TEXT_DIM, device=where(module))
        return train.loss(module, {"noisy": noisy, "target": target, "t": t}, states, None)

    def of_classifier(module: Any, clips: int) -> Tensor:
        plain = getattr(module, "_orig_mod", module)
        features = plain.frontend(0.1 * torch.randn(clips, samples, device=where(module)))
        logits = module(features)
        return functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))

    def of_video(module: Any, windows: int) -> Tensor:
        size = 16 if tiny else 112
        logits = module(torch.randn(windows, 3, 8 if tiny else 16, size, size, device=where(module)))
        return functional.binary_cross_entropy_with_logits(logits.float(), torch.zeros_like(logits.float()))

    def video() -> nn.Module:
        from torchvision.models.video import r2plus1d_18

        return r2plus1d_18(num_classes=CLASSES)

    samples = 13_440 if tiny else SAMPLES
    small: dict[str, Any] = {"clip_samples": samples, "patchout": 0.0} if tiny else {}
    return {
        "generator": (lambda: unet.build("tiny" if tiny else "full", TEXT_DIM), of_generator),
        "ast": (lambda: classifiers.build("ast-tiny" if tiny else "ast", CLASSES, **small), of_classifier),
        "taltrans": (
            lambda: classifiers.build("taltrans-small" if tiny else "taltrans", CLASSES), of_classifier
        ),
        "r2plus1d": (video, of_video),
    }  # fmt: skip


def where(module: nn.Module) -> torch.device:
    """Return the device of a module."""
    return next(module.parameters()).device


def step_flops(module: nn.Module, loss: Loss) -> float:
    """Return the FLOPs of a step for one clip, counted for two, as batch norm needs."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        loss(module, 2)
    return 3 * counter.get_total_flops() / 2


def step(module: nn.Module, loss: Loss, clips: int, precision: str, compiled: bool) -> Callable[[], None]:
    """Return a function that does one training step."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    called: Any = torch.compile(module) if compiled else module

    def once() -> None:
        with torch.autocast(device(), torch.bfloat16, enabled=precision == "bf16"):
            value = loss(called, clips)
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return once


def training(tiny: bool, report: Report) -> None:
    """Measure steps in bf16 for growing batches, and one in fp32."""
    for name, (build, loss) in models(tiny).items():
        module = build().to(device()).train()
        flops = step_flops(module, loss)
        sizes = (2,) if tiny else BATCHES[name]
        for precision, batch in [*(("bf16", size) for size in sizes), ("fp32", sizes[0])]:
            about = {"work": "training step", "model": name, "precision": precision, "compile": False}
            once = step(module, loss, batch, precision, compiled=False)
            try:
                report(about | measured(once, batch, flops, rounds=1 if tiny else 3))
            except torch.cuda.OutOfMemoryError:
                report(about | {"batch": batch, "error": "out of memory"})
            del once
        del module


def compiled(tiny: bool, report: Report) -> None:
    """Measure compiled steps in bf16, and how long the first took."""
    import time

    found = models(tiny)
    for name, batch in FIRST_COMPILED.items():
        if tiny and name != "taltrans":  # compiling on a CPU takes minutes
            continue
        build, loss = found[name]
        batch = 2 if tiny else batch
        module = build().to(device()).train()
        flops = step_flops(module, loss)
        once, began = step(module, loss, batch, "bf16", compiled=not tiny), time.monotonic()
        once()
        about = {"work": "training step", "model": name, "precision": "bf16", "compile": not tiny}
        first = {"value": f"{time.monotonic() - began:.1f}", "unit": "s of the first step"}
        report(about | measured(once, batch, flops, rounds=1 if tiny else 3) | first)
        del once, module
