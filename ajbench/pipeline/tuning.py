"""What `evaluate.tune` has chosen for each arm: the lines of tune.csv."""

from typing import TYPE_CHECKING, Any

from ajbench.pipeline.catalogue import flat
from ajbench.pipeline.cell_training import read_tuning
from ajbench.pipeline.classifier_stages import cell_key, grid_stages
from ajbench.pipeline.stage import Stage

if TYPE_CHECKING:
    from ajbench.pipeline.recipe_stages import Pipeline


def tunings(pipeline: "Pipeline") -> list[Stage]:
    """Return the choices of keys that the grid needs, of all folds: one for each model and arm."""
    needs = [need for cell in grid_stages(pipeline) for need in cell.needs if need.name == "tune"]
    return list({stage.fingerprint: stage for stage in needs}.values())


def candidate_lines(pipeline: "Pipeline") -> list[dict[str, Any]]:
    """Return one line for each candidate of each arm: keys, steps, mAP on the held-out clips, whether chosen.

    `arm` is the source of the added clips, or else the column; `tuned_on` is the column of the trained mix.
    """
    lines = []
    for stage in tunings(pipeline):
        found, mix = read_tuning(stage.need()), stage.recipe.mix
        cell = cell_key(stage, pipeline.recipe)
        about: dict[str, Any] = {
            "model": cell.model,
            "pretraining": cell.pretraining,
            "augmentation": cell.augmentation,
        }
        arm = mix.source if mix.has_real and mix.dose and mix.mode == "dose" else cell.column
        about |= {"arm": arm, "tuned_on": cell.column, "fold": stage.recipe.data.eval_fold}
        for number, candidate in enumerate(found["candidates"]):
            line = about | {"val_clips": found["val_clips"]} | dict(flat(candidate["keys"]))
            value, chosen = round(candidate["val_map"], 4), int(number == found["chosen"])
            lines.append(line | {"steps": candidate["steps"], "val_map": value, "chosen": chosen})
    return lines
