"""Files that others may have written: YAML and JSON with bounds on size and depth, plain arrays."""

import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from numpy.typing import NDArray

YAML_BYTES = 1 << 18
JSON_BYTES = 1 << 23
NPZ_BYTES = 1 << 33  # of all arrays, uncompressed: scores of 527 classes for some 3 million clips
IDS_BYTES = 1 << 28  # of a JSON file that names every training clip
DEPTH = 50  # of nested lists and mappings
VALUES = 50_000  # in a YAML document, those that aliases repeat included

_ODD = (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)

# A flipped bit may claim a password (RuntimeError), another compression (NotImplementedError) or a .npy file.
_NOT_NPZ = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, KeyError, TypeError,
    AttributeError, RuntimeError, SyntaxError, tokenize.TokenError, OverflowError,
)  # fmt: skip


def read_bytes(path: Path, most: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        FileNotFoundError: there is nothing at this path.
        ValueError: it is no regular file (a pipe would wait for ever), above `most` bytes, or not readable.
    """
    try:
        if not path.is_file():
            if path.exists():
                raise ValueError("not a regular file")
            raise FileNotFoundError(str(path))
        if (size := path.stat().st_size) > most:
            raise ValueError(f"{size} bytes; at most {most}")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:  # a name that is too long, a link to itself, no permission
        raise ValueError(error.strerror or str(error)) from None


def read_yaml(path: Path) -> Any:
    """Return the value of a YAML file; errors as in `read_bytes` and `parse_yaml`."""
    return parse_yaml(read_bytes(path, YAML_BYTES).decode("utf-8-sig"))


def read_json(path: Path, most: int = JSON_BYTES) -> Any:
    """Return the value of a JSON file; errors as in `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, most).decode("utf-8-sig"))


def read_arrays(path: Path) -> "dict[str, NDArray[Any]]":
    """Return the arrays of an npz file.

    Raises:
        FileNotFoundError: there is nothing at this path.
        ValueError: it is damaged, something else, above `NPZ_BYTES`, or has arrays of objects.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(path) as members:
            size = sum(member.file_size for member in members.infolist())
        if size > NPZ_BYTES:
            raise ValueError(f"{size} bytes once unpacked; at most {NPZ_BYTES}")
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        raise
    except _NOT_NPZ as error:
        raise ValueError(str(error) or type(error).__name__) from None


def read_array(path: Path) -> "NDArray[Any]":
    """Return the array of an npy file, mapped into memory; errors as in `read_arrays`."""
    import numpy as np

    try:
        # Otherwise memory is taken for any shape in the header before the file is found to be shorter.
        found: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        return found
    except FileNotFoundError:
        raise
    except _NOT_NPZ as error:
        raise ValueError(str(error) or type(error).__name__) from None


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text; tags that make objects are refused.

    Raises:
        ValueError: not YAML, too long, nested deeper than `DEPTH`, an alias inside its own anchor, or more
            than `VALUES` values.
    """
    if len(text) > YAML_BYTES:
        raise ValueError(f"{len(text)} characters; at most {YAML_BYTES}")
    return _parsed(lambda: _Bounded(text).get_single_data())


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: not JSON, or nested too deeply.
    """
    return _parsed(lambda: json.loads(text))


def _parsed(parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except _ODD as error:  # such as a timestamp without digits
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from None


class _Bounded(yaml.SafeLoader):
    """Counts values and depth while the tree is composed, before any object is made of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.count = 0
        self.sizes: dict[int, int] = {}  # node → values in it, once it is whole

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one value."""
        alias, before = self.check_event(yaml.AliasEvent), self.count
        self.count += 1
        self.depth += 1
        if self.depth > DEPTH:
            raise ValueError(f"nested more than {DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if alias:
            if id(node) not in self.sizes:
                raise ValueError("an alias inside its own anchor")
            self.count += self.sizes[id(node)] - 1
        self.sizes[id(node)] = self.count - before
        if self.count > VALUES:
            raise ValueError(f"more than {VALUES} values, those that aliases repeat included")
        return node
