"""The plan of a synthesis: which clips, with which labels, prompts, guides and seeds, before any is made."""

import io
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray
from scipy import sparse

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import seed_for
from ajbench.core.recipe import Synth
from ajbench.data.manifest import Manifest
from ajbench.data.store import ClipStore
from ajbench.generation.prompts import sound_of, spoken

# Clip ids, places in the train split (parent or guide; -1: none) and label ids, each of n clips.
Draw = tuple[list[str], NDArray[np.int64], list[list[int]]]

UNGUIDED = {"leave_out": "left out", "noise": "made from noise"}  # what `synth.unguided` does, in words

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


@dataclass(frozen=True)
class ListedClips:
    """What a plan is drawn from: the labels of a split, whether or not its sound is there.

    Attributes:
        where: they are listed, for messages.
        names: of the classes, in the order of the label set.
        clip_ids: of the clips.
        places: int64 [N], of these clips in the store (or among the rows of the manifest).
        targets: float32 [N, C], sparse; not zero where clip n has class c, columns of a row in order.
        captions: of the clips, where they have one.
    """

    where: str
    names: tuple[str, ...]
    clip_ids: list[str]
    places: NDArray[np.int64]
    targets: sparse.csr_array
    captions: tuple[str | None, ...] = ()  # empty: not read

    @classmethod
    def of_store(cls, store: ClipStore, split: str = "train", *, captions: bool = False) -> "ListedClips":
        """Return a split of a real store, with its captions (slow to read) only where a plan is of them."""
        places, ids = store.split_indices(split), store.clip_ids
        texts = store.column("caption") if captions else None
        return cls(
            str(store.path),
            tuple(store.meta.labels),
            [ids[i] for i in places],
            places,
            _tidy(store.sparse_targets()[places]),
            tuple(texts[i] for i in places) if texts else (),
        )

    @classmethod
    def of_manifest(cls, manifest: Manifest, where: str, split: str = "train") -> "ListedClips":
        """Return a split of a corpus as its reader, or its label table alone, lists it."""
        rows = [(place, row) for place, row in enumerate(manifest.rows) if row.split == split]
        ids = [manifest.label_set.index(name) for _, row in rows for name in row.labels]
        ends = np.cumsum([0, *(len(row.labels) for _, row in rows)])
        shape = (len(rows), len(manifest.label_set))
        return cls(
            where,
            manifest.label_set.names,
            [row.clip_id for _, row in rows],
            np.array([place for place, _ in rows], np.int64),
            _tidy(sparse.csr_array((np.ones(len(ids), np.float32), ids, ends), shape=shape)),
            tuple(row.caption for _, row in rows),
        )

    def take(self, keep: NDArray[np.bool_]) -> "ListedClips":
        """Return those of the clips where `keep` [N] is true."""
        rows = np.flatnonzero(keep)
        return replace(
            self,
            clip_ids=[self.clip_ids[i] for i in rows],
            places=self.places[rows],
            targets=_tidy(self.targets[rows]),
            captions=tuple(self.captions[i] for i in rows) if self.captions else (),
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """Clips of each class, int64 [C]."""
        return np.bincount(self.targets.indices, minlength=len(self.names))

    def labels(self) -> list[list[int]]:
        """Return the label ids of each clip, ascending."""
        ids = self.targets.indices.tolist()
        return [ids[a:b] for a, b in itertools.pairwise(self.targets.indptr.tolist())]


def plan(
    section: Synth, clips: ListedClips, tokens: Mapping[str, str] | None = None, seed: int | None = None
) -> pa.Table:
    """Return what is to be generated, a row a clip (`PLAN_SCHEMA`), from one split alone (`split_of`).

    `per-clip` (DA-Fusion; X̃_ij of Eq. 1): the j-th augmentation of every clip before the (j+1)-th of any,
    in an order drawn for j in which every stretch has the classes' shares of the whole; labels are the
    parent's. `random-classes` (App. E): one to three classes drawn at random, and as guide a clip that has
    at least one of them; of classes without a train clip `synth.unguided` decides. `captions` (Table 1): a
    clip from noise for the caption of every evaluation clip, or its labels if it has none, to be compared
    with that clip and for nothing else. In all a shorter plan is the beginning of a longer one, so doses are
    nested.

    Args:
        section: the recipe's synth section.
        clips: of the split that the plan is drawn from.
        tokens: label → class token, for prompts of learned tokens.
        seed: of the run; None is the section's.

    Raises:
        UsageError: no train clip has one of the classes asked for, or any for `random-classes`; or
            `synth.unguided=refuse` and a class has no train clip.
        MissingError: prompts of tokens, but a class has none.
    """
    seed = section.seed if seed is None else seed
    names = clips.names
    usable = np.arange(len(names)) < (section.classes or len(names))
    if section.unguided == "refuse" and (without := unguided(section, clips)):
        raise UsageError(
            f"synth.unguided=refuse: {told(without)} without a train clip in {clips.where}; use leave_out "
            "or noise"
        )
    if section.classes:
        clips = clips.take(np.asarray(clips.targets[:, np.flatnonzero(usable)].sum(axis=1)).reshape(-1) > 0)
    if not clips.clip_ids:
        raise UsageError(f"synth.classes={section.classes}: no clip of {clips.where} has one of them")
    draw = _DRAWS[section.plan]
    clip_ids, drawn, label_ids = draw(section, seed, clips, usable)
    labels = [[names[k] for k in row] for row in label_ids]
    if section.plan == "random-classes" and section.strength == 1:
        drawn = np.full(len(clip_ids), -1)
    captions = [sound_of([spoken(name) for name in row]) for row in labels]
    if section.plan == "captions":
        captions = [clips.captions[i] or text for i, text in zip(drawn, captions, strict=True)]
    columns = {
        "clip_id": clip_ids,
        "parent_id": [clips.clip_ids[i] if i >= 0 else None for i in drawn],
        "parent": [clips.places[i] if i >= 0 else None for i in drawn],
        "labels": labels,
        "label_ids": label_ids,
        "caption": captions if section.prompt != "none" else [None] * len(clip_ids),
        "prompt": _prompts(section, labels, captions, tokens),
        "seed": [seed_for(seed, clip_id) for clip_id in clip_ids],
    }
    return pa.table(columns, schema=PLAN_SCHEMA)


def split_of(section: Synth) -> str:
    """Return the split that a plan is drawn from, and that its clips are of."""
    return "eval" if section.plan == "captions" else "train"


def unguided(section: Synth, clips: ListedClips) -> list[str]:
    """Return the classes that `random-classes` is asked for and that no train clip has.

    They have no guide, and the generator never heard them. Other plans ask for clips, so for none of these.
    """
    if section.plan != "random-classes":
        return []
    asked = len(clips.names) if section.classes is None else section.classes
    return [clips.names[k] for k in np.flatnonzero(clips.counts == 0) if k < asked]


def told(names: list[str], most: int = 10) -> str:
    """Return names as a message has them: how many, and the first of them."""
    more = f", … {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} class{'es' if len(names) > 1 else ''} ({', '.join(names[:most])}{more})"


def as_parquet(table: pa.Table) -> tuple[bytes, str]:
    """Return a plan as the content of its file, and the hash of that."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue(), xxhash.xxh3_128_hexdigest(buffer.getvalue())


def _tidy(targets: sparse.csr_array) -> sparse.csr_array:
    # Double labels would count twice, and what is drawn depends on the order of a row's columns.
    targets = sparse.csr_array(targets)
    targets.sum_duplicates()
    return targets


def _per_clip(section: Synth, seed: int, clips: ListedClips, usable: NDArray[np.bool_]) -> Draw:
    """Clip ids, places in the train split and label ids of the `per-clip` plan."""
    train_ids, width = clips.clip_ids, len(clips.names)
    # The rarest label of each clip, of equally rare ones the first; class 0 for clips without labels.
    rarest = np.zeros(len(train_ids), np.int64)
    labelled = np.flatnonzero(np.diff(clips.targets.indptr))
    ids = clips.targets.indices.astype(np.int64)
    if len(labelled):
        rank = clips.counts[ids] * width + ids
        rarest[labelled] = np.minimum.reduceat(rank, clips.targets.indptr[labelled]) % width
    counts = np.bincount(rarest, minlength=width)
    rounds = -(-section.n // len(train_ids))
    order = [
        _interleaved(rarest, counts, np.random.default_rng(seed_for(seed, "plan", j))) for j in range(rounds)
    ]
    places = np.concatenate(order)[: section.n]
    labels = clips.labels()
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


def _random_classes(section: Synth, seed: int, clips: ListedClips, usable: NDArray[np.bool_]) -> Draw:
    """Clip ids, places of the guides and label ids of the `random-classes` plan."""
    if not clips.counts[usable].any():
        raise UsageError(
            "synth.plan=random-classes: no train clip of the store has a label; use synth.plan=per-clip"
        )
    pool = np.flatnonzero(usable if section.unguided == "noise" else usable & (clips.counts > 0))
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
    columns = sparse.csc_array(clips.targets)
    members = [columns.indices[columns.indptr[k] : columns.indptr[k + 1]] for k in pool]
    places = np.array(
        [_of_union([members[k] for k in row], u) for row, u in zip(drawn, share[4], strict=True)], np.int64
    )
    clip_ids = [f"syn-{place:06d}" for place in range(section.n)]
    return clip_ids, places, [sorted(pool[row].tolist()) for row in drawn]


def _of_union(sets: list[NDArray[np.int32]], u: float) -> int:
    """Return the member of the sets' union at share u in [0, 1) of it, in order; -1 where it is empty."""
    # np.unique takes twice as long, of a plan's 80,000 calls.
    every = np.sort(np.concatenate(sets)) if len(sets) > 1 else sets[0]
    if not len(every):
        return -1
    new = np.flatnonzero(every[1:] != every[:-1])
    which = int(u * (len(new) + 1))
    return int(every[new[which - 1] + 1 if which else 0])


def _captions(section: Synth, seed: int, clips: ListedClips, usable: NDArray[np.bool_]) -> Draw:
    """Clip ids, places in the eval split and label ids of the `captions` plan."""
    n = len(clips.clip_ids)
    places = np.arange(section.n) % n
    labels = clips.labels()
    clip_ids = [f"syn-{clips.clip_ids[i]}-{k // n}" for k, i in enumerate(places)]
    return clip_ids, places, [labels[i] for i in places]


_DRAWS = {"per-clip": _per_clip, "random-classes": _random_classes, "captions": _captions}


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
