"""Clips a second that a training process can be given: FLAC stores, linked files, Parquet, pcm cache.

python benchmarks/feed.py [--clips 192] [--seconds 10.08] [--batch 128] [--rounds 5] [--readers 1 2]
                          [--cores 1 2] [--folder DIR] [--out FILE.csv]

The clips are coloured noise with a random envelope, as compressible as recordings (`bytes`: of a clip in its
source). Linked files, and the sounds in a Parquet shard, are FLAC of 24 bits at 48 kHz, as AudioSet is
distributed. Clips are asked for in random order, each once in a call, and none stays in memory decoded; files
are in the page cache. Sources take turns within a round; the table has medians over the rounds.

`clips_per_s` is by the wall clock and suffers from other load on the machine: `busy` says how many cores the
process got on average. `cpu_ms` is CPU time of a clip, and `idle_clips_per_s` what the cores would give if
they were idle and did nothing else: cores / cpu_ms, but of one core for the cache, which one thread reads.

The rows `taltrans batch` are whole batches with mixup and SpecAugment's draws, as a training prepares them;
`part: …` say where the time of one clip goes: decoding, floats, centring, mixing.

feed.csv was measured with little other load: one core was always busy, and two readers kept 1.6 to 1.9 of two
cores busy. A clip from FLAC took 2.0 to 2.2 ms of CPU time, and 2.8 ms where one reader had two cores.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import soxr
import torch
from recorded import processor, record

from ajbench.classifiers import frontend, selection, train
from ajbench.core import console
from ajbench.core import recipe as recipes
from ajbench.data import audio, clip_audio, shards
from ajbench.data.pcm import open_store
from ajbench.data.store import ClipStore

LABELS = [f"class {k}" for k in range(527)]
ONE_CORE = ("pcm", "part", "taltrans")  # work of one thread, or mostly


# Work that takes less than pages that the system has reclaimed while others had their turn: done twice, and
# timed the second time.
QUICK = ("pcm", "part", "taltrans batch, pcm")


def noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return coloured noise with a random envelope, float32 [samples] at 16 kHz."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    spectrum /= 1 + np.arange(len(spectrum)) / len(spectrum) * rng.uniform(5, 80)
    points = np.exp(rng.normal(0, 1, 20))
    envelope = np.interp(np.linspace(0, 1, samples), np.linspace(0, 1, 20), points)
    wave = np.fft.irfft(spectrum, samples) * envelope
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def build(folder: Path, options: argparse.Namespace) -> dict[str, tuple[ClipStore, int]]:
    """Write the clips in every form; return a store and the bytes of a clip for each."""
    rng = np.random.default_rng(0)
    samples = audio.clip_samples(options.seconds)
    forms: dict[str, list[tuple[str, bytes | None]]] = {"flac": [], "files": [], "parquet": []}
    rows, sizes = [], dict.fromkeys(forms, 0)
    for k in range(options.clips):
        wave = noise(samples, rng)
        forms["flac"].append(("", audio.flac_encode(wave)))
        sizes["flac"] += len(forms["flac"][-1][1])
        path = folder / f"{k}.flac"
        soundfile.write(path, soxr.resample(wave, 16_000, 48_000), 48_000, "PCM_24")
        forms["files"].append((str(path), None))
        rows.append({"audio": {"bytes": path.read_bytes(), "path": path.name}})
        forms["parquet"].append((f"{folder / 'clips.parquet'}::{k}", None))
        sizes["files"] += path.stat().st_size
    pq.write_table(pa.Table.from_pylist(rows), folder / "clips.parquet", row_group_size=100)
    sizes["parquet"] = sizes["files"]
    found = {}
    for name, clips in forms.items():
        place = folder / name
        place.mkdir()
        records = [
            {
                "clip_id": f"{name}-{k}", "path": path, "labels": [LABELS[k % 527]], "label_ids": [k % 527],
                "split": "train", "audio": flac, "codes": np.zeros((8, samples // audio.HOP), np.uint16),
            }
            for k, (path, flac) in enumerate(clips)
        ]  # fmt: skip
        shards.write_shard(place, 0, records)
        about = {"codec": "none", "codec_hash": "0", "clip_samples": samples, "labels": LABELS}
        shards.finish(place, shards.StoreMeta(**about, fingerprint="0"))
        found[name] = ClipStore.open(place), sizes[name] // options.clips
    found["pcm"] = open_store(folder / "flac", folder / "cache"), 2 * samples
    return found


def settings(options: argparse.Namespace) -> recipes.Recipe:
    """Return TALtrans with mixup."""
    changes = [f"classifier.batch_size={options.batch}", "classifier.aug=mx+sp"]
    return recipes.load("mini", ["classifier.name=taltrans", *changes])


def measured(once: Callable[[int], Any], number: int) -> tuple[float, float]:
    """Return wall and CPU seconds of a call."""
    began, used = time.perf_counter(), time.process_time()
    once(number)
    return time.perf_counter() - began, time.process_time() - used


def work(
    stores: dict[str, tuple[ClipStore, int]], options: argparse.Namespace
) -> Iterator[tuple[tuple[str, int, int], int, Callable[[int], Any]]]:
    """Yield (source, readers, cores), how many clips a call gives, and the call."""
    count, recipe = options.batch, settings(options)
    selection.CACHE_BYTES = 0
    for name, (store, _) in stores.items():
        ids, clips, plan = selection.select(recipe, store, None, None, None, 0, None)
        for cores in options.cores:
            for readers in options.readers if name != "pcm" else [1]:
                asked = count if name in ("flac", "pcm") else max(1, count // 4)

                def take(number: int, clips: Any = clips, among: int = len(ids), asked: int = asked) -> None:
                    clips.take(np.random.default_rng(number).permutation(among)[:asked])

                yield (name, readers, cores), asked, take
        if name in ("flac", "pcm"):
            batches = train._batches(recipe.classifier_of(), plan, clips, 0)
            yield (f"taltrans batch, {name}", 2, max(options.cores)), count, batches
    store = stores["flac"][0]
    flacs = [bytes(store.flac(k) or b"") for k in range(len(store))]
    rows = [audio.flac_samples(flac) for flac in flacs]
    wave, targets = np.empty(len(rows[0]), np.float32), torch.zeros(2 * len(rows), 527)
    some, partners = torch.arange(len(rows)), torch.full((len(rows),), 0.4)
    parts: dict[str, Callable[[int], Any]] = {
        "decode": lambda _: [audio.flac_samples(flac) for flac in flacs],
        "to float": lambda _: [clip_audio.write_float(row, wave) for row in rows],
        "float and centre": lambda _: frontend.mixup_rows(rows, targets[: len(rows)], some[:0], partners[:0]),
        "float, centre and mix": lambda _: frontend.mixup_rows(2 * rows, targets, some, partners),
    }
    for name, once in parts.items():
        yield (f"part: {name}", 1, 1), len(rows), once


def run(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure every kind of work in turn, and return a row for each."""
    stores, here = build(folder, options), sorted(os.sched_getaffinity(0))
    same = {name: store.audio(range(options.clips)) for name, (store, _) in stores.items()}
    assert np.array_equal(same["pcm"], same["flac"]) and np.array_equal(same["files"], same["parquet"])
    todo = [one for one in work(stores, options) if one[0][2] <= len(here)]
    seconds: dict[Any, list[tuple[float, float]]] = {key: [] for key, _, _ in todo}
    for number in range(-1, options.rounds):  # the first is not counted
        for key, count, once in todo:
            os.sched_setaffinity(0, here[-key[2] :])
            clip_audio.readers = lambda readers=key[1]: readers
            if key[0].startswith(QUICK):
                once(number + 1)
            wall, used = measured(once, number + 1)
            if number >= 0:
                seconds[key].append((wall / count, used / count))
        console.say(f"round {number + 1} of {options.rounds}")
    os.sched_setaffinity(0, here)
    rows = []
    for key, count, _ in todo:
        source, readers, cores = key
        wall, used = (statistics.median(values) for values in zip(*seconds[key], strict=True))
        busy = statistics.median(u / w for w, u in seconds[key])
        usable = 1 if source.startswith(ONE_CORE) else min(readers, cores)
        row = {"source": source, "readers": readers, "cores": cores, "clips": count}
        row |= {"clips_per_s": f"{1 / wall:.4g}", "busy": f"{busy:.2f}", "cpu_ms": f"{used * 1e3:.4g}"}
        row |= {"cpu_ms_of_all": f"{used * count * 1e3:.4g}", "idle_clips_per_s": f"{usable / used:.4g}"}
        size = stores[source][1] if source in stores else ""
        rows.append(row | {"bytes": size, "rounds": options.rounds})
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measure and write one row per kind of work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=192)
    parser.add_argument("--seconds", type=float, default=10.08)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="for the clips, 1.5 MB each; default: a temporary one")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args(arguments)
    if options.clips < options.batch:
        parser.error("--clips: fewer than --batch, of which no clip may be read twice")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as trainings of small models have
    try:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows = run(options, Path(folder))
    finally:
        torch.set_num_threads(threads)
    where = {"device": processor(), "soundfile": soundfile.__libsndfile_version__, "torch": torch.__version__}
    rows = [row | where for row in rows]
    header = list(rows[0])
    record(header, [list(row.values()) for row in rows], len(header) - len(where), options.out)


if __name__ == "__main__":
    main()
