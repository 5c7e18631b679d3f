"""Initialise a classifier from trained weights: code shared by the architectures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ajbench import classifiers
from ajbench.core.errors import IntegrityError


class Receiver(Protocol):
    """Attributes of a module that can be initialised."""

    heads: int  # attention heads, which the shapes of the weights do not show
    head_names: tuple[str, ...]  # prefixes of the names of tensors that depend on the classes
    class_bias: str  # name of a tensor [C]


@dataclass(frozen=True)
class Weights:
    """Trained weights under the names of the module that receives them.

    Attributes:
        source: their origin, for messages.
        state: tensors by name.
        heads: attention heads.
        labels: names of the classes in order; None: unknown.
        grid: of an AST's position table, (F, T).
        norm_eps: of an AST's layer norms; None: the module's own.
    """

    source: str
    state: dict[str, Tensor]
    heads: int
    labels: tuple[str, ...] | None = None
    grid: tuple[int, int] = (0, 0)
    norm_eps: float | None = None


def is_ours(folder: Path) -> bool:
    """Return whether `config.json` of a folder was written by ajbench."""
    return {"name", "options"} <= classifiers.read_json(folder).keys()


def read_ours(folder: Path, architecture: type[nn.Module]) -> Weights:
    """Read a classifier trained by ajbench.

    Raises:
        MissingError: a file is missing.
        IntegrityError: damaged, of another revision, or another architecture.
    """
    config = classifiers.read_config(folder)
    with torch.device("meta"):
        twin: Any = classifiers.rebuild(folder, config)
    there = twin.__class__
    if there is not architecture:
        raise IntegrityError(
            f"init={folder}: {config['name']} is {_a(there)}, this classifier {_a(architecture)}; give "
            "a folder of the same architecture"
        )
    state, labels = classifiers.read_weights(folder, config["xxh3"]), tuple(config["labels"])
    grid, norm_eps = getattr(twin, "grid", (0, 0)), getattr(twin, "norm_eps", None)
    return Weights(str(folder), state, twin.heads, labels, grid, norm_eps)


def load_weights(module: nn.Module, weights: Weights, new_head: bool, labels: Sequence[str] | None) -> None:
    """Load `weights` into `module`, a `Receiver`.

    Args:
        module: receives them; it keeps its head with `new_head`, or if the weights have none.
        weights: of the whole module, or without the head.
        new_head: keep the module's untrained head.
        labels: the module's classes, compared with those of the weights if both are known.

    Raises:
        IntegrityError: another number of classes, other classes, or another shape.
    """
    kind: Any = module
    state = weights.state
    if new_head or kind.class_bias not in state:
        body = {name: tensor for name, tensor in state.items() if not name.startswith(kind.head_names)}
        state = body | {n: t for n, t in module.state_dict().items() if n.startswith(kind.head_names)}
    else:
        _same_classes(weights, len(module.state_dict()[kind.class_bias]), len(state[kind.class_bias]), labels)
    if weights.heads != kind.heads:
        raise IntegrityError(
            f"init={weights.source}: not the weights of {_a(type(module))} of this size "
            f"({weights.heads} attention heads, expected {kind.heads})"
        )
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise IntegrityError(
            f"init={weights.source}: not the weights of {_a(type(module))} of this size ({reason})"
        ) from None


def _same_classes(weights: Weights, here: int, there: int, labels: Sequence[str] | None) -> None:
    remedy = "classifier.new_head=true loads all but the head"
    if here != there:
        raise IntegrityError(
            f"init={weights.source}: its head has {there} classes, this classifier has {here}; {remedy}"
        )
    for index, (mine, theirs) in enumerate(zip(labels or (), weights.labels or (), strict=False)):
        if mine != theirs:
            raise IntegrityError(
                f"init={weights.source}: class {index} is {theirs!r}, in this classifier {mine!r}; {remedy}"
            )


def _a(architecture: type) -> str:
    return f"{'an' if architecture.__name__[0] in 'AEIOU' else 'a'} {architecture.__name__}"
