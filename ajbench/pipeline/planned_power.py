"""The smallest gain that the comparisons of a recipe can see, and what it takes to see one of +1 point.

Variances are those of the recipe's finished classifiers; before there are any, those of other runs.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ajbench.core.console import counted
from ajbench.evaluation import classification
from ajbench.metrics import bootstrap, power
from ajbench.pipeline import preflight
from ajbench.pipeline.cell_training import SCORES
from ajbench.pipeline.classifier_stages import cell_key, grid_stages

if TYPE_CHECKING:
    from ajbench.data.manifest import Manifest, Row
    from ajbench.pipeline.recipe_stages import Pipeline

# With 320 real clips of ESC-10, V_clips G is 0.01 for taltrans-small and 0.02 for ast-tiny; between seeds,
# mAP varies by 0.1 to 1.5 points and by 1 to 6. With 80 of FSDD, V_clips G is 0.16 to 0.18, and mAP varies by
# 4 to 7 points. In the published Table A11, with 22,160, it varies by 0.16 (median).
CLIPS = 0.1
SEEDS = 0.15  # s² of mAP times the number of real clips: 4.3 points with 80, 2.2 with 320, 0.26 with 22,160
RESAMPLES = 200
GOAL = 0.01
DIVIDED = ("folder", "table", "hub")  # corpora that get folds where they have no splits
POSSIBLE = 100.0  # points: a gain is less

Runs = dict[tuple[int, int], bootstrap.Resampled]  # the trainings of a column by fold and seed


class Variances(NamedTuple):
    """Variances of a gain in mAP."""

    clips: float  # V_clips G: for one recording
    between: float  # s², between seeds
    measured: bool


def prior(real: float) -> Variances:
    """Return what other runs suggest for classifiers of this number of real clips."""
    return Variances(CLIPS, 2 * SEEDS / max(real, 1), False)


def planned(pipeline: "Pipeline") -> dict[str, Any]:
    """Return what the planned comparisons can see, in points of mAP; empty without a comparison.

    Evaluation clips are those of the store, once there is one: its quarantine is left out.
    It is empty, too, if a fold has evaluation clips of one recording only. Keys: `eval_clips`, `recordings`,
    `seeds` (of a fold), `folds`, `comparisons` (of the family), `power`, `lacking` (what a verdict needs more
    of), `sentence`, and `lines`, one for the
    primary comparison if it is declared and one for each classifier: line, primary, smallest_gain,
    clips_variance (for one recording), seed_sd, measured, and for a gain of +1 point recordings_needed and
    seeds_needed. If a smallest gain is not possible, `all_folds` has the folds that would show more, if any.
    """
    recipe = pipeline.recipe
    sizes = [evaluated(preflight.usable(one.manifest, one.prepare)) for one in pipeline.folds]
    clips, recordings = map(sum, zip(*sizes, strict=True))
    seeds, primary = len(recipe.evaluate.seeds), classification.primary_comparison(recipe)
    cells = [cell_key(stage, recipe) for stage in grid_stages(pipeline)]
    family: dict[str, list[str]] = {}
    for line in dict.fromkeys(cell.line for cell in cells):
        mine = dict.fromkeys(cell.column for cell in cells if cell.line == line)
        family[line] = classification.judged_together(line, mine, recipe.name, primary)
    comparisons = sum(map(len, family.values()))
    if min(of_fold for _, of_fold in sizes) < 2:  # their variance, and so every interval, is unknown
        return {}
    folds = len(pipeline.folds)
    real = fmean(one.real_clips(recipe.mix.with_real) for one in pipeline.folds)
    runs, guess, found = finished(pipeline, primary), prior(real), []
    known = measured(runs, recipe.name)
    if primary and primary[:2] in {(cell.line, cell.column) for cell in cells}:
        design = power.Design(recordings, seeds, folds=folds)
        mix, other = (runs.get(primary.line, {}).get(column, {}) for column in primary.pair(recipe.name))
        found.append(_line(primary.line, 0, variances([mix], other) or guess, design))
    for line, columns in family.items():
        if columns:
            level = 1 - classification.FAMILY_ERROR / comparisons
            together = len(columns) if comparisons > 1 else 0
            design = power.Design(recordings, seeds, level, together, folds)
            found.append(_line(line, comparisons, known.get(line, guess), design))
    if not found:
        return {}
    about: dict[str, Any] = {"eval_clips": clips, "recordings": recordings, "seeds": seeds}
    about |= {"folds": folds, "comparisons": comparisons, "power": power.POWER, "lines": found}
    about["lacking"] = lacking(about, _instead_of_clips(pipeline))
    if any(line["smallest_gain"] >= POSSIBLE for line in found):
        about["all_folds"] = _all_folds(pipeline.folds[0].manifest, folds)
    return about | {"sentence": sentence(about)}


def on_val(
    pipeline: "Pipeline", line: str, clips: int, recordings: int, settings: int, real: float
) -> dict[str, Any]:
    """Return what the gains of several settings over real clips only can see on the val part, as `planned`.

    Args:
        pipeline: its seeds and folds are used, and its finished classifiers on evaluation clips.
        line: of the classifier.
        clips: in the val parts of all folds; the key `val_clips` instead of `eval_clips`.
        recordings: of these clips.
        settings: that are compared.
        real: clips that a classifier is trained on, the mean over folds.
    """
    seeds, folds = len(pipeline.recipe.evaluate.seeds), len(pipeline.folds)
    known = measured(finished(pipeline, None), pipeline.recipe.name).get(line, prior(real))
    level = 1 - classification.FAMILY_ERROR / settings
    lines = [_line(line, settings, known, power.Design(recordings, seeds, level, settings, folds))]
    about: dict[str, Any] = {"val_clips": clips, "recordings": recordings, "seeds": seeds}
    about |= {"folds": folds, "comparisons": settings, "power": power.POWER, "lines": lines}
    about["lacking"] = lacking(about)
    return about | {"sentence": sentence(about)}


def evaluated(manifest: "Manifest") -> tuple[int, int]:
    """Return the number of evaluation clips, and of their recordings: clips where these are unknown."""
    rows = manifest.split("eval")
    return len(rows), len(set(map(_recording_of, rows)))


def _recording_of(row: "Row") -> str:
    return row.recording or f"clip {row.clip_id}"


def _all_folds(manifest: "Manifest", evaluated: int) -> list[int]:
    """Return all folds if fewer are evaluated and each can be: one recording alone has no variance."""
    found: dict[int, set[str]] = {}
    for row in manifest.rows:
        if row.fold is None or row.split == "val":  # splits of the corpus, not those of a fold
            return []
        found.setdefault(row.fold, set()).add(_recording_of(row))
    return sorted(found) if len(found) > evaluated and min(map(len, found.values())) > 1 else []


def finished(pipeline: "Pipeline", primary: classification.Primary | None) -> dict[str, dict[str, Runs]]:
    """Return the mAP of the finished classifiers that comparisons are of, by line, column, fold and seed."""
    from ajbench.data.labels import load_scores

    real = pipeline.recipe.name
    declared = {(primary.line, column) for column in primary.pair(real)} if primary else set()
    found: dict[str, dict[str, Runs]] = {}
    for stage in grid_stages(pipeline):
        key = cell_key(stage, pipeline.recipe)
        mixed = classification.judged_together(key.line, [key.column], real, None)
        if (mixed or key.column == real or (key.line, key.column) in declared) and stage.done():
            s = load_scores(stage.path / SCORES)
            run = bootstrap.map_and_auc(s.scores, s.targets, s.recordings, resamples=RESAMPLES)[0]
            found.setdefault(key.line, {}).setdefault(key.column, {})[key.fold or 0, key.seed] = run._replace(
                fold=key.fold
            )
    return found


def measured(runs: Mapping[str, Mapping[str, Runs]], real: str) -> dict[str, Variances]:
    """Return the variances of the gains over real clips only, by line, averaged over mixes of G alone."""
    found = {}
    for line, columns in runs.items():
        mixes = classification.judged_together(line, columns, real, None)
        if one := variances([columns[mix] for mix in mixes], columns.get(real, {})):
            found[line] = one
    return found


def variances(mixes: Iterable[Runs], baseline: Runs) -> Variances | None:
    """Return those of the gains of mixes over a baseline, averaged; None if there is none to be had.

    A mix counts if it and the baseline have two seeds of a fold in common, and the clips tell them apart.
    """
    parts = []
    for mine in mixes:
        shared = sorted(set(mine) & set(baseline))
        if len(shared) > len({fold for fold, _ in shared}):
            pair = [mine[k] for k in shared], [baseline[k] for k in shared]
            clips = bootstrap.per_recording(bootstrap.difference(*pair))
            if np.isfinite(clips) and clips > 0:  # else no clip differs, or a fold has one recording
                parts.append((clips, bootstrap.between_seeds(pair[:1], pair[1])[0]))
    if not parts:
        return None
    over_clips, between = np.mean(parts, axis=0)
    return Variances(float(over_clips), float(between), True)


def lacking(plan: Mapping[str, Any], instead: str = "") -> list[str]:
    """Return what the comparisons of a plan need more of for a verdict, and how to get it.

    Args:
        plan: as `planned` or `on_val` return it.
        instead: what else can be done than to add clips.
    """
    clips, kind = _clips(plan)
    seeds, folds, found = plan["seeds"], plan["folds"], []
    if clips < classification.MIN_CLIPS:
        more = f"add {classification.MIN_CLIPS - clips}" + (f", or {instead}" if instead else "")
        found.append(f"{counted(clips, f'{kind} clip')}, {classification.MIN_CLIPS} needed; {more}")
    elif plan["recordings"] < 2:
        found.append(f"{kind} clips of 1 recording, 2 needed; add clips of others")
    if not classification.enough(seeds, folds):
        needed = next(n for n in itertools.count(seeds) if classification.enough(n, folds))
        each = f" in each of {folds} folds" if folds > 1 else ""
        key = f"evaluate.seeds=[{','.join(map(str, range(needed)))}]"
        found.append(f"{counted(seeds, 'seed')}{each}, {needed} needed; set {key}")
    return found


def _instead_of_clips(pipeline: "Pipeline") -> str:
    """Return how more of the clips of a corpus can be evaluated, in words, or ""."""
    recipe, manifest = pipeline.recipe, pipeline.manifest
    folds = sorted({row.fold for row in manifest.rows if row.fold is not None})
    if len(folds) > 1 and len(pipeline.folds) == 1:
        return f"set evaluate.folds=[{','.join(map(str, folds))}]"
    return "remove the split so that folds are used" if recipe.data.corpus in DIVIDED and not folds else ""


def _clips(plan: Mapping[str, Any]) -> tuple[int, str]:
    """Return the number of clips that a plan compares classifiers on, and of which split they are."""
    return (plan["val_clips"], "val") if "val_clips" in plan else (plan.get("eval_clips", 0), "evaluation")


def sentence(plan: Mapping[str, Any]) -> str:
    """Return what `planned` or `on_val` has found in words."""
    if plan["lacking"]:
        return f"No verdict possible: {'; '.join(plan['lacking'])}"
    recordings, seeds, lines = (plan[key] for key in ("recordings", "seeds", "lines"))
    clips, kind = _clips(plan)
    counts = counted(clips, f"{kind} clip"), counted(recordings, "recording"), counted(seeds, "seed")
    begin = "{} ({}), {}".format(*counts)
    if plan["folds"] > 1:
        begin += f" in each of {plan['folds']} folds"
    first = lines[0] if lines[0]["primary"] else max(lines, key=lambda line: line["smallest_gain"])
    takes = "is out of reach"
    if first["recordings_needed"]:
        more = f"{first['recordings_needed']:,} recordings and {counted(first['seeds_needed'], 'seed')}"
        takes = f"takes about {more}" + (" in each fold" if plan["folds"] > 1 else "")
    names = {True: "finished classifiers", False: "other runs"}
    source = " and ".join(dict.fromkeys(names[line["measured"]] for line in lines))
    end = f"+1 point {takes} (variances of {source})"
    if all(line["smallest_gain"] >= POSSIBLE for line in lines):
        return f"{begin}: no possible gain would be seen; {_remedy(plan)}; {end}"
    return (
        f"{begin}: a gain of {'; '.join(_seen(plan))} would be seen with a probability of "
        f"{100 * plan['power']:.0f} %; {end}"
    )


def _seen(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield the smallest gains of the primary comparison and of the others, in words."""
    for primary in (True, False):
        gains = [line["smallest_gain"] for line in plan["lines"] if line["primary"] == primary]
        possible = [gain for gain in gains if gain < POSSIBLE]
        what = "the primary comparison" if primary else counted(plan["comparisons"], "comparison")
        if possible:
            ends = dict.fromkeys(f"{gain:.1f}" for gain in (min(possible), max(possible)))
            what += ", of some classifiers none" if len(possible) < len(gains) else ""
            yield f"{' to '.join(ends)} points or more ({what})"
        elif gains:
            yield f"no possible size ({what})"


def _remedy(plan: Mapping[str, Any]) -> str:
    """Return why no possible gain would be seen, and what to do."""
    few = f"{counted(plan['recordings'], 'recording')} say little about others"
    if folds := plan.get("all_folds"):
        return f"{few}: evaluate all folds, 'evaluate.folds=[{','.join(map(str, folds))}]'"
    return (
        f"{few}: add some, or divide them into fewer folds (a table's column fold) and evaluate all of these"
    )


def _line(name: str, comparisons: int, known: Variances, design: power.Design) -> dict[str, Any]:
    more = power.needed(GOAL, known.clips, known.between, design)
    return {
        "line": name,
        "primary": not comparisons,
        "smallest_gain": round(100 * power.smallest_gain(known.clips, known.between, design), 2),
        "recordings_needed": more and _rounded(more.recordings),
        "seeds_needed": more and more.seeds,
        "clips_variance": known.clips,
        "seed_sd": round(100 * float(np.sqrt(known.between)), 3),
        "measured": known.measured,
    }


def _rounded(recordings: int) -> int:
    """Return a number with two digits that count."""
    return int(float(f"{recordings:.1e}"))
