"""What is done with any file: its checksum."""

from pathlib import Path

import xxhash


def checksum(path: Path) -> str:
    """Return the 128-bit XXH3 of a file, in hex."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
