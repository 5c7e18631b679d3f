"""Download published weights, on request only: resumed after a break, then verified."""

import http.client
import re
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.weights import WeightFile

CHUNK = 1 << 20
TIMEOUT_S = 30.0  # without a byte
Advance = Callable[[int], None]


def fetch(file: WeightFile, folder: Path, advance: Advance = lambda n: None) -> Path:
    """Download a file into `folder`, or resume its download; return its path.

    A partial download is kept as `<file>.part`. It gets its name only if size and SHA-256 are the published
    ones (where known), so a file of that name is always complete.

    Args:
        file: which.
        folder: `$AJBENCH_WEIGHTS`.
        advance: is called with numbers of bytes, including those of earlier calls.

    Raises:
        MissingError: no connection, a broken one, or no such file; what was received is kept.
        IntegrityError: what was received, or was there before, is not the published file; what was received
            is removed.
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
            raise  # from the disk
        reason = " ".join(str(getattr(error, "reason", error) or type(error).__name__).split())[:120]
        kept = f"; {part.stat().st_size} bytes are kept, run again to resume" if part.exists() else ""
        raise MissingError(
            f"weights {file.name}: download of {file.url} failed ({reason}){kept}; or get the file "
            f"elsewhere and put it at {path}"
        ) from None
    if wrong := file.fault(part):
        part.unlink()
        raise IntegrityError(f"weights {file.name}: {file.url} sent another file: {wrong}; nothing was kept")
    part.replace(path)
    return path


def _receive(file: WeightFile, part: Path, advance: Advance) -> None:
    """Append to `part` the bytes that it lacks."""
    have = part.stat().st_size if part.exists() else 0
    if have and have == file.bytes:
        advance(have)
        return
    headers = {"User-Agent": "ajbench"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(Request(file.url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        part.unlink()  # longer than the file, so it belongs to another one
        return _receive(file, part, advance)
    with response:
        begin = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        resumes = response.status == 206 and begin is not None and int(begin[1]) == have
        expected = response.headers.get("Content-Length")
        received = 0
        with part.open("ab" if resumes else "wb") as out:
            if resumes:
                advance(have)
            while block := response.read(CHUNK):
                out.write(block)
                received += len(block)
                advance(len(block))
        # A response that is read in blocks may end early without an error.
        if expected is not None and received < int(expected):
            raise ConnectionError(f"broke off after {received} of {expected} bytes")
