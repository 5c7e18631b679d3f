"""Published weights: the table of them, where each is on this machine, and whether it is the right file.

`weights.csv` in this folder has one row per file. A name may have several files, which then share a folder of
that name. Nothing is downloaded here; see `ajbench.core.download`.
"""

import csv
import functools
import os
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import checksum, sha256
from ajbench.core.registry import FEATURES, suggest

if TYPE_CHECKING:
    from torch import Tensor

TABLE = Path(__file__).with_name("weights.csv")
VARIABLE = "AJBENCH_WEIGHTS"
ZIP = b"PK\3\4"  # how files of torch.save begin
CONFIG = "config.json"  # every folder saved by transformers has one
PICKLE = ".bin"
TENSORS = (".safetensors", PICKLE)
_HUB_URL = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/[^/]+/(.+)")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class WeightFile(NamedTuple):
    """A published file, one row of `weights.csv`.

    Attributes:
        name: of the weights; several rows may share it.
        used_for: the part of ajbench that loads it.
        file: path below `$AJBENCH_WEIGHTS`; `<name>/<file>` where the weights are a folder.
        url: where it is published.
        bytes: size; None if unknown.
        sha256: in hexadecimal, or its beginning where no more is published; empty if unknown, and the file is
            then "not pinned".
        licence: of the weights.
        also: other hub repositories that hold the same weights, in transformers' layout.
    """

    name: str
    used_for: str
    file: str
    url: str
    bytes: int | None
    sha256: str
    licence: str
    also: str = ""

    def find(self) -> Path | None:
        """Return the path of this file on this machine; None if it is not there."""
        hub = _HUB_URL.fullmatch(self.url)
        where = ([], self.name, [hub[1]], [hub[2]]) if hub else ([self.file], self.name, [], [])
        places = _places(*where)
        return next((path for path in places if path.is_file()), None)

    def fault(self, path: Path) -> str | None:
        """Return how a file differs from the published one in size or hash; None if it does not."""
        if self.bytes is not None and (size := path.stat().st_size) != self.bytes:
            return f"{size} bytes instead of the published {self.bytes}"
        if self.sha256 and not (found := sha256(path)).startswith(self.sha256):
            return f"SHA-256 begins with {found[:8]} instead of the published {self.sha256[:8]}"
        return None


@functools.cache
def listed() -> tuple[WeightFile, ...]:
    """Return all published files, in the order of the table."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(
            WeightFile(**(row | {"bytes": int(row["bytes"]) if row["bytes"] else None}))  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        )


def files_of(name: str) -> list[WeightFile]:
    """Return the files of the weights `name`, or of the extractor of that name.

    Raises:
        UsageError: the name is unknown; the message lists the names.
    """
    if not (found := _rows(FEATURES[name].weights or name if name in FEATURES else name)):
        names = list(dict.fromkeys(file.name for file in listed()))
        raise UsageError(f"weights {name!r} are unknown{suggest(name, names)}; allowed: {', '.join(names)}")
    return found


def folder() -> Path | None:
    """Return the folder that `$AJBENCH_WEIGHTS` names; None if it is not set."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def find(name: str, files: Sequence[str] = ()) -> Path | None:
    """Return where weights are on this machine; None if they are not.

    Looks in `$AJBENCH_WEIGHTS`, then in torch's cache, then in the hub's cache.

    Args:
        name: of the table, or a hub repository (`owner/name`).
        files: of the repository, any one of which is enough. By default the weights are the single file that
            the table has, or a folder saved by transformers.

    Returns:
        A file, or the folder if the weights are one that transformers saved.
    """
    single, repositories = _sources(name)
    places = _places(single, name, repositories, files or _inside(name))
    return next(filter(None, map(_usable, places)), None)


def locate(
    name: str, path: Path | str | None = None, *, who: str, instead: str, files: Sequence[str] = ()
) -> Path:
    """Return where weights are: `path` if the user named one, else as `find` does.

    Args:
        name: as for `find`.
        path: a file, or a folder that holds one of `files`.
        who: needs them, at the start of the message: `features mn04`.
        instead: how to run without them, at its end: `use features=reference`.
        files: as for `find`.

    Raises:
        MissingError: they are not there; the message says where to get them and where to put them.
    """
    inside = files or _inside(name)
    if path is not None:
        path = Path(path).expanduser()
        if found := next(filter(None, map(_usable, (path, *(path / file for file in inside)))), None):
            return found
        lacks = f"has no {inside[0]} with tensors" if path.exists() else "is missing"
        raise MissingError(f"{who}: {path} {lacks}; {instead}")
    if found := find(name, files):
        return found
    single, repositories = _sources(name)
    if not single and not repositories:
        raise MissingError(f"{who}: {name} is neither a folder nor a hub repository (owner/name); {instead}")
    from huggingface_hub import constants

    places = [f"${VARIABLE} ({folder() or 'not set'})"]
    places += [f"torch's cache ({torch_cache()})"] if single else []
    places += [f"the hub's cache ({constants.HF_HUB_CACHE})"] if repositories else []
    rows = _rows(name)
    get = (
        f"ajbench doctor --weights --download {name}` (from {rows[0].url}"
        if rows
        else (f"hf download {name} {inside[0]}` (from https://huggingface.co/{name}")
    )
    first = f"set {VARIABLE} to a folder and " if rows and not folder() else ""  # where doctor puts it
    raise MissingError(
        f"{who}: {' or '.join([*single, *repositories])} not found in {', '.join(places)}; "
        f"{first}get it with `{get}), or {instead}"
    )


def of_codec(name: str) -> Path | None:
    """Return where the weights of a codec are; None if it is shipped, a file, or registered by the user.

    Raises:
        MissingError: they are not on this machine.
    """
    published = name.partition("@")[0]
    if not _rows(published):
        return None
    return locate(published, who=f"codec {published}", instead="run without it: codec.name=tiny")


def check(name: str, path: Path) -> None:
    """Refuse weights in the usual places that are not the published ones; unpinned files pass.

    Args:
        name: of the table.
        path: what `find` returned.

    Raises:
        IntegrityError: a file has another size or hash.
    """
    for file in _rows(name):
        here = path / Path(file.file).name if path.is_dir() else path
        # Of a folder only the tensors: another revision may have another configuration, or another format.
        if path.is_dir() and not (here.suffix in TENSORS and here.is_file()):
            continue
        if wrong := file.fault(here):
            raise IntegrityError(f"{here}: {wrong}; remove it and get it again from {file.url}")


def identity(path: Path) -> str:
    """Return a hash of a file, or of the weights and configurations in a folder, in hexadecimal."""
    if path.is_file():
        return checksum(path)
    kinds = (sorted(path.glob(f"*{kind}")) for kind in TENSORS)
    files = [*next(filter(None, kinds), []), path / CONFIG, path / "preprocessor_config.json"]
    parts = (checksum(file) for file in files if file.is_file())
    return xxhash.xxh3_64_hexdigest("".join(parts).encode())


def torch_cache() -> Path:
    """Return the folder in which torch keeps downloaded checkpoints, without importing torch."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(os.environ.get("TORCH_HOME", cache)).expanduser() / "hub" / "checkpoints"


def unpickled(path: Path) -> Any:
    """Read a file of `torch.save` that holds tensors, NumPy's numbers and plain values; no code in it is run.

    Raises:
        IntegrityError: it holds something else, or is damaged.
    """
    need_stored(path)
    import numpy as np
    import torch

    # What pickles of NumPy's arrays and scalars call, under its old and its new name; it is harmless.
    safe: list[Any] = [np.ndarray, np.dtype, np.dtypes.Int64DType, np.dtypes.Float64DType]
    for part, value in (("_reconstruct", np.zeros(0)), ("scalar", np.float64(0))):
        function: Any = value.__reduce__()[0]
        safe += [(function, f"numpy.{core}.multiarray.{part}") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals(safe):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception:  # a dozen types, some with advice on how to run the code
        raise IntegrityError(f"{path}: not a plain state dict, or damaged; get it again") from None


def need_stored(path: Path) -> None:
    """Refuse a pickle whose tensors are compressed, or stored once for many: `torch.save` writes neither.

    Raises:
        IntegrityError: they are, and would take more memory than the file.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP:  # of an older torch
            return
    try:
        with zipfile.ZipFile(path) as members:
            size = sum(member.file_size for member in members.infolist())
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
        raise IntegrityError(f"{path}: damaged ({error}); get it again") from None
    if size > path.stat().st_size:
        raise IntegrityError(f"{path}: {size} bytes once unpacked; save it with torch.save, uncompressed")


def digest(tensors: Iterable["Tensor"]) -> str:
    """Return a hash of tensors that does not depend on their order or on the file that they came from."""
    # Sorted because parameter names differ between versions of libraries.
    parts = (tensor.detach().cpu().contiguous().numpy().data for tensor in tensors)
    return xxhash.xxh3_64_hexdigest(b"".join(sorted(xxhash.xxh3_64_digest(part) for part in parts)))


def _rows(name: str) -> list[WeightFile]:
    return [file for file in listed() if file.name == name]


def _sources(name: str) -> tuple[list[str], list[str]]:
    """Return the single files of the weights `name` outside the hub, and their repositories on the hub."""
    rows = _rows(name)
    if not rows:
        return [], [name] if _HUB_ID.fullmatch(name) else []
    hub = [_HUB_URL.fullmatch(row.url) for row in rows]
    repositories = [match[1] for match in hub if match] + [one for row in rows for one in row.also.split()]
    single = [row.file for row, match in zip(rows, hub, strict=True) if not match]
    return single, list(dict.fromkeys(repositories))


def _inside(name: str) -> Sequence[str]:
    """Return the files of which the first that is there stands for the folder of the weights `name`."""
    inside = [row.file.removeprefix(f"{name}/") for row in _rows(name) if "/" in row.file]
    return inside if inside and CONFIG not in inside else (CONFIG,)


def _places(
    single: Sequence[str], name: str, repositories: Sequence[str], files: Sequence[str]
) -> Iterator[Path]:
    """Yield where weights may be: single files, and `files` of a folder `name` or of hub repositories."""
    if home := folder():
        yield from (home / file for file in (*single, *(f"{name}/{file}" for file in files)))
    yield from (torch_cache() / file for file in single)
    if repositories:
        import huggingface_hub

        for repository in repositories:
            for file in files:
                found = huggingface_hub.try_to_load_from_cache(repository, file)  # asks no server
                if isinstance(found, str):
                    yield Path(found)


def _usable(path: Path) -> Path | None:
    """Return a file; of a configuration the folder, if it also holds tensors; else None."""
    if not path.is_file():
        return None
    if path.name != CONFIG:
        return path
    return path.parent if any(file.suffix in TENSORS for file in path.parent.iterdir()) else None
