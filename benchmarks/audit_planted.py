"""How many of 20 planted leaks among 400 clips `ajbench audit` finds on ESC-10, and its false alarms.

python benchmarks/audit_planted.py ESC10 [--seeds N] [--synth STORE] [--out FILE.csv]

For every seed one fold is the eval split, another is held apart, the other three are the train split. The
synthetic set is 20 planted copies of eval clips (four each: as they are, through tiny, Opus, Vorbis and MP3
at low rates, ±6 dB, ±0.2 s, noise at 10 dB) and 380 clean clips: those held apart as they are, through tiny,
with noise, backwards and 8 % faster; or, with --synth, clips of a generator that was trained on folds 1 to 4,
of which fold 5 is then the eval split. The clips 3-151080-A-20 and 5-151085-A-20, one recording in two folds,
and what was generated from the former are left out of the clean ones.
"""

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from planted import KINDS, encoded, noise, plant

from ajbench import audio, console
from ajbench.clipsets import open_set
from ajbench.leaks import audit
from ajbench.store import ClipStore

TWINS = ("3-151080-A-20", "5-151085-A-20")


def clean(waves: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return five versions of every clip."""
    made = {}
    for name, wave in waves.items():
        made[f"{name}-plain"] = wave
        made[f"{name}-tiny"] = encoded(wave, "tiny")
        made[f"{name}-noise"] = noise(wave, rng)
        made[f"{name}-back"] = wave[::-1]
        made[f"{name}-fast"] = soxr.resample(wave, 17_280, 16_000)
    return made


def generated(path: Path) -> dict[str, np.ndarray]:
    """Return the clips of a store, but for those guided by a twin."""
    store = ClipStore.open(path)
    kept = [i for i, parent in enumerate(store.column("parent_id")) if parent not in TWINS]
    return {store.clip_ids[i]: store.audio([i])[0] for i in kept}


def measure(files: dict[str, Path], seed: int, made: dict[str, np.ndarray] | None) -> dict[str, object]:
    """Plant, look, count."""
    rng = np.random.default_rng(seed)
    fold = 5 if made is not None else seed % 5 + 1
    apart = fold % 5 + 1
    waves = {name: audio.read(path) for name, path in files.items()}
    parts: dict[str, dict[str, np.ndarray]] = {"train": {}, "eval": {}, "apart": {}}
    for name, wave in waves.items():
        which = int(name[0])
        part = "eval" if which == fold else "apart" if which == apart and made is None else "train"
        if part != "apart" or name not in TWINS:
            parts[part][name] = wave
    pool = clean(parts["apart"], rng) if made is None else made
    chosen = rng.choice(sorted(pool), 380, replace=False)
    synth = {f"clean-{name}": pool[name] for name in chosen}
    held_out = sorted(parts["eval"])
    for number, name in enumerate(rng.choice(held_out, 20, replace=False)):
        kind = KINDS[number // 4]
        variant, wave = plant(kind, number, parts["eval"][name], rng)
        synth[f"planted-{kind}-{variant.replace(' ', '')}-{name}"] = wave
    with tempfile.TemporaryDirectory() as folder:
        sets = {"synth": synth, "train": parts["train"], "eval": parts["eval"]}
        for which, clips in sets.items():
            (Path(folder) / which).mkdir()
            for name, wave in clips.items():
                # Twice as loud may be beyond full scale, and is clipped as a file would be.
                soundfile.write(Path(folder) / which / f"{name}.wav", np.clip(wave, -1, 1), 16_000)
        began = time.perf_counter()
        found = audit(*(open_set(Path(folder) / which) for which in sets))
        seconds = time.perf_counter() - began
    leaks = found.of("leak")
    right = {one.clip for one in leaks if one.clip.startswith("planted") and one.clip.endswith(one.match)}
    missed = sorted(name for name in synth if name.startswith("planted") and name not in right)
    alarms = sorted({one.clip for one in leaks if one.clip.startswith("clean")})
    return {
        "seed": seed,
        "clean_clips": "generated" if made is not None else f"fold {apart}",
        "eval_fold": fold,
        "planted": 20,
        "found": len(right),
        "clean": 380,
        "false_alarms": len(alarms),
        "threshold": round(found.yardsticks[0].threshold, 2),
        "train": len(parts["train"]),
        "eval": len(parts["eval"]),
        "seconds": round(seconds, 1),
        "missed": " ".join(missed),
        "alarms": " ".join(alarms),
    }


def main() -> None:
    """Measure every seed and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--synth", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    console.configure(quiet=True)
    files = {path.stem: path for path in sorted((options.folder / "audio").iterdir())}
    rows = []
    for made in [None, generated(options.synth)] if options.synth else [None]:
        rows += [measure(files, seed, made) for seed in range(options.seeds)]
    console.emit(rows, table=(list(rows[0]), [list(row.values()) for row in rows]))
    with options.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
