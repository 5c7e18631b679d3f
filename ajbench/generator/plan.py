"""The plan of a synthesis: which clips, with which labels, prompts, guides and seeds, before any is made."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ajbench.errors import MissingError, UsageError
from ajbench.generator.text import sound_of, spoken
from ajbench.recipe import Synth
from ajbench.run import seed_for
from ajbench.store import ClipStore

# Clip ids, places in the train split (parent or guide) and label ids, each of n clips.
Draw = tuple[list[str], NDArray[np.int64], list[list[int]]]

PLAN_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("parent_id", pa.string()),  # the guide clip
        pa.field("parent", pa.int64()),  # its place in the real store
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("label_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
    ]
)


def plan(
    section: Synth, store: ClipStore, tokens: Mapping[str, str] | None = None, seed: int | None = None
) -> pa.Table:
    """Return what is to be generated, a row a clip (`PLAN_SCHEMA`), from the train split alone.

    `per-clip` (DA-Fusion; X̃_ij of Eq. 1): the j-th augmentation of every clip before the (j+1)-th of any,
    in an order drawn for j in which every stretch has the classes' shares of the whole; labels are the
    parent's. `random-classes` (App. E): one to three classes drawn at random, and as guide a clip that has
    at least one of them. In both a shorter plan is the beginning of a longer one, so doses are nested.

    Args:
        section: the recipe's synth section.
        store: real clips.
        tokens: label → class token, for prompts of learned tokens.
        seed: of the run; None is the section's.

    Raises:
        UsageError: no train clip has one of the classes asked for, or any for `random-classes`.
        MissingError: prompts of tokens, but a class has none.
    """
    seed = section.seed if seed is None else seed
    names = store.meta.labels
    train = store.split_indices("train")
    targets = store.targets()[train] > 0
    usable = np.arange(len(names)) < (section.classes or len(names))
    keep = targets[:, usable].any(axis=1) if section.classes else np.ones(len(train), bool)
    train, targets = train[keep], targets[keep]
    if not len(train):
        raise UsageError(f"synth.classes={section.classes}: no train clip of {store.path} has one of them")
    draw = _per_clip if section.plan == "per-clip" else _random_classes
    clip_ids, places, label_ids = draw(section, seed, [store.clip_ids[i] for i in train], targets, usable)
    labels = [[names[k] for k in row] for row in label_ids]
    guided = section.plan == "per-clip" or section.strength < 1
    captions = [sound_of([spoken(name) for name in row]) for row in labels]
    columns = {
        "clip_id": clip_ids,
        "parent_id": [store.clip_ids[train[i]] if guided else None for i in places],
        "parent": [train[i] if guided else None for i in places],
        "labels": labels,
        "label_ids": label_ids,
        "caption": captions if section.prompt != "none" else [None] * len(clip_ids),
        "prompt": _prompts(section, labels, captions, tokens),
        "seed": [seed_for(seed, clip_id) for clip_id in clip_ids],
    }
    return pa.table(columns, schema=PLAN_SCHEMA)


def _per_clip(
    section: Synth, seed: int, train_ids: list[str], targets: NDArray[np.bool_], usable: NDArray[np.bool_]
) -> Draw:
    """Clip ids, places in the train split and label ids of the `per-clip` plan."""
    rarest = np.where(targets, targets.sum(axis=0), np.inf).argmin(axis=1)
    counts = np.bincount(rarest, minlength=targets.shape[1])
    rounds = -(-section.n // len(train_ids))
    order = [
        _interleaved(rarest, counts, np.random.default_rng(seed_for(seed, "plan", j))) for j in range(rounds)
    ]
    places = np.concatenate(order)[: section.n]
    labels = [np.flatnonzero(row).tolist() for row in targets]
    clip_ids = [f"syn-{train_ids[i]}-{place // len(train_ids)}" for place, i in enumerate(places)]
    return clip_ids, places, [labels[i] for i in places]


def _interleaved(
    classes: NDArray[np.int64], counts: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return a permutation, random within classes, of which every stretch has the classes' shares."""
    shuffled = rng.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    rank = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    when = (rank + rng.random(len(counts))[classes[by_class]]) / counts[classes[by_class]]
    return by_class[np.argsort(when, kind="stable")]


def _random_classes(
    section: Synth, seed: int, train_ids: list[str], targets: NDArray[np.bool_], usable: NDArray[np.bool_]
) -> Draw:
    """Clip ids, places of the guides and label ids of the `random-classes` plan."""
    # Classes without a train clip were never heard by the generator, and have no guide.
    pool = np.flatnonzero(usable & targets.any(axis=0))
    if not len(pool):
        raise UsageError(
            "synth.plan=random-classes: no train clip of the store has a label; use synth.plan=per-clip"
        )
    share = np.stack([np.random.default_rng(seed_for(seed, "plan", k)).random(section.n) for k in range(5)])
    number = 1 + (share[0] * min(3, len(pool))).astype(np.int64)
    # Three draws without replacement: each skips the places taken before it.
    a = (share[1] * len(pool)).astype(np.int64)
    b = (share[2] * max(1, len(pool) - 1)).astype(np.int64)
    b += b >= a
    c = (share[3] * max(1, len(pool) - 2)).astype(np.int64)
    low, high = np.minimum(a, b), np.maximum(a, b)
    c += c >= low
    c += c >= high
    drawn = [row[:k] for row, k in zip(np.stack([a, b, c], axis=1), number, strict=True)]
    members = [np.flatnonzero(column) for column in targets[:, pool].T]
    having = (np.unique(np.concatenate([members[k] for k in row])) for row in drawn)
    places = np.array([clips[int(u * len(clips))] for clips, u in zip(having, share[4], strict=True)])
    clip_ids = [f"syn-{place:06d}" for place in range(section.n)]
    return clip_ids, places, [sorted(pool[row].tolist()) for row in drawn]


def _prompts(
    section: Synth, labels: list[list[str]], captions: list[str], tokens: Mapping[str, str] | None
) -> list[str]:
    if section.prompt == "none":
        return [""] * len(labels)
    if section.prompt == "names":
        return captions
    without = sorted({name for row in labels for name in row}.difference(tokens or {}))
    if without:
        raise MissingError(
            f"synth.prompt=tokens: {len(without)} classes have no learned token (such as {without[0]!r}); "
            "run `ajbench invert` (invert.classes: of all), or use synth.prompt=names"
        )
    return [sound_of([tokens[name] for name in row]) for row in labels] if tokens else []
