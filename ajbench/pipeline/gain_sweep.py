"""Settings compared by what they are for: a classifier's gain on the val part, with FD and label agreement.

For each setting a classifier is trained on the real clips without the val part and a dose of the generated
ones, and compared with real clips only. The eval split has no influence on the gains.
"""

from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from pydantic import ValidationError

from ajbench.core.console import counted
from ajbench.core.errors import UsageError
from ajbench.core.recipe import Mix, misfit
from ajbench.core.registry import suggest
from ajbench.core.schema import Classifier
from ajbench.data import audio, val_part
from ajbench.data.labels import load_scores
from ajbench.generation.plan import ListedClips, plan
from ajbench.metrics import bootstrap
from ajbench.pipeline import (
    estimates,
    fold_stages,
    given_models,
    grid,
    planned_power,
    results_folder,
    sweep,
)
from ajbench.pipeline.cell_training import SCORES
from ajbench.pipeline.classifier_stages import classifier_stage
from ajbench.pipeline.evaluation_stages import eval_gen_stage
from ajbench.pipeline.recipe_stages import Pipeline
from ajbench.pipeline.stage import Stage, in_order, run_stages
from ajbench.pipeline.sweep_findings import PREDICTORS, REAL, Runs, correlation, verdict, with_gains


@dataclass(frozen=True)
class GainSweep:
    """The settings, and what they are compared with.

    Attributes:
        pipeline: its probes are the settings (`sweep.swept`).
        key: that is swept.
        model: the classifier.
        mixes: of each setting: real clips and the dose; and of `REAL`.
        parts: the val part of each fold.
    """

    pipeline: Pipeline
    key: str
    model: Classifier
    mixes: dict[str, Mix]
    parts: list[val_part.ValPart]

    @property
    def settings(self) -> list[str]:
        """The names of the settings."""
        return [name for name in self.mixes if name != REAL]

    def cells(self) -> list[tuple[str, Stage]]:
        """Return the trainings, each with the setting."""
        return [
            (name, classifier_stage(one, self.model, mix, seed, False, part, name))
            for one, part in zip(self.pipeline.folds, self.parts, strict=True)
            for name, mix in self.mixes.items()
            for seed in self.pipeline.recipe.evaluate.seeds
        ]

    def evaluations(self) -> list[Stage]:
        """Return the evaluation of each fold: of all generated clips, or of those that the mixes choose."""
        mixes = {name: self.mixes[name] for name in self.settings}
        if self.key != sweep.OF_MIX and not any(m.min_fidelity or m.fills_tail for m in mixes.values()):
            mixes = {}
        return [eval_gen_stage(one, self.settings, mixes) for one in self.pipeline.folds]

    def stages(self) -> list[Stage]:
        """Return all stages in order."""
        cells = [stage for _, stage in self.cells()]
        return fold_stages.named(self.pipeline, in_order([*self.evaluations(), *cells]))


def planned(pipeline: Pipeline, key: str, values: str, model: str | None, dose: int | None) -> GainSweep:
    """Return the sweep after checking, before any work, that it is possible.

    Args:
        pipeline: of `sweep.swept`.
        key: that is swept.
        values: separated by commas.
        model: the classifier, as `evaluate.primary.model`; None: that of the primary comparison, or the first
            of `evaluate.models`.
        dose: generated clips that are added; None: that of the primary comparison, or the first of
            `evaluate.doses`.

    Raises:
        UsageError: there is no such classifier, no val part, or a set has too few clips.
        AjbenchError: as `fold_stages.check`.
    """
    recipe = pipeline.recipe
    section, primary = recipe.evaluate, recipe.evaluate.primary
    fold_stages.check(pipeline)
    lines = {f"{line.name}+{line.aug}": line for line in section.models}
    lines |= {str(place): line for place, line in enumerate(section.models)}
    if model is not None and model not in lines:
        allowed = ", ".join(lines)
        raise UsageError(
            f"--model {model}: not in evaluate.models{suggest(model, lines)}; allowed: {allowed}"
        )
    line = lines[model] if model is not None else section.primary_model or section.models[0]
    dose = dose or (primary.dose if primary else next(filter(None, section.doses), None))
    if dose is None:
        raise UsageError("sweep --by map: evaluate.doses has no dose; give --dose")
    real = grid.real(recipe)
    mixes = {REAL: real}
    values_of = sweep.split_values(values) if key == sweep.OF_MIX else []
    for place, name in enumerate(pipeline.probes):
        change = {"dose": dose} | ({key: values_of[place]} if values_of else {})
        try:
            mixes[name] = Mix.model_validate(real.model_dump() | change)
        except ValidationError as error:
            raise misfit("mix", error, Mix) from None
    judged = all(section.judge for section in pipeline.probes.values())
    if any(mix.min_fidelity for mix in mixes.values()) and not judged:
        raise UsageError("mix.min_fidelity needs a synth.judge, such as reference")
    parts = [val_part.planned(recipe.mix, one.manifest) for one in pipeline.folds]
    for one, part in zip(pipeline.folds, parts, strict=True):
        _check_sets(one, part, dose)
    return GainSweep(pipeline, key, recipe.classifier_of(line.model_dump()), mixes, parts)


def _check_sets(pipeline: Pipeline, part: val_part.ValPart, dose: int) -> None:
    """Check that every set has enough clips that were not made from the val part.

    Raises:
        UsageError: it has not, or is made from captions of the eval split.
    """
    manifest, recipe = pipeline.manifest, pipeline.recipe
    clips = ListedClips.of_manifest(
        manifest, f"corpus {recipe.data.corpus}", mix=recipe.mix if recipe.guides_are_real else None
    ).with_tail(recipe.mix)
    filling = bool(recipe.mix.tail and recipe.mix.tail.fill)
    what = " and have a label of the tail" * filling
    held_out = {row.clip_id for row in manifest.rows if (row.recording or row.clip_id) in part.recordings}
    for name, section in pipeline.probes.items():
        if section.plan == "captions":
            raise UsageError(f"{name}: clips of synth.plan=captions are never trained on; use another plan")
        table = plan(section.model_copy(update={"prompt": "names"}), clips)
        requested = zip(table["parent_id"].to_pylist(), table["label_ids"].to_pylist(), strict=True)
        left = sum(
            parent not in held_out and not (filling and {*clips.tail}.isdisjoint(ids))
            for parent, ids in requested
        )
        if left < dose:
            raise UsageError(
                f"--dose {dose}: {left} of {counted(section.n, 'clip')} with {name} are not made from val "
                f"clips{what}; lower the dose, or raise --n to about {-(-section.n * dose // max(left, 1))}"
            )


def dry_run(swept: GainSweep) -> dict[str, Any]:
    """Return what is known before a sweep: `power` (`planned_power.on_val`) and seconds.

    `train_cls_seconds` are those of all classifiers one after another, `synth_seconds` of all sets, None if
    there is no generator yet.
    """
    pipeline, cells = swept.pipeline, swept.cells()
    rows = [[one.manifest.rows[k] for k in part.val.tolist()] for one, part in _folds(swept)]
    recordings = sum(len({row.recording or row.clip_id for row in of_fold}) for of_fold in rows)
    real = {one.recipe.data.eval_fold: len(part.real) for one, part in _folds(swept)}
    sizes = sum(map(len, rows)), recordings, len(swept.settings), fmean(real.values())
    done, todo, seconds = [], 0, 0.0
    for name, cell in cells:
        steps = swept.model.steps(swept.mixes[name].epoch_size(real[cell.recipe.data.eval_fold]))
        if not cell.done():
            todo += steps
        elif int((info := cell.folder.info()).get("sessions", 1)) == 1:  # else some was done twice
            done.append(info["seconds"] / steps)
    if todo:
        classes = len(pipeline.manifest.label_set)
        samples = audio.clip_samples(pipeline.recipe.data.duration_s)
        each = median(done) if done else estimates.step_seconds(swept.model, classes, samples)
        seconds = todo * each
    sets = [s for s in swept.stages() if s.name == "synth" and not s.done()]
    found = [estimates.estimate(stage).get("seconds") for stage in sets]
    known = [one for one in found if one is not None]
    return {
        "power": planned_power.on_val(pipeline, swept.model.line, *sizes),
        "train_cls_seconds": round(seconds, 1),
        "synth_seconds": round(sum(known), 1) if len(known) == len(found) else None,
    }


def run(swept: GainSweep, device: str, force: bool = False, workers: int | None = 0) -> dict[str, Any]:
    """Run the stages and write `sweep_<key>.csv` to the results folder.

    Returns:
        lines (as `sweep.lines`, with `map` and the gain in points), real_map, correlations, notes, verdict
        (a sentence) and path.
    """
    run_stages(swept.stages(), device, force, workers)
    runs = measured(swept)
    found = with_gains(_mean_lines(swept), runs)
    correlations = [correlation(found, metric) for metric in PREDICTORS]
    evaluations = swept.evaluations()
    notes = [note for stage in evaluations for note in results_folder.notes_of(stage)]
    return {
        "lines": found,
        "real_map": round(100 * fmean(run.value for run in runs[REAL]), 2),
        "correlations": correlations,
        "notes": list(dict.fromkeys([*notes, *_val_notes(swept)])),
        "verdict": verdict(runs, sum(len(part.val) for part in swept.parts)),
        "path": sweep.write(swept.pipeline, swept.key, found),
    }


def measured(swept: GainSweep) -> Runs:
    """Return the mAP of every training on the val part, resampled alike in all trainings of a fold."""
    runs: Runs = {}
    several = len(swept.pipeline.folds) > 1
    for name, stage in swept.cells():
        s = load_scores(stage.need() / SCORES)
        how = {"resamples": swept.pipeline.recipe.evaluate.bootstrap}
        found = bootstrap.map_and_auc(s.scores, s.targets, s.recordings, **how)[0]
        fold = stage.recipe.data.eval_fold if several else None
        runs.setdefault(name, []).append(found._replace(fold=fold))
    return runs


def _folds(swept: GainSweep) -> list[tuple[Pipeline, val_part.ValPart]]:
    return list(zip(swept.pipeline.folds, swept.parts, strict=True))


def _val_notes(swept: GainSweep) -> list[str]:
    """Return what the val part is, and what was trained on its clips."""
    clips = known_clips = judged = 0
    for one, part in _folds(swept):
        info = given_models.generator_info(one.generator)
        known = {*info["train_ids"], *info["train_recordings"]}
        rows = [one.manifest.rows[k] for k in part.val.tolist()]
        clips += len(rows)
        known_clips += sum(row.clip_id in known or row.recording in known for row in rows)
        judged += one.real_clips(swept.mixes[REAL]) - len(part.real)
    drawn = any(part.recordings for part in swept.parts)
    origin = (
        "drawn from the train split and left out of the classifiers' training" if drawn else "of the corpus"
    )
    notes = [
        f"gains are measured on {counted(clips, 'val clip')}, {origin}; the evaluation clips are not used"
    ]
    if known_clips:
        notes.append(
            f"the generator was trained on the recordings of {known_clips} of them, so gains on evaluation "
            "clips may be lower"
        )
    if judged and any(section.judge == "reference" for section in swept.pipeline.probes.values()):
        notes.append(f"synth.judge=reference was trained on {judged} of them")
    return notes


def _mean_lines(swept: GainSweep) -> list[sweep.Line]:
    """Return `sweep.lines`, of several folds their means, without intervals."""
    recipe = swept.pipeline.recipe
    of_folds = [sweep.lines(results_folder.rows_of(stage), recipe) for stage in swept.evaluations()]
    if len(of_folds) == 1:
        return of_folds[0]
    found = []
    for same in zip(*of_folds, strict=True):
        line = dict(same[0])
        for metric in sweep.METRICS:
            values = [one[metric] for one in same]
            line |= {metric: None if None in values else round(fmean(values), 4)}
            line |= {f"{metric}_low": None, f"{metric}_high": None}
        found.append(line | {"n": round(fmean(one["n"] for one in same))})
    return found
