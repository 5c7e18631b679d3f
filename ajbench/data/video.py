"""Read the pictures and the sound of video files.

Pictures are found by their timestamps, never by their number: headers often count frames wrongly, and the
frame rate of phone videos varies. Time 0 is the start of the file: that of its first track.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ajbench.data.container import (
    REASONS,
    SEEK_MARGIN_S,
    Source,
    Track,
    VideoDefect,
    brief,
    check_size,
    decoding,
    open_track,
)
from ajbench.data.sound_file import MOST_VALUES

__all__ = [
    "REASONS",
    "SOUND_SUFFIXES",
    "SUFFIXES",
    "VideoDefect",
    "audio",
    "duration_s",
    "frames",
    "has_own_decoder",
    "is_video",
    "probe_audio",
    "shown",
]

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
SOUND_SUFFIXES = (".m4a", ".aac")  # of sounds that libsndfile does not read, such as recordings of phones
MAX_CHANNELS = 8
MAX_GAP_S = 600.0  # in the sound; longer gaps are wrong timestamps

Image = NDArray[np.uint8]  # [H, W, 3], RGB


def is_video(path: Path) -> bool:
    """Return whether the name of a file is that of a video."""
    return path.suffix.lower() in SUFFIXES


def has_own_decoder(path: Path) -> bool:
    """Return whether the sound of a file of this name is decoded here, rather than by libsndfile."""
    return path.suffix.lower() in (*SUFFIXES, *SOUND_SUFFIXES)


def frames(source: Source, times_s: Sequence[float]) -> NDArray[np.uint8]:
    """Return the pictures shown at some times, uint8 [n, H, W, 3] in RGB, turned as the file says.

    Before the first frame it is the first, after the end of the file the last.

    Args:
        source: the file, or its content.
        times_s: seconds from the start of the file, in any order.

    Raises:
        VideoDefect: the file is unusable, ends before all of these times, or breaks off before one of them;
            or the size of the picture changes between them.
    """
    order = np.argsort(np.asarray(times_s, float), kind="stable")
    images = list(shown(source, [float(times_s[place]) for place in order]))
    if len({image.shape for image in images}) > 1:
        raise VideoDefect("unreadable", "the size of the picture changes", source)
    found = np.empty((len(images), *images[0].shape) if images else (0, 0, 0, 3), np.uint8)
    for place, image in zip(order, images, strict=True):
        found[place] = image
    return found


def shown(source: Source, times_s: Sequence[float], size: tuple[int, int] | None = None) -> Iterator[Image]:
    """Yield the picture [H, W, 3] shown at each of some ascending times, holding one at a time.

    A picture that is shown at several times is the same array each time.

    Args:
        source: the file, or its content.
        times_s: seconds from the start of the file, ascending.
        size: height and width to which pictures are resized by averaging areas; None: as they are.

    Raises:
        VideoDefect: as `frames`; pictures before a break are yielded first.
    """
    if not all(map(math.isfinite, times_s)) or any(a > b for a, b in itertools.pairwise(times_s)):
        raise ValueError("times must be finite and ascending")
    if not times_s:
        return
    left = list(reversed(times_s))
    with decoding(source, "video", left[-1]) as (track, decoded):
        tick = float(track.stream.time_base or 0) / 2 + 1e-6  # containers round timestamps
        last: Any = None
        image: Image | None = None
        for frame in decoded:
            while left and left[-1] < track.time - tick:
                if image is None:
                    image = _image(frame if last is None else last, size, source)
                yield image
                left.pop()
            if not left:
                return
            # An image made of this frame, since it is the first, stays valid.
            image = None if last is not None else image
            last = frame
        if last is None:
            raise VideoDefect("no frame", track.failure, source)
        for time in left[::-1]:
            track.check_end(time, times_s[0], source)
            image = _image(last, size, source) if image is None else image
            yield image


def duration_s(source: Source) -> float:
    """Return where the last track of a file really ends, in seconds, whatever its header says.

    Raises:
        VideoDefect: the file is unusable, or has no video.
    """
    ends = 0.0
    for near_end in (True, False):
        with open_track(source, "video") as track:
            if near_end:
                track.seek(track.file_s - SEEK_MARGIN_S)
            for _ in track.packets():
                pass
            ends = track.end_s
        if ends > 0:
            break
    return ends


def probe_audio(source: Source) -> tuple[int, int, int]:
    """Return sample rate in Hz, channels and frames of the sound, as its header says if it has one.

    Raises:
        VideoDefect: the file is unusable, or has no sound.
    """
    with open_track(source, "audio") as track:
        rate = track.stream.rate or 0
        if track.headless:
            for _ in track.packets():
                pass
        seconds = track.end_s if track.headless else track.declared_s
        return rate, track.stream.channels, round(seconds * rate)


def audio(
    source: Source, start_s: float = 0.0, duration_s: float | None = None
) -> tuple[NDArray[np.float32], int]:
    """Return the sound of a file or of a part of it, float32 [n, channels], and its rate in Hz.

    Where the track starts late or pauses, there are zeros. The result is shorter if the sound ends early.

    Raises:
        VideoDefect: the file is unusable, has no sound, or breaks off before the end of the part; or the part
            is after the end.
    """
    import av

    with decoding(source, "audio", start_s) as (track, decoded):
        rate = track.stream.rate or 0
        if rate <= 0:
            raise VideoDefect("unreadable", "sample rate 0 Hz", source)
        begin = round(start_s * rate)
        stop = math.inf if duration_s is None else begin + round(duration_s * rate)
        try:
            samples, reached = _samples(track, decoded, rate, begin, stop)
        except (av.FFmpegError, ValueError) as error:
            raise VideoDefect("unreadable", brief(error), source) from None
        if track.failure and reached < stop:
            raise VideoDefect("unreadable", f"sound at {reached / rate:.2f} s: {track.failure}", source)
        if samples is None:
            raise VideoDefect("too short", f"no sound after {start_s:g} s", source)
        ends = min(track.declared_s, stop / rate)
        if (track.exact and ends - reached / rate > 0.1) or (track.breaks_off and ends > track.end_s):
            raise VideoDefect(
                "truncated", f"{reached / rate:.2f} s decoded of {track.declared_s:.2f} s declared", source
            )
        return samples, rate


def _samples(
    track: Track, decoded: Iterator[Any], rate: int, begin: int, stop: float
) -> tuple[NDArray[np.float32] | None, int]:
    """Return the samples [n, channels] from `begin` to `stop`, None if there are none, and where they end."""
    import av

    parts: list[NDArray[np.float32]] = []
    reached: int | None = None
    size = 0
    resampler = av.AudioResampler(format="fltp")  # changes the format of the numbers only
    first: tuple[int, int] | None = None
    for frame in decoded:
        found = frame.sample_rate, frame.layout.nb_channels
        # PyAV crashes on more than eight planes of samples, which damaged AAC may have.
        if found != (first or found) or found[0] != rate or found[1] > MAX_CHANNELS:
            raise ValueError(f"{found[1]} channels at {found[0]} Hz after {reached or 0} samples")
        first = found
        at = round(track.time * rate)
        for piece in resampler.resample(frame):
            block = piece.to_ndarray().astype(np.float32, copy=False).T
            if reached is None:
                reached, gap = min(at, begin), max(0, at - begin)
            else:  # timestamps are rounded
                gap = at - reached if at - reached > 0.1 * rate else 0
            if gap > min(MAX_GAP_S * rate, MOST_VALUES // block.shape[1]):
                raise ValueError(f"no sound for {gap / rate:.0f} s")
            if gap:
                block = np.concatenate([np.zeros((gap, block.shape[1]), np.float32), block])
            parts.append(block[max(0, begin - reached) :])
            size += parts[-1].size
            if size > MOST_VALUES:
                raise ValueError(f"more than {MOST_VALUES // block.shape[1] / rate:.0f} s at once")
            reached += len(block)
            at = reached
        if track.failure or (reached or 0) >= stop:
            break
    if reached is None or reached <= begin:
        return None, reached or begin
    samples = np.concatenate(parts)
    return samples[: None if stop == math.inf else int(stop) - begin], reached


def _image(frame: Any, size: tuple[int, int] | None, source: Source) -> Image:
    """Convert a frame to RGB, turned and mirrored by its display matrix."""
    import av

    check_size(frame, source)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    # A pixel at (x, y) is shown at (a·x + c·y, b·x + d·y).
    a, b, c, d = np.frombuffer(matrix, np.int32)[[0, 1, 3, 4]].tolist() if matrix else (1, 0, 0, 1)
    turned = abs(a) < abs(b)
    try:
        if size is None:
            image = frame.to_ndarray(format="rgb24")
        else:
            height, width = size[::-1] if turned else size
            resized = frame.reformat(width, height, "rgb24", interpolation="AREA")
            image = resized.to_ndarray()
    except (av.FFmpegError, ValueError) as error:
        raise VideoDefect("unreadable", brief(error), source) from None
    if turned:
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
