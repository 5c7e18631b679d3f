"""Measurements of generated clips: FD, inception score, KL and label agreement.

FD alone says little: its size depends on the features and on the number of clips. `yardsticks` puts
material of known quality through the same measurement.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ajbench.core.errors import UsageError
from ajbench.core.rows import Context, Row, make_row
from ajbench.data.store import ClipStore
from ajbench.features.class_mapping import class_logits, namesakes_of
from ajbench.features.extractor import Extractor, extract
from ajbench.metrics.bootstrap import LEVEL, interval
from ajbench.metrics.distribution import frechet_distance, inception_score, kl_divergence

TABLE_1 = "1"
TABLE = "generation"
ALL = "all"  # the column of label agreement over all classes
# FD by class compares halves of a class's clips; a Gaussian of fewer than four says nothing.
MIN_HALF = 4


@dataclass(frozen=True)
class Embedded:
    """A store seen through an extractor: features [n, d] and logits [n, C'], in the order of its clips."""

    store: ClipStore
    features: np.ndarray
    logits: np.ndarray


def embed(extractor: Extractor, store: ClipStore) -> Embedded:
    """Run an extractor over all clips of a store."""
    return Embedded(store, *extract(extractor, store))


def generation_rows(
    name: str,
    generated: Embedded,
    real: Embedded,
    extractor: Extractor,
    context: Context,
    *,
    paired: bool = True,
    resamples: int = 200,
    seed: int = 0,
) -> tuple[list[Row], list[str]]:
    """Measure one set of generated clips against real ones.

    Table `1`: `fd` to the real clips of `context.split`; `is`; `kl`, the mean KL(parent ‖ clip) of the
    softmax of the extractor's logits. Table `generation`: `fd` to the train split; `fd_class`, the mean
    over classes of the FD to half of the class's train clips (as many clips on both sides);
    `label_agreement`, the share of clips for which the extractor ranks an asked-for class first (column
    `all`, and a column per class).

    Intervals resample parents with all their clips (a clip without one stands alone); for `fd_class`,
    classes. As a resample repeats clips, which by itself raises FD, intervals of FD and IS are centred on
    the value: they show its spread, not its dependence on n.

    Args:
        name: of the set, for instance `img2img`.
        generated: the set, embedded by `extractor`.
        real: the real store, embedded by `extractor`.
        extractor: named in the rows' column `features`.
        context: `split` is that of the real clips which FD compares with.
        paired: whether a clip answers to its parent, by guide or prompt. If not, KL is left out, and said.
        resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        Rows, and notes to show beside them: what was left out or is weak, and why.

    Raises:
        UsageError: the stores have different label sets, or a split has fewer than two clips.
    """
    store, names, n = generated.store, list(real.store.meta.labels), len(generated.store)
    if list(store.meta.labels) != names:
        raise UsageError(f"set {name}: its label set is not the real store's; generate it from this store")
    sheet = Sheet(context, extractor.name, resamples, seed)
    rows, parents = _parents(store, real.store)
    x, z = generated.features, generated.logits
    for table, split in ((TABLE_1, context.split), (TABLE, "train")):
        sheet.fd(table, name, x, real.features[split_of(real, split)], rows, split)

    splits = min(10, n)
    if splits < 10:
        sheet.notes.append(
            f"{name}: inception score over {splits} splits instead of 10, as there are {n} clips"
        )
    sheet.mean(TABLE_1, name, "", "is", lambda i: inception_score(z[i], splits)[0], rows, context.split)
    if not paired:
        sheet.notes.append(f"{name}: no KL, its clips answer to no real clip")
    elif (parents < 0).any():
        sheet.notes.append(
            f"{name}: no KL, {int((parents < 0).sum())} of {n} clips lack a parent in the real store"
        )
    else:
        theirs = real.logits[parents]
        of = real.store.column("split")[parents[0]]
        sheet.mean(TABLE_1, name, "", "kl", lambda i: kl_divergence(z[i], theirs[i]), rows, of)

    targets = store.targets().astype(bool)
    pairs = []
    for c, (reference, rest) in class_halves(real).items():
        candidates = np.flatnonzero(targets[:, c])
        if len(candidates) >= len(rest):
            pairs.append((x[draw(candidates, len(rest), seed)], real.features[reference]))
    sheet.class_fd(name, pairs, len(names))
    sheet.agreement(name, generated, extractor, rows, "train")
    return sheet.rows, sheet.notes


@dataclass
class Sheet:
    """Rows and notes of one evaluation, with what they have in common."""

    context: Context
    features: str
    resamples: int
    seed: int
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fd(
        self, table: str, row: str, x: np.ndarray, y: np.ndarray, groups: list[np.ndarray], split: str
    ) -> None:
        """Add the FD of x to y, resampling groups of x and clips of y."""
        fewest, dimension = min(len(x), len(y)), x.shape[1]
        if fewest < dimension:
            self.notes.append(
                f"{row}: FD to the {split} split from {fewest} clips in {dimension} dimensions depends on "
                "the number of clips; compare it only with the yardsticks of the same run"
            )
        value = _distance(x, y)
        draws = self._draws(lambda i, rng: _distance(x[i], y[rng.integers(0, len(y), len(y))]), groups)
        self._add(table, row, "", "fd", value, _centred(value, draws), len(x), split)

    def mean(
        self,
        table: str,
        row: str,
        column: str,
        metric: str,
        statistic: Callable[[np.ndarray], float],
        groups: list[np.ndarray],
        split: str,
        limits: tuple[float, float] = (-np.inf, np.inf),
    ) -> None:
        """Add a statistic of clip indices, resampling groups of clips; no bound goes beyond its limits."""
        clips = np.sort(np.concatenate(groups))
        value = statistic(clips)
        low, high = np.clip(_centred(value, self._draws(lambda i, _: statistic(i), groups)), *limits)
        self._add(table, row, column, metric, value, (float(low), float(high)), len(clips), split)

    def class_fd(self, row: str, pairs: list[tuple[np.ndarray, np.ndarray]], n_classes: int) -> None:
        """Add the mean FD over classes of (candidates, reference), resampling classes."""
        if len(pairs) < n_classes:
            self.notes.append(
                f"{row}: FD by class over {len(pairs)} of {n_classes} classes, the others have too few clips"
            )
        if pairs:
            each = np.array([_distance(x, y) for x, y in pairs])
            mean = interval(
                lambda i: float(each[i].mean()),
                len(each),
                resamples=self.resamples,
                seed=self.seed,
                level=LEVEL,
            )
            n = sum(len(x) for x, _ in pairs)
            self._add(TABLE, row, "", "fd_class", mean.value, (mean.low, mean.high), n, "train")

    def agreement(
        self, row: str, embedded: Embedded, extractor: Extractor, groups: list[np.ndarray], split: str
    ) -> None:
        """Add how often an asked-for class is ranked first, over all clips and by class."""
        store = embedded.store
        found = namesakes_of(store.meta.labels, store.meta.mids, extractor.labels, extractor.mids)
        if found.unknown:
            self.notes.append(f"{row}: no label agreement, {extractor.name} does not know {found.lacking}")
            return
        targets = store.targets().astype(bool)
        heard = class_logits(embedded.logits, found.columns).argmax(axis=1)
        hits = targets[np.arange(len(store)), heard].astype(float)

        def share(clips: np.ndarray) -> float:
            return float(hits[clips].mean())

        by_class = {
            label: [kept for group in groups if len(kept := group[targets[group, c]])]
            for c, label in enumerate(store.meta.labels)
        }
        for column, clips in {ALL: groups, **by_class}.items():
            if clips:
                self.mean(TABLE, row, column, "label_agreement", share, clips, split, (0.0, 1.0))

    def _draws(
        self, statistic: Callable[[np.ndarray, np.random.Generator], float], groups: list[np.ndarray]
    ) -> np.ndarray:
        rng, count = np.random.default_rng(self.seed), len(groups)
        chosen = (rng.integers(0, count, count) for _ in range(self.resamples))
        return np.array([statistic(np.concatenate([groups[g] for g in draw]), rng) for draw in chosen])

    def _add(
        self,
        table: str,
        row: str,
        column: str,
        metric: str,
        value: float,
        ends: tuple[float, float],
        n: int,
        split: str,
    ) -> None:
        self.rows.append(
            make_row(
                self.context,
                table,
                row,
                column,
                metric,
                value,
                ends,
                n=n,
                features=self.features,
                split=split,
            )
        )


def _centred(value: float, draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws - draws.mean(), ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) + value
    return float(low), float(high)


def _distance(x: np.ndarray, y: np.ndarray) -> float:
    with warnings.catch_warnings():
        # Fewer clips than dimensions is noted once per row instead of once per resample.
        warnings.simplefilter("ignore", UserWarning)
        return max(0.0, frechet_distance(x, y))


def split_of(real: Embedded, split: str) -> np.ndarray:
    """Return the clips of a split; UsageError where it has fewer than two."""
    indices = np.asarray(real.store.split_indices(split))
    if len(indices) < 2:
        raise UsageError(f"FD to the {split} split: it has {len(indices)} clips, at least 2 are needed")
    return indices


def draw(indices: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Up to n of them, drawn without replacement, in order."""
    return np.sort(np.random.default_rng(seed).permutation(indices)[:n])


def _parents(generated: ClipStore, real: ClipStore) -> tuple[list[np.ndarray], np.ndarray]:
    """Clip indices grouped by parent, and each clip's parent as an index into `real` (−1 without)."""
    ids = generated.column("parent_id")
    groups: dict[object, list[int]] = {}
    for i, parent in enumerate(ids):
        groups.setdefault(i if parent is None else parent, []).append(i)
    known = {clip_id: i for i, clip_id in enumerate(real.clip_ids)}
    return [np.array(group) for group in groups.values()], np.array([known.get(parent, -1) for parent in ids])


def class_halves(real: Embedded) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For classes with enough train clips: their indices in two disjoint halves of equal size."""
    train = split_of(real, "train")
    targets = real.store.targets()[train].astype(bool)
    halves = {}
    for c in range(targets.shape[1]):
        mine = train[targets[:, c]]
        half = len(mine) // 2
        if half >= MIN_HALF:
            halves[c] = (mine[::2][:half], mine[1::2][:half])
    return halves
