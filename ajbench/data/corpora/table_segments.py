"""Several clips of one file in a table: columns of their times, and columns of what keeps clips together."""

from collections import Counter
from pathlib import Path

from ajbench.core import console
from ajbench.data.corpora import table_files
from ajbench.data.corpora.table_splits import text

STARTS = ("start", "start_time", "onset", "begin", "begin_time")
ENDS = ("end", "end_time", "offset", "stop")
GROUPS = (
    "speaker",
    "speaker_id",
    "subject",
    "subject_id",
    "group",
    "session",
    "source_id",
    "user_id",
    "client_id",
)


def with_times(records: table_files.Records, path: Path) -> table_files.Records:
    """Return records with `start_s` and `duration_s` from columns such as `start` and `end`, in seconds.

    They are read only where files have several rows: elsewhere they may be of what a file was cut from.

    Args:
        records: (line number, {column: cell}).
        path: of the table, for the message.
    """
    columns = {table_files.usual(name): name for _, row in records[:1] for name in row}
    start, end = (
        next((columns[name] for name in names if name in columns), None) for names in (STARTS, ENDS)
    )
    several = max(Counter(text(row, "path") for _, row in records).values(), default=0) > 1
    if start is None or "start_s" in columns or not several:
        return records
    if any(_number(row.get(start)) is None for _, row in records):
        return records
    used = " and ".join(filter(None, (start, end)))
    console.say_once(f"{path}: files have several rows; {used}: the times of clips, in seconds")
    found: table_files.Records = []
    for line, row in records:
        begin, stop = _number(row[start]) or 0.0, _number(row.get(end)) if end else None
        lasts = {} if stop is None or "duration_s" in columns else {"duration_s": f"{stop - begin:.6f}"}
        found.append((line, {**row, "start_s": f"{begin:.6f}"} | lasts))
    return found


def unused_groups(records: table_files.Records, path: Path) -> None:
    """Say which column may tell what clips belong together, if the table has no column `recording`."""
    columns = {table_files.usual(name): name for _, row in records[:1] for name in row}
    if "recording" not in columns and (found := [columns[name] for name in GROUPS if name in columns]):
        console.say_once(
            f"{path}: column {found[0]} is not used; call it recording to keep its clips in one split or fold"
        )


def _number(cell: object) -> float | None:
    try:
        return float(str(cell))
    except ValueError:
        return None
