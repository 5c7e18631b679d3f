"""Read and write audio; inside ajbench all of it is mono float32 at 16 kHz.

`soundfile` decodes, `ajbench.data.video` videos and AAC, and `soxr` resamples. A file that cannot
become a clip is refused with a short reason, and never replaced by another.
"""

import functools
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import atomic_write
from ajbench.core.memory import need_reserve
from ajbench.data import sound_file, video

if TYPE_CHECKING:  # only at_rate and log_mel need it, and importing it takes seconds
    import torch

SAMPLE_RATE = 16_000  # Hz
HOP = 320  # samples per codec frame: 50 frames a second
FRAME_MULTIPLE = 21  # the generator sees latents [128, T] as a grid [128, T/21, 21]

LONGEST_S = 3600  # of a clip
MIN_DURATION_S = 0.1  # five codec frames; the shortest spoken digits last 0.14 s
SOURCE_RATES = 1_000, 1_000_000  # Hz; other rates mean a wrong header, or data that is not audio
SILENT_PEAK = 1e-4  # re full scale; 16-bit dither alone reaches 6e-5
FULL_SCALE = 0.999
CLIPPED_SHARE = 0.5  # of samples at full scale, above which a clip is refused
SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64",
    *video.SOUND_SUFFIXES,
)  # fmt: skip

Wave = NDArray[np.float32]


class AudioError(MissingError):
    """A clip that cannot be used; `reason` says why, without the path, for quarantine lists."""

    def __init__(self, reason: str, path: Path | None = None) -> None:
        super().__init__(f"{path}: {reason}" if path is not None else reason)
        self.reason = reason


@contextmanager
def _unless_memory_is_short() -> Iterator[None]:
    """Blame no file while memory is short: decoders take a lack of it for damage of many kinds.

    Raises:
        MissingError: it is, instead of an AudioError.
    """
    try:
        yield
    except AudioError:
        need_reserve()
        raise


def clip_samples(duration_s: float) -> int:
    """Return the number of samples of a clip at 16 kHz, a multiple of 21 × 320 (0.42 s).

    Raises:
        UsageError: the duration is no such multiple; the message has the nearest ones.
    """
    unit = FRAME_MULTIPLE * HOP
    samples = duration_s * SAMPLE_RATE
    whole = round(samples / unit)
    if whole < 1 or abs(samples - whole * unit) > 0.5:
        near = sorted({max(1, math.floor(samples / unit)), max(1, math.ceil(samples / unit))})
        choices = " or ".join(f"{n * unit / SAMPLE_RATE:g}" for n in near)
        raise UsageError(
            f"data.duration_s={duration_s:g}: a clip must be a multiple of {unit / SAMPLE_RATE:g} s "
            f"({FRAME_MULTIPLE} frames of {HOP} samples at {SAMPLE_RATE} Hz); nearest: {choices}"
        )
    return whole * unit


@_unless_memory_is_short()
def probe(path: Path | str) -> tuple[int, int, int]:
    """Return (sample rate in Hz, channels, frames) from the header of an audio file.

    Raises:
        AudioError: missing, empty or unreadable.
    """
    path = Path(path)
    if video.has_own_decoder(path):
        with _as_audio(path):
            return video.probe_audio(path)
    with _open(path) as file:
        return file.samplerate, file.channels, sound_file.length(file)


def read(
    path: Path | str, sample_rate: int = SAMPLE_RATE, start_s: float = 0.0, duration_s: float | None = None
) -> Wave:
    """Decode a file (or `duration_s` seconds of it from `start_s`) to mono float32 [n] at `sample_rate`.

    Channels are averaged; soxr resamples at quality HQ. The result is shorter if the file ends early.

    Raises:
        AudioError: the file is missing, empty, unreadable or truncated, or the requested part is shorter than
            `MIN_DURATION_S`, silent, clipped (over half of the samples), or not finite.
    """
    path = Path(path)
    samples, rate = decode(path, start_s, duration_s)
    if len(samples) < MIN_DURATION_S * rate:
        raise AudioError(f"too short ({len(samples) / rate:.2f} s; at least {MIN_DURATION_S:g} s)", path)
    # Before resampling, which hides clipping and spreads NaNs.
    if reason := defect(samples):
        if duration_s is not None and reason.startswith("silent"):
            reason = reason.replace("silent", f"silent from {start_s:g} to {start_s + duration_s:g} s", 1)
        raise AudioError(reason, path)
    mono = samples.mean(axis=1, dtype=np.float32)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    # Again afterwards: channels in antiphase cancel, and resampling removes what is above the new band.
    if reason := defect(mono):
        raise AudioError(reason, path)
    return np.ascontiguousarray(mono, dtype=np.float32)


@_unless_memory_is_short()
def decode(
    path: Path, start_s: float = 0.0, duration_s: float | None = None
) -> tuple[NDArray[np.float32], int]:
    """Return the samples of a file or of a part of it, float32 [n, channels], and their rate in Hz.

    Raises:
        AudioError: the file is missing, empty, unreadable or truncated, or a video without sound.
    """
    if video.has_own_decoder(path):
        with _as_audio(path):
            return video.audio(path, start_s, duration_s)
    with _open(path) as file:
        rate, total = file.samplerate, file.frames
        if truncated := sound_file.truncation(path):
            raise AudioError(truncated, path)
        if total == 0:
            raise AudioError("empty (no samples)", path)
        if not SOURCE_RATES[0] <= rate <= SOURCE_RATES[1]:
            raise AudioError(f"sample rate {rate} Hz ({SOURCE_RATES[0]} to {SOURCE_RATES[1]} Hz)", path)
        start = round(min(start_s * rate, float(total)))  # a table may have 1e308
        if start >= total:
            raise AudioError(f"start {start_s:g} s is after the end ({total / rate:.2f} s)", path)
        wanted = total - start
        endless = sound_file.has_no_length(file)
        if duration_s is not None:
            wanted = round(min(float(wanted), duration_s * rate))
        try:
            samples = sound_file.scaled(sound_file.part(file, start, wanted), file, path)
        except (soundfile.SoundFileError, RuntimeError, OSError, sound_file.TooLong) as error:
            raise AudioError(f"unreadable ({_brief(error)})", path) from None
    if not endless and (wanted - len(samples)) / rate > 0.1:
        raise AudioError(
            f"truncated ({len(samples) / rate:.2f} s decoded of {wanted / rate:.2f} s declared)", path
        )
    return samples, rate


def defect(wav: NDArray[np.floating]) -> str | None:
    """Return why samples (any shape, full scale 1) cannot be used: empty, not finite, silent or clipped.

    None if they can be used.
    """
    if wav.size == 0:
        return "empty (no samples)"
    level = np.abs(wav)
    peak = float(level.max())
    if not math.isfinite(peak):
        bad = int(np.count_nonzero(~np.isfinite(wav)))
        return f"not finite ({bad} of {wav.size} samples NaN or infinite)"
    if peak >= SILENT_PEAK:  # a constant is as silent as zeros
        time = int(np.argmax(wav.shape))
        peak = float(np.abs(wav - wav.mean(axis=time, keepdims=True, dtype=np.float64)).max())
    if peak < SILENT_PEAK:
        return f"silent (peak {peak:.1e}; at least {SILENT_PEAK:.0e})"
    share = float(np.count_nonzero(level >= FULL_SCALE)) / wav.size
    if share > CLIPPED_SHARE:
        return f"clipped ({share:.0%} of samples at full scale)"
    return None


def fit(wav: Wave, n: int) -> Wave:
    """Return [n] samples: cropped or padded with zeros at the end."""
    if len(wav) >= n:
        return np.ascontiguousarray(wav[:n])
    return np.pad(wav, (0, n - len(wav)))


def flac_encode(wav: Wave) -> bytes:
    """Encode [n] samples at 16 kHz as 16-bit FLAC, rounded to the nearest step and clipped to full scale."""
    buffer = io.BytesIO()
    soundfile.write(buffer, int16(wav), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def flac_decode(data: bytes) -> Wave:
    """Decode the output of `flac_encode` to float32 [n]; encoding it again gives the same samples.

    Raises:
        AudioError: the bytes are not FLAC, or damaged.
    """
    return flac_samples(data).astype(np.float32) / np.float32(32768)


@_unless_memory_is_short()
def flac_samples(data: bytes) -> NDArray[np.int16]:
    """Decode the output of `flac_encode` to int16 [n]; errors as `flac_decode`."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.channels != 1 or file.frames > LONGEST_S * SAMPLE_RATE:
                raise AudioError(f"{file.channels} channels of {file.frames} samples")
            samples: NDArray[np.int16] = file.read(dtype="int16")
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"unreadable ({_brief(error)})") from None
    return samples


def write(path: Path | str, wav: Wave, sample_rate: int = SAMPLE_RATE) -> None:
    """Write samples [n] or [n, channels] atomically as a 16-bit file in the format of its suffix."""
    path = Path(path)
    buffer = io.BytesIO()
    soundfile.write(buffer, int16(wav), sample_rate, format=path.suffix.lstrip(".").upper(), subtype="PCM_16")
    atomic_write(path, buffer.getvalue())


def at_rate(wav: "Wave | torch.Tensor", sample_rate: int) -> "Wave | torch.Tensor":
    """Resample waves [B, n] from 16 kHz to `sample_rate`, as a tensor; at 16 kHz, return `wav` itself.

    With torchaudio's windowed sinc at its defaults, as in audioldm_eval and av-benchmark: the distances of
    extractors depend on the method.
    """
    if sample_rate == SAMPLE_RATE:
        return wav
    import torch
    from torchaudio.functional import resample

    return resample(torch.as_tensor(wav, dtype=torch.float32), SAMPLE_RATE, sample_rate)


def log_mel(
    wav: "torch.Tensor",
    n_fft: int,
    win: int,
    hop: int,
    n_mels: int,
    f_min: float,
    f_max: float,
    floor: float = 1e-5,
    *,
    sample_rate: int = SAMPLE_RATE,
    mel: str = "slaney",
    power: float = 1.0,
) -> "torch.Tensor":
    """Return the log-mel spectrogram of waves [B, n] → [B, n_mels, 1 + n // hop]; gradients flow.

    Periodic Hann window of `win` samples centred in `n_fft`, frames centred with reflected edges, magnitude
    raised to `power`, then log10(max(mel, floor)). `mel` is "slaney" (area-normalised, as in librosa) or
    "htk" (peak 1).
    """
    import torch

    window = _window(win, wav.device, wav.dtype)
    spectrum = torch.stft(
        wav, n_fft, hop, win, window, center=True, pad_mode="reflect", return_complex=True
    ).abs()
    if power != 1.0:
        spectrum = spectrum.pow(power)
    bank = _mel_bank(n_fft, n_mels, f_min, f_max, sample_rate, mel, wav.device, wav.dtype)
    return (bank @ spectrum).clamp_min(floor).log10()


# Cached tensors are made outside inference mode, since autograd cannot use inference tensors later.


@functools.lru_cache(maxsize=64)
def _window(win: int, device: "torch.device", dtype: "torch.dtype") -> "torch.Tensor":
    import torch

    with torch.inference_mode(False):
        return torch.hann_window(win, device=device, dtype=dtype)


@functools.lru_cache(maxsize=64)
def _mel_bank(
    n_fft: int,
    n_mels: int,
    f_min: float,
    f_max: float,
    sample_rate: int,
    mel: str,
    device: "torch.device",
    dtype: "torch.dtype",
) -> "torch.Tensor":
    import torch
    from torchaudio.functional import melscale_fbanks

    norm = "slaney" if mel == "slaney" else None
    with torch.inference_mode(False):
        bank = melscale_fbanks(n_fft // 2 + 1, f_min, f_max, n_mels, sample_rate, norm=norm, mel_scale=mel)
        return bank.T.contiguous().to(device=device, dtype=dtype)


def int16(wav: NDArray[np.floating]) -> NDArray[np.int16]:
    """Return samples of full scale 1 as 16-bit integers, rounded and clipped."""
    # By 32768 in both directions (libsndfile uses 32767 in one), so that decode → encode is exact.
    return np.clip(np.rint(np.asarray(wav, dtype=np.float64) * 32768), -32768, 32767).astype(np.int16)


def _open(path: Path) -> soundfile.SoundFile:
    try:
        if not path.exists():
            raise AudioError("missing", path)
        if not path.is_file():  # a pipe would block forever
            raise AudioError("not a file", path)
        if path.stat().st_size == 0:
            raise AudioError("empty (0 bytes)", path)
        return sound_file.open_file(path)
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError, ValueError) as error:
        raise AudioError(f"unreadable ({_brief(error)})", path) from None


@contextmanager
def _as_audio(path: Path) -> Iterator[None]:
    try:
        yield
    except video.VideoDefect as defect:
        raise AudioError(defect.text, path) from None


def _brief(error: BaseException) -> str:
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
