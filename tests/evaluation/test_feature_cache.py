"""What is kept of networks that hear clips and of those that hear frames."""

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from ajbench.data.clip_set import open_set
from ajbench.evaluation import protocols
from ajbench.evaluation.feature_cache import embed

PLAIN, WINDOWED = protocols.find("ajbench"), protocols.find("stable-audio-metrics")


class Frames:
    """Mean and level of every tenth of a second; it knows no classes."""

    name, labels, mids, weights_hash, frames = "frames", (), None, "w1", True
    sample_rate, min_samples, max_samples = 16_000, 1_600, None

    def __init__(self):
        self.heard = 0

    def __call__(self, wav):
        self.heard += len(wav)
        k = wav.shape[1] // 1_600
        pieces = np.asarray(wav)[:, : k * 1_600].reshape(len(wav), k, 1_600)
        return np.stack([pieces.mean(axis=2), pieces.std(axis=2)], axis=2), np.zeros(
            (len(wav), 0), np.float32
        )


@pytest.fixture
def clips(tmp_path):
    for k, seconds in enumerate((0.5, 0.3, 0.5, 0.1, 13.0)):
        wave = np.random.default_rng(k).normal(0, 0.1 * (k + 1) / 5, int(seconds * 16_000))
        (tmp_path / "set").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "set" / f"{k}.wav", wave, 16_000, subtype="FLOAT")
    return open_set(tmp_path / "set")


def test_frames_are_rows_of_the_clip_that_they_are_of(clips, tmp_path):
    found = embed(clips, Frames(), PLAIN, tmp_path / "cache")
    assert found.clips.tolist() == [0] * 5 + [1] * 3 + [2] * 5 + [3] + [4] * 130
    assert found.features.shape == (144, 2) and found.logits.shape == (5, 0)
    assert found.features.dtype == found.logits.dtype == np.float32 and found.clips.dtype == np.int64
    for number in range(5):
        wave = clips.samples(number)[0].T
        assert found.features[found.clips == number] == pytest.approx(Frames()(wave)[0][0], rel=1e-6)


def test_frames_come_back_from_the_cache_as_they_were(clips, tmp_path):
    ear = Frames()
    first, again = (embed(clips, ear, PLAIN, tmp_path / "cache") for _ in range(2))
    assert ear.heard == 5 and again.computed == 0
    assert np.array_equal(first.features, again.features) and np.array_equal(first.clips, again.clips)
    assert again.logits.shape == (5, 0) and again.numbers.tolist() == [0, 1, 2, 3, 4]


def test_frames_of_all_windows_are_kept(clips, tmp_path):
    found = embed(clips, Frames(), WINDOWED, tmp_path / "cache")
    # 10 s from 0 s and from 5 s of the one clip that is longer; the others are padded or heard as they are.
    assert np.bincount(found.clips).tolist() == [5, 3, 5, 1, 200]


def test_clips_of_one_frame_are_read_as_vectors_are(clips, tmp_path):
    class Whole(Frames):
        def __call__(self, wav):
            features, logits = super().__call__(wav)
            return features[:, :1], logits

    found = embed(clips, Whole(), PLAIN, tmp_path / "cache")
    again = embed(clips, Whole(), PLAIN, tmp_path / "cache")
    assert found.clips.tolist() == again.clips.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(found.features, again.features)


def test_a_cache_of_before_frames_is_read(clips, tmp_path):
    vectors = np.arange(15, dtype=np.float32).reshape(5, 3)
    columns = {
        "content": pa.array([clips.content(number) for number in range(5)]),
        "features": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 3),
        "logits": pa.FixedSizeListArray.from_arrays(pa.array(vectors[:, :2].reshape(-1)), 2),
    }
    folder = tmp_path / "cache" / "frames-w1-ajbench"
    folder.mkdir(parents=True)
    table = pa.table(columns).replace_schema_metadata({"of": folder.name})
    with pa.ipc.new_file(str(folder / "part-0.arrow"), table.schema) as file:
        file.write_table(table)
    found = embed(clips, Frames(), PLAIN, tmp_path / "cache")
    assert np.array_equal(found.features, vectors) and np.array_equal(found.logits, vectors[:, :2])
    assert found.computed == 0 and found.clips.tolist() == [0, 1, 2, 3, 4]


def test_a_set_without_sound_has_no_rows(tmp_path):
    (tmp_path / "set").mkdir()
    soundfile.write(tmp_path / "set" / "a.wav", np.zeros(8_000), 16_000)
    found = embed(open_set(tmp_path / "set"), Frames(), PLAIN, tmp_path / "cache")
    assert len(found.numbers) == len(found.features) == len(found.clips) == len(found.logits) == 0
    assert "silent" in found.left_out[0].reason


@pytest.mark.parametrize("protocol", [PLAIN, WINDOWED])
def test_a_network_of_one_length_hears_every_window_in_it(clips, tmp_path, protocol):
    heard = []

    class Five(Frames):
        min_samples = max_samples = 5 * 16_000

        def __call__(self, wav):
            heard.extend(len(wave) for wave in wav)
            return super().__call__(wav)

    found = embed(clips, Five(), protocol, tmp_path / "cache")
    assert set(heard) == {80_000}
    assert np.bincount(found.clips).tolist() == [50] * 4 + [50 if protocol is PLAIN else 100]
