"""Speed, memory and agreement of everything that a GPU computes, in at most nine minutes on one CUDA device.

python benchmarks/gpu.py [--tiny] [--parts NAME ...] [--minutes 9] [--out FILE.csv]

Each part has a process and a limit of its own. One that fails, runs out of memory or over its limit leaves a
row with its error, and the others go on:

- tests: those marked `gpu`
- peak: large matrix products in bf16, TF32 and fp32, to which `of_peak` of other rows refers
- training, compiled: full-size training steps (benchmarks/gpu_training.py)
- synthesis, codec: full U-Net and EnCodec with random weights (benchmarks/gpu_synthesis.py)
- front_ends, evaluation: log-mels; eval-gen with Cnn14 (benchmarks/gpu_evaluation.py)
- hours: GPU hours of Table 1, of Table A11 and of `synth --n 80000` (benchmarks/gpu_hours.py)

`tflop_per_second` is the FLOPs that torch counts (an addition and a multiplication are two; LSTMs and Fourier
transforms are not counted) over the measured time. Needs no network and no weights, only ajbench with its
extra dev: `pip install --no-index --find-links WHEELS 'ajbench[dev]'`. `--tiny` runs all of it with small
networks, on a CPU as well, where tests marked `gpu` are skipped.
"""

import argparse
import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from recorded import processor, record, timed

from ajbench.core import console

Row = dict[str, Any]
Report = Callable[[Row], None]
COLUMNS = (
    "part", "work", "model", "precision", "compile", "batch", "seconds", "clips_per_second", "gflop_per_clip",
    "tflop_per_second", "of_peak", "memory_gb", "value", "unit", "error", "device", "torch",
)  # fmt: skip
# Part → its module and function here, and its limit in seconds.
PARTS: dict[str, tuple[str, str, float]] = {
    "peak": ("gpu", "peak", 20),
    "training": ("gpu_training", "training", 120),
    "synthesis": ("gpu_synthesis", "synthesis", 80),
    "codec": ("gpu_synthesis", "codec", 25),
    "front_ends": ("gpu_evaluation", "front_ends", 20),
    "evaluation": ("gpu_evaluation", "evaluation", 45),
    "tests": ("gpu", "tests", 120),
    "compiled": ("gpu_training", "compiled", 110),
}
PRELOAD = ["torch", "diffusers", "timm", "encodec", "ajbench.generation.train", "ajbench.classifiers.train"]
REPOSITORY = Path(__file__).resolve().parent.parent


def device() -> str:
    """Return cuda if there is a GPU, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def measured(once: Callable[[], Any], batch: int, flops: float = 0.0, rounds: int = 3) -> Row:
    """Time a call that computes `batch` clips of `flops` each: the columns from batch to memory_gb.

    Two calls warm up. The median of `rounds` is taken, and on a GPU the largest memory.
    """
    where = device()
    if where == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    once()
    once()
    seconds = sorted(timed(once, where) for _ in range(rounds))[rounds // 2]
    row: Row = {"batch": batch, "seconds": f"{seconds:.4g}", "clips_per_second": f"{batch / seconds:.4g}"}
    if flops:
        row |= {"gflop_per_clip": f"{flops / 1e9:.4g}"}
        row |= {"tflop_per_second": f"{flops * batch / seconds / 1e12:.4g}"}
    if where == "cuda":
        row["memory_gb"] = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}"
    return row


def peak(tiny: bool, report: Report) -> None:
    """Measure large matrix products."""
    where, size = device(), 512 if tiny else 8192
    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, False), ("tf32", torch.float32, True), ("fp32", torch.float32, False),
    ):  # fmt: skip
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = torch.randn(2, size, size, device=where, dtype=dtype)
        row = measured(lambda a=a, b=b: a @ b, 1, 2 * size**3, rounds=9)
        row = {key: row[key] for key in ("seconds", "tflop_per_second")}
        report({"work": "matrix product", "model": f"{size} x {size}", "precision": name} | row)


def tests(tiny: bool, report: Report) -> None:
    """Run the tests marked `gpu`, and report each as it ends."""
    files = sorted(p for p in (REPOSITORY / "tests").rglob("test_*.py") if "mark.gpu" in p.read_text())
    names = [str(path.relative_to(REPOSITORY)) for path in (files[:1] if tiny else files)]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        "--tb=line",
        *names,
    ]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        began, failures = time.monotonic(), list[str]()
        for line in process.stdout:
            if found := re.match(r"(\S+::.+?) (PASSED|FAILED|SKIPPED|ERROR)", line):
                took, began = time.monotonic() - began, time.monotonic()
                row: Row = {"work": "test", "model": found[1], "seconds": f"{took:.1f}", "value": found[2]}
                report(row | ({"error": "failed"} if found[2] in ("FAILED", "ERROR") else {}))
            elif line.startswith(("FAILED", "ERROR", "E  ")):
                failures.append(line.strip())
    if failures or process.returncode:
        why = "; ".join(failures)[:500] or f"pytest ended with code {process.returncode}"
        report({"work": "tests", "error": why})


def run_part(name: str, tiny: bool, path: Path) -> None:
    """Run one part in this process, and append its rows to a file of JSON lines as they come."""
    module, function, _ = PARTS[name]

    def report(row: Row) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": name} | row) + "\n")

    sys.path.insert(0, str(Path(__file__).parent))
    torch.manual_seed(0)
    try:
        getattr(importlib.import_module(module), function)(tiny, report)
    except Exception as error:
        traceback.print_exc()
        report({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"})


def start_part(name: str, tiny: bool, path: Path) -> None:
    """Run one part in a process group of its own."""
    os.setsid()
    run_part(name, tiny, path)


def run(names: list[str], tiny: bool, seconds: float) -> list[Row]:
    """Run parts one after another, each in a new process, within `seconds` in all."""
    context, ends = get_context("forkserver"), time.monotonic() + seconds
    context.set_forkserver_preload(PRELOAD)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path, limit = Path(folder) / name, min(PARTS[name][2], max(0.0, ends - time.monotonic()))
            if tiny:
                limit = max(0.0, ends - time.monotonic())
            console.say(f"{name}: at most {limit:.0f} s")
            process = context.Process(target=start_part, args=(name, tiny, path))
            process.start()
            process.join(limit)
            error = f"process ended with code {process.exitcode}" if process.exitcode else ""
            if process.is_alive():
                with contextlib.suppress(ProcessLookupError):  # it ended meanwhile, or has no group yet
                    os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
                process.kill()
                process.join()
                error = f"stopped after {limit:.0f} s"
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            rows += [json.loads(line) for line in text.splitlines()]
            rows += [{"part": name, "error": error}] if error else []
    return rows


def shares_of_peak(rows: list[Row]) -> None:
    """Add `of_peak` to rows with a rate: its share of the matrix product in the same precision."""
    peaks = {
        row["precision"]: float(row["tflop_per_second"])
        for row in rows
        if row["part"] == "peak" and "precision" in row
    }
    for row in rows:
        rate = peaks.get(row.get("precision", ""))
        if rate and row.get("tflop_per_second"):
            row["of_peak"] = f"{float(row['tflop_per_second']) / rate:.3f}"


def main() -> None:
    """Measure, and write one row for each measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=(*PARTS, "hours"), default=(*PARTS, "hours"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if device() == "cpu" and not options.tiny:
        rows: list[Row] = [{"part": "all", "error": "no CUDA device was at hand: nothing is measured yet"}]
    else:
        # The last 10 s are for hours and the file.
        rows = run(
            [name for name in options.parts if name != "hours"], options.tiny, 60 * options.minutes - 10
        )
        shares_of_peak(rows)
        if "hours" in options.parts:
            from gpu_hours import hours

            rows += hours(rows)
    about = {"device": processor(device()), "torch": torch.__version__}
    if device() == "cpu" and not options.tiny:
        about["device"] = "none"
    lines = [[str((row | about).get(column, "")) for column in COLUMNS] for row in rows]
    out = options.out or (None if options.tiny else Path(__file__).with_suffix(".csv"))
    record(COLUMNS, lines, len(COLUMNS) - 2, out)


if __name__ == "__main__":
    main()
