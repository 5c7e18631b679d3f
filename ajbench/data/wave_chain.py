"""Classical augmentation of waves with the library audiomentations: clips of source A, and `aug: wave`.

A clip is stretched, shifted in pitch and in time, mixed with another clip as background and with white noise,
and amplified, in this order, each with probability 1/2. Ranges are the library's defaults.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ajbench.core.errors import MissingError
from ajbench.core.files import seed_for
from ajbench.data import audio
from ajbench.data.audio import Wave

# Part of the fingerprint of whatever is made with the chain.
SETTINGS: dict[str, dict[str, float]] = {
    "TimeStretch": {"min_rate": 0.8, "max_rate": 1.25},
    "PitchShift": {"min_semitones": -4.0, "max_semitones": 4.0},
    "Shift": {"min_shift": -0.5, "max_shift": 0.5},  # parts of the clip, which is rolled over
    "background": {"min_snr_db": 3.0, "max_snr_db": 30.0},
    "AddGaussianNoise": {"min_amplitude": 0.001, "max_amplitude": 0.015},
    "Gain": {"min_gain_db": -12.0, "max_gain_db": 12.0},
}
PROBABILITY = 0.5  # of each
TRIES = 4  # seeds to try if the result is unusable: the only sound may have been stretched beyond the end
_global_state = threading.Lock()


def need() -> str:
    """Return the name and version of the library.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import audiomentations
    except ImportError:
        raise MissingError(
            "mix.source=A and classifier.aug=wave need the package audiomentations: "
            "`pip install 'ajbench[aug]'`"
        ) from None
    return f"audiomentations {audiomentations.__version__}"


def augment(wav: Wave, seed: int, backgrounds: int, background: Callable[[int], Wave]) -> Wave:
    """Return an augmented clip, float32 [n] with a peak of at most 1, a function of these arguments only.

    If four draws in a row give an unusable clip (silent or clipped), none of the steps is applied, as in one
    of 64 draws anyway.

    Args:
        wav: the clip, float32 [n] at 16 kHz.
        seed: of the random settings and the noise.
        backgrounds: number of clips that may be its background.
        background: number of such a clip → its wave, float32 [n].

    Raises:
        MissingError: the library is not installed.
    """
    need()
    for attempt in range(TRIES):
        with _seeded(seed_for(seed, attempt)):
            made = _transformed("TimeStretch", "PitchShift", "Shift")(wav, audio.SAMPLE_RATE)
            if random.random() < PROBABILITY:
                made = _mixed(made, background(random.randrange(backgrounds)))
            made = _transformed("AddGaussianNoise", "Gain")(made, audio.SAMPLE_RATE)
        made = np.asarray(made / max(1.0, float(np.abs(made).max())), np.float32)
        if audio.defect(made) is None:
            return made
    return wav


def _transformed(*names: str) -> Any:
    import audiomentations

    return audiomentations.Compose(
        [getattr(audiomentations, name)(**SETTINGS[name], p=PROBABILITY) for name in names]
    )


def _mixed(wav: Wave, other: Wave) -> Wave:
    """Add another clip at a random signal-to-noise ratio of the root mean squares."""
    ends = SETTINGS["background"]
    snr_db = random.uniform(ends["min_snr_db"], ends["max_snr_db"])
    ours, theirs = (float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) for wave in (wav, other))
    scale = ours / max(theirs, 1e-9) / 10 ** (snr_db / 20)
    return wav + np.float32(scale) * other


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global random state, which the library draws from, and restore it at the end."""
    with _global_state:  # batches are made in a thread of their own
        before = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
