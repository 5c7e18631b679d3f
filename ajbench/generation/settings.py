"""The settings that the bits of a synthesis depend on, and its plan; processes that join later must match."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ajbench.core.device import device_of, resolve_precision
from ajbench.core.errors import IntegrityError
from ajbench.core.files import atomic_write
from ajbench.core.recipe import Synth
from ajbench.core.sealed_json import read_sealed, write_sealed
from ajbench.data.shards import CLAIMS
from ajbench.generation.plan import as_parquet
from ajbench.generation.worker import PLAN, read_plan, remove_strays


def exact(section: Synth, threads: int) -> dict[str, Any]:
    """Return what a clip's bits depend on besides recipe, generator and seed, as it is in this process."""
    device = device_of(0)
    name = f" {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    precision = resolve_precision(section.precision, device.type)
    return {
        "threads": threads,
        "device": f"{device.type}{name}",
        "torch": torch.__version__,
        "micro_batch": section.micro_batch,
        **({} if precision == "fp32" else {"precision": precision}),
    }


def begin(folder: Path, table: pa.Table, now: Mapping[str, Any], allow_inexact: bool) -> str:
    """Write the plan and the settings of a job, or compare them with those it began with.

    Args:
        folder: of the store; one process at a time may call this.
        table: the plan.
        now: `exact` of this process.
        allow_inexact: accept other settings, but never another plan.

    Returns:
        The hash of the plan's file.

    Raises:
        IntegrityError: settings or plan differ, or a file that tells them was changed.
    """
    path = folder / CLAIMS / "settings.json"
    content, digest = as_parquet(table)
    remove_strays(folder, PLAN)
    if not path.exists():
        atomic_write(folder / PLAN, content)
        write_sealed(path, {**now, "plan": digest})
        return digest
    began = read_sealed(path, "use --force to start again", keys=("plan",))
    if not allow_inexact:
        require_same(folder, began, now)
    known = str(began["plan"])
    if not (folder / PLAN).exists() and digest == known:
        atomic_write(folder / PLAN, content)
    read_plan(folder, known)
    with (folder / PLAN).open("rb") as file:  # pyarrow takes no path that is not UTF-8
        same = pq.read_table(file).equals(table)
    if not same:
        raise IntegrityError(
            f"{folder / PLAN}: the plan of this run differs from the one the job began with (another seed, "
            "version of NumPy or real store?); use --force to start again"
        )
    return known


def require_same(folder: Path, began: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse settings that differ from those a job began with.

    Raises:
        IntegrityError: they differ; the message names them.
    """
    if other := [f"{k} {began.get(k)} → {v}" for k, v in now.items() if began.get(k) != v]:
        raise IntegrityError(
            f"{folder}: begun with other settings ({', '.join(other)}), so clips would differ in their last "
            "bits; use those settings, or --allow-inexact"
        )
