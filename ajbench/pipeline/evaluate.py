"""Finished cells and synthetic stores → lines of rows.csv: what eval-cls and eval-gen do."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ajbench import codec, features
from ajbench.core import console
from ajbench.core.device import device_of
from ajbench.core.recipe import Recipe
from ajbench.core.rows import Context, Row
from ajbench.core.run_dir import RunDir
from ajbench.data.store import ClipStore
from ajbench.evaluation import classification, generation, yardsticks
from ajbench.pipeline.classifier_stages import SCORES
from ajbench.pipeline.stage import Stage

SET_RESAMPLES = 200  # a resample of a set is one FD, a thousand times the work of one mAP


def cell_key(cell: Stage) -> classification.TableCell:
    """Return what a cell is called in rows.csv."""
    recipe, classifier = cell.recipe, cell.recipe.classifier
    column = classification.column_name(recipe.name, recipe.mix, recipe.data.real_through_codec)
    return classification.TableCell(
        classifier.name, pretraining(classifier.init), classifier.aug, column, cell.seed or 0
    )


def pretraining(init: str | None) -> str:
    """Return what Table A11 calls the weights that a training starts from: `-`, `IM` or `AS`, else `PT`."""
    if init is None:
        return "-"
    return "IM" if init == "imagenet" else "AS" if "audioset" in init.lower() else "PT"


def set_name(recipe: Recipe, probe: str) -> str:
    """Return what a synthetic set is called in rows.csv: the probe's name, or how the main one was made."""
    return probe or ("img2img" if recipe.synth.strength < 1 else "from noise")


def measure_cells(recipe: Recipe, cells: Sequence[Stage], out: Path, dataset: str) -> list[Row]:
    """Return the rows of trained cells: each on its own, and every mix against real clips alone.

    A classifier of which no cell on real clips alone is there has no difference to report. `out` is the
    folder of this evaluation, whose name is the rows' run.
    """
    rows: list[Row] = []
    lines: dict[str, dict[classification.TableCell, classification.Scores]] = {}
    precisions: set[str] = set()
    resamples = recipe.evaluate.bootstrap
    with console.progress(2 * len(cells), "eval-cls", "classifiers") as advance:
        for cell in cells:
            key = cell_key(cell)
            info = cell.folder.info()
            context = Context(
                run=out.name,
                recipe=recipe.name,
                fingerprint=cell.fingerprint,
                git=info["git"] or "",
                dataset=dataset,
                device=info["device"],
                seconds=info["seconds"],
                precision=info.get("precision", ""),
            )
            precisions.add(context.precision)
            scores = classification.load_scores(cell.path / SCORES)
            lines.setdefault(key.line, {})[key] = scores
            rows += classification.cell_rows(key, scores, context, resamples=resamples)
            advance(1)
        context = replace(_context(recipe, out, dataset), precision=";".join(sorted(precisions)))
        for line in lines.values():
            if any(key.column == recipe.name for key in line):
                rows += classification.compare_to_real(line, recipe.name, context, resamples=resamples)
            advance(len(line))
    return rows


def measure_sets(
    recipe: Recipe, real: Path, synthetic: Mapping[str, Path], weights: Path | None, out: Path, dataset: str
) -> tuple[list[Row], list[str]]:
    """Return the rows of synthetic stores and of yardsticks beside them, and what to know of them.

    Args:
        recipe: names the features and the probes.
        real: the real clip store.
        synthetic: stores by name of the set; the recipe's own has an empty name.
        weights: of the extractor, where it is a classifier of this run.
        out: folder of this evaluation, whose name is the rows' run.
        dataset: what rows call the corpus.
    """
    context = _context(recipe, out, dataset)
    resamples = min(recipe.evaluate.bootstrap, SET_RESAMPLES)
    extractor = features.load(recipe.evaluate.features, weights)
    rows: list[Row] = []
    notes: list[str] = []
    largest = 0
    with console.progress(len(synthetic) + 2, "eval-gen", "sets of clips") as advance:
        embedded = generation.embed(extractor, ClipStore.open(real))
        advance(1)
        for name, path in synthetic.items():
            store = ClipStore.open(path)
            largest = max(largest, len(store))
            more, remarks = generation.generation_rows(
                set_name(recipe, name),
                generation.embed(extractor, store),
                embedded,
                extractor,
                context,
                paired=_paired(recipe, name),
                resamples=resamples,
            )
            rows, notes = rows + more, notes + remarks
            if _section(recipe, name)["judge"] == recipe.evaluate.features:
                notes.append(
                    f"{set_name(recipe, name)}: its clips were scored by the judge of this table; label "
                    "agreement by other features says more"
                )
            advance(1)
        more, remarks = yardsticks.yardstick_rows(
            embedded,
            extractor,
            codec.load(recipe.codec.name, device_of()),
            context,
            n=largest,
            resamples=resamples,
        )
        advance(1)
    return rows + more, notes + remarks


def _context(recipe: Recipe, folder: Path, dataset: str) -> Context:
    info = RunDir(folder, "", "").info()
    return Context(
        run=folder.name,
        recipe=recipe.name,
        fingerprint=info["fingerprint"],
        git=info["git"] or "",
        dataset=dataset,
        device=info["device"],
    )


def _paired(recipe: Recipe, name: str) -> bool:
    """A clip answers to its parent through the guide or through a prompt that names the parent's labels."""
    section = _section(recipe, name)
    return bool(section["strength"] < 1 or section["prompt"] != "none")


def _section(recipe: Recipe, name: str) -> dict[str, Any]:
    return recipe.synth.model_dump() | recipe.evaluate.probes.get(name, {})
