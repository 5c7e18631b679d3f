"""What `synth --dry-run` tells: the plan in numbers, disk, time, and how much of the corpus is there."""

from typing import Any

from ajbench.core.errors import MissingError
from ajbench.data.manifest import Manifest
from ajbench.pipeline import preflight, runner
from ajbench.pipeline.recipe_stages import Pipeline

NO_AUDIO = "no audio found: planned from the label table alone"


def synthesis(pipeline: Pipeline, probe: str = "", processes: int = 1) -> dict[str, Any]:
    """Return what is known of a synthesis before it begins.

    Args:
        pipeline: the recipe and its places.
        probe: the set of this name; else the recipe's own.
        processes: that would share the work.

    Returns:
        What `preview` says; `planned_from` (store: the prepared clips; files: of the corpus; label table:
        where no sound is found) and `audio` in words; store_mb, disk_mb (of all that is to do), disk_free_mb;
        seconds, None where no generator is there to be timed; and, where there is sound, what `flow.describe`
        says of the stages.

    Raises:
        MissingError: the corpus is not there, not even its label table.
        UsageError: the recipe asks for what the corpus has not.
    """
    from ajbench.generation.plan import ListedClips, split_of
    from ajbench.pipeline.preview import estimate, preview

    recipe, places = pipeline.recipe, pipeline.places
    section = pipeline.probes[probe] if probe else recipe.synth
    recipe = recipe.model_copy(update={"synth": section})
    try:
        manifest, sounds = pipeline.manifest, True
    except MissingError as error:
        manifest, sounds = preflight.label_table(recipe, places.data, error), False
    preflight.check_amounts(recipe, manifest)
    if places.generator:
        preflight.check_generator(places.generator, recipe, manifest)
    where = f"corpus {recipe.data.corpus}"
    clips, origin = (
        ListedClips.of_manifest(manifest, where, split_of(section)),
        "files" if sounds else "label table",
    )
    stage = pipeline.synth(probe, processes) if sounds else None
    if stage and pipeline.prepare.done():
        from ajbench.data.store import ClipStore

        store = ClipStore.open(pipeline.prepare.path, verify=False)
        clips = ListedClips.of_store(store, split_of(section), captions=section.plan == "captions")
        origin = "store"
    size = preflight.store_mb(recipe, section.n)
    document = {
        "recipe": recipe.name,
        **preview(section, clips),
        "planned_from": origin,
        "audio": _heard(manifest) if sounds else NO_AUDIO,
        "store_mb": size,
        "disk_mb": size,
        "disk_free_mb": round(runner.free_mb(places.work), 1),
        "seconds": None,
    }
    if stage:
        document |= runner.describe(places.work, [*stage.needs, stage]) | runner.estimate(stage)
    if places.generator and document["seconds"] is None and not (stage and stage.done()):
        document |= estimate(recipe, None, places.generator, processes=processes)
    return document


def _heard(manifest: Manifest) -> str:
    found = len(manifest.split("train"))
    lost = sum(problem.split == "train" for problem in manifest.problems)
    return f"{found} of {found + lost} train clips found"
