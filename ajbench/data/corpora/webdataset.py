"""WebDataset: tars in which the files of one key are a clip: `1.wav` with `1.json`, `1.cls` or `1.txt`."""

import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ajbench.core.documents import parse_json
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import absolute
from ajbench.core.recipe import Data
from ajbench.data import archive
from ajbench.data.audio import SUFFIXES
from ajbench.data.corpora import clip_table, table_files
from ajbench.data.corpora.splits import corpus_root
from ajbench.data.manifest import SPLIT_NAMES, Manifest, Problem

TEXTS = (".json", ".cls", ".txt")


def read(data: Data, root: Path | None) -> Manifest:
    """Read the tars in or below `root`, or one tar.

    Labels are in the JSON of a clip (as the columns of `ajbench.data.corpora.clip_table`), else in `.cls`,
    else in `.txt`, one a line; without any of them, the folder of the clip in the tar is its class. The
    split is the beginning of the tar's name or the name of its folder, such as `train-000.tar`.

    Raises:
        UsageError: no root, a subset, an eval fold without clips, or a damaged tar.
        MissingError: no tar there, or no usable clip in it.
    """
    root = corpus_root(data, root, "WebDataset tars", folds=True)
    records: table_files.Records = []
    problems: list[Problem] = []
    tars = find_tars(root)
    names = archive.names_of(tars, root)
    for path in tars:
        for key, cells, reason in _clips(absolute(path)):
            clip_id = f"{names[path]}/{key}"
            split = _split(path) or cells.pop("split", None)
            if reason:
                problems.append(Problem(clip_id, str(path), None, reason, SPLIT_NAMES.get(split or "")))
            else:
                given = {"split": split} if split else {}
                records.append((len(records) + 1, {**cells, **given, "clip_id": clip_id}))
    if not records and not problems:
        raise MissingError(
            f"{root}: no tar with sounds; expected WebDataset's <key>.wav and <key>.json or .cls"
        )
    return clip_table.of_records(data, root, records, problems)


def find_tars(root: Path) -> list[Path]:
    """Return `root` if it is a tar, or the tars in it and in the folders directly below."""
    if root.is_file():
        return [root]
    return sorted([*root.glob("*.tar"), *root.glob("*/*.tar")]) if root.is_dir() else []


def _split(path: Path) -> str | None:
    for part in (path.stem, path.parent.name):
        word = re.split(r"[-_.]", part.lower())[0]
        if word in SPLIT_NAMES:
            return word
    return None


def _clips(path: Path) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Yield key, cells and the reason why it cannot be used of every clip with a sound."""
    try:
        members = archive.members(str(path))
    except (OSError, tarfile.TarError) as error:
        raise UsageError(f"{path}: not readable as tar ({error})") from None
    for key, sound, beside, recording in _samples(members):
        if sound is None:
            yield key, {}, f"no sound of a known kind ({', '.join(sorted(beside))})"
            continue
        cells: dict[str, Any] = {}
        reason = None
        try:
            texts = {
                suffix: archive.content(f"{path}{archive.MARK}{beside[suffix]}").decode().strip()
                for suffix in TEXTS
                if suffix in beside
            }
            if ".json" in texts:
                cells = dict(parse_json(texts[".json"]))
            column = next((c for c in ("labels", *table_files.NAMES["labels"]) if c in cells), None)
            folder = PurePosixPath(key).parent.name
            lines = (texts.get(".cls") or texts.get(".txt") or folder).splitlines()
            cells["labels"] = cells[column] if column else lines
            cells = table_files.plain(cells)
            if recording:
                cells.setdefault("recording", recording)
        except (ValueError, TypeError) as error:
            reason = f"its text files are not readable ({error})"
        yield key, {**cells, "path": f"{path}{archive.MARK}{sound}"}, reason


def _samples(members: Iterable[str]) -> Iterator[tuple[str, str | None, dict[str, str], str | None]]:
    """Yield key, sound, text files by suffix, and recording of every clip; a clip without a sound has None.

    The key ends at the last dot of a name: `1.5.wav` and `1.5.json` are a clip. Where a sound has no text
    file of its key, WebDataset's rule holds, by which keys end at the first dot: `1.mix.wav`, `1.voice.wav`
    and `1.json` are two clips of a recording.
    """
    sounds: dict[PurePosixPath, str] = {}
    texts: dict[PurePosixPath, dict[str, str]] = {}  # key → suffix → name
    for name in members:
        inside = PurePosixPath(name)
        if inside.name.startswith("."):
            continue
        if (suffix := inside.suffix.lower()) in TEXTS:
            texts.setdefault(inside.with_suffix(""), {})[suffix] = name
        elif suffix in SUFFIXES:
            sounds[inside] = name
    keys = {sound.with_suffix("") for sound in sounds}
    by_first = {
        sound: first
        for sound in sounds
        if sound.with_suffix("") not in texts and (first := _first(sound)) in texts and first not in keys
    }
    of_sample: Counter[PurePosixPath | None] = Counter(by_first.values())
    seen: set[PurePosixPath] = set()
    for sound, name in sounds.items():
        key = sound.with_suffix("")
        sample = by_first.get(sound)
        # Sounds of one key in several formats are clips of their own.
        clip = sample if of_sample[sample] == 1 else sound if key in seen else key
        seen.add(key)
        yield str(clip), name, texts.get(sample or key, {}), str(sample) if of_sample[sample] > 1 else None
    for key in sorted(texts.keys() - keys - of_sample.keys()):
        if {".json", ".cls"} & texts[key].keys():
            yield str(key), None, texts[key], None


def _first(name: PurePosixPath) -> PurePosixPath:
    """Return the key of a file by WebDataset's rule."""
    return name.with_name(name.name.partition(".")[0])
