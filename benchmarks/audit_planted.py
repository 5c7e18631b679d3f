"""How many of 20 planted leaks among 400 clips of ESC-10 `ajbench audit` finds, and its false alarms.

python benchmarks/audit_planted.py ESC10 [--seeds N] [--synth STORE] [--out FILE.csv] [--nearest FILE.csv]

For each seed one fold is the eval split, one is set aside, and the other three are the train split. The
synthetic set has 20 planted copies of eval clips (four each: unchanged, through tiny, Opus, Vorbis and MP3
at low rates, ±6 dB, ±0.2 s, noise at 10 dB) and 380 clean clips: those set aside, unchanged, through tiny,
with noise, reversed and 8 % faster. With --synth the clean clips come from a generator trained on folds 1
to 4, and fold 5 is the eval split. Clean clips exclude 3-151080-A-20 and 5-151085-A-20, one recording in
two folds, and everything generated from the former.

There are five splits: seeds from 5 on repeat them and their clean clips, with other copies and noise. All
draws of --synth share one train set, one eval set and one set of clean clips. audit_planted.csv comes from

ajbench run esc10 --data ESC10 --work WORK
python benchmarks/audit_planted.py ESC10 --seeds 8 --synth WORK/esc10/synth-…

where synth-… is the store of 640 clips; the other synthetic stores in WORK have at most 160.

With --nearest nothing is planted. Each fold in turn is the eval split and the others are the train split. The
table lists the three train clips with the highest standout and their match (`real`) and, of the first
fold's copies through tiny, those with the lowest, median and highest waveform correlation (`tiny`):

python benchmarks/audit_planted.py ESC10 --nearest benchmarks/audit_nearest.csv
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
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fakes import PLANT_KINDS, add_noise, encode_lossy, plant_copy

from ajbench.core import console
from ajbench.data import audio
from ajbench.data.clip_set import open_set
from ajbench.data.store import ClipStore
from ajbench.evaluation.audit import audit_sets
from ajbench.evaluation.audit_similarity import UsableClips, scores, usable_clips, wave_of
from ajbench.metrics.audio_fingerprint import fingerprints, waveform_match
from ajbench.metrics.standout import spread, standout

TWINS = ("3-151080-A-20", "5-151085-A-20")


def clean(waves: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return five versions of every clip."""
    made = {}
    for name, wave in waves.items():
        made[f"{name}-plain"] = wave
        made[f"{name}-tiny"] = encode_lossy(wave, "tiny")
        made[f"{name}-noise"] = add_noise(wave, rng)
        made[f"{name}-back"] = wave[::-1]
        made[f"{name}-fast"] = soxr.resample(wave, 17_280, 16_000)
    return made


def generated(path: Path) -> dict[str, np.ndarray]:
    """Return the clips of a store, except those guided by a twin."""
    store = ClipStore.open(path)
    kept = [i for i, parent in enumerate(store.column("parent_id")) if parent not in TWINS]
    return {store.clip_ids[i]: store.audio([i])[0] for i in kept}


def measure(files: dict[str, Path], seed: int, made: dict[str, np.ndarray] | None) -> dict[str, object]:
    """Plant copies, run the audit, count what it finds."""
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
        kind = PLANT_KINDS[number // 4]
        variant, wave = plant_copy(kind, number, parts["eval"][name], rng)
        synth[f"planted-{kind}-{variant.replace(' ', '')}-{name}"] = wave
    with tempfile.TemporaryDirectory() as folder:
        sets = {"synth": synth, "train": parts["train"], "eval": parts["eval"]}
        for which, clips in sets.items():
            (Path(folder) / which).mkdir()
            for name, wave in clips.items():
                # Twice as loud may exceed full scale and is clipped, as in a file.
                soundfile.write(Path(folder) / which / f"{name}.wav", np.clip(wave, -1, 1), 16_000)
        began = time.perf_counter()
        found = audit_sets(*(open_set(Path(folder) / which) for which in sets))
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
        "threshold": round(found.calibrations[0].threshold, 2),
        "train": len(parts["train"]),
        "eval": len(parts["eval"]),
        "seconds": round(seconds, 1),
        "missed": " ".join(missed),
        "alarms": " ".join(alarms),
    }


def nearest(folder: Path, shown: int = 3) -> list[dict[str, object]]:
    """Return each fold's train clips nearest to eval clips, and how waveforms correlate after `tiny`."""
    clips = usable_clips("train", open_set(folder / "audio"), [], lambda done: None)
    folds = np.array([int(name[0]) for name in clips.names])
    rows = []
    for fold in range(1, 6):
        train, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        like, prominent = scores(*([clips.fingerprints[k] for k in part] for part in (train, held_out)))
        standing = standout(prominent, spread(prominent.T))
        for row in np.argsort(-standing.max(axis=1))[:shown]:
            match = standing[row].argmax()
            pair = train[row], held_out[match]
            rows.append(
                {"kind": "real", "eval_fold": fold}
                | {side: clips.names[k] for side, k in zip(("clip", "match"), pair, strict=True)}
                | {"standout": round(float(standing[row, match]), 2)}
                | {"likeness": round(float(like[row, match]), 3)}
                | {"waveform": round(waveform_match(*(_wave(clips, k) for k in pair))[0], 3)}
            )
    copies = []
    for k in np.flatnonzero(folds == 1):
        wave = _wave(clips, k)
        made = encode_lossy(wave, "tiny")
        like, _ = scores([fingerprints(torch.from_numpy(made)[None])[0]], [clips.fingerprints[k]])
        about = {"kind": "tiny", "eval_fold": 1, "clip": clips.names[k], "match": clips.names[k]}
        about |= {"standout": "", "likeness": round(float(like[0, 0]), 3)}
        copies.append(about | {"waveform": round(waveform_match(made, wave)[0], 3)})
    copies.sort(key=lambda row: row["waveform"])
    return rows + [copies[k] for k in (0, len(copies) // 2, -1)]


def _wave(clips: UsableClips, row: int) -> np.ndarray:
    return wave_of(clips.clips, clips.numbers[row])


def write(rows: list[dict[str, object]], out: Path) -> None:
    """Show a table and write it."""
    console.emit(rows, table=(list(rows[0]), [list(row.values()) for row in rows]))
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Measure every seed and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--synth", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--nearest", type=Path)
    options = parser.parse_args()
    console.configure(quiet=True)
    if options.nearest:
        write(nearest(options.folder), options.nearest)
        return
    files = {path.stem: path for path in sorted((options.folder / "audio").iterdir())}
    rows = []
    for made in [None, generated(options.synth)] if options.synth else [None]:
        rows += [measure(files, seed, made) for seed in range(options.seeds)]
    write(rows, options.out)


if __name__ == "__main__":
    main()
