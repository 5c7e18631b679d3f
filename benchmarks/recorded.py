"""Shared by the speed benchmarks: the hardware, its precisions, a clock, a table on screen and in a CSV."""

import csv
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ajbench.core import console


def processor(device: str = "cpu") -> str:
    """Name the hardware."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def cpu_flag() -> str:
    """Return the instruction set by which this processor multiplies bf16; empty where it has none."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    return next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags), "")


def precisions(device: str) -> list[str]:
    """Return fp32, and bf16 where the hardware multiplies it."""
    if device == "cuda" or cpu_flag():
        return ["fp32", "bf16"]
    console.say("no bf16 rows: this processor does not multiply it (avx512_bf16, amx_bf16)")
    return ["fp32"]


def timed(once: Callable[[], Any], device: str) -> float:
    """Return the seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    once()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def record(header: Sequence[str], rows: Sequence[Sequence[Any]], shown: int, out: Path | None) -> None:
    """Write all columns to `out`, if given, and print the first `shown`."""
    if out:
        with out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    document = [dict(zip(header, row, strict=True)) for row in rows]
    console.emit(document, table=([*header[:shown]], [[*row[:shown]] for row in rows]))
