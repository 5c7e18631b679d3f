"""Begin a classifier from trained weights: what the architectures share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from accelerate import init_empty_weights
from torch import Tensor, nn

from ajbench.classifiers import build
from ajbench.classifiers import checkpoint as folders
from ajbench.core.errors import IntegrityError


class Receiver(Protocol):
    """What a module that can be initialised says of itself."""

    heads: int  # of the attention; the shapes of the weights do not tell
    head_names: tuple[str, ...]  # beginnings of the names of what depends on the classes
    class_bias: str  # name of a tensor [C]


@dataclass(frozen=True)
class Weights:
    """Trained weights under the names of the module that receives them.

    Attributes:
        source: where they come from, for messages.
        state: tensors by name.
        heads: of the attention.
        labels: names of the classes in order; None where they are not known.
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
    """Return whether `config.json` of a folder is of a classifier that ajbench trained."""
    return {"name", "options"} <= folders.read_json(folder).keys()


def read_ours(folder: Path, architecture: type[nn.Module]) -> Weights:
    """Read a classifier that ajbench trained.

    Raises:
        MissingError: a file is not there.
        IntegrityError: damaged, or of another architecture.
    """
    config = folders.read_config(folder)
    with init_empty_weights():
        twin: Any = build(config["name"], len(config["labels"]), **config["options"])
    there = twin.__class__
    if there is not architecture:
        raise IntegrityError(
            f"init={folder}: {config['name']} is {_a(there)}, this classifier {_a(architecture)}; name "
            "a folder of the same architecture"
        )
    state, labels = folders.read_weights(folder, config["xxh3"]), tuple(config["labels"])
    grid, norm_eps = getattr(twin, "grid", (0, 0)), getattr(twin, "norm_eps", None)
    return Weights(str(folder), state, twin.heads, labels, grid, norm_eps)


def load_weights(module: nn.Module, weights: Weights, new_head: bool, labels: Sequence[str] | None) -> None:
    """Put `weights` into `module`, a `Receiver`; its own head stays with `new_head`, or where they have none.

    Args:
        module: receives them.
        weights: all of the module's, or all but the head.
        new_head: keep the module's own, untrained head.
        labels: the module's classes, compared with those of the weights where both are known.

    Raises:
        IntegrityError: another number of classes, other classes, another shape.
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
            f"init={weights.source}: not the weights of {_a(type(module))} like this "
            f"({weights.heads} attention heads, here {kind.heads})"
        )
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise IntegrityError(
            f"init={weights.source}: not the weights of {_a(type(module))} like this ({reason})"
        ) from None


def _same_classes(weights: Weights, here: int, there: int, labels: Sequence[str] | None) -> None:
    remedy = "classifier.new_head=true keeps all but the head"
    if here != there:
        raise IntegrityError(
            f"init={weights.source}: its head has {there} classes, this classifier {here}; {remedy}"
        )
    for index, (mine, theirs) in enumerate(zip(labels or (), weights.labels or (), strict=False)):
        if mine != theirs:
            raise IntegrityError(
                f"init={weights.source}: class {index} is {theirs!r} there and {mine!r} here; {remedy}"
            )


def _a(architecture: type) -> str:
    return f"{'an' if architecture.__name__[0] in 'AEIOU' else 'a'} {architecture.__name__}"
