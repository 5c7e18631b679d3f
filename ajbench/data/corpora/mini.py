"""The embedded corpus: any number of clips of sixteen AudioSet classes, rendered on demand from a seed.

Nothing is stored: the manifest's paths are `mini:<seed>:<index>`, and `render` makes the sound. Clip i
depends on (seed, i) only, so a corpus of n clips is the beginning of every larger one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng
from scipy import fft

from ajbench.core.errors import UsageError
from ajbench.core.recipe import Data
from ajbench.core.registry import suggest
from ajbench.data.audio import Wave
from ajbench.data.corpora import mini_video
from ajbench.data.corpora.mini_signals import RATE, log_uniform, noise
from ajbench.data.corpora.mini_sounds import SYNTHESIZERS
from ajbench.data.corpora.splits import FOLDS, check_options
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Row

SHORTEST_EVENT = 4_000  # samples; every synthesiser produces sound within them
SHORTEST_CLIP = 6_720  # samples, 0.42 s: one column of the codec's grid
CLASSES: tuple[tuple[str, str], ...] = (
    ("Baby cry, infant cry", "/t/dd00002"), ("Bark", "/m/05tny_"), ("Chirp, tweet", "/m/07pggtn"),
    ("Church bell", "/m/03w41f"), ("Crackle", "/m/07pzfmf"), ("Cricket", "/m/09xqv"), ("Engine", "/m/02mk9"),
    ("Helicopter", "/m/09ct_"), ("Rain", "/m/06mb1"), ("Siren", "/m/03kmc9"), ("Snare drum", "/m/06rvn"),
    ("Telephone bell ringing", "/m/07pp8cl"), ("Tick-tock", "/m/07qjznl"), ("Waves, surf", "/m/034srq"),
    ("Whistle", "/m/0l156k"), ("Wind", "/m/03m9d0z"),
)  # fmt: skip
CLAUSES: Mapping[str, tuple[str, ...]] = {
    "Baby cry, infant cry": ("a baby cries", "an infant is wailing", "a newborn cries and gasps for breath"),
    "Bark": ("a dog barks", "a dog is barking", "a dog barks at something"),
    "Chirp, tweet": ("a bird chirps", "a songbird tweets", "a small bird sings short phrases"),
    "Church bell": ("a church bell tolls", "a bell rings from a church tower", "a great bell tolls"),
    "Crackle": ("a fire crackles", "wood snaps in a fire", "a campfire is crackling"),
    "Cricket": ("crickets chirp", "insects are trilling", "a cricket stridulates"),
    "Engine": ("an engine runs", "a motor is running", "a car engine rumbles"),
    "Helicopter": ("a helicopter flies overhead", "helicopter blades are chopping", "a helicopter thuds"),
    "Rain": ("rain falls", "rain is pouring down", "raindrops patter"),
    "Siren": ("a siren wails", "an emergency siren sounds", "the siren of an emergency vehicle blares"),
    "Snare drum": ("a snare drum is played", "someone drums on a snare", "a snare drum beats"),
    "Telephone bell ringing": ("a telephone rings", "an old telephone bell is ringing", "a phone bell rings"),
    "Tick-tock": ("a clock ticks", "a clock goes tick-tock", "an old clock is ticking"),
    "Waves, surf": ("waves break on a beach", "surf rolls in", "ocean waves are crashing"),
    "Whistle": ("someone whistles", "a person is whistling", "a whistle sounds"),
    "Wind": ("the wind blows", "wind is howling", "gusts of wind blow"),
}

_ORDER, _SCENE, _SOUND = range(3)


def read(data: Data, root: Path | None = None) -> Manifest:
    """List the first `data.n_clips` clips of the corpus of `data.corpus_seed`, without rendering them.

    Clips take folds 1 … 5 in turn; `data.eval_fold` (None: the last) is the eval split, the others train.
    If `data.video` is not none, rows have a video, whose scene matches the sound in `data.match` of the
    clips, and a visual caption of that scene. `root` is ignored: the corpus has no files.

    Raises:
        UsageError: an evaluation fold above 5, fewer clips than folds, or a subset.
    """
    check_options(data, folds=True)
    eval_fold = FOLDS if data.eval_fold is None else data.eval_fold
    if eval_fold > FOLDS:
        raise UsageError(f"data.eval_fold={eval_fold}: corpus mini has folds 1 … {FOLDS}; choose one of them")
    if data.n_clips < FOLDS:
        raise UsageError(f"data.n_clips={data.n_clips}: {FOLDS} folds need at least {FOLDS} clips")
    rows = []
    for index in range(data.n_clips):
        what = scene(data.corpus_seed, index)
        row = Row(
            clip_id=f"mini-{data.corpus_seed}-{index:06d}",
            path=f"mini:{data.corpus_seed}:{index}",
            duration_s=data.duration_s,
            labels=what.labels,
            split="eval" if index % FOLDS + 1 == eval_fold else "train",
            fold=index % FOLDS + 1,
            caption=what.caption,
        )
        if data.video != "none":
            shown = mini_video.shown(data.corpus_seed, index, what.labels, data.match)
            video = mini_video.video_path(data.corpus_seed, index, shown.label, data.duration_s)
            row = replace(row, video=video, visual_caption=shown.caption)
        rows.append(row)
    names, mids = zip(*CLASSES, strict=True)
    return Manifest(rows, LabelSet(names, mids))


@dataclass(frozen=True)
class Scene:
    """The content of a clip, known without rendering it."""

    labels: tuple[str, ...]
    caption: str
    reverb_s: float
    wetness: float


def scene(seed: int, index: int) -> Scene:
    """Draw the content of clip `index`: 1 to 3 different classes, the room and the caption.

    First labels are balanced: each block of 16 clips has every class once, and each block of 80 has every
    class once in each of the five folds (`index % 5`), as five blocks of 16 share one permutation and
    16 % 5 = 1.

    Raises:
        UsageError: a negative seed or index.
    """
    if seed < 0 or index < 0:
        raise UsageError(f"mini:{seed}:{index}: seed and index must be 0 or more")
    order = _rng(seed, _ORDER, index // (FOLDS * len(CLASSES))).permutation(len(CLASSES))
    first = int(order[index % len(CLASSES)])
    rng = _rng(seed, _SCENE, index)
    others = rng.permutation(np.delete(np.arange(len(CLASSES)), first))
    chosen = [first, *others[: rng.choice(3, p=[0.5, 0.35, 0.15])]]
    labels = tuple(CLASSES[k][0] for k in chosen)
    reverb_s = log_uniform(rng, 0.08, 1.2)
    wetness = rng.uniform(0, 0.7)
    return Scene(labels, _caption(rng, labels, reverb_s if wetness > 0.3 else 0.0), reverb_s, wetness)


def render(seed: int, index: int, duration_s: float = 5.04) -> tuple[Wave, tuple[str, ...], str]:
    """Render clip `index` of the corpus of `seed`.

    Args:
        seed: of the corpus, at least 0.
        index: number of the clip, at least 0.
        duration_s: length in s, at least 0.42; the clip has round(duration_s · 16,000) samples.

    Returns:
        Mono float32 samples [n] at 16 kHz with a peak of 0.1 … 0.95; labels (AudioSet names, the main event
        first); caption.

    Raises:
        UsageError: a negative seed or index, or a shorter duration.
    """
    n = round(duration_s * RATE)
    if n < SHORTEST_CLIP:
        raise UsageError(f"mini:{seed}:{index}: duration_s={duration_s} is too short; at least 0.42")
    what = scene(seed, index)
    mix = np.zeros(n, np.float32)
    for position, label in enumerate(what.labels):
        rng = _rng(seed, _SOUND, index, position + 1)
        # Lengths in tenths of the clip keep FFT sizes that factor well.
        length = n * int(rng.integers(6, 11)) // 10
        start = int(rng.integers(0, n - length + 1))
        event = render_event(label, rng, length)
        rise, fall = (np.linspace(0, 1, int(length * log_uniform(rng, 0.005, 0.25))) for _ in range(2))
        event[: len(rise)] *= rise
        event[length - len(fall) :] *= fall[::-1]
        gain = 10 ** (rng.uniform(-9.0 if position else 0.0, 0) / 20)
        mix[start : start + length] += np.float32(gain / _loudness(event)) * event
    rng = _rng(seed, _SOUND, index, 0)
    mix = _room(rng, mix, what.reverb_s, what.wetness)
    slope, snr_db = rng.uniform(0, 1.2), rng.uniform(15, 45)
    hiss = noise(rng, n, lambda freq: np.maximum(freq, np.float32(40)) ** np.float32(-slope))
    mix += np.float32(_loudness(mix) * 10 ** (-snr_db / 20)) * hiss
    peak = 10 ** (rng.uniform(-20, -0.5) / 20)
    return mix * np.float32(peak / np.abs(mix).max()), what.labels, what.caption


def render_event(name: str, rng: Generator, n_samples: int) -> Wave:
    """Render one dry event of class `name` → float32 [n_samples] at 16 kHz with a peak of 1.

    Raises:
        UsageError: `name` is not a class of the corpus, or fewer than 4,000 samples are requested.
    """
    if name not in SYNTHESIZERS:
        near = suggest(name, SYNTHESIZERS)
        raise UsageError(f"mini has no class {name!r}{near}; allowed: {'; '.join(SYNTHESIZERS)}")
    if n_samples < SHORTEST_EVENT:
        raise UsageError(f"mini: {n_samples} samples are too few for {name!r}; at least {SHORTEST_EVENT}")
    wav = SYNTHESIZERS[name](rng, n_samples).astype(np.float32, copy=False)
    return wav / np.abs(wav).max()


def _rng(seed: int, *key: int) -> Generator:
    return default_rng(SeedSequence(seed, spawn_key=key))


def _loudness(wav: Wave) -> float:
    # RMS of the loudest 50 ms, so that sparse events such as ticks are as loud as steady ones.
    power = wav[: len(wav) // 800 * 800].reshape(-1, 800)
    return float(np.sqrt(np.einsum("ij,ij->i", power, power).max() / 800))


def _room(rng: Generator, wav: Wave, reverb_s: float, wetness: float) -> Wave:
    length = int(reverb_s * RATE)
    tail = rng.standard_normal(length, dtype=np.float32)
    tail *= np.exp(np.float32(-6.9 / length) * np.arange(length, dtype=np.float32))
    tail *= np.float32(wetness) / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    size = fft.next_fast_len(len(wav) + length, real=True)
    return fft.irfft(fft.rfft(wav, size) * fft.rfft(tail, size), size)[: len(wav)]


def _caption(rng: Generator, labels: tuple[str, ...], reverb_s: float) -> str:
    clauses = [CLAUSES[label][rng.integers(len(CLAUSES[label]))] for label in labels]
    text = clauses[0]
    if len(clauses) > 1:
        text += rng.choice([" while ", " as ", " and "]) + " and ".join(clauses[1:])
    if reverb_s > 0.6:
        text += rng.choice([" with a long echo", " in a reverberant space"])
    return text[0].upper() + text[1:]
