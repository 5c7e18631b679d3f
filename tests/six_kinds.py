"""Two folders of small clips of six kinds, a network that hears them, and their comparison."""

import numpy as np
import soundfile

from ajbench.data.annotations import asked_of, captions_of
from ajbench.data.clip_set import open_set
from ajbench.evaluation import compare, protocols
from ajbench.evaluation.feature_cache import embed

PLAIN, STABLE = protocols.find("ajbench"), protocols.find("stable-audio-metrics")
KINDS = ("bell", "dog", "rain", "siren", "train", "wind")
N = 24


class Ear:
    """Levels of eight pieces as features, sums of them as logits of six classes; texts by their letters."""

    name, labels, mids, weights_hash = "ear", KINDS, None, "w1"
    sample_rate, min_samples, max_samples = 16_000, 240, None
    frames, texts = False, True
    mix = np.random.default_rng(3).normal(size=(8, 6)).astype(np.float32)

    def __call__(self, wav):
        pieces = np.stack([part.std(axis=1) for part in np.array_split(np.asarray(wav), 8, axis=1)], axis=1)
        return pieces.astype(np.float32), (np.log(pieces + 1e-3) @ self.mix).astype(np.float32)

    def text(self, texts):
        letters = [[text.count(letter) for letter in "abcdeirt"] for text in texts]
        return np.array(letters, np.float32) + 0.5


class Deaf(Ear):
    """Knows neither classes nor texts."""

    name, labels, texts = "deaf", (), False


def write(path, seed, seconds=0.25, loudest=0.3):
    rng = np.random.default_rng(seed)
    n = int(seconds * 16_000)
    envelope = np.interp(np.arange(n), np.linspace(0, n, 9), rng.uniform(0.02, loudest, 9))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, rng.normal(size=n) * envelope * 0.3, 16_000, subtype="PCM_16")


def fill(folder):
    """Write four clips of each kind, generated and real, in a folder of their kind's name, and captions."""
    for k in range(N):
        name = f"{KINDS[k % 6]}/clip-{k}"
        write(folder / "gen" / f"{name}.wav", k)
        write(folder / "ref" / f"{name}.wav", 100 + k, loudest=0.2)
    lines = [f"{KINDS[k % 6]}/clip-{k},a {KINDS[k % 6]} in the distance" for k in range(N)]
    (folder / "captions.csv").write_text("\n".join(["clip,caption", *lines, "dog/clip-1,barking"]))


def sets(folders):
    return open_set(folders / "gen"), open_set(folders / "ref")


def heard(folders, ear=None, protocol=PLAIN):
    return [embed(clips, ear or Ear(), protocol, folders / "cache") for clips in sets(folders)]


def measure(folders, ear=None, protocol=PLAIN, **more):
    gen, ref = sets(folders)
    given = {"asked": asked_of(gen, "parent"), "captions": captions_of(gen, folders / "captions.csv")}
    return compare.compare(gen, ref, ear or Ear(), protocol, folders / "cache", **(given | more))


def values(found):
    return {row["metric"]: row["value"] for row in found.rows if not row["of"]}
