"""Trained classifiers and synthetic stores → rows of rows.csv: the work of eval-cls and eval-gen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ajbench import codec
from ajbench.classifiers.selection import usable
from ajbench.core import console
from ajbench.core.device import device_of
from ajbench.core.errors import UsageError
from ajbench.core.recipe import Mix, Recipe, own_set
from ajbench.core.rows import Context, Row, make_row
from ajbench.core.run_dir import RunDir
from ajbench.data.clip_set import open_set
from ajbench.data.labels import load_scores
from ajbench.data.real_clips import tail_classes
from ajbench.data.store import ClipStore
from ajbench.evaluation import baselines, classification, protocols
from ajbench.evaluation.compare import choose, measure
from ajbench.evaluation.generation_metrics import GUIDED, draw
from ajbench.evaluation.set_pair import SetPair, pairs_of
from ajbench.features.extractor import LazyExtractor
from ajbench.pipeline.cell_measures import How, measure_all
from ajbench.pipeline.cell_training import SCORES
from ajbench.pipeline.classifier_stages import cell_key
from ajbench.pipeline.external_store import NAME
from ajbench.pipeline.stage import Stage

GENERATION = "generation"  # the table of baselines and of metrics to the train split
OF_TRAIN = ("fd", "fd_class", "label_agreement")
MOST = 50_000  # train clips that are compared with: features of two million take 17 GB, several times
ALL = "all"  # the column of label agreement over all classes


def set_name(recipe: Recipe, probe: str) -> str:
    """Return the name of a synthetic set in rows.csv: that of the probe, or how the recipe's own was made."""
    return probe or own_set(recipe)


def measure_cells(
    recipe: Recipe,
    cells: Sequence[Stage],
    out: Path,
    dataset: str,
    folds: Mapping[int | None, str],
    cache: Path,
    workers: int | None = None,
) -> list[Row]:
    """Return the rows of trained classifiers: each by itself, and every mix compared with real clips only.

    There is no comparison for a classifier that was not trained on real clips only.

    Args:
        recipe: that is run.
        cells: the classifiers, of all folds.
        out: folder of this evaluation; its name is the rows' run.
        dataset: name of the corpus, with its folds, in the rows of comparisons.
        folds: the same for each `data.eval_fold` of `cells`, in the rows of these.
        cache: folder of kept measurements.
        workers: processes, as of `measure_all`.
    """
    files = [cell.path / SCORES for cell in cells]
    tail: tuple[int, ...] = ()
    if recipe.mix.tail:
        labels = load_scores(files[0]).labels
        tail = tuple(tail_classes(recipe.mix.tail, recipe.mix.draw, labels).tolist())
    how = How(tail, recipe.evaluate.bootstrap)
    with console.progress(len(cells), "eval-cls", "classifiers") as advance:
        measured = measure_all(files, how, cache, advance, workers)
    rows: list[Row] = []
    found: dict[classification.TableCell, classification.Measured] = {}
    precisions: set[str] = set()
    for cell, one in zip(cells, measured, strict=True):
        key = cell_key(cell, recipe)
        info = cell.folder.info()
        context = Context(
            run=out.name,
            recipe=recipe.name,
            fingerprint=cell.fingerprint,
            git=info["git"] or "",
            dataset=folds[cell.recipe.data.eval_fold],
            device=info["device"],
            seconds=info["seconds"],
            precision=info.get("precision", ""),
        )
        precisions.add(context.precision)
        found[key] = one
        rows += classification.cell_rows(key, one, context)
    context = replace(context_of(recipe, out, dataset), precision=";".join(sorted(precisions)))
    compared = {key.line for key in found if key.column == recipe.name}
    mine = {key: one for key, one in found.items() if key.line in compared}
    primary = classification.primary_comparison(recipe)
    return rows + classification.compare_to_real(mine, recipe.name, context, primary)


def measure_sets(
    recipe: Recipe,
    real: Path,
    synthetic: Mapping[str, Path],
    weights: Path | None,
    out: Path,
    dataset: str,
    cache: Path,
    mixes: Mapping[str, Mix],
) -> tuple[list[Row], list[str]]:
    """Return the rows of synthetic stores and of baselines, and notes on them.

    FD and IS compare with the real clips of the eval split, FD, FD by class and label agreement with those
    of the train split (up to MOST of them, drawn), and KL compares each clip with its parent. Where guides
    lack requested classes, agreement is also measured for classes that the guide has and for those that it
    lacks.

    Args:
        recipe: names the features and the probes.
        real: the real clip store.
        synthetic: name of a set → its store; the name of the recipe's own is empty.
        weights: weights of the extractor, if it is a classifier of this run.
        out: folder of this evaluation; its name is the rows' run.
        dataset: name of the corpus in the rows.
        cache: folder of cached features.
        mixes: of these sets, measure only the first `mix.dose` clips that such a mix may use.

    Raises:
        UsageError: a synthetic store has other classes than the real one, or too few clips for a mix.
    """
    context = context_of(recipe, out, dataset)
    extractor = LazyExtractor(recipe.evaluate.features, weights)
    how: dict[str, Any] = {"resamples": recipe.evaluate.bootstrap, "task": ""}
    how |= {"extractor": extractor, "protocol": protocols.find("ajbench"), "cache": cache}
    every, train, held_out = open_set(real), open_set(real, "train"), open_set(real, "eval")
    place = {name: number for number, name in enumerate(every.names)}
    how["recordings"] = dict(zip(every.names, every.recordings, strict=True))
    split_of = dict(zip(every.names, ClipStore.open(real).column("split"), strict=True))
    rows: list[Row] = []
    notes: list[str] = []
    if len(train) > MOST:
        notes.append(f"train split: {MOST:,} clips, drawn of {len(train):,}")
        train = train.take(draw(np.arange(len(train)), MOST, seed=0))
    largest = 0
    with console.progress(len(synthetic) + 1, "eval-gen", "sets of clips") as advance:
        for probe, path in synthetic.items():
            name, gen, section = set_name(recipe, probe), open_set(path), _section(recipe, probe)
            if mix := mixes.get(probe):
                gen = gen.take(usable(mix, ClipStore.open(path), "G", frozenset())[: mix.dose])
            largest = max(largest, len(gen))
            if gen.classes != every.classes:
                raise UsageError(f"{path}: its classes are not those of {real}; generate it from that store")
            # A clip comes from its parent by its guide, or by a prompt that names the parent's labels.
            external = path == synthetic.get(NAME)
            paired = any(gen.parents) if external else section["strength"] < 1 or section["prompt"] != "none"
            pairs = pairs_of(gen, every) if paired else {}
            orphans = len(gen) - len(pairs)
            measured = [(held_out, "eval", ["fd", "is"]), (train, "train", OF_TRAIN)]
            if orphans:
                without = (
                    f"{orphans} of {len(gen)} clips have no parent in {real}"
                    if paired
                    else "its clips have no parent"
                )
                notes.append(f"{name}: no kl: {without}")
            if pairs:
                of_parents = [*GUIDED] if orphans else ["kl", *GUIDED]
                parents = every.take(np.unique([place[parent] for parent in pairs.values()]))
                measured.append((parents, split_of[next(iter(pairs.values()))], of_parents))
            for ref, split, metrics in measured:
                pair = SetPair(gen, ref, pairs=pairs if "kl" in metrics else {}, **how)
                found = measure(pair, choose(pair, metrics, required=False), allow_partial=True)
                notes += [f"{name}: {note}" for note in found.notes]
                rows += [_row(context, {"row": name} | line, split) for line in found.rows]
            # The judge `reference` is trained on the real clips, the extractor on all train clips.
            own = section["judge"] != "reference" or not recipe.mix.limited
            if section["judge"] == recipe.evaluate.features and own and not external:
                notes.append(
                    f"{name}: its clips were selected by the extractor of this table; label agreement by "
                    "other features says more"
                )
            advance(1)
        pair = SetPair(train, train, pairs={}, **how)
        decoder = codec.load(recipe.codec.name, device_of())
        for line in baselines.of_splits(pair, held_out, decoder, largest):
            rows.append(_row(context, line, "train" if line["metric"] == "fd_class" else "eval", GENERATION))
        advance(1)
    return rows, list(dict.fromkeys(notes))


def _row(context: Context, line: Mapping[str, Any], split: str, table: str | None = None) -> Row:
    """Return a line of `measure`, with its row's name, as a row of rows.csv."""
    metric, interval = line["metric"], (line["ci_low"], line["ci_high"])
    named = f"{ALL} (class)" if line["of"] == ALL else line["of"]
    column = (named or ALL) if metric == "label_agreement" else ""
    if table is None:
        table = GENERATION if metric in GUIDED or (metric in OF_TRAIN and split == "train") else "1"
    about: dict[str, Any] = {"n": line["n"], "features": line["features"], "split": split}
    return make_row(context, table, line["row"], column, metric, line["value"], interval, **about)


def context_of(recipe: Recipe, folder: Path, dataset: str) -> Context:
    """Return the origin of the rows of an evaluation, which has its folder."""
    info = RunDir(folder, "", "").info()
    return Context(
        run=folder.name,
        recipe=recipe.name,
        fingerprint=info["fingerprint"],
        git=info["git"] or "",
        dataset=dataset,
        device=info["device"],
    )


def _section(recipe: Recipe, name: str) -> dict[str, Any]:
    return recipe.synth.model_dump() | recipe.evaluate.probes.get(name, {})
