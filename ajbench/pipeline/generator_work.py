"""The work of the stages train-gen and invert, as functions that worker processes can call."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ajbench.core.recipe import Recipe


def train(recipe: Recipe, pool: Path, out: Path, *, fingerprint: str, tracker: str) -> None:
    """Train a generator on the clips of the store `pool`; see `ajbench.generation.train.train_generator`."""
    from ajbench.data.store import ClipStore
    from ajbench.generation.train import train_generator
    from ajbench.pipeline import given_models

    about: dict[str, Any] = {"fingerprint": fingerprint, "seed": recipe.generator.seed, "tracker": tracker}
    with _threads(recipe):
        captions = given_models.captions_of(recipe.generator)
        train_generator(recipe, ClipStore.open(pool), out, captions=captions, **about)


def invert(recipe: Recipe, generator: Path, real: Path, out: Path, *, fingerprint: str, tracker: str) -> None:
    """Learn class tokens, a LoRA or both; see `ajbench.generation.textual_inversion.invert`."""
    from ajbench.data.store import ClipStore
    from ajbench.generation.textual_inversion import invert as learn

    about: dict[str, Any] = {"fingerprint": fingerprint, "seed": recipe.invert.seed, "tracker": tracker}
    with _threads(recipe):
        learn(recipe, generator, ClipStore.open(real), out, **about)


def _threads(recipe: Recipe) -> AbstractContextManager[None]:
    """Let torch use one thread for the small U-Net on a CPU, all for others.

    Sums depend on the number of threads. With one, the same generator is trained on any number of cores,
    beside others or not; a second thread hardly speeds it up.
    """
    import torch

    from ajbench.core.device import device_of, use_threads

    small = recipe.generator.preset == "tiny" and device_of().type == "cpu"
    return use_threads(1 if small else torch.get_num_threads())
