"""The work of the stages train-gen and invert, as functions that worker processes can call."""

from pathlib import Path

from ajbench.core.recipe import Recipe
from ajbench.pipeline import preflight


def train(recipe: Recipe, pool: Path, out: Path, *, fingerprint: str, tracker: str) -> None:
    """Train a generator on the clips of the store `pool`; see `ajbench.generation.train.train_generator`."""
    from ajbench.data.store import ClipStore
    from ajbench.generation.train import train_generator

    train_generator(
        recipe,
        ClipStore.open(pool),
        out,
        fingerprint=fingerprint,
        seed=recipe.generator.seed,
        tracker=tracker,
        captions=preflight.captions_of(recipe.generator),
    )


def invert(recipe: Recipe, generator: Path, real: Path, out: Path, *, fingerprint: str, tracker: str) -> None:
    """Learn class tokens, a LoRA or both; see `ajbench.generation.textual_inversion.invert`."""
    from ajbench.data.store import ClipStore
    from ajbench.generation.textual_inversion import invert as learn

    store, seed = ClipStore.open(real), recipe.invert.seed
    learn(recipe, generator, store, out, fingerprint=fingerprint, seed=seed, tracker=tracker)
