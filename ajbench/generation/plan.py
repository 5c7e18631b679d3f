"""The plan of a synthesis: labels, prompt, guide and seed of every clip, decided before any is generated."""

import io
import itertools
from collections import Counter
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
from ajbench.core.recipe import Mix, Synth
from ajbench.data import real_clips
from ajbench.data.manifest import Manifest
from ajbench.data.rounds import rounds
from ajbench.data.store import ClipStore
from ajbench.generation.prompts import sound_of, spoken

# Clip ids, positions in the split (parent or guide; -1: none) and label ids, each for n clips.
Draw = tuple[list[str], NDArray[np.int64], list[list[int]]]

UNGUIDED = {"leave_out": "left out", "noise": "made from noise"}  # `synth.unguided`, for messages

PLAN_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("parent_id", pa.string()),  # the guide clip
        pa.field("parent", pa.int64()),  # its index in the real store
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("label_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class ListedClips:
    """What a plan is drawn from: the clips of a split with their labels. Their audio is not needed.

    Attributes:
        where: the store or list they come from, for messages.
        names: of the classes, in the order of the label set.
        clip_ids: of the clips.
        places: int64 [N], the clips' indices in the store (or rows of the manifest).
        targets: float32 [N, C], sparse, nonzero if clip n has class c; columns of a row in ascending order.
        captions: of the clips, None for clips without one; empty if captions were not read. If they were, a
            clip is listed once for each of its captions.
        tail: indices of the classes that `synth.classes=tail` requests.
    """

    where: str
    names: tuple[str, ...]
    clip_ids: list[str]
    places: NDArray[np.int64]
    targets: sparse.csr_array
    captions: tuple[str | None, ...] = ()
    tail: tuple[int, ...] = ()

    @classmethod
    def of_store(
        cls, store: ClipStore, split: str = "train", *, mix: Mix | None = None, captions: bool = False
    ) -> "ListedClips":
        """Return a split of a real store, or of its train split the real clips of `mix`.

        Captions are slow to read and needed for that plan only.
        """
        places = store.split_indices(split)
        if mix and split == "train":
            places = real_clips.chosen(mix.with_real, store)
        ids = store.clip_ids
        clips = cls(
            str(store.path),
            tuple(store.meta.labels),
            [ids[i] for i in places],
            places,
            _tidy(store.sparse_targets()[places]),
        )
        if not captions:
            return clips
        first, more = store.column("caption"), store.column("more_captions")
        return clips._by_caption([(first[i], *(more[i] or ())) for i in places])

    @classmethod
    def of_manifest(
        cls,
        manifest: Manifest,
        where: str,
        split: str = "train",
        *,
        mix: Mix | None = None,
        captions: bool = False,
    ) -> "ListedClips":
        """Return the same from a manifest or a label table."""
        if mix and split == "train":
            places = real_clips.places(mix.with_real, manifest).tolist()
        else:
            places = [place for place, row in enumerate(manifest.rows) if row.split == split]
        rows = [manifest.rows[place] for place in places]
        clips = cls(
            where,
            manifest.label_set.names,
            [row.clip_id for row in rows],
            np.array(places, np.int64),
            _tidy(manifest.sparse_targets(places)),
        )
        return clips._by_caption([(row.caption, *row.more_captions) for row in rows]) if captions else clips

    def _by_caption(self, texts: list[tuple[str | None, ...]]) -> "ListedClips":
        """List each clip once for each of its `texts`: first captions of all clips, then second ones, …"""
        order = sorted((k, i) for i, own in enumerate(texts) for k in range(len(own)))
        captions = tuple(texts[i][k] for k, i in order)
        return replace(self.take(np.array([i for _, i in order], np.int64)), captions=captions)

    def take(self, rows: NDArray[np.int64]) -> "ListedClips":
        """Return the clips at `rows`, in that order."""
        return replace(
            self,
            clip_ids=[self.clip_ids[i] for i in rows],
            places=self.places[rows],
            targets=_tidy(self.targets[rows]),
            captions=tuple(self.captions[i] for i in rows) if self.captions else (),
        )

    def with_tail(self, mix: Mix) -> "ListedClips":
        """Return the same clips with the classes of `mix.tail`.

        Raises:
            UsageError: there are no such classes.
        """
        if mix.tail is None:
            return self
        return replace(self, tail=tuple(real_clips.tail_classes(mix.tail, mix.draw, self.names).tolist()))

    def requested(self, section: Synth) -> NDArray[np.bool_]:
        """Return which classes `synth.classes` requests, bool [C]."""
        every = np.arange(len(self.names))
        if section.classes == "tail":
            return np.isin(every, self.tail)
        return every < (section.classes or len(every))

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of clips of each class, int64 [C]."""
        return np.bincount(self.targets.indices, minlength=len(self.names))

    def labels(self) -> list[list[int]]:
        """Return the label ids of each clip, ascending."""
        ids = self.targets.indices.tolist()
        return [ids[a:b] for a, b in itertools.pairwise(self.targets.indptr.tolist())]


def plan(
    section: Synth, clips: ListedClips, tokens: Mapping[str, str] | None = None, seed: int | None = None
) -> pa.Table:
    """Return the plan: one row per clip to generate (`PLAN_SCHEMA`), drawn from one split (`split_of`).

    - `per-clip` (DA-Fusion; X̃_ij of Eq. 1): the j-th augmentation of every clip comes before the (j+1)-th of
      any. The order within j is random, but every section of it has the class proportions of the whole.
      Labels are those of the parent.
    - `random-classes` (App. E): one to three random classes, and as guide a clip with as many of them as any
      clip has; which of these is random. `synth.unguided` decides about classes without a train clip.
    - `captions` (Table 1): a clip from noise for every caption of the evaluation clips or, without one, for
      the labels. These clips are compared with the evaluation clips and never used for training.

    A shorter plan is always the beginning of a longer one, so doses are nested.

    Args:
        section: the recipe's synth section.
        clips: the split that the plan is drawn from.
        tokens: label → class token, for prompts with learned tokens.
        seed: of the run; None is the section's.

    Raises:
        UsageError: no clip has a requested class, or, for `random-classes`, any label; or a class has no
            train clip and `synth.unguided=refuse`.
        MissingError: the prompts need tokens, but a class has none.
    """
    seed = section.seed if seed is None else seed
    names = clips.names
    usable = clips.requested(section)
    if section.unguided == "refuse" and (without := unguided(section, clips)):
        raise UsageError(
            f"synth.unguided=refuse: {class_list(without)} without a train clip in {clips.where}; use "
            "leave_out or noise"
        )
    if section.classes:
        counted = np.asarray(clips.targets[:, np.flatnonzero(usable)].sum(axis=1)).reshape(-1)
        clips = clips.take(np.flatnonzero(counted))
    if not clips.clip_ids:
        raise UsageError(f"synth.classes={section.classes}: no clip of {clips.where} has any of them")
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
    """Return the split that a plan is drawn from and that its clips belong to."""
    return "eval" if section.plan == "captions" else "train"


def unguided(section: Synth, clips: ListedClips) -> list[str]:
    """Return the classes requested by a `random-classes` plan that no train clip has.

    They have no guide and were not in the generator's training data. Other plans never request such classes.
    """
    if section.plan != "random-classes":
        return []
    return [clips.names[k] for k in np.flatnonzero((clips.counts == 0) & clips.requested(section))]


def class_list(names: list[str], shown: int = 10) -> str:
    """Return class names for a message: how many, and the first few."""
    more = f", … {len(names) - shown} more" if len(names) > shown else ""
    return f"{len(names)} class{'es' if len(names) > 1 else ''} ({', '.join(names[:shown])}{more})"


def as_parquet(table: pa.Table) -> tuple[bytes, str]:
    """Return the content of a plan's file and its hash."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue(), xxhash.xxh3_128_hexdigest(buffer.getvalue())


def _tidy(targets: sparse.csr_array) -> sparse.csr_array:
    # Repeated labels would count twice, and the draw depends on the order of a row's columns.
    targets = sparse.csr_array(targets)
    targets.sum_duplicates()
    return targets


def _per_clip(section: Synth, seed: int, clips: ListedClips, usable: NDArray[np.bool_]) -> Draw:
    """Return the `per-clip` draw."""
    train_ids = clips.clip_ids
    places = rounds(clips.targets, section.n, seed)
    labels = clips.labels()
    clip_ids = [f"syn-{train_ids[i]}-{place // len(train_ids)}" for place, i in enumerate(places)]
    return clip_ids, places, [labels[i] for i in places]


def _random_classes(section: Synth, seed: int, clips: ListedClips, usable: NDArray[np.bool_]) -> Draw:
    """Return the `random-classes` draw."""
    if not clips.counts[usable].any():
        raise UsageError("synth.plan=random-classes: no train clip has a label; use synth.plan=per-clip")
    pool = np.flatnonzero(usable if section.unguided == "noise" else usable & (clips.counts > 0))
    share = np.stack([np.random.default_rng(seed_for(seed, "plan", k)).random(section.n) for k in range(5)])
    number = 1 + (share[0] * min(3, len(pool))).astype(np.int64)
    # Three draws without replacement: each skips the positions taken before it.
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
    guides = (_guide([members[k] for k in row], u) for row, u in zip(drawn, share[4], strict=True))
    places = np.fromiter(guides, np.int64, section.n)
    clip_ids = [f"syn-{place:06d}" for place in range(section.n)]
    return clip_ids, places, [sorted(pool[row].tolist()) for row in drawn]


def _guide(sets: list[NDArray[np.int32]], u: float) -> int:
    """Return a clip in most of one to three sets: the one at fraction u in [0, 1) of all such clips.

    Each set holds the clips of a requested class, ascending; -1 is returned if all sets are empty.
    """
    pairs = [_common(one, other) for one, other in itertools.combinations(sets, 2)]
    in_all_three = [_common(pairs[0], sets[2])] if len(sets) == 3 else []
    for parts in (in_all_three, pairs, sets):  # no two parts overlap, or the parts before were not empty
        which = int(u * sum(map(len, parts)))
        for part in parts:
            if which < len(part):
                return int(part[which])
            which -= len(part)
    return -1


def _common(one: NDArray[np.int32], other: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the intersection of two sets, all ascending."""
    few, many = (one, other) if len(one) <= len(other) else (other, one)
    # np.intersect1d sorts both: too slow for 100,000 calls a plan if some classes have a million clips.
    # Searching in all but the last of `many` finds valid positions only.
    return few[many[np.searchsorted(many[:-1], few)] == few] if len(few) else few


def _captions(section: Synth, seed: int, clips: ListedClips, usable: NDArray[np.bool_]) -> Draw:
    """Return the `captions` draw."""
    n = len(clips.clip_ids)
    places = np.arange(section.n) % n
    labels = clips.labels()
    made: Counter[str] = Counter()  # of each evaluation clip
    clip_ids = []
    for name in (clips.clip_ids[i] for i in places):
        clip_ids.append(f"syn-{name}-{made[name]}")
        made[name] += 1
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
            f"synth.prompt=tokens: {class_list(without)} without a learned token; run `ajbench invert` "
            "for all classes (invert.classes=null), or use synth.prompt=names"
        )
    return [sound_of([tokens[name] for name in row]) for row in labels] if tokens else []
