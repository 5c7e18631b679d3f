"""Real clips decoded from their codes."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from fakes import HUM_LABELS, HUM_SAMPLES, hum_record, hum_store, stopped_at

from ajbench.classifiers.selection import TrainingClips
from ajbench.data import audio, shards
from ajbench.data.verify import verify
from ajbench.pipeline.codec_roundtrip import decode_clips
from ajbench.pipeline.shard_encoding import COUNTED


class NumberCodec:
    """A codec that decodes a clip whose codes are a number to a tone of that amplitude in percent."""

    name, weights_hash, hop = "fake", "00", 320

    def decode(self, codes):
        amplitude = torch.from_numpy(codes[:, 0, 0].astype(np.float32)) / 100
        return amplitude[:, None].expand(-1, HUM_SAMPLES) * torch.sin(torch.arange(HUM_SAMPLES) / 5)


@pytest.fixture
def numbered(tmp_path):
    records = [hum_record(i, codes=np.full((8, 21), 1 + i, np.uint16)) for i in range(30)]
    return hum_store(tmp_path / "real", records)


def decode(numbered, out, clips=None):
    clips = numbered.split_indices("train") if clips is None else clips
    return decode_clips(numbered, clips, out, fingerprint="x", codec=NumberCodec())


def test_the_train_split_is_decoded_from_its_codes(tmp_path, numbered):
    decoded = decode(numbered, tmp_path / "decoded")
    assert decoded.clip_ids == [numbered.clip_ids[i] for i in numbered.split_indices("train")]
    levels = np.abs(decoded.audio(np.arange(len(decoded)))).max(axis=1)
    np.testing.assert_allclose(levels, [(1 + int(name[5:])) / 100 for name in decoded.clip_ids], atol=1e-3)
    assert decoded.meta.counts == {"train": dict.fromkeys(COUNTED, 20)}
    verify(tmp_path / "decoded")


def test_a_subset_is_decoded_alone_and_found_by_its_ids(tmp_path, numbered):
    clips = numbered.split_indices("train")[[2, 3, 7, 11]]
    decoded = decode(numbered, tmp_path / "decoded", clips)
    assert decoded.clip_ids == [numbered.clip_ids[i] for i in clips]
    some = TrainingClips(numbered, clips[[3, 1]], decoded=decoded)
    waves, _ = some.take(np.array([0, 1]))
    levels = waves.abs().amax(dim=1).numpy()
    np.testing.assert_allclose(
        levels, [(1 + int(numbered.clip_ids[i][5:])) / 100 for i in clips[[3, 1]]], atol=1e-3
    )


def test_processes_share_the_decoding(tmp_path, numbered, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_CLIPS", 3)
    whole = decode(numbered, tmp_path / "a")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: decode(numbered, tmp_path / "b"), range(3)))
    assert {tuple(one.clip_ids) for one in found} == {tuple(whole.clip_ids)}
    assert [e.xxh3 for e in found[0].meta.shards] == [e.xxh3 for e in whole.meta.shards]


def test_interrupted_decoding_resumes(tmp_path, numbered, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_CLIPS", 6)
    whole = decode(numbered, tmp_path / "a")
    with stopped_at(shards, "write_shard", 3):
        decode(numbered, tmp_path / "b")
    again = decode(numbered, tmp_path / "b")
    assert [e.xxh3 for e in again.meta.shards] == [e.xxh3 for e in whole.meta.shards]
    assert json.loads((tmp_path / "a" / "store.json").read_text())["clip_samples"] == HUM_SAMPLES
    assert audio.flac_decode(bytes(whole.flac(0))).shape == (HUM_SAMPLES,)
    assert whole.meta.labels == HUM_LABELS
