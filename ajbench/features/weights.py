"""Where the weights of features lie on this machine, and whether they are the published ones."""

import importlib.util
from pathlib import Path

import xxhash

from ajbench.core import published, registry, weights
from ajbench.core.errors import MissingError
from ajbench.core.files import checksum

ELSE = {"mn04": "features=reference", "mn10": "features=reference"}  # what needs no such file; others: mn04
# What a folder of transformers' is known by: the first kind of weights that it has, and what steers them.
_KINDS = ("*.safetensors", "*.bin")
_CONFIGS = ("config.json", "preprocessor_config.json")


def locate(name: str, path: Path | str | None = None) -> Path:
    """Return the file or folder with the weights of features.

    Args:
        name: of the features, but `reference`.
        path: what the user named; None looks for the published file in `$AJBENCH_WEIGHTS`, then in the cache
            of torch or of the hub.

    Raises:
        MissingError: it is not there; the message says from where to get it and where to put it. Or the
            package that reads it is not installed.
    """
    if name == "passt" and importlib.util.find_spec("hear21passt") is None:
        raise MissingError(
            "features passt: the package hear21passt is not installed; `pip install 'ajbench[passt]'` or "
            "`pip install hear21passt`, or use mn10"
        )
    if name == "encodec":
        from ajbench.codec import encodec_weights  # and with it torch and the package

        return encodec_weights.locate(Path(path) if path is not None else None)
    if name in registry.FEATURE_FOLDERS:
        return _folder(name, Path(path) if path is not None else None)
    file = registry.FEATURE_FILES[name]
    found = Path(path) if path is not None else published.files_of(name)[0].find()
    if found is not None and found.is_file():
        return found
    home = weights.folder()
    missing = Path(path) if path is not None else home / file if home else None
    where = f"{missing} is missing" if missing else f"set {weights.VARIABLE} to the folder of {file}"
    raise MissingError(f"features {name}: {where}; {_remedy(name)}")


def checked(name: str, path: Path | str | None = None) -> Path:
    """Return what `locate` does; published files that are pinned are compared with their hashes.

    Weights that the user named are their own business.

    Raises:
        MissingError: as `locate`.
        IntegrityError: a file is not the published one.
    """
    found = locate(name, path)
    if path is not None or name == "encodec":  # whose weights are checked as they are read
        return found
    for file in published.files_of(name):
        here = found if found.is_file() else found / Path(file.file).name
        # Another revision of a folder may hold the same weights in another kind of file.
        if here.is_file() and (found.is_file() or here.suffix in (".bin", ".safetensors")):
            published.check(file, here)
    return found


def identity(path: Path) -> str:
    """Return a hash of a file, or of a folder's weights and configuration, in hexadecimal."""
    if path.is_file():
        return checksum(path)
    kinds = (sorted(path.glob(kind)) for kind in _KINDS)
    files = [*next((kind for kind in kinds if kind), []), *(path / name for name in _CONFIGS)]
    parts = (checksum(file) for file in files if file.is_file())
    return xxhash.xxh3_64_hexdigest("".join(parts).encode())


def _folder(name: str, path: Path | None) -> Path:
    if path is not None:
        if (path / "config.json").is_file():
            return path
        raise MissingError(
            f"features {name}: {path / 'config.json'} is missing; name a folder of transformers"
        )
    hub = registry.FEATURE_FOLDERS[name]
    found = weights.own(f"{name}/config.json") or weights.cached([hub], "config.json")
    if found is None:
        raise MissingError(f"features {name}: {hub} is not {weights.places(name)}; {_remedy(name)}")
    return found.parent


def _remedy(name: str) -> str:
    return (
        f"get it by `ajbench doctor --weights --download {name}` or from {published.files_of(name)[0].url} "
        f"({weights.VARIABLE} names the folder), or use {ELSE.get(name, 'mn04')}"
    )
