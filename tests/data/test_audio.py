"""Reading and writing audio: refused files, exact round trips, mel spectra against torchaudio."""

import functools
import io
import resource

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from fakes import video_bytes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ajbench.core.errors import MissingError, UsageError
from ajbench.data import audio, sound_file
from ajbench.data.audio import AudioError

torch.set_num_threads(1)


def encoded(samples, rate, container, subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def reason_of(path, **options):
    with pytest.raises(AudioError) as caught:
        audio.read(path, **options)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert isinstance(caught.value, MissingError)
    return caught.value.reason


def test_clip_lengths_are_multiples_of_21_frames():
    for columns in range(1, 201):
        assert audio.clip_samples(columns * 0.42) == columns * 6720
    assert audio.clip_samples(5.04) == 80_640 and audio.clip_samples(10.08) == 161_280  # the paper's
    for duration_s, nearest in ((5.0, "4.62 or 5.04"), (10.0, "9.66 or 10.08"), (0.1, "0.42")):
        with pytest.raises(UsageError, match=rf"data\.duration_s={duration_s:g}: .* {nearest}$"):
            audio.clip_samples(duration_s)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_read_downmixes_and_resamples_a_sine(write_wav, rate):
    t = np.arange(rate) / rate
    left, right = 0.5 * np.sin(2 * np.pi * 700 * t), 0.1 * np.sin(2 * np.pi * 700 * t)
    path = write_wav("stereo.wav", np.stack([left, right], axis=1), rate)
    wav = audio.read(path)
    assert wav.dtype == np.float32 and wav.shape == (16_000,)
    expected = 0.3 * np.sin(2 * np.pi * 700 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(wav[800:-800], expected[800:-800], atol=2e-4)
    assert audio.probe(path) == (rate, 2, rate)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_read_supports_the_usual_containers(write_wav, tone, suffix):
    wav = audio.read(write_wav(f"a.{suffix}", tone(500, 1.0, 44_100), 44_100))
    assert abs(len(wav) - 16_000) < 1200  # MP3 pads
    spectrum = np.abs(np.fft.rfft(wav[:16_000]))
    assert spectrum.argmax() * 16_000 / len(wav[:16_000]) == pytest.approx(500, abs=1)


@pytest.mark.parametrize(("suffix", "container"), [("m4a", "ipod"), ("AAC", "adts")])
def test_recordings_of_phones_are_read(tmp_path, suffix, container):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(video_bytes([], container=container, sound_s=8.0, rate=44_100, tone=500.0))
    wav = audio.read(path)
    assert abs(len(wav) - 8 * 16_000) < 1200  # AAC pads
    assert np.abs(np.fft.rfft(wav[16_000:32_000])).argmax() == pytest.approx(500, abs=1)
    rate, channels, frames = audio.probe(path)
    assert (rate, channels) == (44_100, 1) and abs(frames / rate - 8) < 0.1
    part = audio.read(path, start_s=6.5, duration_s=1.0)  # so late that the file is not read from its start
    np.testing.assert_allclose(part[200:-200], wav[104_200:119_800], atol=1e-3)
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(AudioError, match="unreadable"):
        audio.read(path)


def test_the_length_of_a_sound_without_a_header_is_counted(tmp_path):
    # FFmpeg guesses it from the rate of the first frames, of which silence takes few bits.
    parts = [video_bytes([], container="adts", sound_s=4.0, tone=tone) for tone in (0.0, 3000.0)]
    path = tmp_path / "a.aac"
    path.write_bytes(b"".join(parts))
    assert abs(audio.probe(path)[2] / 16_000 - 8) < 0.3 and abs(len(audio.read(path)) / 16_000 - 8) < 0.3


def test_read_returns_the_requested_part(write_wav, rng):
    samples = rng.uniform(-0.5, 0.5, 32_000)
    path = write_wav("long.wav", samples, subtype="FLOAT")
    piece = audio.read(path, start_s=0.5, duration_s=1.0)
    np.testing.assert_allclose(piece, samples[8000:24_000].astype(np.float32))
    assert len(audio.read(path, start_s=1.5, duration_s=1.0)) == 8000  # ends where the file does
    assert reason_of(path, start_s=2.0) == "start 2 s is after the end (2.00 s)"


@functools.cache
def bad_inputs():
    noise = np.random.default_rng(0).normal(0, 0.1, 44_100)
    with_nan, with_inf = (np.where(np.arange(44_100) == 100, value, noise) for value in (np.nan, np.inf))
    high = 0.5 * np.sin(2 * np.pi * 15_000 * np.arange(44_100) / 44_100) * np.hanning(44_100)
    half = {container: encoded(noise, 44_100, container) for container in ("WAV", "OGG", "FLAC")}
    half = {container: data[: len(data) // 2] for container, data in half.items()}
    return {
        "0 bytes": (b"", "empty (0 bytes)"),
        "no samples": (encoded(noise[:0], 44_100, "WAV"), "empty (no samples)"),
        "text": (b"this is not a sound" * 50, "unreadable (Format not recognised)"),
        "0.08 s": (encoded(noise[:3528], 44_100, "WAV"), "too short (0.08 s; at least 0.1 s)"),
        "zeros": (encoded(0 * noise, 44_100, "WAV"), "silent (peak 0.0e+00; at least 1e-04)"),
        "antiphase": (encoded(np.stack([noise, -noise], 1), 44_100, "WAV"), "silent (peak"),
        "above the band": (encoded(high, 44_100, "WAV", "FLOAT"), "silent (peak"),
        "clipped": (encoded(np.sign(noise), 44_100, "FLAC"), "clipped (100%"),
        "NaN": (encoded(with_nan, 44_100, "WAV", "FLOAT"), "not finite (1 of 44100 samples"),
        "infinite": (encoded(with_inf, 44_100, "WAV", "FLOAT"), "not finite (1 of 44100 samples"),
        "1 Hz": (encoded(noise, 1, "WAV"), "sample rate 1 Hz (1000 to 1000000 Hz)"),
        "2 MHz": (encoded(noise, 2_000_000, "WAV"), "sample rate 2000000 Hz (1000 to 1000000 Hz)"),
        "half a WAV": (half["WAV"], "truncated (header declares 88244 bytes"),
        "half an Ogg": (half["OGG"], "truncated (Ogg stream without its last page)"),
        "half a FLAC": (half["FLAC"], "unreadable ("),
    }


@pytest.mark.parametrize("case", bad_inputs())
def test_unusable_input_has_a_reason(tmp_path, case):
    content, expected = bad_inputs()[case]
    path = tmp_path / "clip.any"
    path.write_bytes(content)
    assert reason_of(path).startswith(expected)


def test_missing_files_and_folders_are_named(tmp_path):
    assert reason_of(tmp_path / "none.wav") == "missing"
    assert reason_of(tmp_path) == "not a file"


def test_the_shortest_clips_and_loud_recordings_are_kept(write_wav, rng):
    assert len(audio.read(write_wav("short.wav", rng.normal(0, 0.1, 4000)))) == 4000
    hot = np.clip(rng.normal(0, 1, 16_000), -1, 1)  # a third of it at full scale
    assert np.mean(np.abs(hot) == 1) > 0.3
    audio.read(write_wav("hot.wav", hot))


@pytest.mark.parametrize("container", ["WAV", "OGG", "FLAC"])
def test_every_truncation_is_found(tmp_path, tone, rng, container):
    data = encoded(tone(440, 1.0), 16_000, container)
    path = tmp_path / "cut"
    for length in rng.integers(1, len(data) - 8, 40):
        path.write_bytes(data[:length])
        assert reason_of(path).startswith(("truncated", "unreadable", "empty"))


def test_an_ogg_without_all_of_its_last_page_is_truncated(tmp_path, tone):
    data = encoded(tone(440, 3.0), 16_000, "OGG")
    path = tmp_path / "pages.ogg"
    last = data.rfind(b"OggS")
    for length in (last, last + 10, last + 40, len(data) - 1):
        path.write_bytes(data[:length])
        assert soundfile.info(path).frames > 0  # plays without complaint
        assert reason_of(path) == "truncated (Ogg stream without its last page)"


@pytest.mark.parametrize("container", ["WAV", "OGG", "FLAC", "MP3"])
def test_damaged_bytes_raise_only_audio_errors(tmp_path, tone, rng, container):
    data = np.frombuffer(encoded(tone(440, 0.5), 16_000, container), dtype=np.uint8)
    path = tmp_path / "damaged"
    for flips in range(40):
        mutant = data.copy()
        where = rng.integers(0, 60 if flips % 2 else len(data), 8)  # every other one in the header
        mutant[where] = rng.integers(0, 256, 8)
        path.write_bytes(mutant.tobytes())
        try:
            wav = audio.read(path, duration_s=10)
        except AudioError as error:
            assert "\n" not in str(error)
        else:
            assert np.isfinite(wav).all()


def test_streamed_wav_without_length_is_read(tmp_path, tone):
    data = bytearray(encoded(tone(440, 1.0), 16_000, "WAV"))
    for size in (0, 0xFFFFFFFF):
        data[4:8] = size.to_bytes(4, "little")
        path = tmp_path / "streamed.wav"
        path.write_bytes(data)
        assert len(audio.read(path)) == 16_000


def test_no_file_of_esc10_is_refused_as_truncated(esc10_dir):
    files = sorted((esc10_dir / "audio").iterdir())
    assert len(files) == 400
    assert [path.name for path in files if sound_file.truncation(path)] == []
    assert abs(len(audio.read(files[0])) - 80_000) < 100


waves = hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-2, 2, width=32))


@given(waves)
def test_flac_keeps_16_bits_and_is_stable(wav):
    once = audio.flac_decode(audio.flac_encode(wav))
    assert once.dtype == np.float32
    assert np.abs(once - np.clip(wav, -1, 32767 / 32768)).max() <= 0.5 / 32768
    np.testing.assert_array_equal(audio.flac_decode(audio.flac_encode(once)), once)


def test_flac_decode_refuses_other_bytes():
    with pytest.raises(AudioError, match="unreadable"):
        audio.flac_decode(b"RIFF, or so")


@given(waves, st.integers(1, 400))
def test_fit_crops_or_pads_at_the_end(wav, n):
    fitted, kept = audio.fit(wav, n), min(n, len(wav))
    assert fitted.shape == (n,) and fitted.dtype == np.float32
    np.testing.assert_array_equal(fitted[:kept], wav[:kept])
    assert not fitted[kept:].any()


def test_write_then_read(tmp_path, tone):
    wav = tone(300, 0.5)
    for name in ("a.wav", "a.flac"):
        audio.write(tmp_path / name, wav)
        np.testing.assert_allclose(audio.read(tmp_path / name), wav, atol=1 / 32768)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "a.wav"]


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize(("mel", "norm"), [("slaney", "slaney"), ("htk", None)])
@pytest.mark.parametrize(("n_fft", "win", "hop", "n_mels"), [(1024, 1024, 320, 64), (2048, 400, 160, 80)])
def test_log_mel_is_torchaudios(rng, power, mel, norm, n_fft, win, hop, n_mels):
    wav = torch.from_numpy(rng.normal(0, 0.1, (3, 8000)).astype(np.float32))
    reference = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft, win, hop, 50.0, 7600.0, n_mels=n_mels, power=power, norm=norm, mel_scale=mel
    )(wav)
    ours = audio.log_mel(wav, n_fft, win, hop, n_mels, 50.0, 7600.0, 1e-5, mel=mel, power=power)
    assert ours.shape == (3, n_mels, 1 + 8000 // hop)
    torch.testing.assert_close(ours, reference.clamp_min(1e-5).log10(), atol=1e-5, rtol=0)


def test_log_mel_of_silence_is_the_floor_and_carries_no_nan_back():
    wav = torch.zeros(1, 4000, requires_grad=True)
    mel = audio.log_mel(wav, 512, 512, 160, 40, 0.0, 8000.0, 1e-4)
    torch.testing.assert_close(mel, torch.full_like(mel, -4.0))
    mel.sum().backward()
    assert torch.isfinite(wav.grad).all()


def test_log_mel_has_gradients_after_inference():
    # Window and filters are cached; autograd could not use them if they were made in inference mode.
    settings = (640, 640, 160, 33, 0.0, 8000.0, 1e-5)
    with torch.inference_mode():
        audio.log_mel(torch.ones(1, 4000), *settings)
    wav = torch.linspace(-1, 1, 4000)[None].requires_grad_()
    audio.log_mel(wav, *settings).mean().backward()
    assert wav.grad.abs().max() > 0


def test_waves_are_converted_as_the_published_tools_do(rng):
    wav = rng.normal(size=(2, 16_000)).astype(np.float32)
    expected = torchaudio.functional.resample(torch.tensor(wav), 16_000, 32_000)
    for given_wav in (wav, torch.tensor(wav)):
        assert torch.equal(audio.at_rate(given_wav, 32_000), expected)
    assert audio.at_rate(wav, 16_000) is wav


def flac_of(samples, declared):
    """Return the bytes of a FLAC whose header declares so many samples; 0 is unknown."""
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="FLAC")
    content = bytearray(file.getvalue())
    head = int.from_bytes(content[21:26], "big") >> 36 << 36  # before them, the rate and the like
    content[21:26] = (head | declared).to_bytes(5, "big")
    return bytes(content)


@pytest.mark.parametrize("channels", [1, 2])
def test_streams_of_unknown_length_are_read_to_their_end(tmp_path, tone, channels):
    wave = np.tile(tone(seconds=1.3)[:, None], (1, channels))
    (tmp_path / "stream.flac").write_bytes(flac_of(wave, 0))
    (tmp_path / "file.flac").write_bytes(flac_of(wave, len(wave)))
    for start, duration in [(0.0, None), (0.5, None), (0.5, 0.5), (1.0, 5.0)]:
        np.testing.assert_array_equal(
            audio.read(tmp_path / "stream.flac", start_s=start, duration_s=duration),
            audio.read(tmp_path / "file.flac", start_s=start, duration_s=duration),
        )
    assert audio.probe(tmp_path / "stream.flac") == (16_000, channels, len(wave))


def test_a_header_that_declares_hours_allocates_nothing(tmp_path, tone):
    (tmp_path / "bomb.flac").write_bytes(flac_of(np.tile(tone()[:, None], (1, 8)), 2**36 - 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AudioError, match=r"unreadable|truncated"):
        audio.read(tmp_path / "bomb.flac")
    with pytest.raises(AudioError):
        audio.flac_decode(flac_of(tone(), 2**36 - 1))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_sound_that_is_too_long_for_memory_is_refused(tmp_path, tone, monkeypatch):
    monkeypatch.setattr(sound_file, "MOST_VALUES", 10_000)
    soundfile.write(tmp_path / "long.wav", tone(), 16_000)
    with pytest.raises(AudioError, match="at once"):
        audio.read(tmp_path / "long.wav")
    assert len(audio.read(tmp_path / "long.wav", start_s=0.5, duration_s=0.3)) == 4_800


def test_a_lack_of_memory_is_not_blamed_on_the_file(tmp_path, tone, monkeypatch):
    soundfile.write(tmp_path / "good.wav", tone(), 16_000)
    (tmp_path / "bad.wav").write_bytes(b"this is not a sound" * 50)

    def lack(*about, **how):
        raise MemoryError("Unable to allocate 4.00 MiB")

    with monkeypatch.context() as changed:
        changed.setattr(sound_file.np, "full", lack)
        with pytest.raises(MemoryError, match="allocate"):
            audio.read(tmp_path / "good.wav")

    def short():
        raise MissingError("out of memory")

    monkeypatch.setattr(audio, "need_reserve", short)
    assert len(audio.read(tmp_path / "good.wav")) == len(tone())
    for read in (audio.read, audio.probe, lambda path: audio.flac_decode(path.read_bytes())):
        with pytest.raises(MissingError, match="out of memory") as caught:
            read(tmp_path / "bad.wav")
        assert not isinstance(caught.value, AudioError)


@pytest.mark.parametrize(("peak", "gain"), [(0.9, 1), (2.0, 1 / 2), (13_500.0, 1 / 32_768)])
def test_all_parts_of_a_float_file_have_one_gain(tmp_path, peak, gain):
    quiet = 0.003 * np.sin(np.arange(16_000) / 5)
    samples = np.concatenate([quiet, np.sin(np.arange(16_000) / 5)]) * peak
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    whole = audio.read(tmp_path / "a.wav")
    assert np.abs(whole).max() == pytest.approx(gain * peak, rel=1e-3)
    for start in (0.0, 1.0):
        part = audio.read(tmp_path / "a.wav", start_s=start, duration_s=1.0)
        np.testing.assert_array_equal(part, whole[int(start * 16_000) :][:16_000])
