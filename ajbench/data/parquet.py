"""Parquet files that others wrote, read in bounded memory: one stored cell may stand for any number of rows.

The limits are some times what the captions of AudioSet's 2.1 million clips need.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MAX_ROWS = 10_000_000
MAX_CELLS = 100_000_000  # of the columns that are read; every value of a list is one
MAX_BYTES = 1 << 30  # of the columns that are read, in memory
BATCH, PIECE = 65_536, 1 << 27  # rows that are read at once, and bytes of the texts that are decoded at once
TEXT = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return columns of a file; arguments and errors as in `batches`."""
    found = list(batches(path, columns))
    with pq.ParquetFile(path) as file:
        if not found:
            return file.read(columns=None if columns is None else list(columns))
        return pa.Table.from_batches(found).replace_schema_metadata(file.schema_arrow.metadata)


def batches(
    path: Path | str, columns: Sequence[str] | None = None, rows: int = BATCH
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file in batches; columns of categories as plain text.

    Args:
        path: of the file.
        columns: names, also `column.field`; None: all.
        rows: of a batch, at most.

    Raises:
        ValueError: the file has more than `MAX_ROWS` rows, or more than `MAX_CELLS` cells in these columns,
            or they take more than `MAX_BYTES`.
        ArrowException, OSError: it is damaged.
    """
    with pq.ParquetFile(path) as file:
        need_few_rows(file)
        chunks = list(_chunks(file, columns))
        if (cells := sum(chunk.num_values for chunk in chunks)) > MAX_CELLS:
            raise ValueError(f"{cells} cells; at most {MAX_CELLS} are read")
        # pyarrow has no dictionaries for these encodings, nor inside lists and structs.
        delta = {chunk.path_in_schema for chunk in chunks if "DELTA" in " ".join(chunk.encodings)}
        texts = [item.name for item in file.schema_arrow if _is_text(item.type) and item.name not in delta]
        others = {chunk.path_in_schema for chunk in chunks} - {*texts}
        rows = rows_at_once(file, sorted(others), rows, MAX_BYTES)
    size, names = 0, None if columns is None else list(columns)
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        for batch in itertools.chain.from_iterable(map(_decoded, file.iter_batches(rows, columns=names))):
            size += batch.nbytes
            if size > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES >> 30} GB in memory, the most that is read")
            yield batch


def need_few_rows(file: pq.ParquetFile) -> int:
    """Return the number of rows of a file.

    Raises:
        ValueError: there are more than `MAX_ROWS`.
    """
    groups = range(file.metadata.num_row_groups)
    total = sum(file.metadata.row_group(group).num_rows for group in groups)
    if total > MAX_ROWS:
        raise ValueError(f"{total} rows; at most {MAX_ROWS} are read")
    return total


def rows_at_once(file: pq.ParquetFile, columns: Sequence[str] | None, rows: int, most: int) -> int:
    """Return how many rows fit into `most` bytes, at most `rows`, if each has the longest text.

    A text may be as long as all that a row group stores of its column: once for all equal cells.
    """
    texts = (one for one in _chunks(file, columns) if one.physical_type == "BYTE_ARRAY")
    longest = max((one.total_uncompressed_size for one in texts), default=1)
    return max(1, min(rows, most // max(1, longest)))


def _is_text(kind: pa.DataType) -> bool:
    return (kind.value_type if pa.types.is_dictionary(kind) else kind) in TEXT


def _is_kept(column: pa.Array) -> bool:
    """Return whether a column has a dictionary of texts."""
    return pa.types.is_dictionary(column.type) and _is_text(column.type)


def _decoded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a batch with plain texts for dictionaries, some `PIECE` bytes of texts at a time."""
    sizes = np.zeros(len(batch), np.int64)
    for column in filter(_is_kept, batch.columns):
        if len(column.dictionary):
            lengths = pc.binary_length(column.dictionary).fill_null(0)
            sizes += lengths.take(column.indices.fill_null(0)).to_numpy(zero_copy_only=False)
    cuts = (np.flatnonzero(np.diff(np.cumsum(sizes) // PIECE)) + 1).tolist()
    for start, end in itertools.pairwise([0, *cuts, len(batch)]):
        piece = (column.slice(start, end - start) for column in batch.columns)
        plain = [column.dictionary_decode() if _is_kept(column) else column for column in piece]
        fields = zip(batch.schema, plain, strict=True)
        schema = pa.schema([item.with_type(column.type) for item, column in fields])
        yield pa.RecordBatch.from_arrays(plain, schema=schema)


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
