"""Seconds of a training step of the U-Net, and of sampling with it.

python benchmarks/generator_speed.py [--rounds 5] [--device cpu|cuda] [--presets tiny small] [--compile]
    [--batch N] [--out FILE.csv]

A training step is forward, backward and AdamW on noise of the paper's shape: grids of 24 × 21 (10.08 s) and
50 text states. Presets are tiny and small on a CPU, also full on CUDA; each plain and with channels_last,
bf16 (where the hardware multiplies it), gradient checkpointing (full) and torch.compile (on CUDA, or with
--compile). Variants of one preset take turns: every round times each of them once. torch counts the FLOPs
of a forward pass (an addition and a multiplication are two); a step takes three times as many. `of_matmul` is
their rate as a share of the rate of a large matrix product in the same precision, measured here (on CUDA
fp32 convolutions use TF32, torch's default, and the product does not). On CUDA there are also rows for
sampling: 45 PNDM steps from noise with guidance 5, with the GPU-hours for 80,000 clips.
"""

import argparse
import gc
import statistics
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from recorded import precisions, processor, record, timed
from torch.utils.flop_counter import FlopCounterMode

from ajbench.core import console
from ajbench.core.recipe import Generator
from ajbench.generation import train, unet
from ajbench.generation.sampling import sample

ROWS, STATES, TEXT_DIM = 24, 50, 384
BATCH = {"cpu": {"tiny": 4, "small": 2, "full": 1}, "cuda": {"tiny": 64, "small": 64, "full": 24}}
PLAN, STEPS, GUIDANCE = 80_000, 45, 5.0


@dataclass(frozen=True)
class Variant:
    """How a U-Net is computed."""

    precision: str = "fp32"
    channels_last: bool = False
    checkpointing: bool = False
    compile: bool = False


def variants(best: str, preset: str, compiled: bool) -> list[Variant]:
    """Return the variants to compare, in fp32 and in the fastest precision."""
    found = [Variant(), Variant(best), Variant(best, channels_last=True)]
    if preset == "full":
        found.append(Variant(best, channels_last=True, checkpointing=True))
    if compiled:
        found += [Variant(best, compile=True), Variant(best, channels_last=True, compile=True)]
    return list(dict.fromkeys(found))


def forward_flops(preset: unet.Preset) -> int:
    """Return the FLOPs of a forward pass of one clip."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = unet.build(preset, TEXT_DIM)
        x, t = torch.zeros(1, 128, ROWS, 21), torch.zeros(1, dtype=torch.long)
        unet.denoise(model, x, t, torch.zeros(1, STATES, TEXT_DIM), None)
    return counter.get_total_flops()


def training_step(preset: unet.Preset, variant: Variant, batch: int, device: str) -> Callable[[], None]:
    """Return a function that does one training step."""
    section = Generator(
        preset=preset,
        gradient_checkpointing=variant.checkpointing,
        channels_last=variant.channels_last,
    )
    model, _ = train._model(section, TEXT_DIM, 0)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    called: Any = torch.compile(model) if variant.compile else model
    noisy, target = torch.randn(2, batch, 128, ROWS, 21, device=device)
    if variant.channels_last:
        noisy = noisy.contiguous(memory_format=torch.channels_last)
    states = torch.randn(batch, STATES, TEXT_DIM, device=device)
    parts = {"noisy": noisy, "target": target, "t": torch.randint(0, 1000, (batch,), device=device)}

    def once() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=variant.precision == "bf16"):
            loss = train.loss(called, parts, states, None)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return once


def sampling(preset: unet.Preset, dtype: torch.dtype, batch: int, device: str) -> Callable[[], None]:
    """Return a function that generates a batch of clips' grids."""
    model = unet.build(preset, TEXT_DIM).to(device, dtype).eval()
    states, uncond = torch.randn(batch, STATES, TEXT_DIM), torch.randn(1, STATES, TEXT_DIM)
    training = dict(unet.noise_schedule().config)

    def once() -> None:
        sample(
            model,
            states,
            uncond,
            None,
            range(batch),
            strength=1.0,
            guidance=GUIDANCE,
            steps=STEPS,
            sampler="pndm",
            training=training,
            rows=ROWS,
        )

    return once


def matmul_flops(device: str, precision: str) -> float:
    """Return the FLOP/s of a large matrix product, the best of some."""
    size = 8192 if device == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(timed(lambda: a @ b, device) for _ in range(10))


def measure(calls: dict[Any, Callable[[], Any]], device: str, rounds: int) -> dict[Any, list[float]]:
    """Time the calls in turn."""
    for once in calls.values():  # the first allocates, chooses kernels, compiles
        once()
        once()
    seconds: dict[Any, list[float]] = {key: [] for key in calls}
    for number in range(rounds):
        for key, once in calls.items():
            seconds[key].append(timed(once, device))
        console.say(f"round {number + 1} of {rounds}")
    return seconds


def main() -> None:
    """Measure, and write one row per preset and variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--presets", nargs="+", choices=("tiny", "small", "full"))
    parser.add_argument("--compile", action="store_true", help="also on a CPU: takes minutes per variant")
    parser.add_argument("--batch", type=int, help="clips per step, for every preset")
    parser.add_argument("--sample-batch", type=int, default=32, help="clips generated at once, on CUDA")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    device = options.device
    presets = options.presets or (["tiny", "small", "full"] if device == "cuda" else ["tiny", "small"])
    if "full" in presets and device != "cuda":
        parser.error("--presets full: on CUDA only")
    torch.manual_seed(0)
    rates = {precision: matmul_flops(device, precision) for precision in precisions(device)}
    where = {
        "device": processor(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }
    rows = []

    def add(preset: str, work: str, variant: Variant, batch: int, seconds: list[float], flops: float) -> None:
        median = statistics.median(seconds)
        rate = flops * batch / median
        hours = PLAN * median / batch / 3600 if work == "sample" else None
        row = {"preset": preset, "work": work} | dict(
            zip(variant.__dataclass_fields__, astuple(variant), strict=True)
        )
        row |= {"batch": batch, "rounds": options.rounds, "seconds": f"{median:.4g}"}
        row |= {"fastest": f"{min(seconds):.4g}", "clips_per_second": f"{batch / median:.4g}"}
        row |= {"gflop_per_clip": f"{flops / 1e9:.4g}", "tflop_per_second": f"{rate / 1e12:.4g}"}
        row |= {"of_matmul": f"{rate / rates[variant.precision]:.3f}"}
        row |= {"hours_80k": "" if hours is None else f"{hours:.1f}"}
        rows.append(row | where)

    for preset in presets:
        flops, batch = forward_flops(preset), options.batch or BATCH[device][preset]
        chosen = variants(list(rates)[-1], preset, options.compile or device == "cuda")
        # Models of several gigabytes run one at a time; smaller ones take turns.
        for group in [[one] for one in chosen] if preset == "full" else [chosen]:
            console.say(f"{preset}: {', '.join(map(str, group))}")
            calls = {variant: training_step(preset, variant, batch, device) for variant in group}
            for variant, seconds in measure(calls, device, options.rounds).items():
                add(preset, "step", variant, batch, seconds, 3 * flops)
            del calls
            gc.collect()
        if device == "cuda":
            for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
                variant = Variant(precision)
                calls = {variant: sampling(preset, dtype, options.sample_batch, device)}
                found = measure(calls, device, options.rounds)[variant]
                # PNDM repeats its second step, and guidance computes each step with and without text.
                add(preset, "sample", variant, options.sample_batch, found, flops * 2 * (STEPS + 1))
                del calls
                gc.collect()
    header = list(rows[0])
    record(header, [list(row.values()) for row in rows], len(header) - len(where), options.out)


if __name__ == "__main__":
    main()
