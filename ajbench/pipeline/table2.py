"""Table 2: what clips take as waves and as codes, and how long a generated clip takes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ajbench.core.files import atomic_write
from ajbench.data.store import ClipStore
from ajbench.pipeline.recipe_stages import Pipeline
from ajbench.pipeline.stage import Stage, in_order, run_stages

BYTES_PER_SAMPLE = 2  # 16-bit PCM
BYTES_PER_CODE = 2  # uint16


def stages(pipeline: Pipeline) -> list[Stage]:
    """Return the stages that the table needs: clips, generator and synthetic clips."""
    return in_order([pipeline.synth()])


def run(pipeline: Pipeline, device: str, force: bool = False) -> dict[str, Any]:
    """Run the stages and write the table to `<results>/<recipe>/t2/`.

    Returns:
        `files` (table_2.csv, .md, .tex), `ran` (titles of the stages), `lines` (of the CSV), `header` and
        `cells` (of the measured lines), `notes`.
    """
    from ajbench.reporting import table_2

    ran = run_stages(stages(pipeline), device, force)
    real, made = ClipStore.open(pipeline.prepare.need()), pipeline.synth()
    found = made.folder.info()
    clips = len(ClipStore.open(made.need(), verify=False))
    recipe = pipeline.recipe
    books, frames = real.codes([0]).shape[1:]
    measured: list[dict[str, Any]] = [
        {
            "pipeline": "waves, 16-bit PCM",
            "disk_bytes": len(real) * real.meta.clip_samples * BYTES_PER_SAMPLE,
            "z_shape": f"1x{real.meta.clip_samples}",
        },
        {
            "pipeline": "waves, FLAC in the store",
            "disk_bytes": _flac_bytes(real),
            "z_shape": f"1x{real.meta.clip_samples}",
        },
        {
            "pipeline": f"codes of {real.meta.codec}",
            "batch_size": recipe.generator.batch_size,
            "disk_bytes": len(real) * books * frames * BYTES_PER_CODE,
            "z_shape": f"{books}x{frames}",
            "train_steps": recipe.generator.train_steps,
            "inference_time_s": float(found["seconds"]) / clips,
        },
    ]
    about = (
        f"{len(real):,} clips of {recipe.data.duration_s:g} s; time per clip, of {clips:,} clips with "
        f"{recipe.synth.sampler} in {recipe.synth.sampler_steps} steps on {found['device']}, "
        f"{found['threads']} threads, decoding included"
    )
    if recipe.synth.candidates > 1:
        about += f", the best of {recipe.synth.candidates} results"
    if cpu_seconds := found.get("cpu_seconds"):  # of all processes, which shared the clips
        about += (
            f"; elapsed time, in which {float(cpu_seconds) / clips:.3g} s of CPU time were used for a clip"
        )
    notes = [about]
    if int(found.get("sessions", 1)) > 1:
        notes.append("the synthesis was interrupted: its time includes what was done twice")
    lines, texts, (header, cells) = table_2.write(measured, recipe, notes)
    out: Path = pipeline.results / "t2"
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        atomic_write(out / name, text)
    files = [out / name for name in texts]
    return {"files": files, "ran": ran, "lines": lines, "header": header, "cells": cells, "notes": notes}


def _flac_bytes(store: ClipStore) -> int | None:
    """Return the size of the sounds that a store holds; None if it links to files."""
    held: Iterable[memoryview | None] = (store.flac(i) for i in range(len(store)))
    sizes = [None if one is None else len(one) for one in held]
    return None if None in sizes else sum(size or 0 for size in sizes)
