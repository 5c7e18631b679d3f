"""The file of entailment scores: Parquet, a line per clip, scorer and comparison."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from ajbench.captions.aggregation import Scaling
from ajbench.core.documents import parse_json
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.files import replacing
from ajbench.data import parquet

FILE = "scores.parquet"
ABOUT, SUM = b"ajbench", b"xxh3"  # keys of the file's metadata
_SCHEMA = pa.schema(
    {
        "clip_id": pa.string(),
        "scorer": pa.string(),
        "comparison": pa.string(),
        "raw": pa.float64(),
        "scaled": pa.float64(),
        "spread": pa.float64(),
    }
)


@dataclass(frozen=True)
class ScoredClips:
    """The scores of clips by one scorer and comparison; NaN or None where unknown.

    Attributes:
        clip_ids: [N].
        scorer: such as `minilm`.
        comparison: `predicted`, `true`, …
        raw: as the scorer gives them [N].
        scaled: mapped to [0, 1] by `scaling` [N].
        scaling: the quantiles of the train split.
        spread: standard deviation over repeats [N], of scorers that have some.
    """

    clip_ids: Sequence[str]
    scorer: str
    comparison: str
    raw: NDArray[np.float64]
    scaled: NDArray[np.float64]
    scaling: Scaling
    spread: NDArray[np.float64] | None = None


def write(path: Path, parts: Sequence[ScoredClips], about: dict[str, Any] | None = None) -> None:
    """Write scores; the scalings, and `about`, go to the file's metadata. The same scores: the same bytes."""
    scalings = {f"{part.scorer}/{part.comparison}": part.scaling._asdict() for part in parts}
    text = json.dumps({"scalings": scalings, **(about or {})}, sort_keys=True)
    tables = pa.concat_tables(_table(part) for part in parts)
    table = tables.replace_schema_metadata({ABOUT: text.encode(), SUM: _digest(tables, text.encode())})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:  # pyarrow takes no path that is not UTF-8
        pq.write_table(table, file)


def read(path: Path, clip_ids: Sequence[str], scorer: str, comparison: str) -> ScoredClips:
    """Return the scores of `clip_ids`, in their order, by one scorer and comparison.

    Raises:
        MissingError: there is no such file, or it has no scores of this scorer and comparison.
        IntegrityError: it is damaged, is of other clips, has a clip twice, or scaled scores outside [0, 1].
    """
    if not path.is_file():
        raise MissingError(f"{path}: no such file of scores; write it with `ajbench entail`")
    try:
        with pq.ParquetFile(path) as file:
            present = [name for name in _SCHEMA.names if name in file.schema_arrow.names]
            found = parquet.read(path, present)
        columns: Any = {item.name: pa.nulls(len(found), item.type) for item in _SCHEMA}
        columns |= {name: found[name] for name in present}
        table = pa.table(columns).cast(_SCHEMA)
        noted = found.schema.metadata or {}
        about = parse_json(noted[ABOUT])
        if SUM in noted and noted[SUM] != _digest(table, noted[ABOUT]):  # older files have none
            raise ValueError("checksum mismatch; write it again")
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise IntegrityError(f"{path}: not a file of entailment scores ({reason})") from None
    odd_numbers = pc.fill_null(pc.is_nan(table["scaled"]), False)
    if pc.any(odd_numbers).as_py():
        clip = table["clip_id"].filter(odd_numbers)[0]
        raise IntegrityError(f"{path}: score of clip {clip} is NaN; write null where a score is unknown")
    lines = table.to_pandas()
    mine = lines[(lines["scorer"] == scorer) & (lines["comparison"] == comparison)]
    if mine.empty:
        found = sorted({f"{a}/{b}" for a, b in zip(lines["scorer"], lines["comparison"], strict=True)})
        raise MissingError(f"{path}: no scores {scorer}/{comparison}; it has {', '.join(found) or 'none'}")
    mine = mine.set_index("clip_id")
    if not mine.index.is_unique:
        raise IntegrityError(f"{path}: clip {mine.index[mine.index.duplicated()][0]} has two scores")
    absent = [clip_id for clip_id in clip_ids if clip_id not in mine.index]
    if absent:
        raise IntegrityError(
            f"{path}: scores of other clips: {len(absent)} of {len(clip_ids)} clips have none, the first "
            f"{absent[0]}; write them for this store with `ajbench entail`"
        )
    mine = mine.loc[list(clip_ids)]
    scaled = mine["scaled"].to_numpy(np.float64)
    if len(odd := np.flatnonzero((scaled < 0) | (scaled > 1) | np.isinf(scaled))):
        raise IntegrityError(
            f"{path}: score {scaled[odd[0]]:g} of clip {clip_ids[odd[0]]} is outside [0, 1]; scale the scores"
        )
    named = about.get("scalings", {}).get(f"{scorer}/{comparison}", {"low": 0.0, "high": 1.0})
    spread = None if mine["spread"].isna().all() else mine["spread"].to_numpy(np.float64)
    raw = mine["raw"].to_numpy(np.float64)
    return ScoredClips(clip_ids, scorer, comparison, raw, scaled, Scaling(**named), spread)


def need(path: Path, scorer: str, comparison: str) -> None:
    """Raise MissingError unless a file has scores of this scorer and comparison, and errors as `read`."""
    read(path, (), scorer, comparison)


def _digest(table: pa.Table, about: bytes) -> bytes:
    digest = xxhash.xxh3_128(about)
    for column in table.columns:
        if pa.types.is_string(column.type):
            digest.update("\0".join(column.to_pylist()).encode())
        else:
            digest.update(column.to_numpy().tobytes())  # NaN where a value is missing
    return digest.hexdigest().encode()


def _table(part: ScoredClips) -> pa.Table:
    clips = len(part.clip_ids)
    spread = np.full(clips, np.nan) if part.spread is None else part.spread
    numbers = (pa.array(values, from_pandas=True) for values in (part.raw, part.scaled, spread))
    columns = [list(part.clip_ids), [part.scorer] * clips, [part.comparison] * clips, *numbers]
    return pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), schema=_SCHEMA)
