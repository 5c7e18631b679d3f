"""What a run is given: a generator, another pool, captions, classifiers; none may know evaluation clips."""

from pathlib import Path
from typing import Any

from ajbench.captions import caption_table
from ajbench.core import documents
from ajbench.core.console import counted
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.recipe import Generator, Recipe, fingerprint, probe
from ajbench.core.sealed_json import read_sealed
from ajbench.data import audio
from ajbench.data.corpora.recordings import left_out
from ajbench.data.leak_rule import refuse_heard, refuse_leak
from ajbench.data.manifest import Manifest
from ajbench.data.shards import read_meta, same_codec
from ajbench.data.store import ClipStore
from ajbench.generation import pretrained
from ajbench.pipeline import grid

INFO = "generator.json"


def check_init(init: str, manifest: Manifest) -> None:
    """Check a generator that another one starts from (`generator.init`), if ajbench has trained it.

    Raises:
        IntegrityError: it was trained on recordings of evaluation clips (the leak rule), or is damaged.
    """
    if path := pretrained.trained_by_ajbench(init):
        info = generator_info(path.parent)
        refuse_leak(path.parent, info["train_ids"], info["train_recordings"], manifest.held_out())


def check_classifiers(recipe: Recipe, manifest: Manifest) -> None:
    """Check the folders of classifiers that a recipe starts from or asks: every `init` and every judge.

    Raises:
        IntegrityError: one was made with a train split that has evaluation clips (the leak rule).
    """
    trained = [recipe.classifier_of(), *grid.models(recipe), *grid.models(recipe, all_real=True)]
    trained += [candidate for model in trained for candidate in recipe.candidates_of(model)]
    probes = [probe(recipe, *changes) for changes in recipe.evaluate.probes.items()]
    named = [*(model.init for model in trained), *(synth.judge for synth in (recipe.synth, *probes))]
    for folder in filter(None, dict.fromkeys(named)):
        refuse_heard(Path(folder), manifest.held_out())


def check_generator(folder: Path, recipe: Recipe, manifest: Manifest) -> None:
    """Check that a trained generator may be used with this corpus and codec.

    Raises:
        MissingError: there is no generator in the folder.
        IntegrityError: it was trained on recordings of evaluation clips (the leak rule), has another codec,
            or is damaged.
    """
    try:
        info = generator_info(folder, "codec", "codec_hash")
    except FileNotFoundError:
        raise MissingError(f"--generator {folder}: no trained generator in it ({INFO} is missing)") from None
    refuse_leak(folder, info["train_ids"], info["train_recordings"], manifest.held_out())
    if other := _other_codec(recipe, info["codec"], info["codec_hash"]):
        raise IntegrityError(f"--generator {folder}: has codec {other}")


def generator_info(folder: Path, *keys: str) -> dict[str, Any]:
    """Return the `generator.json` of a trained generator, without torch.

    Args:
        folder: of the generator.
        keys: that it must have, besides `train_ids` and `train_recordings`; these are empty where absent.

    Raises:
        FileNotFoundError: there is none.
        IntegrityError: it is damaged.
    """
    path, remedy = folder / INFO, "train the generator again"
    info = read_sealed(path, remedy, documents.IDS_BYTES, keys)
    for key in ("train_ids", "train_recordings"):
        names = info.get(key, [])
        if not isinstance(names, list):
            raise IntegrityError(f"{path}: damaged ({key} is no list); {remedy}")
        info[key] = list(map(str, names))
    return info


def pool_size(generator: Path) -> int:
    """Return how many clips a finished generator was trained on, with those that it was validated on."""
    return len(generator_info(generator)["train_ids"])


def check_pool(folder: Path, recipe: Recipe, manifest: Manifest) -> None:
    """Check that a generator may be trained on another store, `generator.pool`.

    Raises:
        MissingError: there is no finished store in the folder.
        UsageError: its clips are synthetic, or have another codec, whitening or length than the recipe's.
        IntegrityError: it is damaged, or has recordings of the recipe's evaluation clips (the leak rule).
    """
    store = ClipStore.open(folder, verify=False)
    basis, length = store.meta.whitening and "basis" in store.meta.whitening, recipe.data.duration_s
    for what, found, own in (
        ("its clips are", store.meta.source, "real"),
        ("codec.whitening", "pca" if basis else "channel", recipe.codec.whitening),
        ("samples of a clip:", store.meta.clip_samples, audio.clip_samples(length)),
    ):
        if found != own:
            raise UsageError(
                f"generator.pool={folder}: {what} {found}, the recipe needs {own}; prepare the pool like it"
            )
    if other := _other_codec(recipe, store.meta.codec, store.meta.codec_hash):
        raise UsageError(
            f"generator.pool={folder}: has codec {other}; prepare the pool like the recipe's clips"
        )
    train = store.split_indices("train")
    ids, recordings = ([names[i] for i in train] for names in (store.clip_ids, store.recordings))
    refuse_leak(folder, ids, recordings, manifest.held_out())


def _other_codec(recipe: Recipe, name: str, weights_hash: str) -> str:
    """Return a codec and the recipe's in words if they are not the same (`same_codec`); else ""."""
    from ajbench import codec as codecs

    own = recipe.codec.name
    try:
        found = codecs.load(own)
    except MissingError:  # its own check says so
        return "" if own == name else f"{name}, the recipe {own}"
    if same_codec((name, weights_hash), (found.name, found.weights_hash)):
        return ""
    return f"{name}@{weights_hash}, the recipe {found.name}@{found.weights_hash} (codec.name={own})"


def pool_identity(folder: Path) -> str:
    """Return a hash of the clips of another store.

    Raises:
        MissingError: there is no finished store in the folder.
        IntegrityError: it is damaged.
    """
    meta = read_meta(folder)
    return fingerprint(meta.fingerprint, [shard.xxh3 for shard in meta.shards])


def captions_of(section: Generator) -> dict[str, str] | None:
    """Return clip id → caption of the table that a generator is trained on; None without one.

    Raises:
        MissingError: there is no finished table in the folder.
        UsageError: it has no captions of this kind.
        IntegrityError: it is damaged.
    """
    return caption_table.texts(Path(section.captions), section.caption_kind) if section.captions else None


def captions_identity(section: Generator) -> tuple[str, ...]:
    """Return what identifies the captions of a generator; errors as in `captions_of`."""
    if not section.captions:
        return ()
    return section.caption_kind, *caption_table.identity(Path(section.captions))


def check_captions(section: Generator, manifest: Manifest) -> None:
    """Check that the captions of a generator are of other clips than the evaluation clips.

    Raises:
        IntegrityError: the table has captions of evaluation clips or of their recordings, or is damaged.
        MissingError: there is no finished table in the folder.
        UsageError: it has no captions of this kind, or of other clips only.
    """
    captions = captions_of(section)
    if captions is None:
        return
    train = (row.clip_id for row in manifest.split("train"))
    if not section.other_store and captions.keys().isdisjoint(train):
        raise UsageError(
            f"generator.captions={section.captions}: none of its {counted(len(captions), 'clip')} is a "
            "train clip of the corpus; make the table with `ajbench caption --recipe`"
        )
    held_out = manifest.held_out()
    # Clips of a list are named after their video, which is a recording without "youtube:".
    recordings = {part for one in held_out.values() for part in (one, one.partition(":")[2])}
    related = {problem.clip_id for clips in left_out(manifest.problems).values() for problem in clips}
    leaked = [clip for clip in captions if clip in held_out or clip in recordings or clip in related]
    if leaked:
        raise IntegrityError(
            f"generator.captions={section.captions}: has captions of evaluation clips or their recordings "
            f"({counted(len(leaked), 'clip')}, such as {leaked[0]}); make the table without --include-eval, "
            "and with --exclude FILE if its clips come from another list"
        )
