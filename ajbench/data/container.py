"""Open video files with PyAV, decode one stream in order, and say what is wrong with unusable files."""

import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from ajbench.core.errors import MissingError
from ajbench.core.memory import need_reserve

Source = Path | str | bytes  # a file, or the content of one
Reason = Literal[
    "missing", "not a file", "empty", "unreadable", "no video stream", "no audio stream", "no frame",
    "too large", "truncated", "too short",
]  # fmt: skip
REASONS: tuple[str, ...] = get_args(Reason)

# Not playlists and the like, which make FFmpeg open other files.
FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,flv,aac"
MAX_PIXELS = 8192 * 4320  # 8K; a larger frame is refused before it is decoded
SEEK_MARGIN_S = 5.0  # decoding starts this much before the first time asked, for codecs that need a run-up
HOLD_S = 0.5  # how long a picture is shown after the end of the file, or of what can be decoded


class VideoDefect(MissingError):
    """A video, or the part of it that was asked for, that cannot be used.

    Attributes:
        reason: one of a few fixed words.
        detail: more about it; may be empty.
        text: both, without the path, for quarantine lists.
    """

    def __init__(self, reason: Reason, detail: str = "", path: Source | None = None) -> None:
        self.reason, self.detail = reason, detail
        self.text = f"{reason} ({detail})" if detail else reason
        super().__init__(f"{path}: {self.text}" if isinstance(path, Path | str) else self.text)


class Track:
    """One stream of an open container, decoded in order.

    Attributes:
        time: of the latest frame, in seconds from the start of the file.
        until: when the latest frame ends.
        end_s: where the last packet of any stream ends, as far as they have been read.
        failure: what went wrong after the latest frame; empty: nothing.
        declared_s: where the stream, or if unknown the file, ends according to the header.
        exact: whether the header gives the end of this stream rather than that of the file.
        headless: whether the file has no header: its length is a guess from its first bit rate.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self.container, self.stream = container, stream
        self.origin = (container.start_time or 0) / 1e6
        self.time = self.until = self.end_s = 0.0
        self.failure = ""
        self.headless = container.format.name == "aac"
        self.exact = stream.duration is not None and not self.headless
        first = (stream.start_time or 0) * stream.time_base if stream.time_base else 0
        ends = float(first + stream.duration * stream.time_base) - self.origin if self.exact else 0.0
        self.file_s = max(ends, (container.duration or 0) / 1e6)
        self.declared_s = ends if self.exact else self.file_s

    @property
    def breaks_off(self) -> bool:
        """Whether the packets, read to their end, end before what the header declares."""
        return not self.headless and self.file_s - self.end_s > HOLD_S

    def seek(self, time_s: float) -> None:
        """Go to a key frame before a time, or anywhere near; without a header, stay at the beginning."""
        import av

        if time_s > 0 and self.stream.time_base and not self.headless:
            ticks = int((time_s + self.origin) / self.stream.time_base)
            try:
                self.container.seek(ticks, stream=self.stream)
            except (av.FFmpegError, OverflowError):
                self.failure = "cannot seek"

    def packets(self) -> Iterator[Any]:
        """Yield the packets of all streams, up to the end or the first that cannot be read."""
        import av

        packets = self.container.demux()
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, ValueError, OSError) as error:
                self.failure = brief(error)
                return
            if packet is None:
                return
            if packet.pts is not None and packet.time_base:
                ends = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self.origin
                self.end_s = max(self.end_s, ends)
            yield packet

    def frames(self) -> Iterator[Any]:
        """Yield the frames of the stream; those that cannot be decoded are missing."""
        import av

        step = 1 / float(getattr(self.stream, "average_rate", None) or 25)
        for packet in itertools.chain(self.packets(), [None]):
            if packet is not None and packet.stream_index != self.stream.index:
                continue
            try:
                decoded = self.stream.codec_context.decode(packet)
            except EOFError:  # flushed already
                continue
            except (av.FFmpegError, ValueError) as error:
                self.failure = brief(error)
                continue
            for frame in decoded:
                base = frame.time_base or self.stream.time_base
                time = self.until if frame.pts is None else float(frame.pts * base) - self.origin
                self.time = max(self.time, time)
                if isinstance(frame, av.AudioFrame):
                    lasts = frame.samples / frame.sample_rate
                else:
                    lasts = float(frame.duration * base) if frame.duration else step
                self.until = self.time + lasts
                self.failure = ""
                yield frame

    def check_end(self, time: float, first: float, source: Source) -> None:
        """Refuse to show the last picture at a time after a break, or if all times are after the end."""
        ends = max(self.until, self.end_s)
        if first > ends + HOLD_S:
            raise VideoDefect("too short", f"ends at {ends:.2f} s, before {first:.2f} s", source)
        shown_until = self.until if self.failure else ends
        if time > shown_until + HOLD_S and (self.failure or self.breaks_off):
            detail = f"no frame after {shown_until:.2f} s of {self.file_s:.2f} s"
            raise VideoDefect("truncated", detail, source)


@contextmanager
def open_track(source: Source, kind: Literal["video", "audio"]) -> Iterator[Track]:
    """Open a file and its first stream of a kind.

    Raises:
        VideoDefect: the file is unusable, or has no such stream.
        MissingError: memory is short, which decoders take for damage of many kinds.
    """
    try:
        with _container(source) as container:
            yield Track(container, _stream(container, kind, source))
    except VideoDefect:
        need_reserve()
        raise


@contextmanager
def decoding(
    source: Source, kind: Literal["video", "audio"], start_s: float
) -> Iterator[tuple[Track, Iterator[Any]]]:
    """Open a stream, and decode it from a time or earlier; a seek that went too far is undone.

    Raises:
        VideoDefect: the file is unusable, or has no such stream.
    """
    if start_s > SEEK_MARGIN_S:
        with open_track(source, kind) as track:
            track.seek(start_s - SEEK_MARGIN_S)
            decoded = track.frames()
            first = None if track.failure else next(decoded, None)
            if first is not None and track.time <= start_s:
                yield track, itertools.chain([first], decoded)
                return
    with open_track(source, kind) as track:
        yield track, track.frames()


@contextmanager
def _container(source: Source) -> Iterator[Any]:
    import av

    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    if isinstance(source, bytes):
        file: Any = io.BytesIO(source)
    else:
        path = Path(source)
        if not path.exists():
            raise VideoDefect("missing", path=path)
        if not path.is_file():  # a pipe would block forever
            raise VideoDefect("not a file", path=path)
        if path.stat().st_size == 0:
            raise VideoDefect("empty", "0 bytes", path)
        file = str(path)
    try:
        container = av.open(file, metadata_errors="replace", options=options)
    except (av.FFmpegError, ValueError, OSError, RuntimeError) as error:
        raise VideoDefect("unreadable", brief(error), source) from None
    with container:
        yield container


def _stream(container: Any, kind: str, source: Source) -> Any:
    from av.stream import Disposition

    if kind == "audio":
        if not container.streams.audio:
            raise VideoDefect("no audio stream", path=source)
        stream = container.streams.audio[0]
    else:
        pictures = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
        if not pictures:
            raise VideoDefect("no video stream", path=source)
        stream = pictures[0]
        check_size(stream.codec_context, source)
    if stream.codec_context is None:
        raise VideoDefect("unreadable", "unknown codec", source)
    stream.codec_context.thread_count = 1  # clips are read in parallel already
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def check_size(picture: Any, source: Source) -> None:
    """Refuse a stream or frame of more than `MAX_PIXELS`."""
    if picture is not None and picture.width * picture.height > MAX_PIXELS:
        raise VideoDefect("too large", f"{picture.width} × {picture.height} pixels", source)


def brief(error: BaseException) -> str:
    """Return what FFmpeg says of an error, in one line."""
    import av

    text = error.strerror if isinstance(error, av.FFmpegError) else str(error)
    return " ".join((text or type(error).__name__).split()).rstrip(".")
