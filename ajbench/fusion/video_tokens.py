"""Video tokens: what is seen in ten windows of a clip, as vectors.

Two encoders: `r2plus1d`, whose weights were trained on Kinetics-400, and `tiny_video`, which has no weights.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ajbench.core import weights
from ajbench.core.device import full_fp32
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.registry import suggest
from ajbench.data import video
from ajbench.data.corpora.rendered import video_source
from ajbench.data.manifest import Row

WINDOWS = 10
Pixels = NDArray[np.uint8]  # [windows, frames, h, w, 3], RGB
Tokens = NDArray[np.float32]  # [windows, width]


class VideoEncoder(Protocol):
    """Turns the frames of a clip's windows into tokens.

    Attributes:
        name: as in `data.video`.
        width: of a token.
        weights_hash: of the weights; of an encoder without, its version.
        frames: of a window.
        shape: height and width of the pixels it takes.
        size: height and width to which decoded frames are resized; None: `fit` gets them as they are.
    """

    name: str
    width: int
    weights_hash: str
    frames: int
    shape: tuple[int, int]
    size: tuple[int, int] | None

    def offsets(self, window_s: float) -> NDArray[np.float64]:
        """Return the times of the frames of a window in seconds from its centre, ascending [frames]."""

    def fit(self, image: video.Image) -> video.Image:
        """Return the pixels of a frame, [h, w, 3]."""

    def encode(self, pixels: Pixels) -> Tokens:
        """Return the tokens of windows, float32 [windows, width]; on a CPU, called from several threads."""


class TinyVideo:
    """128 statistics of a window of two frames of 64 × 64 pixels; nothing is learned.

    In this order, all means over areas of the picture: luminance [8 × 8] and colour differences B − Y and
    R − Y [4 × 4 each], of both frames; square roots of the edge strength in four directions [2 × 2 each] and
    of the change between the frames [4 × 4].
    """

    name, width, weights_hash = "tiny_video", 128, "1"
    frames, shape, size = 2, (64, 64), (64, 64)

    def offsets(self, window_s: float) -> NDArray[np.float64]:
        """Return the quarters of the window."""
        return np.array([-0.25, 0.25]) * window_s

    def fit(self, image: video.Image) -> video.Image:
        """Return the frame, resized already."""
        return image

    def encode(self, pixels: Pixels) -> Tokens:
        """Return the tokens of windows [n, 2, 64, 64, 3], float32 [n, 128]."""
        colours = pixels.astype(np.float32) / 255
        light = colours @ np.array([0.299, 0.587, 0.114], np.float32)  # [n, 2, 64, 64]
        picture = light.mean(axis=1)
        blue, red = ((colours[..., c] - light).mean(axis=1) for c in (2, 0))
        down, right = np.gradient(picture, axis=(1, 2))
        strength = np.hypot(down, right)
        direction = np.arctan2(down, right)  # of an edge; opposite directions are the same
        edges = [
            strength * np.maximum(0, np.cos(2 * (direction - k * np.pi / 4))).astype(np.float32)
            for k in range(4)
        ]
        change = np.abs(light[:, 1] - light[:, 0])
        parts = [
            2 * _areas(picture, 8) - 1,
            4 * _areas(blue, 4),
            4 * _areas(red, 4),
            *(4 * np.sqrt(_areas(edge, 2)) for edge in edges),
            4 * np.sqrt(_areas(change, 4)),
        ]
        return np.concatenate(parts, axis=1, dtype=np.float32)


class R2Plus1d:
    """R(2+1)D-18 (Tran et al. 2018) without its last layer: 512-d means of its last map.

    A window is 16 frames at 15 fps, resized to 128 × 171 and cropped to 112 × 112, as torchvision does.

    Args:
        path: a state dict; None: the published file.
        device: a torch device.

    Raises:
        MissingError: the weights are not on this machine.
        IntegrityError: they are not the published ones, or not of this network.
    """

    name, width = "r2plus1d", 512
    frames, shape, size = 16, (112, 112), None
    RATE = 15.0  # frames per second
    MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)

    def __init__(self, path: Path | None = None, device: Any = "cpu") -> None:
        import torch
        from torchvision.models.video import r2plus1d_18

        about = {"who": "data.video=r2plus1d", "instead": "use data.video=tiny_video"}
        found = weights.locate("r2plus1d", path, **about)
        if path is None:
            weights.check("r2plus1d", found)
        state = weights.unpickled(found)
        network = r2plus1d_18()
        network.fc = torch.nn.Identity()
        try:
            network.load_state_dict({key: state[key] for key in state if not key.startswith("fc.")})
        except (RuntimeError, TypeError, AttributeError):
            raise IntegrityError(f"{found}: not the weights of r2plus1d_18; get them again") from None
        self.network, self.device = network.eval().to(device), device
        self.weights_hash = weights.identity(found)

    def offsets(self, window_s: float) -> NDArray[np.float64]:
        """Return 16 times, 1/15 s apart whatever the length of the window."""
        return (np.arange(self.frames, dtype=np.float64) - (self.frames - 1) / 2) / self.RATE

    def fit(self, image: video.Image) -> video.Image:
        """Resize and crop a frame of any size to [112, 112, 3]."""
        import torch
        from torchvision.transforms.functional import center_crop, resize

        small = resize(torch.from_numpy(image).permute(2, 0, 1), [128, 171], antialias=False)
        return np.asarray(center_crop(small, list(self.shape)).permute(1, 2, 0).numpy())

    def encode(self, pixels: Pixels) -> Tokens:
        """Return the tokens of windows [n, 16, 112, 112, 3], float32 [n, 512]."""
        import torch

        mean, std = (
            torch.tensor(values, device=self.device)[:, None, None, None] for values in (self.MEAN, self.STD)
        )
        found = []
        with torch.inference_mode(), full_fp32():
            for window in pixels:  # one at a time, so that tokens do not depend on how many there are
                clip = torch.from_numpy(window).to(self.device).permute(3, 0, 1, 2).float() / 255
                found.append(self.network(((clip - mean) / std)[None])[0].cpu().numpy())
        return np.stack(found)


ENCODERS: dict[str, Callable[..., Any]] = {"tiny_video": TinyVideo, "r2plus1d": R2Plus1d}


def load(name: str, device: Any = "cpu") -> VideoEncoder:
    """Return the encoder that `data.video` names.

    Raises:
        UsageError: the name is unknown.
        MissingError: its weights are not on this machine.
    """
    if name not in ENCODERS:
        raise UsageError(
            f"data.video={name} is unknown{suggest(name, ENCODERS)}; allowed: {', '.join(ENCODERS)}"
        )
    encoder: VideoEncoder = ENCODERS[name](device=device) if name == "r2plus1d" else ENCODERS[name]()
    return encoder


class Seen(NamedTuple):
    """The pixels of a clip's windows, or the reason why there are none."""

    pixels: Pixels | None
    reason: str = ""

    @property
    def outcome(self) -> str:
        """How the clip is counted: usable, missing or undecodable."""
        return (
            "usable"
            if self.pixels is not None
            else "missing"
            if self.reason.startswith("missing")
            else "undecodable"
        )


def read_pixels(
    encoder: VideoEncoder,
    source: video.Source,
    start_s: float,
    duration_s: float,
    longest_s: float | None = None,
) -> Pixels:
    """Return the frames of ten windows centred at (i + 0.5) / 10 of a clip.

    Frames before the start and after the end of the clip are the first and the last one in it.

    Args:
        encoder: what they are for.
        source: the video.
        start_s: where the clip starts in it.
        duration_s: of the clip, over which windows are spread.
        longest_s: length of the clip's part of the file, if it is shorter.

    Raises:
        VideoDefect: the video, or this part of it, is unusable.
    """
    window_s = duration_s / WINDOWS
    centres = (np.arange(WINDOWS) + 0.5) * window_s
    times = (centres[:, None] + encoder.offsets(window_s)).reshape(-1)
    times = start_s + times.clip(0, min(duration_s, longest_s or duration_s))
    order = np.argsort(times, kind="stable")
    pixels = np.empty((len(times), *encoder.shape, 3), np.uint8)
    before: video.Image | None = None
    for place, image in zip(order, video.shown(source, times[order].tolist(), encoder.size), strict=True):
        if image is not before:
            before, fitted = image, encoder.fit(image)
        pixels[place] = fitted
    return pixels.reshape(WINDOWS, encoder.frames, *encoder.shape, 3)


def see(encoder: VideoEncoder, row: Row, duration_s: float) -> Seen:
    """Return what is seen in a clip of a manifest; its video has the start of its sound."""
    if row.video is None:
        return Seen(None, "missing (the corpus has none of this clip)")
    try:
        return Seen(read_pixels(encoder, video_source(row.video), row.start_s, duration_s, row.duration_s))
    except video.VideoDefect as defect:
        return Seen(None, defect.text)


def _areas(images: NDArray[np.floating], n: int) -> NDArray[np.float32]:
    """Return the means of images [k, 64, 64] over n × n areas, [k, n · n]."""
    side = images.shape[1] // n
    means = images.reshape(len(images), n, side, n, side).mean(axis=(2, 4))
    return means.reshape(len(images), n * n).astype(np.float32)
