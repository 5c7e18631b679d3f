"""Mixing real and synthetic clips: α-mixing (Eq. 1), doses, balanced and amplified weights, epoch orders.

Index arithmetic only. `i` counts real clips, `j` the augmentations of one real clip, and clips of a mix are
numbered in the concatenation [real; synthetic].
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from ajbench.core import recipe
from ajbench.core.errors import UsageError
from ajbench.data.rounds import rounds

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
AnyFloats = NDArray[np.float32] | NDArray[np.float64]
Targets: TypeAlias = "AnyFloats | sparse.csr_array"  # multi-hot [N, C]; sparse for millions of clips


def alpha_indices(
    n_real: int, n_aug: int, alpha: float, size: int, rng: np.random.Generator, weights: Floats | None = None
) -> tuple[NDArray[np.bool_], Indices, Indices]:
    """Draw `size` clips of an α-mixed epoch (Eq. 1 of the paper).

    i is uniform over the N real clips (or follows `weights` [N]). With probability 1 − α the real clip x_i is
    drawn, else its augmentation x̃_ij with j uniform over M.

    Returns:
        is_synthetic bool [size], i int64 [size], j int64 [size] (meaningless for real clips).

    Raises:
        UsageError: α outside [0, 1], no real clip, or α > 0 without augmentations.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"mix.alpha={alpha}: must lie in [0, 1]")
    if n_real < 1 or (alpha > 0 and n_aug < 1):
        raise UsageError(
            f"mix.mode=alpha: {n_real} real clips with {n_aug} augmentations each; at least 1 needed"
        )
    i = rng.integers(n_real, size=size) if weights is None else draw(weights, size, rng)
    is_synthetic = rng.random(size) < alpha
    j = rng.integers(max(n_aug, 1), size=size)
    return is_synthetic, i, j


def dose_indices(n_real: int, n_synthetic: int, dose: int, real: bool = True) -> Indices:
    """Return the clips of a dose mix: all real clips (unless `real` is false) and the first `dose` synthetic.

    Doses are nested: each one is part of every larger one (+20kG … +80kG of Table A11).

    Raises:
        UsageError: the dose exceeds the number of synthetic clips, or there is no clip at all.
    """
    if dose > n_synthetic:
        raise UsageError(
            f"mix.dose={dose}: only {n_synthetic} synthetic clips; raise synth.n or lower the dose"
        )
    if not real and dose == 0:
        raise UsageError("mix.real=none with mix.dose=0 leaves no clip to train on")
    synthetic = np.arange(n_real, n_real + dose, dtype=np.int64)
    return np.concatenate([np.arange(n_real, dtype=np.int64), synthetic]) if real else synthetic


def parents(real_ids: Sequence[str], synthetic_parent_ids: Sequence[str | None]) -> Indices:
    """Return the synthetic clips made from each real clip, int64 [N, M], in the order of the store.

    Synthetic clips with other parents are ignored.

    Raises:
        UsageError: real clips have different numbers M of augmentations, which Eq. 1 does not allow.
    """
    # Not a dict, whose strings are scattered over memory: with millions of clips, twice as slow.
    known, asked = (pa.array(ids, pa.string()) for ids in (real_ids, synthetic_parent_ids))
    owner = pc.fill_null(pc.index_in(asked, value_set=known), -1).to_numpy().astype(np.int64)
    children = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
    counts = np.bincount(owner[children], minlength=len(real_ids))
    if len(counts) and counts.min() != counts.max():
        raise UsageError(
            "mix.mode=alpha needs the same number of synthetic clips for each real clip, found "
            f"{counts.min()} (of {real_ids[int(counts.argmin())]}) to {counts.max()}; use "
            f"synth.plan=per-clip with a multiple of {len(real_ids)} as synth.n, or mix.mode=dose"
        )
    return children.reshape(len(real_ids), -1)


def label_weights(targets: Targets) -> Floats:
    """Return 1000 / (count + 0.01) per label [C] for multi-hot targets [N, C], as in AST's sampler."""
    count: Floats = np.asarray(targets.sum(axis=0, dtype=np.float64))
    return 1000.0 / (count + 0.01)


def amplify(weights: Floats, ap: AnyFloats, k: int) -> Floats:
    """Return label weights [C] plus 0.4 / AP for the k labels with the lowest AP [C] (the paper's control).

    Labels with AP NaN (no positives) are skipped; of equal APs the lower index comes first.

    Raises:
        UsageError: an AP of 0 or less, or fewer than k labels with an AP.
    """
    ap = np.asarray(ap, dtype=np.float64)
    known = int(np.isfinite(ap).sum())
    if k > known:
        raise UsageError(f"mix.amplify={k}: only {known} labels have an average precision")
    if known and np.nanmin(ap) <= 0:
        raise UsageError(f"mix.amplify: average precision must be above 0, found {np.nanmin(ap)}")
    lowest = np.argsort(ap, kind="stable")[:k]  # NaN sorts last
    more = np.zeros_like(ap)
    more[lowest] = 0.4 / ap[lowest]
    return np.asarray(weights, dtype=np.float64) + more


def balanced_weights(targets: Targets, labels: Floats | None = None) -> Floats:
    """Return w_clip = Σ_labels 1000 / (count + 0.01), [N], for multi-hot targets [N, C].

    `labels` [C] replaces the label weights, for instance with amplified ones.
    """
    per_label = label_weights(targets) if labels is None else labels
    return np.asarray(targets @ per_label, dtype=np.float64)


def draw(weights: Floats | None, size: int, rng: np.random.Generator) -> Indices:
    """Draw `size` indices with replacement in proportion to `weights`; without weights, a permutation.

    Raises:
        UsageError: all weights are 0, or one is negative or not finite.
    """
    if weights is None:
        return rng.permutation(size).astype(np.int64)
    bounds = np.cumsum(np.asarray(weights, dtype=np.float64))
    if not len(bounds) or not np.isfinite(bounds[-1]) or bounds[-1] <= 0 or np.min(weights) < 0:
        raise UsageError(
            "sampling weights must be finite, at least 0 and not all 0; do the clips have labels?"
        )
    # Sorted, so that searches stay in the processor's cache: this matters with millions of clips.
    found = np.searchsorted(bounds, np.sort(rng.random(size)) * bounds[-1], side="right")
    # Rounding may reach the upper bound, which belongs to the last clip with a weight.
    last = int(np.searchsorted(bounds, bounds[-1], side="left"))
    return rng.permutation(np.minimum(found, last).astype(np.int64))


def epoch_rng(seed: int, epoch: int) -> np.random.Generator:
    """Return the random generator of an epoch's order, which depends on (seed, epoch) only."""
    return np.random.default_rng([seed, epoch])


def batch(order: Callable[[int], Indices], epoch_size: int, batch_size: int, index: int) -> Indices:
    """Return the clips of batch number `index` in an endless sequence of epochs, int64 [batch_size].

    Batches are cut from the concatenation of `order(0)`, `order(1)`, … (each [epoch_size]), so a batch may
    have the end of one epoch and the beginning of the next. It depends on `index` only, so resuming mid-epoch
    and sharing batches among processes need no further state.
    """
    position = np.arange(index * batch_size, (index + 1) * batch_size, dtype=np.int64)
    epoch, offset = np.divmod(position, epoch_size)
    return np.concatenate([order(int(e))[offset[epoch == e]] for e in np.unique(epoch)])


@dataclass(frozen=True)
class Plan:
    """How a mix is sampled. Indices number the real clips first, then all added clips.

    Attributes:
        epoch_size: clips per epoch.
        order: epoch → indices [epoch_size], a pure function.
        partners: (k, rng) → indices [k] of the same clips for mixup, never balanced.
        shares: → expected share of each clip in an epoch, float64 [N + S]; they add up to 1.
    """

    epoch_size: int
    order: Callable[[int], Indices]
    partners: Callable[[int, np.random.Generator], Indices]
    shares: Callable[[], Floats]


def plan(
    mix: recipe.Mix,
    real_ids: Sequence[str],
    parent_ids: Sequence[str | None],
    targets: Targets,
    seed: int,
    class_ap: AnyFloats | None = None,
    repeatable: Indices | None = None,
) -> Plan:
    """Turn the mix section of a recipe into index functions.

    Args:
        mix: mode, dose or α, balance.
        real_ids: ids of the N real clips (`real_clips.chosen`).
        parent_ids: real parent of each of the S clips to add, those of A before those of G.
        targets: multi-hot [N + S, C] of all clips.
        seed: of the epochs' orders and, for `mix.source=R`, of the clips to repeat.
        class_ap: average precision per class [C], needed by `mix.amplify`.
        repeatable: the real clips that `mix.source=R` repeats; None: all.

    Raises:
        UsageError: the mix needs clips or average precisions that do not exist.
    """
    n_real = len(real_ids)
    if mix.mode == "alpha":
        table = parents(real_ids, parent_ids) if mix.alpha > 0 else np.empty((n_real, 0), dtype=np.int64)
        if mix.alpha > 0 and not table.shape[1]:
            raise UsageError(
                f"mix.mode=alpha: none of the {len(parent_ids)} synthetic clips is made from a real train "
                "clip; use synth.plan=per-clip or mix.mode=dose"
            )
        weights = _weights(mix, targets[:n_real], class_ap)

        def alpha(size: int, rng: np.random.Generator, weights: Floats | None) -> Indices:
            is_synthetic, i, j = alpha_indices(n_real, table.shape[1], mix.alpha, size, rng, weights)
            out = i.copy()
            out[is_synthetic] = n_real + table[i[is_synthetic], j[is_synthetic]]
            return out

        def alpha_shares() -> Floats:
            of_clip = _normalised(weights, n_real)
            out = np.concatenate([(1 - mix.alpha) * of_clip, np.zeros(len(parent_ids))])
            out[n_real + table] = mix.alpha * of_clip[:, None] / max(table.shape[1], 1)
            return out

        return Plan(
            n_real,
            _cached(lambda epoch: alpha(n_real, epoch_rng(seed, epoch), weights)),
            lambda k, rng: alpha(k, rng, None),
            alpha_shares,
        )
    repeated = mix.source == "R"
    clips = dose_indices(n_real, len(parent_ids), 0 if repeated else mix.added, mix.has_real)
    if not len(clips):
        raise UsageError("mix.dose=0 and no real clip in the train split: nothing to train on")
    if repeated:
        among = clips if repeatable is None else repeatable
        order = rounds(sparse.csr_array(targets)[among], mix.dose, seed)
        clips = np.concatenate([clips, among[order]])
    weights = _weights(mix, targets[clips], class_ap)

    def dose_shares() -> Floats:
        out = np.zeros(n_real + len(parent_ids))
        np.add.at(out, clips, _normalised(weights, len(clips)))
        return out

    return Plan(
        len(clips),
        _cached(lambda epoch: clips[draw(weights, len(clips), epoch_rng(seed, epoch))]),
        lambda k, rng: clips[rng.integers(len(clips), size=k)],
        dose_shares,
    )


def _normalised(weights: Floats | None, n: int) -> Floats:
    return np.full(n, 1 / n) if weights is None else weights / weights.sum()


def _cached(order: Callable[[int], Indices]) -> Callable[[int], Indices]:
    # A batch needs the orders of one or two epochs, and hundreds of batches need the same ones.
    return functools.lru_cache(maxsize=2)(order)


def _weights(mix: recipe.Mix, targets: Targets, class_ap: AnyFloats | None) -> Floats | None:
    if not mix.amplify:
        return balanced_weights(targets) if mix.balanced else None
    if not mix.balanced:
        raise UsageError(f"mix.amplify={mix.amplify} adds to balanced weights; set mix.balanced=true")
    if class_ap is None:
        raise UsageError(
            f"mix.amplify={mix.amplify} needs the average precision of each class from an earlier run"
        )
    return balanced_weights(targets, amplify(label_weights(targets), class_ap, mix.amplify))
