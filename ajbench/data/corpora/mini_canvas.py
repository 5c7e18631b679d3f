"""Drawing for the scenes of `mini`: shapes that move over the frames of a short video.

Coordinates are those of the object: x to the right, y down, about −1 … 1; the canvas places the object in the
picture. A coordinate, radius or angle is a number, or float [n] with one value per frame. Colours are RGB
in 0 … 1.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

FPS = 8
SIZE = 64  # pixels, height and width

Field = NDArray[np.float32]
Colour = tuple[float, float, float]


class Canvas:
    """The frames of one video, [n, 64, 64, 3]: a background with the object at a random place on it.

    Attributes:
        t: time of each frame in s, float32 [n].
        rng: the source of all randomness.
        night: whether the background is dark.
    """

    def __init__(self, rng: Generator, n: int, night: bool) -> None:
        self.rng, self.night = rng, night
        self.t = (np.arange(n) / FPS).astype(np.float32)
        axis = np.linspace(-1, 1, SIZE).astype(np.float32)
        self.scale = float(rng.uniform(0.62, 0.85))
        mirror = rng.choice([-1, 1])
        room = 0.95 - self.scale
        x, y = rng.uniform(-room, room, 2).astype(np.float32)
        self.x: Field = (axis - x)[None, None, :] * np.float32(mirror / self.scale)
        self.y: Field = (axis - y)[None, :, None] / np.float32(self.scale)
        low, high = (0.02, 0.22) if night else (0.55, 0.95)
        top, bottom = rng.uniform(low, high, (2, 3)).astype(np.float32)
        down = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None]
        self.image: Field = np.empty((n, SIZE, SIZE, 3), np.float32)
        self.image[:] = top + down * (bottom - top)

    def tint(self, red: float, green: float, blue: float, spread: float = 0.1) -> Colour:
        """Return a colour near this one."""
        return tuple(np.clip(np.array([red, green, blue]) + self.rng.uniform(-spread, spread, 3), 0, 1))

    def fill(self, distance: Field, colour: Colour) -> None:
        """Paint where a signed distance, broadcast to [n, 64, 64], is negative; the edge is smooth."""
        alpha = np.clip(0.5 - distance * np.float32(self.scale * SIZE / 2), 0, 1)
        alpha = np.broadcast_to(alpha, (len(alpha), SIZE, SIZE))
        rows, columns = (np.flatnonzero(alpha.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        if not len(rows):
            return
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        area = self.image[:, *part]
        area += alpha[:, *part, None] * (np.asarray(colour, np.float32) - area)

    def ellipse(self, x: ArrayLike, y: ArrayLike, rx: ArrayLike, ry: ArrayLike, colour: Colour) -> None:
        """Paint an ellipse with this centre and these radii."""
        x, y, rx, ry = map(_per_frame, (x, y, rx, ry))
        radius = np.sqrt(((self.x - x) / rx) ** 2 + ((self.y - y) / ry) ** 2)
        self.fill((radius - 1) * np.minimum(rx, ry), colour)

    def line(
        self, x0: ArrayLike, y0: ArrayLike, x1: ArrayLike, y1: ArrayLike, width: float, colour: Colour
    ) -> None:
        """Paint a line with round ends; `width` is half its thickness."""
        x0, y0, x1, y1 = map(_per_frame, (x0, y0, x1, y1))
        dx, dy = x1 - x0, y1 - y0
        along = ((self.x - x0) * dx + (self.y - y0) * dy) / np.maximum(dx**2 + dy**2, np.float32(1e-6))
        along = np.clip(along, 0, 1)
        self.fill(np.hypot(self.x - x0 - along * dx, self.y - y0 - along * dy) - np.float32(width), colour)

    def box(self, x: ArrayLike, y: ArrayLike, width: ArrayLike, height: ArrayLike, colour: Colour) -> None:
        """Paint a rectangle with this centre; `width` and `height` are halves of its sides."""
        x, y, width, height = map(_per_frame, (x, y, width, height))
        self.fill(np.maximum(np.abs(self.x - x) - width, np.abs(self.y - y) - height), colour)

    def dots(self, x: Field, y: Field, colour: Colour) -> None:
        """Paint single pixels, k per frame: x and y are [n, k] in 0 … 1 of the whole picture, and wrap."""
        frame = np.arange(len(self.t))[:, None]
        self.image[frame, (y % 1 * SIZE).astype(int) % SIZE, (x % 1 * SIZE).astype(int) % SIZE] = colour

    def frames(self) -> NDArray[np.uint8]:
        """Return the picture with the noise and exposure of a camera, uint8 [n, 64, 64, 3]."""
        grain = self.rng.standard_normal((*self.image.shape[:3], 1), dtype=np.float32)
        image = self.image * np.float32(self.rng.uniform(0.8, 1.1))
        image += grain * np.float32(self.rng.uniform(0.005, 0.05))
        return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _per_frame(value: ArrayLike) -> Field:
    return np.asarray(value, np.float32).reshape(-1, 1, 1)
