"""Shapes of tensors by name: of a network and of its file, compared before memory of that size is taken.

Sizes in a configuration may be any numbers. Those in the header of a safetensors file are real: the file has
as many bytes.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

Shapes = Mapping[str, tuple[int, ...]]


def of_network(build: "Callable[[], nn.Module]") -> Shapes:
    """Return the shapes in the state dict of the network that `build` makes; its tensors take no memory."""
    import torch

    with torch.device("meta"):
        network = build()
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def of_files(paths: Iterable[Path]) -> Shapes:
    """Return the shapes in safetensors files, of which only the headers are read.

    Raises:
        SafetensorError, OSError: as safetensors does.
    """
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found


def difference(expected: Shapes, found: Shapes) -> str | None:
    """Return the first difference in words; None if names and shapes are the same."""
    for name, shape in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != shape:
            return f"{name} has shape {found[name]}, not {shape}"
    more = next((name for name in found if name not in expected), None)
    return None if more is None else f"unexpected tensor {more[:80]}"
