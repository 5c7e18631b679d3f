"""Parquet files that others wrote, read in bounded memory: one stored cell may stand for any number of rows.

The limits are some times what the captions of AudioSet's 2.1 million clips need.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

MAX_ROWS = 10_000_000
MAX_CELLS = 100_000_000  # of the columns that are read; every value of a list is one
MAX_BYTES = 1 << 30  # of the columns that are read, in memory
BATCH = 65_536  # rows that are read at once, if they are short


def read(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> pa.Table:
    """Return columns of a file; errors as in `batches`.

    Raises:
        ValueError: they take more than `MAX_BYTES`.
    """
    found, size = [], 0
    for batch in batches(file, columns):
        found.append(batch)
        size += batch.nbytes
        if size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 30} GB in memory, the most that is read")
    if not found:
        return file.read(columns=None if columns is None else list(columns))
    return pa.Table.from_batches(found).replace_schema_metadata(file.schema_arrow.metadata)


def batches(
    file: pq.ParquetFile, columns: Sequence[str] | None = None, rows: int = BATCH
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file in batches.

    Args:
        file: open.
        columns: names, also `column.field`; None: all.
        rows: of a batch, at most.

    Raises:
        ValueError: the file has more than `MAX_ROWS` rows, or more than `MAX_CELLS` cells in these columns.
        ArrowException, OSError: it is damaged.
    """
    groups = range(file.metadata.num_row_groups)
    total = sum(file.metadata.row_group(group).num_rows for group in groups)
    if total > MAX_ROWS:
        raise ValueError(f"{total} rows; at most {MAX_ROWS} are read")
    cells = sum(chunk.num_values for chunk in _chunks(file, columns))
    if cells > MAX_CELLS:
        raise ValueError(f"{cells} cells; at most {MAX_CELLS} are read")
    names = None if columns is None else list(columns)
    yield from file.iter_batches(rows_at_once(file, columns, rows, MAX_BYTES // 8), columns=names)


def rows_at_once(file: pq.ParquetFile, columns: Sequence[str] | None, rows: int, most: int) -> int:
    """Return how many rows fit into `most` bytes, at most `rows`, if each has the longest text.

    A text may be as long as all that a row group stores of its column: once for all equal cells.
    """
    texts = (one for one in _chunks(file, columns) if one.physical_type == "BYTE_ARRAY")
    longest = max((one.total_uncompressed_size for one in texts), default=1)
    return max(1, min(rows, most // max(1, longest)))


def _chunks(file: pq.ParquetFile, columns: Sequence[str] | None) -> Iterator[pq.ColumnChunkMetaData]:
    """Yield what the footer says of each column in each row group."""
    about = file.metadata
    paths = [about.schema.column(place).path for place in range(about.num_columns)]
    wanted = [
        place
        for place, path in enumerate(paths)
        if columns is None or any(path == name or path.startswith(f"{name}.") for name in columns)
    ]
    for number in range(about.num_row_groups):
        group = about.row_group(number)
        yield from (group.column(place) for place in wanted)
