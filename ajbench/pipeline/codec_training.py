"""The training of the codec `tiny` on a user's sounds, as a stage of no recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ajbench.core.console import counted
from ajbench.core.errors import UsageError
from ajbench.core.files import walk
from ajbench.core.recipe import Recipe, fingerprint
from ajbench.pipeline.inputs import codec_identity, head_of
from ajbench.pipeline.stage import Stage

VERSION = 2


def codec_stage(
    work: Path,
    sounds: Sequence[Path],
    *,
    steps: int,
    batch_size: int,
    mini_clips: int,
    lr: float,
    start: str | None,
    seed: int,
    tracker: str = "csv",
) -> Stage:
    """Return the training as a stage, identified by its settings and by names and beginnings of the sounds.

    Its folder is made in `<work>/codec/`; the other arguments are those of `codec.train.train_codec`, but
    `start` is the name or file of a tiny codec.

    Raises:
        UsageError: `start` is another codec.
        MissingError: there is no such file.
    """
    if start is not None and start.partition("@")[0] != "tiny" and not start.endswith(".safetensors"):
        raise UsageError(f"--start {start}: not a tiny codec; give tiny, tiny@HASH or a .safetensors file")
    paths = [(folder, path) for folder in sounds for path in walk(folder) if path.is_file()]
    files = [[str(path.relative_to(folder)), head_of(str(path))[1]] for folder, path in paths]
    origin = None if start is None else codec_identity(start)
    key = fingerprint("train-codec", VERSION, files, steps, batch_size, mini_clips, lr, seed, origin)
    path = work / "codec" / f"train-codec-{key}"

    def do() -> None:
        from ajbench import codec as codecs
        from ajbench.codec.train import train_codec

        how: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "mini_clips": mini_clips, "lr": lr}
        first: Any = None if start is None else codecs.load(start)
        train_codec(sounds, path, seed=seed, tracker=tracker, start=first and first.network, **how)

    trained_on = ", ".join(map(str, [*sounds, f"{mini_clips} clips of mini"]))
    recipe = Recipe(name="codec", description=f"the codec `tiny`, trained on {trained_on}")
    return Stage(
        "train-codec",
        recipe,
        path,
        key,
        counted(steps, "step"),
        do,
        seed=seed,
        precision="auto",
        distributed=True,
    )
