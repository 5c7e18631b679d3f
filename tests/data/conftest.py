"""A store of eight short clips in three shards that tests may damage."""

import itertools

import numpy as np
import pytest

from ajbench.data import audio, shards

FRAMES = 21
SAMPLES = FRAMES * 320
LABELS = ["Bark", "Rain", "Siren"]
SIZES = (4, 1, 3)


def codes_of(i):
    return np.random.default_rng(i).integers(0, 1024, (8, FRAMES)).astype(np.uint16)


def wave_of(i):
    return (np.random.default_rng([7, i]).uniform(-0.5, 0.5, SAMPLES)).astype(np.float32)


def record(i, **changes):
    ids = [i % 3] if i % 2 else [i % 3, (i + 1) % 3]
    values = {
        "clip_id": f"clip-{i}", "path": f"/sounds/{i}.wav", "labels": [LABELS[k] for k in ids],
        "label_ids": ids, "split": "eval" if i % 4 == 3 else "train", "fold": i % 5 + 1,
        "caption": f"Sound {i}" if i % 2 else None, "recording": f"youtube:{i // 4}" if i % 2 else None,
        "audio": audio.flac_encode(wave_of(i)), "codes": codes_of(i),
    }  # fmt: skip
    return values | changes


def meta(**changes):
    values = {
        "codec": "fake", "codec_hash": "00ff", "clip_samples": SAMPLES, "labels": LABELS,
        "fingerprint": "0123456789ab", "whitening": {"mean": [0.1, -2e-5], "std": [1.0, 0.3]},
    }  # fmt: skip
    return shards.StoreMeta(**(values | changes))


def build(folder, sizes=SIZES, changes=None, **meta_changes):
    folder.mkdir(parents=True, exist_ok=True)
    records = (record(i, **(changes or {}).get(i, {})) for i in range(sum(sizes)))
    for index, size in enumerate(sizes):
        shards.write_shard(folder, index, list(itertools.islice(records, size)))
    shards.finish(folder, meta(**meta_changes))
    return folder


@pytest.fixture
def folder(tmp_path):
    return build(tmp_path / "clips")
