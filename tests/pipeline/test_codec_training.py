"""The training of the codec as a stage."""

import pytest

from ajbench.core.errors import MissingError, UsageError
from ajbench.pipeline.codec_training import codec_stage


def test_the_stage_is_identified_by_its_sounds_and_settings(tmp_path, write_wav):
    write_wav("sounds/a.wav")

    def key(**changed):
        settings = {"steps": 1, "batch_size": 2, "mini_clips": 1, "lr": 1e-3, "start": None, "seed": 0}
        return codec_stage(tmp_path, [tmp_path / "sounds"], **settings | changed).fingerprint

    first = key()
    assert key() == first
    others = [key(steps=2), key(lr=2e-3), key(start="tiny"), key(start="tiny@ff1b92258faaad59")]
    assert len({first, *others}) == 5
    sound = tmp_path / "sounds/a.wav"
    sound.write_bytes(sound.read_bytes()[:-2] + b"\x01\x02")
    assert key() != first, "another sound of the same length"
    second = key()
    write_wav("sounds/b.wav")
    assert key() != second


@pytest.mark.parametrize(
    ("start", "error"), [("encodec_24khz@16k", UsageError), ("none.safetensors", MissingError)]
)
def test_a_start_that_is_no_tiny_codec_is_refused_before_any_work(tmp_path, start, error):
    with pytest.raises(error, match=start.partition("@")[0]):
        codec_stage(tmp_path, [], steps=1, batch_size=2, mini_clips=1, lr=1e-3, start=start, seed=0)
