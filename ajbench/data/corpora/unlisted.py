"""Sound files in a folder that the corpus found in it does not have."""

import os
from pathlib import Path

from ajbench.core.errors import AjbenchError
from ajbench.core.files import composed, printable, walk
from ajbench.data import archive
from ajbench.data.corpora import detection, hub, table_files
from ajbench.data.manifest import Manifest, Problem


def unlisted(path: Path, found: detection.Found, manifest: Manifest) -> list[Problem]:
    """Return the sound files below `path` that are neither clips nor problems of the corpus, with the reason.

    AudioSet is not searched: its lists name a part of the files on purpose.

    Args:
        path: the folder that was given; a file has none.
        found: what was found in it.
        manifest: its clips and problems.
    """
    if not path.is_dir() or found.data["corpus"] == "audioset":
        return []
    used = (file for row in manifest.rows for file in (row.path, row.video) if file)
    named = {_key(Path(archive.container(file))) for file in used}
    named |= {_key(Path(problem.path)) for problem in manifest.problems}
    tables = _tables(found)
    for table in tables:
        named |= {_key(file) for file in _files(table)}
    top = found.root if found.root.is_dir() else found.root.parent
    if tables:
        reason = f"not in {tables[0].name}"
    elif top != path.resolve():
        reason = f"outside of {top.name}, which has the clips"
    else:
        reason = "not a clip of the corpus"
    files = (file for file in walk(path) if detection.is_sound(file.name))
    return [Problem(None, printable(str(file)), None, reason) for file in files if _key(file) not in named]


def _tables(found: detection.Found) -> list[Path]:
    if found.data["corpus"] == "table":
        return [found.root]
    return hub.find_tables(found.root) if found.data["corpus"] == "hub" and found.root.is_dir() else []


def _files(table: Path) -> list[Path]:
    """Return the files that a table names, whether or not their lines are used."""
    try:
        records, _ = table_files.read(table)
    except AjbenchError:
        return []
    written = [str(cells["path"]) for _, cells in records if cells["path"]]
    return [table.resolve().parent / one for name in written for one in {name, name.replace("\\", "/")}]


def _key(path: Path) -> str:
    """Return what files are compared by: names in tables may have accents in the other form."""
    return composed(printable(f"{os.path.realpath(path.parent)}/{path.name}"))
