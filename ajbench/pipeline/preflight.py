"""Checks before any work: clips, classes, weights; and corpora without audio."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ajbench.core import registry, transformers_folder
from ajbench.core.console import counted, say, say_once
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data, Recipe
from ajbench.data import real_clips, val_part
from ajbench.data.corpora import youtube
from ajbench.data.corpora.recordings import read_corpus
from ajbench.data.manifest import Manifest
from ajbench.data.store import ClipStore
from ajbench.generation import hub_encoders
from ajbench.generation.prompts import chosen_classes
from ajbench.pipeline import given_models, grid, tail_clips
from ajbench.pipeline.stage import Stage

SHOWN = 8  # classes that are named


def check(
    recipe: Recipe,
    manifest: Manifest,
    generator: Path | None,
    doses: Sequence[int] = (),
    external: int | None = None,
) -> None:
    """Check that a corpus has the clips and classes that a recipe needs.

    Args:
        recipe: what is done.
        manifest: of the corpus.
        generator: a trained generator to use instead of the recipe's own.
        doses: numbers of synthetic clips that will be needed, besides `mix.dose`.
        external: clips from elsewhere (source X), if there are any.

    Raises:
        UsageError: it has not.
        MissingError: the given generator is missing.
        IntegrityError: the given generator does not fit, or a classifier that the recipe starts from or asks
            (`init`, `synth.judge`) belongs to another fold.
    """
    corpus, n, k, labels = recipe.data.corpus, recipe.synth.n, recipe.synth.classes, manifest.label_set
    arms = recipe.evaluate.arms
    needed = [("mix.dose", recipe.mix.dose, (recipe.mix.source,))]
    for key, dose, sources in [*needed, *(("evaluate.doses", dose, arms) for dose in doses)]:
        if dose > n and {*sources} - {"R", "X"}:  # neither R nor X is made
            raise UsageError(
                f"{key}: {dose} clips of a source are needed, synth.n={n} are made; raise synth.n or "
                "lower the dose"
            )
        if dose and "X" in sources and external is None:
            raise UsageError("mix.source=X: name the synthetic clips with --synthetic DIR")
        if external is not None and "X" in sources and dose > external:
            raise UsageError(
                f"{key}: {dose} clips of source X are needed, {external} are given; lower the dose"
            )
    if isinstance(k, int) and k > len(labels):
        raise UsageError(f"synth.classes={k}: corpus {corpus} has {counted(len(labels), 'class')}")
    tail = recipe.mix.tail
    if recipe.evaluate.redraw and tail and isinstance(tail.classes, int):
        raise UsageError(
            f"evaluate.redraw: mix.tail.classes={tail.classes} would be other classes for every seed; name "
            "them, such as [dog, rain]"
        )
    controls = recipe.evaluate.controls
    amplified = max(recipe.mix.amplify, grid.AMPLIFIED if "amplify" in controls else 0)
    if amplified > len(labels):
        raise UsageError(
            f"mix.amplify={amplified}: corpus {corpus} has {counted(len(labels), 'class')}; lower it, or "
            "leave amplify out of evaluate.controls"
        )
    if amplified and not recipe.mix.balanced:
        raise UsageError(f"mix.amplify={amplified} adds to balanced weights; set mix.balanced=true")
    if "match_steps" in controls and any(model.features for model in grid.models(recipe)):
        say("evaluate.controls: no match_steps for head, which is fitted without steps")
    if recipe.invert.classes is not None:
        chosen_classes(recipe.invert.classes, labels.names)
    for split in ("train", "eval"):
        if not manifest.split(split):
            raise UsageError(
                f"corpus {corpus}: no clip in split {split!r}; choose other folds (evaluate.folds, or "
                "data.eval_fold if that has none), or add clips"
            )
    check_classes(manifest, corpus, recipe.data.eval_fold)
    backgrounds = any("A" in source for source in (recipe.mix.source, *arms))  # of source A: from the pool
    if recipe.generator.other_store and (backgrounds or not generator):
        given_models.check_pool(recipe.generator.other_store, recipe, manifest)
    if generator:
        given_models.check_generator(generator, recipe, manifest)
    else:
        given_models.check_captions(recipe.generator, manifest)
    given_models.check_classifiers(recipe, manifest)
    check_real_clips(recipe, manifest)
    if recipe.mix.tail:
        tail_clips.check(recipe, manifest, {recipe.mix.dose, *doses})


def check_classes(manifest: Manifest, corpus: str, fold: int | None = None) -> None:
    """Check that the eval split has two classes or more, and say which ones it or the train split lacks.

    `fold`: that is evaluated, if any.

    Raises:
        UsageError: it has one class, although the corpus has more.
    """
    has = _classes_of(manifest)
    if len(has["eval"]) < 2 <= len(has["train"] | has["eval"]):
        raise UsageError(
            f"corpus {corpus}: the eval split has clips of {', '.join(has['eval']) or 'no class'} only; any "
            "classifier would be perfect; choose other folds (evaluate.folds, or data.eval_fold if that has "
            "none), or add clips of other classes"
        )
    for sentence in shortcomings(manifest, fold):
        say_once(sentence)


def shortcomings(manifest: Manifest, fold: int | None = None) -> list[str]:
    """Return sentences on an eval split of one recording, and on classes that it or the train split lacks.

    Those on classes that cannot be in both are the same for every fold; the others name the fold, if given.
    """
    has, found = _classes_of(manifest), list[str]()
    place = "" if fold is None else f"fold {fold}: "
    of = {row.recording or row.clip_id for row in manifest.split("eval")}
    if len(of) == 1:
        found.append(
            f"{place}all eval clips are of one recording ({of.pop()}): gains have no interval, so no verdict"
        )
    alone = _of_one_recording(manifest)
    for clips in dict.fromkeys(alone.values()):
        names = [name for name, mine in alone.items() if mine == clips]
        one = len(names) == 1
        which = (
            f"class {names[0]} has {clips}: it" if one else f"classes {_shown(names)} have {clips} each: they"
        )
        them = "it" if one else "them"
        found.append(f"{which} cannot be in both train and eval; remove {them} or add clips")
    for split, other, so in (
        ("eval", "train", "not evaluated"),
        ("train", "eval", "evaluated, though no train clip has them"),
    ):
        if lacking := [n for n in manifest.label_set.names if n in has[other] - has[split] - alone.keys()]:
            kinds = f"{counted(len(lacking), 'class')} ({_shown(lacking)})"
            found.append(f"{place}no {split} clip of {kinds}: {so}")
    return found


def usable(manifest: Manifest, prepared: Stage) -> Manifest:
    """Return the clips of a corpus that are in its store, once that is finished: without quarantined ones."""
    if not prepared.done():
        return manifest
    kept = {*ClipStore.open(prepared.path, verify=False).clip_ids}
    return replace(manifest, rows=[row for row in manifest.rows if row.clip_id in kept])


def _of_one_recording(manifest: Manifest) -> dict[str, str]:
    """Return the classes of a single clip, or of a single recording, with which of these, in words."""
    of_class: dict[str, list[str]] = {}
    for row in (*manifest.split("train"), *manifest.split("eval")):
        for label in row.labels:
            of_class.setdefault(label, []).append(row.recording or row.clip_id)
    return {
        name: "1 clip" if len(mine) == 1 else "clips of 1 recording"
        for name in manifest.label_set.names
        if len({*(mine := of_class.get(name, []))}) == 1
    }


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _classes_of(manifest: Manifest) -> dict[str, set[str]]:
    return {
        split: {label for row in manifest.split(split) for label in row.labels} for split in ("train", "eval")
    }


def check_sounds(data: Data, manifest: Manifest, root: Path | None) -> None:
    """Check that a corpus has sound files, and was not read from its label table alone.

    Raises:
        MissingError: it has none.
    """
    if data.corpus in registry.LABEL_TABLES and not manifest.rows[0].path:
        raise MissingError(
            f"{root}: has no sound file of a listed clip; its lists are enough for a plan only"
        )


def check_features(name: str) -> None:
    """Check that the weights of an extractor, and its package, are on this machine.

    Raises:
        MissingError: they are not; the message says where to put them.
    """
    from ajbench.features.extractor import locate

    if name != "reference":  # trained by the run
        locate(name)


def check_text_encoder(name: str) -> None:
    """Check that the weights of a text encoder are on this machine.

    Raises:
        MissingError: they are not; the message says where to put them.
        UsageError: a folder with another kind of model.
        IntegrityError: its configuration is damaged.
    """
    if registry.is_folder(name):
        transformers_folder.kind_of(Path(name))
    elif name in hub_encoders.WIDTHS:
        hub_encoders.find(name)


def check_real_clips(recipe: Recipe, manifest: Manifest) -> None:
    """Check that a corpus has the recipe's real clips and, for `evaluate.tune`, a val part of their classes.

    Raises:
        UsageError: it has not.
    """
    real = real_clips.places(recipe.mix.with_real, manifest)
    mix = recipe.mix
    if mix.mode == "alpha" and mix.alpha and mix.source == "G":
        of_all = mix.limited and not recipe.guides_are_real
        if recipe.synth.plan != "per-clip" or of_all:
            guides = " synth.guides=real" if of_all else ""
            raise UsageError(
                "mix.mode=alpha: needs as many synthetic clips of each real clip; set synth.plan=per-clip"
                f"{guides}, and synth.n to a multiple of the usable real clips ({len(real)} are listed)"
            )
    part = val_part.planned(recipe.mix, manifest) if recipe.evaluate.tune else None
    if part is None or not part.recordings:  # the corpus' own val split is taken as it is
        return
    known, scored = (manifest.sparse_targets(places.tolist()).sum(axis=0) for places in (real, part.val))
    if len(lacking := np.flatnonzero((known > 0) & (scored == 0))):
        raise UsageError(
            f"evaluate.tune: class {manifest.label_set.names[lacking[0]]!r} has no recording to spare for "
            "the val part; add clips, give the corpus a val split, or leave evaluate.tune out"
        )


def labels(recipe: Recipe, data: Path | None) -> Manifest:
    """Read a corpus to plan with it: if its audio is missing, its label table alone.

    Raises:
        MissingError: the corpus has no label table, or it is missing too.
    """
    by_table = recipe.data.corpus in registry.LABEL_TABLES
    # Millions of segments are not read twice if there is no file at all.
    if by_table and data and data.is_dir() and not youtube.has_media(data):
        return read_corpus(recipe.data, data, need_files=False)
    try:
        return read_corpus(recipe.data, data)
    except MissingError as error:
        return label_table(recipe, data, error)


def label_table(recipe: Recipe, data: Path | None, error: MissingError) -> Manifest:
    """Read only the label table of a corpus whose audio is missing.

    Args:
        recipe: its data section names the corpus.
        data: folder of the corpus.
        error: raised by the reader of the corpus.

    Raises:
        MissingError: that error, if the corpus has no label table; or the table is missing too.
    """
    corpus = recipe.data.corpus
    if corpus not in registry.LABEL_TABLES:
        raise error
    return read_corpus(recipe.data, data, need_files=False)
