"""Files of any kind: checksums, atomic writes, locks, folders; and seeds that are hashes of names."""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import socket
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.memory import need_reserve

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# A file or folder that was named and cannot be used, whatever is done with it.
UNUSABLE = {
    errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG,
    errno.ENXIO, errno.EIO, errno.ESTALE,
}  # fmt: skip
SYNCED_AT_ONCE = 32  # one by one, each of many small files waits for the disk
_OF_RUST = re.compile(r"\(os error (\d+)\)")
_OF_TORCH = re.compile("PytorchStreamWriter|inline_container")
# After a sign: no operator, no function. Or a mix, such as +640A+640G, of which no part names a cell.
_PLAIN = re.compile(r"[+-][\w.:%-]*|(\+\d+[AGRX])+")
_serial = itertools.count()


def need_regular(path: Path) -> None:
    """Refuse what is there but no regular file: a pipe would wait for ever, a device would never end.

    Raises:
        IntegrityError: it is a pipe, a device, a folder, or a link to one of these.
    """
    if not path.is_file() and os.path.lexists(path) and path.exists():
        raise IntegrityError(f"{path}: not a regular file; put a copy of the file there")


def checksum(path: Path) -> str:
    """Return the 128-bit XXH3 of a file in hexadecimal: fast, for files that ajbench wrote itself.

    Raises:
        IntegrityError: it is no regular file.
    """
    need_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal: for files that others publish; errors as `checksum`."""
    need_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file so that its name holds either the old content or all of the new, even after a crash.

    Raises:
        MissingError: no space is left, or memory is so short that the content may be wrong; no partial file
            remains.
    """
    need_reserve()
    path = Path(path)
    # The names of files on Linux are bytes; those that are not UTF-8 are written escaped.
    content = data.encode(errors="backslashreplace") if isinstance(data, str) else data
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{next(_serial)}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise MissingError(
                f"{path}: no space for {len(content)} bytes ({os.strerror(error.errno or 0)}); "
                "free some and run again"
            ) from None
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path that a library writes to; in the end it becomes `path`, whole or not at all.

    Raises:
        MissingError: it cannot be written, or memory is so short that it may be wrong; no partial file
            remains.
    """
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{next(_serial)}.tmp")
    try:
        with writing(path):
            yield partial
            need_reserve()
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file or folder that a library cannot write, as each has its own error for a full disk.

    Raises:
        MissingError: a file cannot be written.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        named = getattr(error, "filename", None)
        other = Path(os.fsdecode(named)) if named else path
        if path.name not in other.name and path not in other.parents:  # an input, for instance
            raise
        if found := _OF_RUST.search(str(error)):  # safetensors
            number = int(found[1])
        reason = os.strerror(number) if number in DISK_FULL | UNUSABLE else ""
        if not reason and _OF_TORCH.search(str(error)):  # torch.save does not say why
            reason = "the disk may be full"
        if not reason:
            raise
        remedy = "choose another folder" if number in UNUSABLE else "make space and run again"
        raise MissingError(f"{path}: cannot be written ({reason}); {remedy}") from None


def sync(files: Iterable[Path]) -> None:
    """Make files that something else has written, and their names, survive a loss of power.

    Whatever says that they are finished, or deletes what they were made from, comes after it.
    """

    def sync_file(path: Path) -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())

    paths = [*files]
    with ThreadPoolExecutor(SYNCED_AT_ONCE) as pool:
        list(pool.map(sync_file, paths))
    for folder in {path.parent for path in paths}:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    entry = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(entry)
    finally:
        os.close(entry)


def need_new(path: Path, option: str, force: bool = False) -> None:
    """Check that there is no file yet at the path that an option names, unless `force` overwrites it.

    Raises:
        UsageError: there is one.
    """
    if path.exists() and not force:
        raise UsageError(f"{option} {path}: exists; choose another name, or overwrite it with --force")


def need_writable(path: Path, option: str, folder: bool = False) -> None:
    """Check that a file, or a folder, can be made at `path` or is there; nothing is left behind.

    Raises:
        MissingError: it cannot; the message names the option.
    """
    place = next(one for one in (path.absolute(), *path.absolute().parents) if os.path.lexists(one))
    reason = "" if place.is_dir() or (place == path.absolute() and not folder) else f"{place} is not a folder"
    try:
        if not folder and path.exists() and not path.is_file():
            reason = "not a regular file"
        if not reason:
            with tempfile.TemporaryFile(dir=place if place.is_dir() else place.parent):
                return
    except OSError as error:
        reason = error.strerror or str(error)
    raise MissingError(f"{option} {str(path)[-200:]}: cannot be written ({reason}); choose another place")


def walk(folder: Path) -> list[Path]:
    """Return the files in and below a folder, sorted by their path.

    Names that start with a dot are skipped. Links to folders are followed, unless the folder is reached
    without the link too, or through an earlier one.
    """
    found, links, seen = list[Path](), list[Path](), {folder.resolve(), *folder.resolve().parents}

    def enter(inside: Path) -> None:
        for path in sorted(inside.iterdir()):
            if path.name.startswith("."):
                continue
            if not path.is_dir():
                found.append(path)
            elif path.is_symlink():
                links.append(path)
            elif (target := path.resolve()) not in seen:
                seen.add(target)
                enter(path)

    enter(folder)
    while links:
        link = links.pop(0)
        if (target := link.resolve()) not in seen:
            seen.add(target)
            enter(link)
    return sorted(found)


def absolute(path: Path) -> Path:
    """Return an absolute path with its links: in the hub's cache they lead to files without names."""
    return Path(os.path.normpath(path.absolute()))


def composed(name: str) -> str:
    """Return a name with composed accents (NFC): macOS writes decomposed ones, which look the same."""
    return unicodedata.normalize("NFC", name)


def printable(name: str) -> str:
    """Return the name of a file, with the bytes that are not UTF-8 escaped as \\udcXX."""
    return name.encode(errors="backslashreplace").decode()


def inert(text: str) -> str:
    """Return the text of a CSV cell, after an apostrophe if a spreadsheet would compute it.

    A word or number that begins with a sign, such as the id of a video, stays as it is: it calls nothing. So
    does the name of a mix.
    """
    if text[:1] in ("=", "@", "\t", "\r") or (text[:1] in ("+", "-") and not _PLAIN.fullmatch(text)):
        return f"'{text}"
    return text


@contextlib.contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on `path` (created if absent); it ends with its process.

    Args:
        path: of the lock.
        wait: until other processes have released it.

    Raises:
        MissingError: another process holds the lock (without `wait`); the message names it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise MissingError(f"{path}: held by {holder}; wait until it ends, or stop it") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def seed_for(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed derived from a run's seed and names, the same on every machine."""
    text = json.dumps([seed, *names], ensure_ascii=False, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
