"""Several clips of one file in a table: columns of their times, and columns of what keeps clips together."""

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

    They are read where a file has several rows that start at different times, and then of all files; else
    they may be of what files were cut from. `offset` with `duration`, as in manifests of NeMo, always are.

    Args:
        records: (line number, {column: cell}).
        path: of the table, for the message.
    """
    columns = {table_files.usual(name): name for _, row in records[:1] for name in row}
    start, end, lasts = (
        next((columns[name] for name in names if name in columns), None)
        for names in (STARTS, ENDS, ("duration",))
    )
    manifest = start is None and lasts is not None and "offset" in columns
    start, end = (columns["offset"], None) if manifest else (start, end)
    if start is None or "start_s" in columns:
        return records
    starts: dict[str | None, set[float | None]] = {}
    for _, row in records:
        starts.setdefault(text(row, "path"), set()).add(_number(row.get(start)))
    several = any(len(found) > 1 and None not in found for found in starts.values())
    if not (several or manifest):
        return records
    used = " and ".join(filter(None, (start, end or lasts)))
    why = "files have several rows; " if several else ""
    console.say_once(f"{path}: {why}{used}: the times of clips in their files, in seconds")
    found: table_files.Records = []
    for line, row in records:
        begin = _number(row.get(start))
        if begin is None and text(row, start):
            row = {**row, "start_s": row[start]}  # refused when it is read as a number
        elif begin is not None:
            stop = _number(row.get(end)) if end else None
            seconds = _number(row.get(lasts)) if lasts and stop is None else stop and stop - begin
            row = {**row, "start_s": f"{begin:.6f}"}
            if seconds is not None and "duration_s" not in columns:
                row["duration_s"] = f"{seconds:.6f}"
        found.append((line, row))
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
