"""JSON files with a seal, the hash of their content: a flipped bit may leave JSON, with another value."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import xxhash

from ajbench.core.documents import JSON_BYTES, read_json
from ajbench.core.errors import IntegrityError
from ajbench.core.files import atomic_write

SEAL = "seal"


def write_sealed(path: Path, tree: Mapping[str, Any], indent: int | None = None) -> None:
    """Write a JSON object with its seal; errors as in `atomic_write`."""
    atomic_write(path, json.dumps(sealed(tree), indent=indent, ensure_ascii=False) + "\n")


def read_sealed(
    path: Path, remedy: str, most: int = JSON_BYTES, keys: Collection[str] = ()
) -> dict[str, Any]:
    """Return the JSON object in a file, without its seal.

    Args:
        path: of the file; those of earlier versions have no seal, and are read as they are.
        remedy: end of the message if it is damaged.
        most: bytes.
        keys: that it must have.

    Raises:
        FileNotFoundError: there is nothing at this path.
        IntegrityError: it is no JSON object, not as it was sealed, or lacks a key.
    """
    try:
        found = unsealed(read_json(path, most))
        if absent := sorted({*keys} - found.keys()):
            raise ValueError(f"no {absent[0]}")
        return found
    except ValueError as error:
        raise IntegrityError(f"{path}: damaged ({error}); {remedy}") from None


def sealed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its seal."""
    return {**tree, SEAL: _hash(json.loads(json.dumps(tree)))}  # as it will be read: all keys are text


def unsealed(tree: Any) -> dict[str, Any]:
    """Return a JSON object without its seal, if it has one.

    Raises:
        ValueError: it is no object, or not as it was sealed.
    """
    if not isinstance(tree, dict):
        raise ValueError("not a JSON object")
    content = {key: value for key, value in tree.items() if key != SEAL}
    if SEAL in tree and tree[SEAL] != _hash(content):
        raise ValueError("checksum mismatch")
    return content


def _hash(tree: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(tree, sort_keys=True).encode())
