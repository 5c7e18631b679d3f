"""What regular expressions find in the names of someone's files: the class of a clip, and its recording."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ajbench.core.clip_sections import KNOW_RECORDINGS
from ajbench.core.errors import UsageError
from ajbench.data import reasons
from ajbench.data.corpora import detection
from ajbench.data.corpora.folder import NO_CLASS
from ajbench.data.manifest import Manifest

# Option of `run` → the key of the data section, and what it finds.
OPTIONS = {"label": ("label_from", "class"), "group": ("recording_from", "recording")}


def data_keys(given: Mapping[str, str | None], last: Mapping[str, Any]) -> dict[str, str]:
    """Return keys of the data section for the options of a command.

    Args:
        given: option → regular expression; None: as the last time; empty: none.
        last: the data section of the last time.

    Raises:
        UsageError: one is no regular expression, or has several groups.
    """
    found = {}
    for option, (key, what) in OPTIONS.items():
        text = given.get(option)
        if text is None:
            text = last.get(key)
        if text:
            found[key] = _pattern(option, str(text), what)
    return found


def applied(
    found: detection.Found, patterns: Mapping[str, str | None], last: Mapping[str, Any]
) -> detection.Found:
    """Return what was found, with the keys of the patterns.

    Args:
        found: the corpus.
        patterns: as `given` of `data_keys`.
        last: the data section of the last time.

    Raises:
        UsageError: a wrong pattern, classes in names of what has labels, or sounds without labels.
    """
    keys = data_keys(patterns, last)
    if found.data["corpus"] != "folder" and keys.pop("label_from", "") and patterns.get("label"):
        raise UsageError(f"--label: {found.root} is {found.layout}, which has labels; leave the option out")
    if found.data["corpus"] in KNOW_RECORDINGS and keys.pop("recording_from", "") and patterns.get("group"):
        raise UsageError(
            f"--group: {found.root} is {found.layout}, whose recordings are known; leave the option out"
        )
    layout = found.layout
    if "label_from" in keys:
        layout = layout.replace(" with class folders", "").replace("class folders", "folders")
        layout += ", classes from the files' names"
    elif layout == detection.FLAT:
        raise UsageError(
            f"--data {found.root}: sound files without class folders or a table; if their names have the "
            f"class: `ajbench run --data {found.root} --label PATTERN`; else expected {detection.LAYOUTS}"
        )
    return replace(found, data=found.data | keys, layout=layout)


def with_one_class(data: Mapping[str, Any], manifest: Manifest) -> str:
    """Return what to do where all clips of a folder are of one class, in words.

    Args:
        data: its data section.
        manifest: the clips, and the files that are none.
    """
    pattern, fits = data.get("label_from"), len(manifest.rows)
    if pattern is None:
        return "if the classes are in the files' names: `ajbench run --label PATTERN`"
    names = fits + reasons.counts(manifest.problems).get(NO_CLASS, 0)
    return f"--label {pattern} fits {fits} of {names} names; its group should be the class, as in '^([^_]+)_'"


def _pattern(option: str, text: str, what: str) -> str:
    """Return a pattern with one group; one without gets one."""
    if (option, text) == ("group", "youtube"):
        return text
    flags = re.match(r"(?:\(\?[aimsux]+\))*", text)
    assert flags  # perhaps none
    try:
        groups = re.compile(text).groups
        whole = text if groups else f"{flags[0]}({text[flags.end() :]})"
        re.compile(whole)
    except re.error as error:
        raise UsageError(f"--{option} {text}: not a regular expression ({error})") from None
    if groups > 1:
        raise UsageError(f"--{option} {text}: {groups} groups; one is the {what}, such as in '_(.+)_'")
    return whole
