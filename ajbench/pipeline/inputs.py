"""What identifies the inputs of stages in fingerprints: corpora, weights, text encoders."""

import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

from ajbench.core import registry
from ajbench.core.device import no_garbage_collection
from ajbench.core.errors import MissingError
from ajbench.core.files import checksum, need_regular
from ajbench.core.recipe import Data, fingerprint
from ajbench.data import archive
from ajbench.data.clip_set import FILES_AT_ONCE, ahead
from ajbench.data.corpora.detection import is_sound
from ajbench.data.manifest import Manifest, Row

MANY_FILES = 50_000  # if there are more, only so many are opened: millions would take an hour
SETTINGS = ("config.json", "generator.json", "whitening.json")  # of a classifier, a generator
HEAD_BYTES = 1 << 16  # read of every sound file: its header and enough audio to identify it


def corpus_identity(manifest: Manifest, data: Data | None = None, absent: set[str] | None = None) -> str:
    """Hash ids, labels and splits of clips, and sizes and first 64 kB of their files, but not their paths.

    `absent` receives the paths of the files that are not there.

    Where `data.video` is not none, also the clips' videos. Visual captions count everywhere.
    Of more than 50,000 files, only 50,000 evenly spaced ones are opened; the sizes of all are hashed.
    """
    video = data is not None and data.video != "none"
    videos = [row.video for row in manifest.rows if row.video] if video else []
    files = {row.path: archive.container(row.path) for row in manifest.rows}
    paths = list(dict.fromkeys([*files.values(), *videos]))
    stride = -(-len(paths) // MANY_FILES) or 1
    with ThreadPoolExecutor(4) as pool:
        heads = dict(ahead(pool, _size, paths, FILES_AT_ONCE) if stride > 1 else ())
        heads |= ahead(pool, head_of, paths[::stride], FILES_AT_ONCE)
    if absent is not None:
        absent.update(path for path, head in heads.items() if head == path)
    # A file that is no sound, such as a note, may come and go.
    sounding = lambda path: not path or Path(path).suffix in archive.SUFFIXES or is_sound(Path(path).name)  # noqa: E731
    lost = (p for p in manifest.problems if p.line is not None or sounding(p.path))
    problems = [(p.clip_id, p.line, p.split) for p in lost]
    with no_garbage_collection():
        clips = [[*_content(row, video), heads[files[row.path]]] for row in manifest.rows]
        for clip, row in zip(clips, manifest.rows if video else (), strict=False):
            clip.append(heads[row.video] if row.video else None)
        return fingerprint(list(manifest.label_set.names), clips, problems)


def codec_identity(name: str) -> str:
    """Hash the weights of a codec that ajbench ships or a path names; return the name of others.

    A store checks the hash of those when it is used.
    """
    if name in ("tiny", registry.TINY):
        return weights_identity(Path(__file__).parents[1] / "codec" / "tiny.safetensors")
    return weights_identity(Path(name)) if name.endswith(".safetensors") else name


def text_encoder_identity(name: str) -> tuple[str, ...]:
    """Hash what the states of a text encoder that is a folder depend on: weights, configuration, tokenizer.

    Empty for others, which are known by their names.
    """
    if not registry.is_folder(name):
        return ()
    kinds = (".json", ".txt", ".model", ".bin")
    rest = [checksum(file) for file in sorted(Path(name).iterdir()) if file.suffix in kinds]
    return weights_identity(Path(name)), *rest


def extractor_identity(name: str) -> tuple[str, ...]:
    """Return the hash of the source or weights of an extractor that another package registers.

    Those of ajbench are known by their names, and so is one without a file, in a notebook.
    """
    entry = registry.FEATURES.get(name)
    if entry is None or str(entry.target).startswith("ajbench."):
        return ()
    from ajbench.features.extractor import LazyExtractor

    try:
        found = LazyExtractor(name).weights_hash
    except MissingError:  # its own check says so
        return ()
    return () if found.startswith("unsaved") else (found,)


def source_identity(kind: str, name: str) -> tuple[str, ...]:
    """Return the hash of the source file of a classifier or text encoder that another package registers.

    Empty for those of ajbench and for folders, and for what has no file, in a notebook.
    """
    target = registry.KINDS[kind].get(name, "ajbench.")
    if str(target).startswith("ajbench."):
        return ()
    try:
        return (checksum(Path(inspect.getfile(registry.resolve(kind, name)))),)
    except (OSError, TypeError):
        return ()


def weights_identity(path: Path) -> str:
    """Hash a weights file, or all safetensors files of a folder and what says how they are used.

    Raises:
        MissingError: there is no such file or folder.
    """
    if not path.exists():
        raise MissingError(f"{path}: no such file or folder of weights")
    digest = xxhash.xxh3_64()
    files = [path]
    if path.is_dir():
        about = (path / name for name in SETTINGS)
        files = sorted(path.rglob("*.safetensors")) + [file for file in about if file.is_file()]
    for file in files:
        digest.update(file.name.encode(errors="surrogateescape"))
        need_regular(file)
        with file.open("rb") as content:
            while chunk := content.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _content(row: Row, video: bool) -> list[Any]:
    part = [row.clip_id, row.start_s, row.duration_s]
    seen = row.visual_caption
    return [
        *part,
        list(row.labels),
        row.split,
        row.fold,
        row.caption,
        row.parent_id,
        row.recording,
        *([[*row.more_captions]] if row.more_captions else ()),
        *([row.subset] if row.subset else ()),
        *([{"visual_caption": seen}] if video or seen else ()),
    ]


def _size(path: str) -> tuple[str, str]:
    try:
        return path, str(Path(path).stat().st_size)
    except OSError:
        return path, path


def head_of(path: str) -> tuple[str, str]:
    """Return a path and a hash of the file's size and first 64 kB; the path itself if there is no file."""
    if not Path(path).is_file():
        # A rendered clip, whose path defines it, or a missing file, which prepare will list.
        return path, path
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return path, f"{size}:{xxhash.xxh3_64_hexdigest(file.read(HEAD_BYTES))}"
    except OSError:
        return path, path
