"""The evaluations of a recipe as stages: of classifiers, and of sets of generated clips."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ajbench.core import documents
from ajbench.core.console import counted
from ajbench.core.errors import UnfinishedError
from ajbench.core.recipe import Mix, Recipe, settings_of_lines
from ajbench.core.rows import folds_name, make_row
from ajbench.core.sealed_json import write_sealed
from ajbench.evaluation.classification import PRIMARY, primary_comparison
from ajbench.pipeline import classifier_stages, external_store, given_models, grid, preflight, tail_clips
from ajbench.pipeline.inputs import extractor_identity
from ajbench.pipeline.stage import Stage

if TYPE_CHECKING:
    from ajbench.pipeline.recipe_stages import Pipeline

_Sizes = dict[str, int | None]
ROWS = "rows.csv"
NOTES = "notes.json"


def eval_cls_stage(pipeline: "Pipeline", classifiers: Sequence[Stage], jobs: int | None = None) -> Stage:
    """Scores of classifiers → rows, by up to `jobs` processes."""
    recipe = pipeline.recipe
    keys = sorted(stage.fingerprint for stage in classifiers)
    model = recipe.evaluate.primary_model
    line = recipe.classifier_of(model.model_dump()).line if model else None
    primary = [recipe.evaluate.primary, line] if recipe.evaluate.primary else []
    # What is limited decides which classifiers are called `all real`; an arm, what the control of steps is.
    longest = grid.matched(recipe)
    steps = [longest.source] if longest and longest.source != "G" else []
    named = *primary, *recipe.mix.drawn, *steps
    key, path = pipeline.place("eval-cls", recipe.evaluate.bootstrap, keys, *named)

    def do() -> None:
        from ajbench.data.store import ClipStore
        from ajbench.pipeline.evaluate import context_of, measure_cells

        of_fold = {one.recipe.data.eval_fold: one.draws[0] for one in pipeline.folds}
        names = {fold: dataset_name(one) for fold, one in of_fold.items()}
        sizes: dict[str, dict[str, _Sizes]] = {}
        for cell in classifiers:
            mix, fold = cell.recipe.mix, cell.recipe.data.eval_fold
            mine = sizes.setdefault(classifier_stages.cell_key(cell, recipe).column, {})
            if names[fold] not in mine:
                generated = mix.adds("G")
                mine[names[fold]] = _sizes(of_fold[fold], mix, generated)
        pooled = dataset_name(pipeline, recipe.evaluate.folds)
        for mine in sizes.values():
            mine[pooled] = _mean(list(mine.values()))
        cache = pipeline.places.work / "measured"
        rows = measure_cells(recipe, classifiers, path, pooled, names, cache, jobs)
        settings = settings_of_lines(recipe)
        rows = [
            row | sizes[row["column"]][row["dataset"]] | {"settings": settings.get(row["row"], "")}
            for row in rows
        ]
        if recipe.mix.tail:
            stores = [ClipStore.open(one.prepare.path, verify=False) for one in pipeline.folds]
            rows += tail_clips.rows(recipe, stores, context_of(recipe, path, pooled))
        if late := _trained_before(recipe, classifiers):
            first, context = primary_comparison(recipe), context_of(recipe, path, pooled)
            assert first
            about = first.line, first.column, "trained_before", late
            rows.append(make_row(context, PRIMARY, *about, n=len(classifiers)))
        _record(pipeline, path, rows, pipeline.folds[0].prepare.path)

    amount = counted(len(classifiers), "classifier")
    return Stage("eval-cls", recipe, path, key, amount, do, needs=tuple(classifiers), follows=True)


def _trained_before(recipe: Recipe, classifiers: Sequence[Stage]) -> int:
    """Return how many classifiers were trained without the declaration of the primary comparison."""
    wanted = _declared(recipe.evaluate.model_dump(mode="json"))
    if wanted is None:
        return 0
    sections = [documents.read_yaml(cell.path / "recipe.yaml").get("evaluate") for cell in classifiers]
    return sum(_declared(section) != wanted for section in sections)


def _declared(section: Any) -> tuple[Any, ...] | None:
    """Return classifier, dose and arm of the primary comparison in the `evaluate` section of a file."""
    if not isinstance(section, dict) or not section.get("primary"):
        return None
    primary, models = section["primary"], section["models"]
    place = primary["model"]
    model = f"{models[place]['name']}+{models[place]['aug']}" if isinstance(place, int) else place
    return model, primary["dose"], primary["arm"]


def eval_gen_stage(
    pipeline: "Pipeline", names: Sequence[str], mixes: Mapping[str, Mix] | None = None
) -> Stage:
    """Synthetic stores and real clips → rows; the name of the recipe's own store is empty.

    `mixes`: of a set, measure only the first `mix.dose` clips that such a mix may use.
    """
    recipe, section = pipeline.recipe, pipeline.recipe.evaluate
    stores = {name: pipeline.synthetic_set(name) for name in names}
    judge = (
        (classifier_stages.reference_stage(pipeline, all_real=True),)
        if section.features == "reference"
        else ()
    )
    needs = (pipeline.prepare, *stores.values(), *judge)
    inputs = [(stage.what, stage.fingerprint) for stage in needs]
    taken: list[Any] = [(name, mix.dose, mix.min_fidelity) for name, mix in (mixes or {}).items()]
    taken += [*extractor_identity(section.features), *recipe.mix.drawn]
    key, path = pipeline.place("eval-gen", section.features, section.bootstrap, *inputs, *taken)

    def do() -> None:
        from ajbench.pipeline.evaluate import measure_sets

        folders = {name: store.path for name, store in stores.items()}
        weights = judge[0].path if judge else None
        prepared = pipeline.prepare.path
        cache = pipeline.places.work / "features"
        where = path, dataset_name(pipeline), cache
        rows, notes = measure_sets(recipe, prepared, folders, weights, *where, mixes or {})
        sizes = _sizes(pipeline, recipe.mix.with_real, generated=pipeline.generates)
        of_external = sizes | {"pool": None}
        rows = [row | (of_external if row["row"] == external_store.NAME else sizes) for row in rows]
        store = stores.get(external_store.NAME) if pipeline.places.synthetic else None
        if store and (external := external_store.audited(store)):
            found = [pipeline.external.found, external_store.fidelity(store.path), *external["sentences"]]
            notes += [f"{external_store.NAME}: {note}" for note in found]
        _record(pipeline, path, rows, prepared)
        write_sealed(path / NOTES, {"notes": notes}, indent=2)

    amount = counted(len(names), "set") + " of clips"
    checks = (partial(preflight.check_features, section.features),)
    about: dict[str, Any] = {"seed": 0, "needs": needs, "checks": checks, "follows": True}
    return Stage("eval-gen", recipe, path, key, amount, do, **about)


def generated_sets(pipeline: "Pipeline") -> list[str]:
    """Return the names of the finished synthetic sets; the recipe's own is an empty string.

    Raises:
        UnfinishedError: there is none.
    """
    if found := [name for name in ("", *pipeline.probes) if pipeline.synth(name).done()]:
        return found
    problem = f"{pipeline.home}: no synthetic clips of these settings"
    raise UnfinishedError(pipeline.home, problem, "synth", fold=pipeline.recipe.data.eval_fold)


def dataset_name(pipeline: "Pipeline", folds: Sequence[int] = ()) -> str:
    """Return the name of the corpus in rows.csv, with these folds or else the one that is the eval split."""
    data = pipeline.recipe.data
    found = {row.fold for row in pipeline.manifest.split("eval") if row.fold is not None}
    folds = folds or tuple(found if len(found) == 1 else ())
    name = data.corpus if data.subset is None else f"{data.corpus} {data.subset}"
    name = data.subset if data.subset == "esc10" else name  # a corpus of its own
    return f"{name} {folds_name(folds)}" if folds else name


def _mean(found: Sequence[_Sizes]) -> _Sizes:
    """Return the mean sizes over folds, as whole numbers."""
    sizes = {name: [int(one[name] or 0) for one in found] for name in found[0]}
    return {name: found[0][name] and round(fmean(values)) for name, values in sizes.items()}


def _sizes(pipeline: "Pipeline", mix: Mix, generated: bool) -> _Sizes:
    """Return the columns `pool` (None without generated clips) and `real` (clips of the mix) of rows."""
    from ajbench.data.real_clips import chosen
    from ajbench.data.store import ClipStore

    store = ClipStore.open(pipeline.prepare.path, verify=False)
    pool = given_models.pool_size(pipeline.generator) if generated else None
    return {"pool": pool, "real": len(chosen(mix, store))}


def _record(pipeline: "Pipeline", folder: Path, rows: Sequence[Mapping[str, Any]], store: Path) -> None:
    """Add rows to those of the results; `store` was made with the codec that they name."""
    from ajbench.core.rows import append_rows
    from ajbench.data.store import ClipStore

    meta = ClipStore.open(store, verify=False).meta
    name = Path(meta.codec).name.removesuffix(".safetensors")
    codec = f"{name}@{meta.codec_hash}"
    rows = [{**row, "codec": codec} for row in rows]
    append_rows(folder / ROWS, rows)
    append_rows(pipeline.home / ROWS, rows)
