"""GPU hours of the paper's tables and of `synth --n 80000`, from the rates that benchmarks/gpu.py measured.

They are hours of one GPU of the kind measured, if it never waits for data. A training takes its steps times
the clips of a batch over the best rate of its model in bf16, synthesis the best rate of its setting.
"""

from collections.abc import Sequence
from typing import Any

from ajbench.core import recipe as recipes
from ajbench.pipeline import grid

POOL, REAL, EVAL = 2_041_789, 22_160, 20_371  # clips of AudioSet: unbalanced and balanced, balanced, eval
GENERATORS = 4  # of Table 1
SYNTHESIS = "synthesis, pndm 45, strength"
Row = dict[str, Any]


def hours(rows: Sequence[Row]) -> list[Row]:
    """Return rows with GPU hours in `value`; what a row needs and was not measured is named in `error`."""
    of_paper = recipes.load("as20k")
    generator, synth = of_paper.generator, of_paper.synth

    def rate(work: str, model: str | None = None) -> float | None:
        fitting = [
            row for row in rows if row.get("work", "").startswith(work) and row.get("precision") == "bf16"
        ]
        found = [
            float(row["clips_per_second"])
            for row in fitting
            if row.get("clips_per_second") and model in (None, row.get("model"))
        ]
        return max(found, default=None)

    def took(clips: float, found: float | None) -> float | None:
        return clips / found / 3600 if found else None

    train_gen = took(generator.train_steps * generator.batch_size, rate("training step", "generator"))
    made = took(synth.n, rate(f"{SYNTHESIS} {synth.strength:g}"))
    from_noise = took(EVAL, rate(f"{SYNTHESIS} 1"))
    scored = next((float(row["clips_per_second"]) for row in rows if row.get("work") == "eval-gen"), None)
    parts = {
        "train-gen": (train_gen, f"{generator.train_steps} steps of {generator.batch_size}"),
        f"synth --n {synth.n}": (made, f"{synth.sampler} {synth.sampler_steps}, strength {synth.strength:g}"),
    }
    each = [train_gen, from_noise, took(2 * EVAL, scored)]
    total = None if None in each else GENERATORS * sum(filter(None, each))
    parts["Table 1"] = (total, f"{GENERATORS} generators, {EVAL} clips of each compared")
    trained: dict[str, float] = {}
    cells = grid.cells(of_paper)
    for settings, column, _ in cells:
        clips = settings.steps(column.mix.epoch_size(POOL if column.all_real else REAL)) * settings.batch_size
        trained[settings.name] = trained.get(settings.name, 0) + clips
    by_model = {name: took(clips, rate("training step", name)) for name, clips in trained.items()}
    for name, value in by_model.items():
        parts[f"Table A11, {name}"] = value, f"{trained[name] / 1e6:.0f} M clips trained on"
    sums = [train_gen, made, *by_model.values()]
    total = None if None in sums else sum(filter(None, sums))
    parts["Table A11"] = total, f"{len(cells)} classifiers, one generator, its synthesis"
    return [
        {"part": "hours", "work": work, "model": note}
        | (
            {"error": "a rate that it needs was not measured"}
            if value is None
            else {"value": f"{value:.3g}", "unit": "GPU hours"}
        )
        for work, (value, note) in parts.items()
    ]
