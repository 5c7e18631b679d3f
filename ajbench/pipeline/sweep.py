"""Several values of one key of the synth section: a synthetic set for each, and their metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ajbench.core import documents
from ajbench.core.errors import UsageError
from ajbench.core.files import atomic_write
from ajbench.core.recipe import Recipe, Synth
from ajbench.core.registry import suggest
from ajbench.pipeline import results_folder
from ajbench.pipeline.evaluation_stages import eval_gen_stage
from ajbench.pipeline.recipe_stages import Pipeline
from ajbench.pipeline.stage import Stage, in_order, run_stages

METRICS = ("fd", "kl", "is", "label_agreement")
OF_MIX = "min_fidelity"  # key of the section mix: filters one set
Line = dict[str, Any]


def swept(recipe: Recipe, key: str, values: str, n: int | None = None, by_gain: bool = False) -> Recipe:
    """Return the recipe with a probe for each value, named `key=value`, instead of its own probes.

    Args:
        recipe: the sets have its synth section except for this key.
        key: of the synth section, such as `guidance`; with `by_gain` also `min_fidelity` of the section mix,
            whose probes are one set.
        values: separated by commas.
        n: clips per set; None: `synth.n`. FD depends on it, so all sets have the same size.
        by_gain: whether classifiers are trained on the sets (`gain_sweep`).

    Raises:
        UsageError: an unknown key, fewer than two values, or a value twice.
    """
    if key == OF_MIX and not by_gain:
        raise UsageError(f"sweep {key}: filters what classifiers are trained on; add --by map")
    allowed = [*Synth.model_fields, *([OF_MIX] if by_gain else [])]
    if key not in allowed:
        raise UsageError(
            f"sweep {key}: not a key of synth{suggest(key, allowed)}; allowed: {', '.join(allowed)}"
        )
    if key in ("n", "seed", "classes"):
        raise UsageError(
            f"sweep {key}: changes which clips the sets have; sweep a key that changes how they are made"
        )
    several = split_values(values)
    if len({*map(str, several)}) < max(2, len(several)):
        raise UsageError(f"sweep {key} {values}: give at least two different values, such as 1,2,4")
    size = {} if n is None else {"n": n}
    probes = {f"{key}={value}": ({} if key == OF_MIX else {key: value}) | size for value in several}
    evaluate = recipe.evaluate.model_copy(update={"probes": probes})
    return recipe.model_copy(update={"evaluate": evaluate})


def split_values(values: str) -> list[Any]:
    """Return values that are separated by commas.

    Raises:
        UsageError: one is not YAML.
    """
    try:
        return [documents.parse_yaml(value) for value in values.split(",")]
    except ValueError as error:
        raise UsageError(f"values {values[:80]!r}: not valid YAML ({error})") from None


def stages(pipeline: Pipeline) -> list[Stage]:
    """Return the stages that make and measure the pipeline's probes, in order."""
    return in_order([eval_gen_stage(pipeline, tuple(pipeline.probes))])


def run(pipeline: Pipeline, key: str, device: str, force: bool = False) -> dict[str, Any]:
    """Run the stages and write `sweep_<key>.csv` to the results folder.

    The rows are not added to the folder's rows.csv, since the recipe's tables compare its own sets.
    """
    every = stages(pipeline)
    run_stages(every, device, force)
    found = lines(results_folder.rows_of(every[-1]), pipeline.recipe)
    return {"lines": found, "notes": results_folder.notes_of(every[-1]), "path": write(pipeline, key, found)}


def write(pipeline: Pipeline, key: str, found: Sequence[Line]) -> Path:
    """Write the lines of a sweep to the results folder and return the file."""
    from ajbench.reporting import formats

    path = pipeline.results / f"sweep_{key}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, formats.to_csv(found))
    return path


def lines(rows: Sequence[Mapping[str, Any]], recipe: Recipe) -> list[Line]:
    """Return a line for each set: its value of the key, and each metric with its interval.

    FD is measured against the evaluation clips, label agreement over all classes; KL is empty if clips have
    no parent.
    """
    found = []
    for name in recipe.evaluate.probes:
        line: Line = {"set": name}
        for metric in METRICS:
            row = next((row for row in rows if row["row"] == name and _is(row, metric)), None)
            for end, column in (("", "value"), ("_low", "ci_low"), ("_high", "ci_high")):
                line[f"{metric}{end}"] = round(float(row[column]), 4) if row and row[column] != "" else None
        mine = next(row for row in rows if row["row"] == name)
        found.append(line | {"n": int(mine["n"]), "features": mine["features"]})
    return found


def _is(row: Mapping[str, Any], metric: str) -> bool:
    if metric == "label_agreement":
        return bool(row["metric"] == metric and row["column"] == "all")
    return bool(row["metric"] == metric and row["table"] == "1")
