"""Peak memory of `ajbench prepare` against the size of the corpus.

    python benchmarks/prepare_memory.py [--clips 5000 20000] [--seconds 0.42]

Clips are WAV files of seeded noise, all different and of one size, so each is also read for the duplicate
check. The corpus is a table, the codec `tiny`. Each size is prepared by its own process. Writes
benchmarks/prepare_memory.csv: seconds, clips per second, the kernel's peak resident size (`peak_mb`), the
largest anonymous part of it, sampled ten times a second (`anonymous_mb`: allocated memory, without pages of
mapped files), and the seconds that the dry run estimates.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from recorded import processor, record

RATE = 16_000
FILES_A_FOLDER = 1000


def make_corpus(folder: Path, clips: int, seconds: float) -> Path:
    """Write the clips and their table; return the table's path."""
    lines = ["path,labels,split"]
    for i in range(clips):
        path = folder / f"{i // FILES_A_FOLDER:03d}" / f"{i:06d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).normal(0, 0.1, round(seconds * RATE))
        soundfile.write(path, noise, RATE, subtype="PCM_16")
        lines.append(f"{path.relative_to(folder)},class {i % 10},{'eval' if i % 5 == 4 else 'train'}")
    table = folder / "clips.csv"
    table.write_text("\n".join(lines))
    return table


def command(table: Path, work: Path, seconds: float, *options: str) -> list[str]:
    """Return the command line that prepares the corpus."""
    keys = ["data.corpus=table", f"data.duration_s={seconds}", "data.eval_fold=null"]
    places = ["--data", str(table), "--work", str(work), "--quiet"]
    return [sys.executable, "-m", "ajbench", "prepare", "--recipe", "mini", *keys, *places, *options]


def measure(table: Path, work: Path, seconds: float) -> tuple[float, float, float]:
    """Prepare in a separate process; return seconds, peak MB and anonymous MB."""
    start, anonymous = time.perf_counter(), 0
    process = subprocess.Popen(command(table, work, seconds), stdout=subprocess.DEVNULL)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        state = Path(f"/proc/{process.pid}/status").read_text()
        sizes = [int(line.split()[1]) for line in state.splitlines() if line.startswith("RssAnon")]
        anonymous = max(anonymous, *sizes, 0)
        time.sleep(0.1)
    if status:
        raise SystemExit(f"prepare failed: wait status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024, anonymous / 1024


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--seconds", type=float, default=0.42)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    rows = []
    for clips in options.clips:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            table = make_corpus(folder / "corpus", clips, options.seconds)
            dry = command(table, folder / "work", options.seconds, "--dry-run", "--json")
            estimated = json.loads(subprocess.run(dry, capture_output=True, check=True).stdout)["seconds"]
            took, peak, anonymous = measure(table, folder / "work", options.seconds)
        figures = [round(took, 1), round(clips / took, 1), round(peak), round(anonymous), estimated]
        rows.append([clips, options.seconds, *figures, processor(), len(os.sched_getaffinity(0))])
    header = ["clips", "clip_s", "seconds", "clips_a_second", "peak_mb", "anonymous_mb", "estimated_s"]
    record([*header, "processor", "cores"], rows, len(header), options.out)


if __name__ == "__main__":
    main()
