"""The training of the codec `tiny` on a user's sounds, as a stage of no recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ajbench.core.console import counted
from ajbench.core.files import walk
from ajbench.core.recipe import Recipe, fingerprint
from ajbench.pipeline.stage import Stage

VERSION = 1


def codec_stage(
    work: Path,
    sounds: Sequence[Path],
    steps: int,
    batch_size: int,
    mini_clips: int,
    seed: int,
    tracker: str = "csv",
) -> Stage:
    """Return the training as a stage, identified by names and sizes of the sounds and by its settings.

    Its folder is made in `<work>/codec/`; the other arguments are those of `codec.train.train_codec`.
    """
    paths = [(folder, path) for folder in sounds for path in walk(folder) if path.is_file()]
    files = [[str(path.relative_to(folder)), path.stat().st_size] for folder, path in paths]
    key = fingerprint("train-codec", VERSION, files, steps, batch_size, mini_clips, seed)
    path = work / "codec" / f"train-codec-{key}"

    def do() -> None:
        from ajbench.codec.train import train_codec

        how: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "mini_clips": mini_clips}
        train_codec(sounds, path, seed=seed, tracker=tracker, **how)

    trained_on = ", ".join(map(str, [*sounds, f"{mini_clips} clips of mini"]))
    recipe = Recipe(name="codec", description=f"the codec `tiny`, trained on {trained_on}")
    return Stage("train-codec", recipe, path, key, counted(steps, "step"), do, seed=seed, precision="auto")
