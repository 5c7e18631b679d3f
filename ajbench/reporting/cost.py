"""What a run used, by kind of stage, and what a point of mAP cost."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from ajbench.reporting.verdict import Answer

Run = Mapping[str, Any]  # `run.json` of a stage

GENERATION = ("train-gen", "invert", "synth")
EVALUATION = ("eval-cls", "eval-gen")


def stage_lines(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return what each kind of stage used, in order of first appearance.

    A line has `stage`, `runs`, `devices`; the sums `seconds`, `cpu_seconds`, `gpu_seconds` and `disk_mb`; the
    largest `memory_mb` and `gpu_memory_mb`; and `energy_wh`. What no run of the kind has recorded is None.
    Energy is counted for the whole machine: the sum over runs is divided by how many ran at a time.
    """
    by_stage: dict[str, list[Run]] = {}
    for run in runs:
        by_stage.setdefault(str(run.get("stage")), []).append(run)
    return [
        {
            "stage": stage,
            "runs": len(mine),
            "devices": ", ".join(sorted({str(run.get("device")) for run in mine})),
            "seconds": total(mine, "seconds"),
            "cpu_seconds": total(mine, "cpu_seconds"),
            "gpu_seconds": total(mine, "gpu_seconds"),
            "disk_mb": total(mine, "disk_mb"),
            "memory_mb": _largest(mine, "peak_memory_mb"),
            "gpu_memory_mb": _largest(mine, "gpu_peak_memory_mb"),
            "energy_wh": _energy_wh(mine),
        }
        for stage, mine in by_stage.items()
    ]


def sentences(runs: Sequence[Run], rows: pd.DataFrame, found: Sequence[Answer]) -> list[str]:
    """Say for each answer what the gain cost: generation, training of its classifiers, evaluation.

    Times are those of the processes' devices one after the other, not of the wall clock.

    Args:
        runs: of the stages that the rows come from.
        rows: of Table A11, whose `seconds` are those of the trainings.
        found: the answers.
    """
    generation = total([run for run in runs if run.get("stage") in GENERATION], "seconds")
    evaluation = total([run for run in runs if run.get("stage") in EVALUATION], "seconds")
    texts = []
    for answer in found:
        cells = (rows["table"] == "A11") & (rows["row"] == answer.line) & (rows["metric"] == "map")
        training = float(rows.loc[cells & (rows["column"] == answer.column), "seconds"].sum())
        if generation is None or evaluation is None or answer.source != "G" or not training:
            continue
        whole = generation + training + evaluation
        parts = f"generation {span(generation)}, training {span(training)}, evaluation {span(evaluation)}"
        text = f"{answer.name}, {answer.column}: {answer.points} points of mAP for {span(whole)} ({parts})"
        if answer.delta > 0:
            text += f", {span(whole / answer.delta)} a point"
            if answer.low <= 0:
                text += ", if it is a gain at all"
        texts.append(text)
    return texts


def span(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:,.1f} h"


def total(runs: Sequence[Run], name: str) -> float | None:
    """Return the sum of what runs recorded under a name; None if none did."""
    values = [float(run[name]) for run in runs if run.get(name) is not None]
    return sum(values) if values else None


def _largest(runs: Sequence[Run], name: str) -> float | None:
    return max((float(run[name]) for run in runs if run.get(name) is not None), default=None)


def _energy_wh(runs: Sequence[Run]) -> float | None:
    """Return the energy of runs in Wh, of which several may have run at a time."""
    counted = [run for run in runs if run.get("energy_j") is not None and run.get("finished")]
    if not counted:
        return None
    ends = [datetime.fromisoformat(str(run["finished"])).timestamp() for run in counted]
    begun = [datetime.fromisoformat(str(run["started"])).timestamp() for run in counted]  # the last session
    spans = sorted(
        (max(begin, end - float(run["seconds"])), end)
        for begin, end, run in zip(begun, ends, counted, strict=True)
    )
    busy, until = 0.0, float("-inf")
    for begin, end in spans:
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    at_a_time = max(1.0, sum(end - begin for begin, end in spans) / busy) if busy else 1.0
    return sum(float(run["energy_j"]) for run in counted) / at_a_time / 3600
