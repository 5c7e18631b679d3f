"""What regular expressions find in the names of someone's files: the class of a clip, and its recording."""

import re
from collections.abc import Mapping
from typing import Any

from ajbench.core.errors import UsageError

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


def _pattern(option: str, text: str, what: str) -> str:
    """Return a pattern with one group; one without gets one."""
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise UsageError(f"--{option} {text}: not a regular expression ({error})") from None
    if groups > 1:
        raise UsageError(f"--{option} {text}: {groups} groups; one is the {what}, such as in '_(.+)_'")
    return text if groups or (option, text) == ("group", "youtube") else f"({text})"
