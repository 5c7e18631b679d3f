"""Evaluate a folder of damaged sound files: no crash, no hang, no lost file, bounded memory.

python benchmarks/fuzz_audio.py ESC10 [--n 1000] [--features mn04] [--protocol ajbench] [--out FILE.csv]

ESC10 is a folder in ESC-50's layout. The files are made from its clips with a seed, equally many of each
kind: truncated (WAV, FLAC, Ogg), bits flipped (all three), another format than the suffix says, NaN samples,
empty, random bytes, a header only, an arbitrary sample rate in the header, eight channels, 4 and 192 kHz, and
intact. `ajbench eval-gen --allow-partial` compares them with intact clips. One row per kind: files, how many
were scored, and how many were left out for which reasons. Exits with 1 if a file is in neither list, or if
the command fails, runs longer than an hour or takes 2 GB.
"""

import argparse
import csv
import json
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ajbench.core import console

LIMIT_MB, LIMIT_S = 2_000, 3_600
RATE = 44_100


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """Keep the beginning of a file."""
    return data[: int(rng.integers(1, len(data)))]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip a bit in each of up to 200 bytes, in every second file some of them in the first 100."""
    out = bytearray(data)
    head = rng.integers(0, min(100, len(out)), int(rng.integers(1, 10)) * int(rng.integers(2)))
    for place in (*head, *rng.integers(0, len(out), int(rng.integers(1, 190)))):
        out[place] ^= 1 << int(rng.integers(8))
    return bytes(out)


def as_file(wave: np.ndarray, rate: int, kind: str, folder: Path, **more: str) -> bytes:
    """Return the bytes of a sound file."""
    path = folder / f"x.{kind}"
    soundfile.write(path, wave, rate, **more)
    return path.read_bytes()


def kinds(folder: Path) -> dict[str, tuple[str, Callable[[np.ndarray, np.random.Generator], bytes]]]:
    """Return by name the suffix and a function from a clip [n] at 44.1 kHz to the bytes of a file."""
    made: dict[str, tuple[str, Callable[[np.ndarray, np.random.Generator], bytes]]] = {}
    for kind in ("wav", "flac", "ogg"):
        made[f"{kind} cut"] = kind, lambda w, r, k=kind: cut(as_file(w, RATE, k, folder), r)
        made[f"{kind} flipped"] = kind, lambda w, r, k=kind: flipped(as_file(w, RATE, k, folder), r)
    made["flac named wav"] = "wav", lambda w, r: as_file(w, RATE, "flac", folder)
    made["wav named mp3"] = "mp3", lambda w, r: as_file(w, RATE, "wav", folder)
    made["random bytes"] = "wav", lambda w, r: r.bytes(int(r.integers(1, 100_000)))
    made["no bytes"] = "flac", lambda w, r: b""
    made["header alone"] = "wav", lambda w, r: as_file(w, RATE, "wav", folder)[:44]

    def with_nan(w: np.ndarray, r: np.random.Generator) -> bytes:
        w = w.copy()
        w[r.integers(0, len(w), int(r.integers(1, 1000)))] = r.choice([np.nan, np.inf, -np.inf])
        return as_file(w, RATE, "wav", folder, subtype="FLOAT")

    made["nan samples"] = "wav", with_nan

    def at_any_rate(w: np.ndarray, r: np.random.Generator) -> bytes:
        return as_file(w, int(np.exp(r.uniform(0, np.log(2e9)))), "wav", folder)

    made["any rate"] = "wav", at_any_rate
    made["eight channels"] = "wav", lambda w, r: as_file(np.tile(w[:, None], (1, 8)), RATE, "wav", folder)
    made["4 kHz"] = "wav", lambda w, r: as_file(soxr.resample(w, RATE, 4_000), 4_000, "wav", folder)
    made["192 kHz"] = "flac", lambda w, r: as_file(soxr.resample(w, RATE, 192_000), 192_000, "flac", folder)
    made["whole"] = "flac", lambda w, r: as_file(w, RATE, "flac", folder)
    return made


def main() -> None:
    """Make the files, evaluate them, and record the outcome of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("esc10", type=Path)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--features", default="mn04")
    parser.add_argument("--protocol", default="ajbench")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sounds = sorted((options.esc10 / "audio").iterdir())
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "gen").mkdir()
        (home / "ref").mkdir()
        made, made_as = kinds(home), {}
        for number in range(options.n):
            rng = np.random.default_rng(number)
            kind = list(made)[number % len(made)]
            suffix, make = made[kind]
            wave, _ = soundfile.read(sounds[int(rng.integers(len(sounds)))], dtype="float32")
            (home / "gen" / f"{number:05d}.{suffix}").write_bytes(make(wave, rng))
            made_as[f"{number:05d}"] = kind
        for number, sound in enumerate(sounds[:20]):
            (home / "ref" / f"real-{number}{sound.suffix}").write_bytes(sound.read_bytes())
        command = [sys.executable, "-m", "ajbench", "eval-gen", "--gen", str(home / "gen")]
        command += ["--ref", str(home / "ref"), "--allow-partial", "--json", "--quiet", "--bootstrap", "0"]
        command += ["--features", options.features, "--protocol", options.protocol]
        command += ["--work", str(home / "work")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        if done.returncode:
            raise SystemExit(f"eval-gen ended with {done.returncode}: {done.stderr[-500:]}")
        found = json.loads(done.stdout)
    reasons = {one["clip"]: one["reason"] for one in found["skipped"]}
    measured = len(made_as) - len(reasons)
    rows = []
    for kind in made:
        mine = [clip for clip, its in made_as.items() if its == kind]
        why = Counter(
            re.sub(r"[\d.,]+", "…", reasons[clip].partition(" (")[0]) for clip in mine if clip in reasons
        )
        told = "; ".join(f"{count} {reason}" for reason, count in why.most_common())
        rows.append([kind, len(mine), len(mine) - why.total(), told])
    header = ["kind", "files", "measured", "left out"]
    peak_row = {"peak_mb": round(peak), "measured": measured, "rows": found["rows"][0]["n"]}
    document = {"kinds": [dict(zip(header, row, strict=True)) for row in rows]} | peak_row
    console.emit(document, text=f"{peak_row}", table=(header, rows))
    if options.out:
        with options.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    if peak > LIMIT_MB or measured != found["rows"][0]["n"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
