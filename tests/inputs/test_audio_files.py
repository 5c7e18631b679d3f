"""Odd sound files: unknown lengths, codecs that cannot seek, floats above full scale, constants."""

import numpy as np
import pytest
import soundfile

from ajbench.core import console
from ajbench.data import audio

RATE = 16_000


@pytest.fixture(autouse=True)
def _fresh():
    console.configure()


def tone(seconds=1.0, peak=0.5, rate=RATE):
    return (peak * np.sin(np.arange(round(seconds * rate)) * 0.2)).astype(np.float32)


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0x7FFFF024, 0xFFFFFFFF, 0x80000000, 0])
@pytest.mark.parametrize("both", [True, False])
def test_wav_of_unknown_length_is_read_to_its_end(tmp_path, length, both):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[4:8] = length.to_bytes(4, "little")
    if both and length:
        content[40:44] = (length - 36 if length < 0xFFFFFFFF else length).to_bytes(4, "little")
    path.write_bytes(content)
    np.testing.assert_allclose(audio.read(path), tone(), atol=1e-4)


@pytest.mark.parametrize("declared", [50_000, 0x7FFF0000])
def test_a_wav_that_ends_early_is_truncated(tmp_path, declared):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[4:8] = declared.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(audio.AudioError, match="truncated"):
        audio.read(path)


@pytest.mark.parametrize(
    ("subtype", "format", "rate"),
    [("GSM610", "WAV", 8000), ("G721_32", "AU", 8000), ("GSM610", "AIFF", 8000)],
)
@pytest.mark.parametrize("start_s", [0.0, 0.5])
def test_codecs_that_cannot_seek_are_read(tmp_path, subtype, format, rate, start_s):
    path = tmp_path / f"a.{format.lower()}"
    made = tone(2.0, rate=rate)
    soundfile.write(path, made, rate, format=format, subtype=subtype)
    samples, found = audio.decode(path, start_s, 1.0)
    assert found == rate and len(samples) == rate
    expected = made[round(start_s * rate) :][:rate]
    assert np.corrcoef(samples[:, 0], expected)[0, 1] > 0.9


@pytest.mark.parametrize("suffix", ["mp3", "wav"])
def test_an_appledouble_file_beside_a_sound_is_ignored(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(), RATE)
    (tmp_path / f"._a.{suffix}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100))
    assert len(audio.read(path)) >= RATE and audio.probe(path)[0] == RATE


@pytest.mark.parametrize(("gain", "word"), [(1.9, "above full scale"), (40_000, "above"), (32_000, "16-bit")])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_above_full_scale_are_scaled_and_counted(tmp_path, gain, word, subtype, capsys):
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", tone(peak=1.0) * gain, RATE, subtype=subtype)
        found = audio.read(tmp_path / f"{name}.wav")
        assert np.corrcoef(found, tone())[0, 1] > 0.99999
        assert 0.9 < np.abs(found).max() <= 1
    console.say_tallies()
    assert "2 files" in (said := capsys.readouterr().err) and word in said


@pytest.mark.parametrize(("peak", "subtype"), [(0.5, "FLOAT"), (1.0, "FLOAT"), (1.0, "PCM_16")])
def test_sounds_within_full_scale_keep_their_level(tmp_path, peak, subtype, capsys):
    soundfile.write(tmp_path / "a.wav", tone(peak=peak), RATE, subtype=subtype)
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav"), tone(peak=peak), atol=1e-4)
    console.say_tallies()
    assert not capsys.readouterr().err


@pytest.mark.parametrize("value", [0.3, -1.0, (0.2, -0.4)])
def test_a_constant_is_silent(tmp_path, value):
    soundfile.write(tmp_path / "a.wav", np.ones((RATE, 1)) * value, RATE)
    with pytest.raises(audio.AudioError, match="silent"):
        audio.read(tmp_path / "a.wav")
    assert "silent" in audio.defect(np.full((2, RATE), 0.3, np.float32))
    assert audio.defect(tone() + np.float32(0.3)) is None


@pytest.mark.parametrize(("start", "seconds"), [(0.0, 1.0), (0.5, 0.25)])
def test_a_silent_part_is_said_to_be_one(tmp_path, start, seconds):
    soundfile.write(tmp_path / "a.wav", np.concatenate([np.zeros(RATE), tone()]), RATE)
    with pytest.raises(audio.AudioError, match=f"from {start:g} to {start + seconds:g} s"):
        audio.read(tmp_path / "a.wav", start_s=start, duration_s=seconds)
