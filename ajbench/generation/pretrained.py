"""Initialising the U-Net with Stable Diffusion 1.4 (appendix B): all blocks except its two ends."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ajbench.core import weights
from ajbench.core.errors import IntegrityError, MissingError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor

    from ajbench.generation.checkpoint import Start

NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
FILES = tuple(f"{folder}{name}" for folder in ("unet/", "") for name in NAMES)
Shapes = Mapping[str, tuple[int, ...]]


def is_local(init: str) -> bool:
    """Return whether `generator.init` is a path on this machine rather than `sd14` or a hub id."""
    return init != "sd14" and Path(init).expanduser().exists()


def locate(init: str) -> Path:
    """Return the weights file that `generator.init` names; nothing is downloaded.

    Args:
        init: `sd14`, a hub id, or a path: the file, or the folder of a pipeline (with `unet/`) or of a U-Net.

    Raises:
        MissingError: the file is missing; the message says where to get it and where to put it.
    """
    path = Path(init) if is_local(init) else None
    instead = f"name a folder with {FILES[0]}, or train from random weights: generator.init=null"
    return weights.locate(init, path, who=f"generator.init={init}", instead=instead, files=FILES)


def trained_by_ajbench(init: str) -> Path | None:
    """Return the `generator.json` of the generator whose weights `generator.init` names, in any way.

    None for weights of others, which do not say what they were trained on, and for missing ones.
    """
    try:
        file = locate(init)
    except MissingError:  # its own check says so
        return None
    folders = file.parent, file.parent.parent  # the U-Net's, and the generator's
    return next((path for folder in folders if (path := folder / "generator.json").is_file()), None)


def start_from(model: "UNet2DConditionModel", init: str) -> "Start":
    """Load all blocks of a U-Net from Stable Diffusion, except conv_in, conv_out and the text projection.

    Those have other channels or belong to another text encoder; they keep their weights.

    Args:
        model: of preset `full`; changed in place.
        init: see `locate`.

    Returns:
        What was loaded, for `generator.json`.

    Raises:
        MissingError: the weights are missing.
        IntegrityError: they are damaged or of another architecture; the message names the first bad tensor.
    """
    import torch
    from safetensors import SafetensorError

    from ajbench.core.files import checksum
    from ajbench.generation.checkpoint import Start

    file = locate(init)
    ours = model.state_dict()
    try:
        with _opened(file) as (theirs, read), torch.no_grad():
            left_out = misfits({name: tuple(t.shape) for name, t in ours.items()}, theirs, str(file))
            taken = [name for name in ours if name not in left_out]
            for name in taken:
                ours[name].copy_(read(name))
    except (SafetensorError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise IntegrityError(f"{file}: not readable as weights ({reason}); download it again") from None
    return Start(
        source=init,
        file=file.name,
        xxh3=checksum(file),
        tensors=len(taken),
        parameters=sum(ours[name].numel() for name in taken),
        left_out=tuple(left_out),
    )


def misfits(ours: Shapes, theirs: Shapes, source: str) -> list[str]:
    """Return the tensors of ours that cannot be loaded, given the shapes of both models by name.

    Raises:
        IntegrityError: any other tensor is missing, has another shape, or is unknown to our model.
    """
    from ajbench.generation.unet import ENDS

    what = "not the U-Net of Stable Diffusion 1.4"
    for name, shape in ours.items():
        if name.startswith(ENDS):
            continue
        if name not in theirs:
            raise IntegrityError(f"{source}: {what}: {name} is missing")
        if theirs[name] != shape:
            raise IntegrityError(f"{source}: {what}: {name} has shape {theirs[name]} instead of {shape}")
    if more := next((name for name in theirs if name not in ours and not name.startswith(ENDS)), None):
        raise IntegrityError(f"{source}: {what}: unexpected tensor {more}")
    return [name for name in ours if name.startswith(ENDS)]


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Shapes, Callable[[str], "Tensor"]]]:
    """Yield the shapes in a file and a function name → tensor; pickles are read without running code."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as handle:
            shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
            yield shapes, handle.get_tensor
        return
    state = weights.unpickled(file)
    yield {name: tuple(tensor.shape) for name, tensor in state.items()}, state.__getitem__
