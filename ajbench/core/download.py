"""Published weights onto this machine, only when asked: resumed where it stopped, then verified."""

import http.client
import re
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.published import WeightFile

CHUNK = 1 << 20
TIMEOUT_S = 30.0  # without a byte
Advance = Callable[[int], None]


def fetch(file: WeightFile, folder: Path, advance: Advance = lambda n: None) -> Path:
    """Download a file into `folder`, or go on where an earlier call was ended; return its path.

    What has arrived lies in `<file>.part`. It is given its name only if size and SHA-256 are those published
    (where they are known), so a file of that name is always whole.

    Args:
        file: which.
        folder: `$AJBENCH_WEIGHTS`.
        advance: is told of bytes, those of earlier calls too.

    Raises:
        MissingError: there is no connection, it broke off, or the file is not there; what came is kept.
        IntegrityError: what came, or what lay there, is not the published file; what came is removed.
    """
    path = folder / file.file
    if path.exists():
        if wrong := file.fault(path):
            raise IntegrityError(f"{path}: {wrong}; remove it, then download it again")
        advance(path.stat().st_size)
        return path
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        _receive(file, part, advance)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and not isinstance(error, URLError | ConnectionError | TimeoutError):
            raise  # the disk's
        reason = " ".join(str(getattr(error, "reason", error) or type(error).__name__).split())[:120]
        kept = f"; {part.stat().st_size} bytes are kept, the same command goes on" if part.exists() else ""
        raise MissingError(
            f"weights {file.name}: {file.url} cannot be had ({reason}){kept}; or get it elsewhere and put it "
            f"at {path}"
        ) from None
    if wrong := file.fault(part):
        part.unlink()
        raise IntegrityError(f"weights {file.name}: {file.url} gave another file: {wrong}; nothing was kept")
    part.replace(path)
    return path


def _receive(file: WeightFile, part: Path, advance: Advance) -> None:
    """Append to `part` what it lacks of the file."""
    there = part.stat().st_size if part.exists() else 0
    if there and there == file.bytes:
        advance(there)
        return
    headers = {"User-Agent": "ajbench"} | ({"Range": f"bytes={there}-"} if there else {})
    try:
        answer = urlopen(Request(file.url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code != 416 or not there:
            raise
        part.unlink()  # longer than the file, so of another one
        return _receive(file, part, advance)
    with answer:
        begin = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        goes_on = answer.status == 206 and begin is not None and int(begin[1]) == there
        expected = answer.headers.get("Content-Length")
        received = 0
        with part.open("ab" if goes_on else "wb") as out:
            if goes_on:
                advance(there)
            while block := answer.read(CHUNK):
                out.write(block)
                received += len(block)
                advance(len(block))
        # An answer that is read in pieces ends early without a word.
        if expected is not None and received < int(expected):
            raise ConnectionError(f"broke off after {received} of {expected} bytes")
