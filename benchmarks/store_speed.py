"""Random access to clips: a store of 200,000 clips, compared with one `.pt` or `.npy` file per clip.

    python benchmarks/store_speed.py [--clips 200000] [--files 20000] [--rounds 15] [--audio ESC10_FOLDER]

Codes are random, uint16 [8, 504] per clip (10.08 s). A batch is 256 random indices, as class-balanced
sampling draws them. The store is written by the project's shard writer; the files by `torch.save` and
`numpy.save`, for the first 20,000 clips only, to which their batches are limited. The kinds take turns within
a round, each with new indices; every batch is compared with what was written. Times are CPU times, so other
load does not matter, and everything is in the page cache: this measures the work, not the disk. Ratios are of
the medians.

Also bytes per clip: of each kind on disk and, with `--audio`, of a store with codes and 16-bit FLAC of ESC-10
recordings repeated to 10.08 s (they are 5 s long), scaled to the 2,042,985 clips of AudioSet-2M. Writes
benchmarks/store_speed.csv and benchmarks/store_bytes.csv.
"""

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from recorded import processor, record

from ajbench.data import audio, shards, store

FRAMES, BATCH = 504, 256
SAMPLES = FRAMES * audio.HOP
AUDIOSET_2M = 2_042_985
PAPER_GB = 63  # appendix: codes of AudioSet-2M

Codes = NDArray[np.uint16]
Kinds = dict[str, Callable[[NDArray[np.int64]], Codes]]


def codes_of(indices: NDArray[np.int64]) -> Codes:
    """Codes uint16 [n, 8, 504] of clips, all different: those of one random shard, shifted shard by shard."""
    shard, row = np.divmod(indices, shards.SHARD_CLIPS)
    shift = (37 * shard).astype(np.uint16)[:, None, None]
    return (_shard()[row] + shift) % np.uint16(1024)


@functools.cache
def _shard() -> Codes:
    return np.random.default_rng(0).integers(0, 1024, (shards.SHARD_CLIPS, 8, FRAMES), dtype=np.uint16)


def write_store(folder: Path, clips: int) -> store.ClipStore:
    """Write a store of codes without audio."""
    folder.mkdir()
    for shard, start in enumerate(range(0, clips, shards.SHARD_CLIPS)):
        codes = codes_of(np.arange(start, min(start + shards.SHARD_CLIPS, clips)))
        records = [
            {"clip_id": f"Y{start + i:011d}", "path": "", "labels": ["a"], "label_ids": [0], "split": "train"}
            | {"codes": one}
            for i, one in enumerate(codes)
        ]
        shards.write_shard(folder, shard, records)
    about = {"codec": "random", "codec_hash": "0", "fingerprint": "0", "labels": ["a"]}
    shards.finish(folder, shards.StoreMeta(clip_samples=SAMPLES, **about))
    return store.ClipStore.open(folder)


def write_files(folder: Path, clips: store.ClipStore, n: int) -> Kinds:
    """Write the first clips as files, a thousand per folder; return a batch reader per kind."""
    for name in ("pt", "npy"):
        for i in range(n):
            path = place(folder, i, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            codes = np.array(clips.view(i))
            torch.save(torch.from_numpy(codes), path) if name == "pt" else np.save(path, codes)

    def load_pt(indices: NDArray[np.int64]) -> Codes:
        read = [torch.load(place(folder, i, "pt"), weights_only=True) for i in indices.tolist()]
        return torch.stack(read).numpy()

    def load_npy(indices: NDArray[np.int64]) -> Codes:
        return np.stack([np.load(place(folder, i, "npy")) for i in indices.tolist()])

    return {".pt per clip": load_pt, ".npy per clip": load_npy}


def place(folder: Path, i: int, kind: str) -> Path:
    """Return the path of a clip's file."""
    return folder / kind / f"{i // 1000:03d}" / f"{i:06d}.{kind}"


def measure(kinds: Kinds, known: dict[str, int], rounds: int) -> dict[str, float]:
    """Return the median seconds per batch of each kind, with indices below `known`."""
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    rng = np.random.default_rng(0)
    for number in range(rounds + 1):  # the first warms up
        for kind, load in kinds.items():
            indices = rng.integers(0, known[kind], BATCH)
            start = time.process_time()
            found = load(indices)
            took = time.process_time() - start
            np.testing.assert_array_equal(found, codes_of(indices))
            if number:
                seconds[kind].append(took)
    return {kind: statistics.median(times) for kind, times in seconds.items()}


def bytes_a_clip(path: Path, clips: int) -> float:
    """Return the mean file size of a folder, per clip."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / clips


def bytes_with_audio(folder: Path, corpus: Path) -> tuple[float, float, int]:
    """Write a store of ESC-10 at 10.08 s; return bytes per clip, those of FLAC, and the number of clips."""
    records: list[dict] = []
    for i, path in enumerate(sorted((corpus / "audio").iterdir())):
        wav = audio.read(path)
        flac = audio.flac_encode(np.resize(wav, SAMPLES))  # repeated, because the recordings are half as long
        about = {"clip_id": path.stem, "path": str(path), "labels": ["a"], "label_ids": [0], "split": "train"}
        records.append(about | {"audio": flac, "codes": codes_of(np.array([i]))[0]})
    folder.mkdir()
    shards.write_shard(folder, 0, records)
    sound = sum(len(one["audio"]) for one in records) / len(records)
    return bytes_a_clip(folder, len(records)), sound, len(records)


def main() -> None:
    """Measure speed, then size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=200_000)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--audio", type=Path, help="ESC-10's folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips = write_store(folder / "store", options.clips)
        kinds: Kinds = {"ClipStore.codes": clips.codes}
        kinds |= write_files(folder / "files", clips, options.files)
        known = {kind: options.files for kind in kinds} | {"ClipStore.codes": options.clips}
        seconds = measure(kinds, known, options.rounds)
        ours = seconds["ClipStore.codes"]
        about = [options.rounds, len(clips.mapped), processor(), np.__version__, torch.__version__]
        speeds = [
            [kind, known[kind], round(1e3 * took, 3), round(BATCH / took), round(took / ours, 1), *about]
            for kind, took in seconds.items()
        ]
        sizes = [["store, codes", options.clips, bytes_a_clip(folder / "store", options.clips)]]
        for name in ("pt", "npy"):
            size = bytes_a_clip(folder / "files" / name, options.files)
            sizes.append([f".{name} per clip", options.files, size])
        if options.audio:
            whole, sound, n = bytes_with_audio(folder / "sound", options.audio)
            sizes += [["FLAC alone, ESC-10", n, sound], ["store, codes and FLAC, ESC-10", n, whole]]
    header = ["kind", "clips", "batch_ms", "clips_a_second", "times_slower"]
    header += ["rounds", "shards", "processor", "numpy", "torch"]
    record(header, speeds, 5, Path(__file__).with_suffix(".csv"))
    lines = [[kind, n, round(size), round(size * AUDIOSET_2M / 1e9, 1), PAPER_GB] for kind, n, size in sizes]
    header = ["kind", "clips", "bytes_a_clip", "audioset_2m_gb", "paper_gb"]
    record(header, lines, 5, Path(__file__).with_name("store_bytes.csv"))


if __name__ == "__main__":
    main()
