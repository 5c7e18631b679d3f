"""Sixteen everyday sounds as small physical models: damped modes, filtered pulses, modulated noise.

Each synthesiser takes a random generator and a number of samples, and returns one event float32 [n] at 16 kHz
of arbitrary level. Each call draws new parameters (size, pitch, rate, material, vocal tract, weather).
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from ajbench.data.corpora.mini_signals import (
    RATE,
    Wave,
    band,
    curve,
    drift,
    filtered,
    harmonics,
    hump,
    log_uniform,
    modes,
    noise,
    onsets,
    oscillator,
    poisson,
    resonances,
    strike,
)


def church_bell(rng: Generator, n: int) -> Wave:
    """Tolling bronze bell: hum, prime, minor third, fifth, nominal …, each split into a beating pair."""
    pitch = log_uniform(rng, 170, 620)
    ratio = np.array([0.5, 1, 1.19, 1.5, 2, 2.5, 2.66, 3, 4.1, 5.4]) * np.exp(0.008 * rng.standard_normal(10))
    amp = np.array([0.6, 0.9, 1, 0.4, 1, 0.3, 0.35, 0.4, 0.3, 0.2]) * rng.uniform(0.4, 1.4, 10)
    t60 = log_uniform(rng, 3, 9) * ratio**-0.8
    split = 1 + rng.uniform(0.0005, 0.003, 10)
    kernel = modes(pitch * np.r_[ratio, ratio * split], np.r_[t60, t60], np.r_[amp, 0.6 * amp], n)
    kernel *= np.minimum(1, np.arange(n, dtype=np.float32) / rng.uniform(8, 60))
    return strike(n, kernel, onsets(rng, n, log_uniform(rng, 0.7, 3.2), 0.02))


def siren(rng: Generator, n: int) -> Wave:
    """Emergency vehicle: a horn that wails (slow glide), yelps (fast glide) or alternates two pitches."""
    low, high, kind = log_uniform(rng, 380, 750), log_uniform(rng, 1000, 1700), rng.integers(3)
    rate = log_uniform(rng, *[(0.22, 0.6), (2.2, 4.5), (0.7, 1.4)][kind])
    cycle = (np.arange(n, dtype=np.float32) * np.float32(rate / RATE) + np.float32(rng.random())) % 1
    if kind == 2:
        sweep = curve([0, 0.48, 0.5, 0.98, 1], [0, 0, 1, 1, 0], RATE)[(cycle * (RATE - 1)).astype(np.int32)]
        high = low * rng.uniform(1.25, 1.5)
    else:
        rise = np.float32(rng.uniform(0.35, 0.65))
        sweep = np.minimum(cycle / rise, (1 - cycle) / (1 - rise))
    pitch = np.float32(low) * np.float32(high / low) ** sweep * drift(rng, n, 1, 0.01)
    tone = oscillator(pitch, harmonics(np.arange(1, 12) ** -rng.uniform(0.7, 1.6), 1.05 * high))
    horn = resonances([rng.uniform(700, 1300), rng.uniform(2000, 3500)], [400, 700], [1, 0.7], 0.15)
    return filtered(tone, horn) * drift(rng, n, 1.5, 0.2)


def tick_tock(rng: Generator, n: int) -> Wave:
    """Clock escapement: clicks of two alternating pitches at a steady rate, in a wooden or metal case."""
    period, base = log_uniform(rng, 0.2, 0.62), log_uniform(rng, 1100, 2800)
    ratio, length = np.r_[1, rng.uniform(1.3, 4.2, 4)], 1600
    t60 = log_uniform(rng, 0.012, 0.07) * np.r_[1, rng.uniform(0.4, 1, 4)]
    amp = np.r_[1, rng.uniform(0.2, 0.9, 4)]
    body = modes(rng.uniform(180, 450), 0.05, rng.uniform(0.1, 0.5), length)
    times, interval = onsets(rng, n, period, 0.004), rng.uniform(0.72, 0.92)
    tick, tock = (modes(base * factor * ratio, t60, amp, length) + body for factor in (1, interval))
    return strike(n, tick, times[::2]) + strike(n, tock, times[1::2], rng.uniform(0.6, 1.1))


def engine(rng: Generator, n: int) -> Wave:
    """Piston engine: unequal firing pulses in a cycle through exhaust resonances; idling or revving."""
    cylinders, rpm = int(rng.integers(2, 7)), log_uniform(rng, 700, 1300)
    knots, wobble = np.arange(0, n / RATE + 1, 0.7), drift(rng, n, 6, 0.015)
    revs = rng.uniform(1, 4, len(knots)) if rng.random() < 0.5 else np.ones(len(knots))
    cycle_hz = curve(knots, rpm / 120 * revs, n) * wobble
    order = np.arange(1, 240)
    angles = np.exp(-2j * np.pi * np.outer(order, np.arange(cylinders) / cylinders))
    firing = angles @ rng.uniform(0.5, 1, cylinders) * np.exp(-order / rng.uniform(20, 60))
    beat = oscillator(cycle_hz, harmonics(firing, float(cycle_hz.max())))
    beat /= beat.std()
    breath = noise(rng, n, band(150, rng.uniform(900, 2500))) * (0.2 + np.abs(beat))
    exhaust = rng.uniform([60, 180, 500, 1200], [160, 450, 1100, 2600])
    pipe = resonances(exhaust, exhaust * 0.25, [1, 1, 0.6, 0.4], 0.1)
    sound = beat + np.float32(rng.uniform(0.05, 0.4)) * breath
    return filtered(sound.astype(np.float32, copy=False), pipe)


def rain(rng: Generator, n: int) -> Wave:
    """Rain: a flat hiss of distant drops, and near drops that click and ring as bubbles."""
    far = noise(rng, n, band(rng.uniform(200, 900), rng.uniform(5000, 12000), 1.5)) * drift(rng, n, 2, 0.08)
    bubble = modes(rng.uniform(1200, 5500, 3), rng.uniform(0.004, 0.03, 3), [1, 0.7, 0.5], 800)
    times = poisson(rng, n, log_uniform(rng, 30, 450))
    near = strike(n, bubble, times, rng.exponential(1, len(times)))
    return far + np.float32(rng.uniform(0.15, 0.8)) * near / near.std()


def wind(rng: Generator, n: int) -> Wave:
    """Wind: rumbling turbulence in gusts, and an edge tone whose pitch follows the speed."""
    speed = drift(rng, n, rng.uniform(0.6, 1.6), 0.35)
    rumble = noise(rng, n, band(30, rng.uniform(120, 420), 2, rng.uniform(1.3, 2.2))) * speed**2
    howl = oscillator(log_uniform(rng, 260, 750) * speed**0.6, harmonics([1.0], 1000))
    breathing = noise(rng, n, lambda freq: np.exp(-((freq / 40) ** 2)))
    return rumble + np.float32(rng.uniform(0.1, 0.7)) * howl * breathing * speed


def surf(rng: Generator, n: int) -> Wave:
    """Breaking waves: a low roar that swells and falls, the hiss of foam following it."""
    times = onsets(rng, n, rng.uniform(2.2, 4.5), 0.05)
    rise, fall = rng.uniform(0.5, 1.3), rng.uniform(1.2, 2.6)
    shape = hump(int((rise + fall) * RATE), rise / (rise + fall))
    roar = 0.12 + strike(n, shape, np.maximum(times - rise / 2, 0), rng.uniform(0.6, 1, len(times)))
    foam = 0.05 + strike(n, shape, times + rng.uniform(0.1, 0.6), rng.uniform(0.5, 1, len(times)))
    low = noise(rng, n, band(60, rng.uniform(300, 700), 2, 1.5))
    high = noise(rng, n, band(rng.uniform(900, 2000), 9000))
    return roar * low + np.float32(rng.uniform(0.3, 0.9)) * foam * high


def snare_drum(rng: Generator, n: int) -> Wave:
    """Snare drum: membrane modes and rattling wires; single beats, flams and rolls."""
    beat, length = 60 / rng.uniform(80, 170), 6400
    pitch = rng.uniform(160, 260) * np.array([1, 1.59, 2.14, 2.3])
    head = modes(pitch, rng.uniform(0.08, 0.25), [1, 0.6, 0.3, 0.3], length)
    wires = noise(rng, length, band(rng.uniform(800, 2200), 9000))
    wires *= np.exp(-np.arange(length, dtype=np.float32) / RATE * np.float32(6.9 / rng.uniform(0.09, 0.35)))
    kernel = head / np.abs(head).max() + np.float32(rng.uniform(0.3, 1)) * wires
    steps = onsets(rng, n, beat / 4, 0.01)
    density = rng.choice([0.05, 0.3, 1.0], p=[0.4, 0.4, 0.2])
    hits = (np.arange(len(steps)) % 4 == 0) | (rng.random(len(steps)) < density)
    return strike(n, kernel, steps[hits], rng.uniform(0.35, 1, hits.sum()))


def whistle(rng: Generator, n: int) -> Wave:
    """Whistled notes: a nearly pure tone with glides, vibrato and breath; or a trilling pea whistle."""
    lengths = rng.uniform(0.25, 0.9, 3 + int(n / RATE / 0.25))
    ends = np.cumsum(lengths)
    begins = ends - lengths
    pea = rng.random() < 0.35
    pitch = log_uniform(rng, 1900, 3200) if pea else log_uniform(rng, 800, 1900)
    notes = np.ones(len(ends)) if pea else 2 ** (rng.integers(-5, 8, len(ends)) / 12)
    knots = np.stack([begins + 0.04, ends - 0.08], axis=1).ravel()
    glide = curve(knots, np.repeat(notes, 2) * rng.uniform(0.92, 1.1, 2 * len(ends)) ** (not pea), n)
    rate, depth = rng.uniform(*(18, 40) if pea else (4, 7)), rng.uniform(*(0.02, 0.05) if pea else (0, 0.02))
    shake = np.sin(np.arange(n, dtype=np.float32) * np.float32(2 * np.pi * rate / RATE))
    tone = harmonics([1, rng.uniform(0, 0.15), 0.03], 2400)
    tone = oscillator(pitch * glide * (1 + np.float32(depth) * shake), tone)
    gate = np.repeat(rng.random(len(ends)) < 0.8, 3) * np.tile([0.0, 1, 0.9], len(ends))
    gate[1:3] = 1, 0.9
    level = curve(np.stack([begins, begins + 0.05, ends - 0.05], axis=1).ravel(), gate, n)
    breath = noise(rng, n, resonances([pitch, 2 * pitch], [300, 600], [1, 0.5], 0.05))
    return level * (tone * (1 + np.float32(0.4 * pea) * shake) + np.float32(rng.uniform(0.02, 0.12)) * breath)


def cricket(rng: Generator, n: int) -> Wave:
    """Crickets: pulses of a pure tone, grouped into chirps or a continuous trill."""
    out, t = np.zeros(n, np.float32), np.arange(n, dtype=np.float32) / RATE
    for level in (1.0, rng.uniform(0, 0.5)):
        rate, teeth = rng.uniform(22, 65), int(rng.integers(2, 6))
        chirp_s = teeth / rate
        period_s = rng.uniform(chirp_s * 1.5, max(0.25, chirp_s * 3)) if rng.random() < 0.75 else chirp_s
        inside = (t - np.float32(onsets(rng, n, period_s)[0])) % np.float32(period_s)
        wing = np.maximum(0, np.sin(np.float32(2 * np.pi * rate) * inside)) * (inside < chirp_s)
        carrier = oscillator(log_uniform(rng, 2800, 6500) * (1 - 0.02 * wing), harmonics([1.0], 6600))
        out += np.float32(level) * carrier * wing ** np.float32(1.3)
    return out


def tweet(rng: Generator, n: int) -> Wave:
    """Songbird: phrases that repeat a short whistled syllable with a sweep or an arch in pitch."""
    out, top = np.zeros(n, np.float32), harmonics([1, rng.uniform(0, 0.25)], 3700)
    start = rng.uniform(0, min(0.5, 0.3 * n / RATE))
    while start < n / RATE:
        length = int(RATE * log_uniform(rng, 0.03, 0.16))
        x = np.linspace(0, 1, length, dtype=np.float32)
        bend, arch, trill = rng.uniform(-0.7, 0.7), rng.uniform(-0.6, 0.6), rng.choice([0, 0.04])
        octaves = bend * (x - 0.5) + arch * 4 * x * (1 - x)
        octaves += trill * np.sin(2 * np.pi * 60 * x * length / RATE)
        pitch = np.clip(log_uniform(rng, 2300, 4800) * 2**octaves, 1200, 7000)
        syllable = oscillator(pitch, top) * hump(length, 0.3)
        gap = length / RATE + rng.uniform(0.02, 0.12)
        times = start + gap * np.arange(rng.integers(1, 8))
        out += strike(n, syllable, times, rng.uniform(0.5, 1, len(times)))
        start = times[-1] + gap + rng.uniform(0.05, 0.7)
    return out


def telephone_bell(rng: Generator, n: int) -> Wave:
    """Mechanical telephone: a clapper between two small gongs, ringing in bursts."""
    ratio, length = np.array([1, 2.2, 2.9, 3.9, 4.6]), 9600
    base, t60 = log_uniform(rng, 900, 1700), rng.uniform(0.25, 0.9)
    amp = np.array([0.7, 1, 0.6, 0.5, 0.3]) * rng.uniform(0.4, 1.2, 5)
    pitches = (base, base * rng.uniform(1.1, 1.3))
    left, right = (modes(pitch * ratio, t60 / ratio**0.3, amp, length) for pitch in pitches)
    times = onsets(rng, n, 1 / rng.uniform(17, 27), 0.05)
    ring, pause = rng.uniform(0.9, 2), rng.uniform(0.4, 1.6)
    times = times[(times - times[0]) % (ring + pause) < ring]
    return strike(n, left, times[::2]) + strike(n, right, times[1::2])


def helicopter(rng: Generator, n: int) -> Wave:
    """Helicopter: blade slap, rotor noise modulated by it, turbine whine; approaching or leaving."""
    blade_hz = log_uniform(rng, 9, 24) * drift(rng, n, 1, 0.01)
    order = np.arange(1, 40)
    slap = oscillator(blade_hz, harmonics(np.exp(-order / rng.uniform(6, 14) + 1j * rng.uniform(0, 0.4)), 26))
    chop = np.maximum(0, slap / slap.max()) ** np.float32(rng.uniform(0.5, 1))
    swish = noise(rng, n, band(80, rng.uniform(300, 1200))) * (0.08 + chop)
    whine = oscillator(log_uniform(rng, 900, 3400) * drift(rng, n, 2, 0.003), harmonics([1, 0.3], 3900))
    mix = slap / slap.std() + np.float32(rng.uniform(1.5, 5)) * swish
    mix += np.float32(rng.uniform(0, 0.15)) * whine
    return mix * curve([0, n / RATE], rng.uniform(0.3, 1, 2), n)


def voiced(rng: Generator, pitch_hz: Wave, formants: ArrayLike, rough: float, breath: float) -> Wave:
    """Source-filter voice [n]: glottal pulses with roughness and breath through a vocal tract."""
    n, centres = len(pitch_hz), np.asarray(formants)
    glottis = harmonics(np.arange(1, 40) ** -0.9, 1.1 * float(pitch_hz.max()))
    source = oscillator(pitch_hz * drift(rng, n, 90, rough), glottis)
    source += np.float32(breath) * noise(rng, n, band(300, 5000))
    falling = 0.8 ** np.arange(len(centres))
    return filtered(source, resonances(centres, 60 + 0.09 * centres, falling, 0.03))


def bark(rng: Generator, n: int) -> Wave:
    """Dog: groups of short rough bursts with a rising and falling pitch; lower and longer for large dogs."""
    size = rng.random()
    pitch, length = 620 * 0.42**size, int(RATE * (0.09 + 0.13 * size * rng.uniform(0.7, 1.3)))
    tract = np.array([1100, 2300, 3700]) * 0.55**size * rng.uniform(0.9, 1.1, 3)
    arch = pitch * (0.75 + 0.5 * hump(length, rng.uniform(0.25, 0.5)))
    times = onsets(rng, n, log_uniform(rng, 0.32, 0.9), 0.08)
    kept = rng.random(len(times)) < rng.choice([0.5, 1])
    kept[0] = True
    times, shape = times[kept], hump(length, 0.15)
    one, two = (shape * voiced(rng, arch * rng.uniform(0.92, 1.08), tract, 0.06, 0.25) for _ in range(2))
    return strike(n, one, times[::2]) + strike(n, two, times[1::2], rng.uniform(0.6, 1))


def crackle(rng: Generator, n: int) -> Wave:
    """Wood fire: snaps with power-law strength over the soft flutter of flames."""
    flutter = noise(rng, n, band(40, rng.uniform(150, 400), 1, 2)) * drift(rng, n, 8, 0.25)
    exponent, snaps = rng.uniform(1.3, 2.2), np.zeros(n, np.float32)
    for rate in (rng.uniform(2, 7), log_uniform(rng, 12, 70)):
        snap = modes(rng.uniform(900, 6500, 4), log_uniform(rng, 0.004, 0.04), rng.uniform(0.4, 1, 4), 640)
        snap /= np.abs(snap).max()
        times = poisson(rng, n, rate)
        snaps += strike(n, snap, times, np.minimum(8, 1 + rng.pareto(exponent, len(times))))
    return snaps / np.abs(snaps).max() + np.float32(log_uniform(rng, 0.001, 0.012)) * flutter


def baby_cry(rng: Generator, n: int) -> Wave:
    """Infant: long harmonic cries with an arched pitch and formants, separated by gasps."""
    out, start = np.zeros(n, np.float32), rng.uniform(0, min(0.4, 0.2 * n / RATE))
    base, tract = log_uniform(rng, 330, 560), np.array([1050, 2900, 4600]) * rng.uniform(0.85, 1.15, 3)
    tense = rng.uniform(0.004, 0.02)
    while start < n / RATE:
        length = int(RATE * rng.uniform(0.5, 1.3))
        knots = np.array([0, 0.15, 0.6, 1]) * length / RATE
        arch = curve(knots, base * rng.uniform([0.65, 1, 0.95, 0.55], [0.9, 1.25, 1.2, 0.8]), length)
        vibrato = np.sin(np.arange(length, dtype=np.float32) * np.float32(2 * np.pi * 6 / RATE))
        pitch = arch * (1 + np.float32(0.02) * vibrato)
        out += strike(n, voiced(rng, pitch, tract, tense, 0.08) * hump(length, 0.12), start)
        gasp = noise(rng, 3200, band(800, 4000)) * hump(3200, 0.6)
        start += length / RATE + 0.22
        out += strike(n, gasp, start - 0.21, rng.uniform(0.01, 0.08))
        start += rng.uniform(0, 0.3)
    return out


SYNTHESIZERS: Mapping[str, Callable[[Generator, int], Wave]] = {
    "Baby cry, infant cry": baby_cry, "Bark": bark, "Chirp, tweet": tweet, "Church bell": church_bell,
    "Crackle": crackle, "Cricket": cricket, "Engine": engine, "Helicopter": helicopter, "Rain": rain,
    "Siren": siren, "Snare drum": snare_drum, "Telephone bell ringing": telephone_bell,
    "Tick-tock": tick_tock, "Waves, surf": surf, "Whistle": whistle, "Wind": wind,
}  # fmt: skip
