"""The scenes in the videos of `mini`: one per class, painted from a few simple shapes that move."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ajbench.data.corpora.mini_canvas import SIZE, Canvas

TURN = 2 * np.pi


def baby(canvas: Canvas) -> None:
    """A small child under a blanket whose mouth opens and closes."""
    skin, dark = canvas.tint(0.93, 0.72, 0.6, 0.06), (0.3, 0.1, 0.1)
    rate = canvas.rng.uniform(0.6, 1.3)
    shake = 0.04 * np.sin(TURN * 2.3 * canvas.t)
    canvas.ellipse(shake, -0.15, 0.62, 0.66, skin)
    canvas.box(0, 0.85, 1, 0.35, canvas.tint(0.6, 0.8, 0.95))
    for side in (-0.28, 0.28):
        canvas.line(side + shake - 0.12, -0.3, side + shake + 0.12, -0.24, 0.04, dark)
    wide = 0.06 + 0.2 * np.maximum(0, np.sin(TURN * rate * canvas.t))
    canvas.ellipse(shake, 0.15, 0.22, wide, (0.5, 0.08, 0.1))


def dog(canvas: Canvas) -> None:
    """A four-legged animal that opens its snout and wags its tail."""
    coat = canvas.tint(0.5, 0.32, 0.15, 0.07)
    beat = np.sin(TURN * canvas.rng.uniform(1.2, 2.5) * canvas.t)
    canvas.ellipse(0.1, 0.2, 0.62, 0.3, coat)
    for x in (-0.35, -0.15, 0.35, 0.55):
        canvas.line(x, 0.3, x, 0.9, 0.08, coat)
    canvas.line(0.65, 0.1, 0.95, -0.25 + 0.25 * beat, 0.06, coat)
    canvas.ellipse(-0.55, -0.25, 0.3, 0.28, coat)
    canvas.line(-0.6, -0.25, -0.98, -0.25 - 0.1 * np.maximum(0, beat), 0.08, coat)
    canvas.line(-0.6, -0.12, -0.92, -0.1 + 0.15 * np.maximum(0, beat), 0.06, coat)
    canvas.ellipse(-0.4, -0.45, 0.1, 0.2, (0.2, 0.12, 0.06))


def bird(canvas: Canvas) -> None:
    """A small bird that hops on a twig and opens its beak."""
    body = canvas.tint(0.95, 0.75, 0.15, 0.12)
    hop = -0.1 * np.abs(np.sin(TURN * canvas.rng.uniform(0.5, 1.2) * canvas.t))
    gape = 0.1 * (np.sin(TURN * canvas.rng.uniform(2, 3.5) * canvas.t) > 0)
    canvas.line(-1, 0.62, 1, 0.5, 0.07, (0.35, 0.22, 0.1))
    for x in (-0.08, 0.1):
        canvas.line(x, 0.3 + hop, x, 0.56, 0.03, (0.3, 0.2, 0.1))
    canvas.ellipse(0, 0.1 + hop, 0.38, 0.28, body)
    canvas.ellipse(-0.35, -0.22 + hop, 0.22, 0.22, body)
    canvas.line(0.3, 0.1 + hop, 0.8, 0.3 + hop, 0.08, body)
    for sign in (-1, 1):
        canvas.line(-0.5, -0.2 + hop, -0.78, -0.2 + hop + sign * gape, 0.04, (0.9, 0.4, 0.1))
    canvas.ellipse(-0.4, -0.28 + hop, 0.05, 0.05, (0, 0, 0))


def bell(canvas: Canvas) -> None:
    """A bronze bell that swings in an opening of a tower."""
    stone, bronze = canvas.tint(0.55, 0.53, 0.5, 0.05), canvas.tint(0.72, 0.5, 0.15, 0.06)
    angle = 0.5 * np.sin(TURN * canvas.rng.uniform(0.4, 0.8) * canvas.t + canvas.rng.uniform(0, 6))
    for x in (-0.88, 0.88):
        canvas.box(x, 0, 0.14, 1, stone)
    canvas.box(0, -0.9, 1, 0.12, stone)
    across, down = np.sin(angle), np.cos(angle)
    for reach, width in zip(np.linspace(0.15, 1.0, 6), (0.1, 0.18, 0.22, 0.26, 0.34, 0.42), strict=True):
        x, y = reach * across, -0.78 + reach * down
        canvas.line(x - width * down, y + width * across, x + width * down, y - width * across, 0.1, bronze)
    canvas.ellipse(1.2 * across, -0.78 + 1.2 * down, 0.12, 0.12, (0.2, 0.15, 0.1))


def fire(canvas: Canvas) -> None:
    """Flames that flicker over logs, and sparks that rise from them."""
    for k, width in enumerate((0.55, 0.38, 0.2)):
        flicker = canvas.rng.uniform(0.6, 1.1, (3, len(canvas.t)))
        for x, height in zip((-0.35, 0, 0.35), flicker * (0.9 - 0.2 * k), strict=True):
            tip = x * 0.6 + 0.15 * (height - 0.7)
            canvas.line(
                x, 0.55, tip, 0.55 - height, width * 0.38, ((1, 0.3, 0.05), (1, 0.6, 0.1), (1, 0.9, 0.4))[k]
            )
    for tilt in (-0.15, 0.15):
        canvas.line(-0.8, 0.75 + tilt, 0.8, 0.75 - tilt, 0.12, canvas.tint(0.25, 0.14, 0.08, 0.05))
    start, speed = canvas.rng.uniform(0, 1, (2, 12))
    time = canvas.t[:, None]
    canvas.dots(
        0.3 + 0.4 * start + 0.03 * np.sin(8 * time + 9 * start), speed - (0.3 + speed) * time, (1, 0.7, 0.2)
    )


def insect(canvas: Canvas) -> None:
    """A green insect with long legs on a blade of grass, its wings trembling."""
    green, dark = canvas.tint(0.3, 0.6, 0.15, 0.08), (0.1, 0.25, 0.05)
    for x, lean in canvas.rng.uniform((-1, -0.3), (1, 0.3), (7, 2)):
        canvas.line(x, 1, x + lean, -0.6, 0.05, canvas.tint(0.15, 0.45, 0.1, 0.08))
    tremble = 0.09 * np.sin(TURN * 3.3 * canvas.t)
    canvas.line(-0.5, 0.1, 0.5, 0.1, 0.14, green)
    canvas.ellipse(-0.62, 0.05, 0.18, 0.16, green)
    canvas.line(-0.3, 0, 0.6, -0.15 + tremble, 0.07, canvas.tint(0.6, 0.85, 0.4, 0.05))
    for x0, x1 in ((0.2, 0.5), (0, 0.2)):
        canvas.line(x0, 0.1, x1, -0.5, 0.04, dark)
        canvas.line(x1, -0.5, x1 + 0.2, 0.5, 0.04, dark)
    canvas.line(-0.7, 0, -1, -0.5 + tremble, 0.025, dark)


def motor(canvas: Canvas) -> None:
    """A machine with a turning wheel and pistons that go up and down."""
    steel, dark = canvas.tint(0.45, 0.47, 0.52, 0.06), (0.12, 0.12, 0.14)
    phase = TURN * canvas.rng.uniform(0.6, 1.6) * canvas.t
    canvas.box(0, 0.45, 0.95, 0.45, steel)
    for k, x in enumerate((-0.6, 0, 0.6)):
        canvas.box(
            x, -0.3 + 0.25 * np.sin(phase + TURN * k / 3), 0.2, 0.16, canvas.tint(0.75, 0.75, 0.78, 0.04)
        )
        canvas.line(x, -0.2, x, 0.1, 0.06, dark)
    canvas.ellipse(0, 0.45, 0.4, 0.4, dark)
    for k in range(3):
        dx, dy = 0.34 * np.cos(phase + TURN * k / 6), 0.34 * np.sin(phase + TURN * k / 6)
        canvas.line(-dx, 0.45 - dy, dx, 0.45 + dy, 0.05, (0.8, 0.2, 0.1))


def rotor(canvas: Canvas) -> None:
    """An aircraft that crosses the sky under a spinning rotor."""
    hull = canvas.tint(0.2, 0.35, 0.3, 0.12)
    x = canvas.rng.uniform(-0.2, 0.2) + 0.25 * np.sin(0.7 * canvas.t)
    y = 0.1 + 0.08 * np.sin(2 * canvas.t)
    canvas.line(x, y, x + 0.85, y - 0.1, 0.07, hull)
    canvas.line(x + 0.85, y - 0.3, x + 0.85, y + 0.05, 0.05, hull)
    canvas.ellipse(x - 0.1, y, 0.42, 0.28, hull)
    canvas.ellipse(x - 0.32, y - 0.04, 0.15, 0.15, (0.7, 0.85, 0.95))
    canvas.line(x - 0.4, y + 0.42, x + 0.25, y + 0.42, 0.04, (0.15, 0.15, 0.15))
    half = 0.25 + 0.7 * np.abs(np.cos(TURN * canvas.rng.uniform(1.1, 2.7) * canvas.t))
    canvas.line(x - 0.1, y - 0.25, x - 0.1, y - 0.4, 0.04, (0.15, 0.15, 0.15))
    canvas.line(x - 0.1 - half, y - 0.42, x - 0.1 + half, y - 0.42, 0.035, (0.15, 0.15, 0.15))


def rain(canvas: Canvas) -> None:
    """Streaks that fall from a grey cloud, and a puddle."""
    grey = canvas.tint(0.4, 0.42, 0.47, 0.05)
    canvas.image += 0.5 * (np.asarray(grey, np.float32) * (0.4 if canvas.night else 1) - canvas.image)
    for x, r in ((-0.6, 0.35), (0, 0.45), (0.6, 0.35)):
        canvas.ellipse(x, -0.75, 1.3 * r, r, grey)
    canvas.ellipse(0, 1, 1, 0.15, canvas.tint(0.3, 0.4, 0.55, 0.05))
    x, y = canvas.rng.uniform(0, 1, (2, 90))
    fall, slant = canvas.rng.uniform(1.5, 2.5), canvas.rng.uniform(-0.15, 0.15)
    for length in np.arange(5) / SIZE:
        down = canvas.t[:, None] * fall + y + length
        canvas.dots(x + slant * down, down, (0.75, 0.82, 0.95))


def ambulance(canvas: Canvas) -> None:
    """A white van with a lamp on its roof that flashes blue or red."""
    lit = np.sin(TURN * canvas.rng.uniform(1, 2.2) * canvas.t + canvas.rng.uniform(0, 6)) > 0
    lamp = np.array([0.1, 0.25, 1] if canvas.rng.random() < 0.6 else [1, 0.1, 0.1], np.float32)
    canvas.box(0.1, 0.15, 0.8, 0.4, (0.92, 0.92, 0.92))
    canvas.box(-0.72, 0.3, 0.22, 0.25, (0.85, 0.85, 0.85))
    canvas.box(-0.6, 0.05, 0.18, 0.14, (0.4, 0.6, 0.75))
    canvas.box(0.1, 0.25, 0.8, 0.06, canvas.tint(0.85, 0.15, 0.1))
    for x in (-0.5, 0.5):
        canvas.ellipse(x, 0.6, 0.2, 0.2, (0.1, 0.1, 0.1))
    canvas.box(0.1, -0.35, 0.22, 0.1, (0.25, 0.25, 0.3))
    glow = np.exp(-2.5 * np.hypot(canvas.x - 0.1, canvas.y + 0.4))[..., None]
    canvas.image += lit[:, None, None, None] * glow * lamp


def drum(canvas: Canvas) -> None:
    """A drum that two sticks strike in turn."""
    shell = canvas.tint(0.75, 0.12, 0.15, 0.1)
    phase = TURN * canvas.rng.uniform(0.9, 1.8) * canvas.t
    canvas.box(0, 0.5, 0.72, 0.3, shell)
    canvas.ellipse(0, 0.8, 0.72, 0.16, shell)
    canvas.ellipse(0, 0.2, 0.72, 0.18, (0.95, 0.93, 0.88))
    for side, lift in ((-1, np.sin(phase)), (1, -np.sin(phase))):
        top = 0.1 - 0.35 * np.maximum(0, lift)
        canvas.line(side * 0.15, top, side * 0.9, top - 0.5, 0.05, canvas.tint(0.8, 0.6, 0.35, 0.05))


def telephone(canvas: Canvas) -> None:
    """An old telephone with a dial whose handset shakes."""
    case = canvas.tint(0.08, 0.08, 0.1, 0.08) if not canvas.night else canvas.tint(0.75, 0.7, 0.6, 0.08)
    burst = np.sin(TURN * canvas.rng.uniform(0.3, 0.6) * canvas.t + canvas.rng.uniform(0, 6)) > -0.3
    shake = 0.1 * burst * np.where(np.arange(len(canvas.t)) % 2, 1, -1)
    canvas.box(0, 0.45, 0.6, 0.35, case)
    canvas.box(0, 0.05, 0.4, 0.2, case)
    canvas.ellipse(0, 0.4, 0.3, 0.3, (0.9, 0.88, 0.82))
    for k in range(8):
        canvas.ellipse(0.2 * math.cos(TURN * k / 8), 0.4 + 0.2 * math.sin(TURN * k / 8), 0.05, 0.05, case)
    canvas.line(-0.6, -0.3 + shake, 0.6, -0.3 - shake, 0.1, case)
    for side in (-1, 1):
        canvas.ellipse(0.7 * side, -0.2 - side * shake, 0.2, 0.22, case)


def clock(canvas: Canvas) -> None:
    """A round clock whose hand jumps from mark to mark."""
    rim, dark = canvas.tint(0.35, 0.2, 0.1, 0.08), (0.05, 0.05, 0.05)
    canvas.ellipse(0, 0, 0.95, 0.95, rim)
    canvas.ellipse(0, 0, 0.8, 0.8, (0.97, 0.96, 0.9))
    for angle in TURN * np.arange(12) / 12:
        x, y = math.cos(angle), math.sin(angle)
        canvas.line(0.64 * x, 0.64 * y, 0.72 * x, 0.72 * y, 0.03, dark)
    steps = np.floor(canvas.t / canvas.rng.uniform(0.2, 0.6)) + canvas.rng.integers(12)
    canvas.line(
        0, 0, 0.6 * np.sin(TURN * steps / 12), -0.6 * np.cos(TURN * steps / 12), 0.05, (0.8, 0.1, 0.1)
    )
    angle = canvas.rng.uniform(0, TURN)
    canvas.line(0, 0, 0.4 * math.sin(angle), -0.4 * math.cos(angle), 0.07, dark)


def sea(canvas: Canvas) -> None:
    """Blue water whose edge runs up and down a sandy beach."""
    canvas.fill(-0.75 - canvas.y, canvas.tint(0.85, 0.75, 0.5, 0.05))
    time = canvas.t[:, None, None]
    swell = np.sin(TURN * canvas.rng.uniform(0.2, 0.45) * time + canvas.rng.uniform(0, 6))
    edge = 0.35 + 0.35 * swell + 0.08 * np.sin(5 * canvas.x + 2 * time)
    shore = np.maximum(-0.4 - canvas.y, canvas.y - edge)
    canvas.fill(shore, canvas.tint(0.1, 0.35, 0.65, 0.07))
    canvas.fill(np.abs(canvas.y - edge) - np.float32(0.07), (0.97, 0.98, 1))
    crest = np.sin(9 * canvas.y - 5 * time + 0.4 * np.sin(4 * canvas.x))
    canvas.fill(np.maximum((0.9 - crest) / 4, shore + np.float32(0.1)), (0.55, 0.75, 0.9))


def whistler(canvas: Canvas) -> None:
    """A face with a hat and rounded lips, the cheeks moving."""
    skin, dark = canvas.tint(0.8, 0.6, 0.45, 0.1), (0.15, 0.1, 0.08)
    blow = np.sin(TURN * canvas.rng.uniform(0.5, 1.2) * canvas.t)
    canvas.box(0, 1.05, 0.7, 0.35, canvas.tint(0.55, 0.2, 0.6))
    canvas.ellipse(0, 0.05, 0.5 + 0.04 * blow, 0.68, skin)
    canvas.box(0, -0.75, 0.45, 0.22, canvas.tint(0.5, 0.15, 0.55))
    canvas.box(0, -0.52, 0.75, 0.07, canvas.tint(0.5, 0.15, 0.55))
    for side in (-0.2, 0.2):
        canvas.ellipse(side, -0.18, 0.07, 0.07, dark)
    canvas.ellipse(0, 0.38, 0.14, 0.12 + 0.03 * blow, (0.8, 0.25, 0.3))
    canvas.ellipse(0, 0.38, 0.06, 0.05 + 0.02 * blow, dark)
    canvas.line(0, -0.05, 0, 0.12, 0.04, dark)


def storm(canvas: Canvas) -> None:
    """A tree whose crown bends to one side, and leaves that fly past."""
    gust = 0.35 + 0.25 * np.sin(TURN * canvas.rng.uniform(0.25, 0.6) * canvas.t + canvas.rng.uniform(0, 6))
    wood, leaf = canvas.tint(0.35, 0.22, 0.12, 0.05), canvas.tint(0.2, 0.42, 0.15, 0.08)
    canvas.line(-0.3, 1, -0.3 + 0.4 * gust, 0.1, 0.1, wood)
    for dx, dy, r in ((0, -0.1, 0.35), (-0.25, -0.3, 0.3), (0.3, -0.35, 0.3), (0, -0.6, 0.32)):
        canvas.ellipse(-0.3 + dx + gust * (0.55 - 0.8 * dy), dy, r, 0.85 * r, leaf)
    x, y, speed = canvas.rng.uniform(0, 1, (3, 30))
    forward = canvas.t[:, None] * (0.6 + speed)
    for shift in (0, 1 / SIZE):
        canvas.dots(x + forward + shift, y + 0.08 * np.sin(6 * forward), canvas.tint(0.8, 0.5, 0.1, 0.05))


class Look(NamedTuple):
    """How a class looks: what paints its scene, and captions that do not name the class as AudioSet does."""

    paint: Callable[[Canvas], None]
    wordings: tuple[str, ...]


# In the order of `mini.CLASSES`.
LOOKS: Mapping[str, Look] = {
    "Baby cry, infant cry": Look(baby, (
        "a newborn opens its mouth under a blanket", "a small child lies in a cot with an open mouth",
    )),
    "Bark": Look(dog, ("a brown dog opens its snout and wags its tail", "a puppy stands with moving jaws")),
    "Chirp, tweet": Look(bird, ("a yellow bird hops on a twig", "a small bird sits on a branch, beak open")),
    "Church bell": Look(bell, ("a bronze bell swings in a tower", "a heavy bell moves in a stone belfry")),
    "Crackle": Look(fire, ("flames flicker over burning logs", "a campfire burns and sparks fly up")),
    "Cricket": Look(insect, (
        "a green insect sits on blades of grass", "a grasshopper with long legs moves its wings",
    )),
    "Engine": Look(motor, ("a motor with moving pistons and a wheel", "a machine turns a wheel and pumps")),
    "Helicopter": Look(rotor, (
        "an aircraft hovers under a spinning rotor", "a chopper flies across the sky, its blades turning",
    )),
    "Rain": Look(rain, ("drops fall from a grey cloud", "a shower pours down from dark clouds")),
    "Siren": Look(ambulance, (
        "an ambulance with a flashing light", "an emergency vehicle with a flashing lamp on its roof",
    )),
    "Snare drum": Look(drum, ("two sticks strike a drum", "a drummer's sticks beat on a red drum")),
    "Telephone bell ringing": Look(telephone, (
        "an old phone with a dial, its handset shaking", "a telephone stands on a table and trembles",
    )),
    "Tick-tock": Look(clock, (
        "a clock whose hand jumps from mark to mark", "the hand of a round wall clock moves",
    )),
    "Waves, surf": Look(sea, ("the sea runs up a sandy beach", "blue water with white foam at the shore")),
    "Whistle": Look(whistler, (
        "a man in a hat purses his lips", "a face with rounded lips and cheeks that move",
    )),
    "Wind": Look(storm, ("a tree bends and leaves fly past", "branches sway as leaves are blown away")),
}  # fmt: skip
