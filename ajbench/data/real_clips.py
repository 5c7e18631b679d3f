"""The real clips that a classifier is trained on: which train clips, and which classes are the tail."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ajbench.core.clip_sections import Mix, Tail
from ajbench.core.console import counted
from ajbench.core.errors import UsageError
from ajbench.core.files import seed_for
from ajbench.core.registry import suggest
from ajbench.data.manifest import Manifest
from ajbench.data.rounds import rarest_labels
from ajbench.data.store import ClipStore

Indices = NDArray[np.int64]


def chosen(mix: Mix, store: ClipStore) -> Indices:
    """Return the indices in a store of the train clips that a mix has, in order.

    Raises:
        UsageError: there are no such clips (`drawn`, `thinned`).
    """
    train = store.split_indices("train")
    if mix.real == "all" and mix.tail is None:
        return train
    subsets = store.column("subset")
    targets = store.sparse_targets()[train]
    return train[_of_mix(mix, targets, store.meta.labels, [subsets[i] for i in train])]


def places(mix: Mix, manifest: Manifest) -> Indices:
    """Return the rows of the train clips of a corpus that a mix has, in order.

    Raises:
        UsageError: there are no such clips (`drawn`, `thinned`).
    """
    train = [place for place, row in enumerate(manifest.rows) if row.split == "train"]
    names = manifest.label_set.names
    labels = "=" in mix.real or mix.tail  # needed only then, and they take seconds for millions of clips
    targets = manifest.sparse_targets(train) if labels else sparse.csr_array((len(train), len(names)))
    subsets = [manifest.rows[place].subset for place in train]
    return np.array(train, np.int64)[_of_mix(mix, targets, names, subsets)]


def tail_classes(tail: Tail, draw: int, classes: Sequence[str]) -> Indices:
    """Return the indices of the classes of a tail, ascending.

    Args:
        tail: names them, or says how many are drawn; fewer drawn ones are among more.
        draw: seed.
        classes: names of all C classes.

    Raises:
        UsageError: there is no such class, or no class is left outside the tail.
    """
    if isinstance(tail.classes, int):
        order = np.random.default_rng(seed_for(draw, "tail")).permutation(len(classes))
        found = order[: tail.classes].tolist()
    else:
        for name in tail.classes:
            if name not in classes:
                shown = ", ".join(classes[:10]) + (
                    f", … ({len(classes)} in all)" if len(classes) > 10 else ""
                )
                raise UsageError(
                    f"mix.tail.classes: {name!r} is not a class{suggest(name, classes)}; allowed: {shown}"
                )
        found = [classes.index(name) for name in tail.classes]
    if len(found) == len(classes):
        raise UsageError(
            f"mix.tail.classes: all {len(classes)} classes; leave some out, or set mix.real=shots="
            f"{tail.shots} and no mix.tail"
        )
    return np.sort(np.array(found, np.int64))


def in_tail(mix: Mix, store: ClipStore) -> NDArray[np.bool_]:
    """Return which clips of a store have a label of the tail, bool [N]; without a tail, none."""
    if mix.tail is None:
        return np.zeros(len(store), bool)
    return _has_any(store.sparse_targets(), tail_classes(mix.tail, mix.draw, store.meta.labels))


def need_of_tail(mix: Mix, source: str, found: int, made: int, where: str) -> None:
    """Check that a source has the clips of a dose that fills the tail.

    Args:
        mix: its dose is needed.
        source: A or G.
        found: its usable clips with a label of the tail.
        made: all its clips.
        where: its store, or a plan of it.

    Raises:
        UsageError: it has fewer.
    """
    if found < mix.dose:
        raise UsageError(
            f"mix.tail.fill: the dose is {mix.dose}, but only {found} of {counted(made, 'clip')} in {where} "
            f"(source {source}) {'has' if found == 1 else 'have'} a label of the tail; raise synth.n, set "
            "synth.classes=tail, or lower the dose"
        )


def drawn(
    real: str, draw: int, targets: sparse.csr_array, classes: Sequence[str], subsets: Sequence[str | None]
) -> Indices:
    """Return which clips of the train split `mix.real` gives to a classifier: their positions, ascending.

    `shots=k` and `share=x` follow one random order of each class' clips, a function of (draw, class): 4 shots
    are among the 8, and a share of 0.1 is part of 0.2. With `shots=k` the classes, rarest first, take turns:
    in turn n a class with fewer than n drawn clips adds the next of its order. Where clips have one label,
    every class has exactly k in the end, otherwise at least k. With `share=x`, each class adds this share of
    the clips whose rarest label it is, rounded, at least one.

    Args:
        real: all, none, the name of a subset, shots=k, or share=x.
        draw: seed.
        targets: multi-hot [N, C] of the train split.
        classes: names of the C classes.
        subsets: of the N clips; None: in none that has a name.

    Raises:
        UsageError: no clip is in that subset, or a class has fewer than k clips.
    """
    n = targets.shape[0]
    kind, _, number = real.partition("=")
    if kind in ("all", "none"):
        return np.arange(n if kind == "all" else 0, dtype=np.int64)
    if not number:
        found = np.flatnonzero(np.array([subset == real for subset in subsets], bool))
        if not len(found):
            named = sorted({subset for subset in subsets if subset})
            allowed = ", ".join(["all", "none", *named, "shots=k", "share=x"])
            raise UsageError(f"mix.real={real}: no train clip is in such a subset; allowed: {allowed}")
        return found
    rows = _tidy(targets)
    counts = np.bincount(rows.indices, minlength=len(classes))
    if kind == "shots":
        fewest = int(counts.argmin())
        if counts[fewest] < int(number):
            raise UsageError(
                f"mix.real={real}: class {classes[fewest]!r} has {counts[fewest]} train clips; "
                "lower the shots"
            )
        return _in_turns(int(number), draw, rows, np.arange(len(classes)))
    rarest = rarest_labels(rows)
    ends = np.cumsum(np.bincount(rarest, minlength=len(classes)))
    kept = []
    for c, members in enumerate(np.split(np.argsort(rarest, kind="stable"), ends[:-1])):
        share = max(1, round(float(number) * len(members)))
        kept.append(np.random.default_rng([draw, c]).permutation(members)[:share])
    return np.sort(np.concatenate(kept))


def thinned(
    tail: Tail, draw: int, targets: sparse.csr_array, classes: Sequence[str], among: Indices
) -> Indices:
    """Return which of the clips `among` are left where the classes of the tail have few: ascending.

    A clip without a label of the tail stays. The others are drawn as by `mix.real=shots=k`, in the same
    orders: the classes of the tail, rarest first, take turns until each has its shots. Where clips have one
    label, each has exactly these, the first of any larger number of shots; otherwise at least these, since a
    clip counts for each of its labels.

    Args:
        tail: its classes and shots.
        draw: seed.
        targets: multi-hot [N, C] of the train split.
        classes: names of the C classes.
        among: positions of the clips that `mix.real` gives, ascending.

    Raises:
        UsageError: as `tail_classes`; or a class of the tail has no more than its shots.
    """
    rows, few = _tidy(targets), tail_classes(tail, draw, classes)
    of_tail = _has_any(rows, few)
    given = np.zeros(len(of_tail), bool)
    given[among] = True
    counts = np.bincount(rows[among].indices, minlength=len(classes))
    fewest = int(few[counts[few].argmin()])
    if counts[fewest] <= tail.shots:
        raise UsageError(
            f"mix.tail.shots={tail.shots}: class {classes[fewest]!r} has {counts[fewest]} real clips and "
            "would lose none; lower the shots, or choose other classes"
        )
    kept = given & ~of_tail
    kept[_in_turns(tail.shots, draw, rows, few, given)] = True
    return np.flatnonzero(kept)


def _of_mix(
    mix: Mix, targets: sparse.csr_array, classes: Sequence[str], subsets: Sequence[str | None]
) -> Indices:
    found = drawn(mix.real, mix.draw, targets, classes, subsets)
    return thinned(mix.tail, mix.draw, targets, classes, found) if mix.tail and mix.has_real else found


def _in_turns(
    k: int,
    draw: int,
    rows: sparse.csr_array,
    taking: NDArray[np.int64],
    given: NDArray[np.bool_] | None = None,
) -> Indices:
    """Return the clips [N, C] that the classes `taking`, rarest first, draw in turns until each has k.

    `given`: the clips that may be drawn; None: all.
    """
    columns = sparse.csc_array(rows)
    counts = np.bincount(rows.indices, minlength=rows.shape[1])
    orders = {}
    for c in taking[np.argsort(counts[taking], kind="stable")].tolist():
        order = np.random.default_rng([draw, c]).permutation(
            columns.indices[slice(*columns.indptr[c : c + 2])]
        )
        orders[c] = iter((order if given is None else order[given[order]]).tolist())
    has = [0] * rows.shape[1]
    found: set[int] = set()
    for turn in range(1, k + 1):
        for c, order in orders.items():
            while has[c] < turn:
                clip = next(order)
                if clip not in found:
                    found.add(clip)
                    for label in rows.indices[rows.indptr[clip] : rows.indptr[clip + 1]].tolist():
                        has[label] += 1
    return np.sort(np.fromiter(found, np.int64, len(found)))


def _tidy(targets: sparse.csr_array) -> sparse.csr_array:
    rows = sparse.csr_array(targets)  # a view of the same arrays
    rows.sum_duplicates()
    return rows


def _has_any(targets: sparse.csr_array, classes: Indices) -> NDArray[np.bool_]:
    return np.asarray(targets[:, classes].sum(axis=1) > 0)
