"""Which clip stands where: Eq. 1 α-mixing, dose concatenation, balanced and amplified weights, epoch orders.

Index maths only. `i` counts real clips, `j` the augmentations of one real clip, and an index into a mix is
one into the concatenation [real; synthetic].
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ajbench.core import recipe
from ajbench.core.errors import UsageError

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
AnyFloats = NDArray[np.float32] | NDArray[np.float64]
Targets: TypeAlias = "AnyFloats | sparse.csr_array"  # multi-hot [N, C]; sparse where N reaches millions


def alpha_indices(
    n_real: int,
    n_aug: int,
    alpha: float,
    size: int,
    rng: np.random.Generator,
    weights: Floats | None = None,
) -> tuple[NDArray[np.bool_], Indices, Indices]:
    """Draw `size` positions of an α-mixed epoch (Eq. 1 of the paper).

    i is uniform over the N real clips (or follows `weights` [N]); with probability 1 − α the real clip x_i is
    taken, else its augmentation x̃_ij with j uniform over M.

    Returns:
        is_synthetic bool [size], i int64 [size], j int64 [size] (of no meaning where the draw is real).

    Raises:
        UsageError: α outside [0, 1], no real clip, or α > 0 without augmentations.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"mix.alpha={alpha}: must lie in [0, 1]")
    if n_real < 1 or (alpha > 0 and n_aug < 1):
        raise UsageError(f"alpha mixing: {n_real} real clips with {n_aug} augmentations each; need 1")
    i = rng.integers(n_real, size=size) if weights is None else draw(weights, size, rng)
    is_synthetic = rng.random(size) < alpha
    j = rng.integers(max(n_aug, 1), size=size)
    return is_synthetic, i, j


def dose_indices(n_real: int, n_synthetic: int, dose: int, real: bool = True) -> Indices:
    """Return the clips of a dose mix: all real clips (unless `real` is false) and the first `dose` synthetic.

    Nested: the clips of a dose are among those of every larger dose (Table A11's +20kG … +80kG).

    Raises:
        UsageError: the dose exceeds the synthetic clips, or nothing is left to train on.
    """
    if dose > n_synthetic:
        raise UsageError(
            f"mix.dose={dose}: only {n_synthetic} synthetic clips exist; raise synth.n or lower it"
        )
    if not real and dose == 0:
        raise UsageError("mix.real=false with mix.dose=0 leaves no clip to train on")
    synthetic = np.arange(n_real, n_real + dose, dtype=np.int64)
    return np.concatenate([np.arange(n_real, dtype=np.int64), synthetic]) if real else synthetic


def parents(real_ids: Sequence[str], synthetic_parent_ids: Sequence[str | None]) -> Indices:
    """Return for each real clip the synthetic clips made from it, int64 [N, M], in the store's order.

    Synthetic clips of other parents are left out.

    Raises:
        UsageError: the real clips have different numbers of augmentations, so that Eq. 1's M does not exist.
    """
    place = {clip_id: i for i, clip_id in enumerate(real_ids)}
    found = (-1 if parent is None else place.get(parent, -1) for parent in synthetic_parent_ids)
    owner = np.fromiter(found, dtype=np.int64, count=len(synthetic_parent_ids))
    children = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
    counts = np.bincount(owner[children], minlength=len(real_ids))
    if len(counts) and counts.min() != counts.max():
        raise UsageError(
            f"mix.mode=alpha needs as many synthetic clips of each real clip, found {counts.min()} (for"
            f" {real_ids[int(counts.argmin())]}) to {counts.max()}; use synth.plan=per-clip with synth.n"
            f" a multiple of {len(real_ids)}, or mix.mode=dose"
        )
    return children.reshape(len(real_ids), -1)


def label_weights(targets: Targets) -> Floats:
    """Return 1000 / (count + 0.01) of each label [C], for multi-hot targets [N, C] (AST's sampler)."""
    count: Floats = np.asarray(targets.sum(axis=0, dtype=np.float64))
    return 1000.0 / (count + 0.01)


def amplify(weights: Floats, ap: AnyFloats, k: int) -> Floats:
    """Return label weights [C] with 0.4 / AP added for the k labels of lowest AP [C] (the paper's control).

    Labels whose AP is NaN (no positives) are passed over; ties go to the lower index.

    Raises:
        UsageError: an AP that is not above 0, or fewer than k labels with an AP.
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
    """Return w_clip = Σ over its labels of 1000 / (count + 0.01), [N], for multi-hot targets [N, C].

    `labels` [C] replaces the label weights, for instance by amplified ones.
    """
    per_label = label_weights(targets) if labels is None else labels
    return np.asarray(targets @ per_label, dtype=np.float64)


def draw(weights: Floats | None, size: int, rng: np.random.Generator) -> Indices:
    """Draw `size` indices: in proportion to `weights` with replacement; without weights each of `size` once.

    Raises:
        UsageError: no weight is above 0, or one is negative or not finite.
    """
    if weights is None:
        return rng.permutation(size).astype(np.int64)
    bounds = np.cumsum(np.asarray(weights, dtype=np.float64))
    if not len(bounds) or not np.isfinite(bounds[-1]) or bounds[-1] <= 0 or np.min(weights) < 0:
        raise UsageError("sampling weights must be finite, at least 0 and not all 0; have the clips labels?")
    # In ascending order the look-ups stay in the processor's cache, which tells with millions of clips.
    found = np.searchsorted(bounds, np.sort(rng.random(size)) * bounds[-1], side="right")
    # Rounding may reach the upper bound itself: the last clip with a weight owns it.
    last = int(np.searchsorted(bounds, bounds[-1], side="left"))
    return rng.permutation(np.minimum(found, last).astype(np.int64))


def epoch_rng(seed: int, epoch: int) -> np.random.Generator:
    """Return the generator of an epoch's order, a function of (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch])


def batch(order: Callable[[int], Indices], epoch_size: int, batch_size: int, index: int) -> Indices:
    """Return the clips of the index-th batch of an endless sequence of epochs, int64 [batch_size].

    Batches are cut from the concatenation of `order(0)`, `order(1)`, … (each [epoch_size]), so a batch may
    hold the end of one epoch and the beginning of the next. Pure in `index`, so that resuming mid-epoch and
    giving each of several processes its own batches need nothing more.
    """
    position = np.arange(index * batch_size, (index + 1) * batch_size, dtype=np.int64)
    epoch, offset = np.divmod(position, epoch_size)
    return np.concatenate([order(int(e))[offset[epoch == e]] for e in np.unique(epoch)])


@dataclass(frozen=True)
class Plan:
    """What a mix draws. Indices count the pool: the real train clips, then all synthetic clips.

    Attributes:
        epoch_size: clips in an epoch.
        order: epoch → indices [epoch_size], a pure function.
        partners: (k, rng) → indices [k], drawn from the same clips but never balanced, for mixup.
    """

    epoch_size: int
    order: Callable[[int], Indices]
    partners: Callable[[int, np.random.Generator], Indices]


def plan(
    mix: recipe.Mix,
    real_ids: Sequence[str],
    parent_ids: Sequence[str | None],
    targets: Targets,
    seed: int,
    class_ap: AnyFloats | None = None,
) -> Plan:
    """Turn the mix section of a recipe into index functions.

    Args:
        mix: mode, dose or α, balance.
        real_ids: ids of the N real train clips.
        parent_ids: real parent of each of the S synthetic clips, in the store's order.
        targets: multi-hot [N + S, C] of the pool.
        seed: of the epochs' orders.
        class_ap: average precision of each class [C], which `mix.amplify` needs.

    Raises:
        UsageError: the mix asks for clips, or for average precisions, that are not there.
    """
    n_real = len(real_ids)
    if mix.mode == "alpha":
        table = parents(real_ids, parent_ids) if mix.alpha > 0 else np.empty((n_real, 0), dtype=np.int64)
        if mix.alpha > 0 and not table.shape[1]:
            raise UsageError(
                f"mix.mode=alpha: none of {len(parent_ids)} synthetic clips has a real train clip as its "
                "parent; make them from clips, with synth.plan=per-clip, or use mix.mode=dose"
            )
        weights = _weights(mix, targets[:n_real], class_ap)

        def alpha(size: int, rng: np.random.Generator, weights: Floats | None) -> Indices:
            is_synthetic, i, j = alpha_indices(n_real, table.shape[1], mix.alpha, size, rng, weights)
            out = i.copy()
            out[is_synthetic] = n_real + table[i[is_synthetic], j[is_synthetic]]
            return out

        return Plan(
            n_real,
            _kept(lambda epoch: alpha(n_real, epoch_rng(seed, epoch), weights)),
            lambda k, rng: alpha(k, rng, None),
        )
    clips = dose_indices(n_real, len(parent_ids), mix.dose, mix.real)
    if not len(clips):
        raise UsageError("the train split holds no real clip and mix.dose=0: nothing to train on")
    weights = _weights(mix, targets[clips], class_ap)
    return Plan(
        len(clips),
        _kept(lambda epoch: clips[draw(weights, len(clips), epoch_rng(seed, epoch))]),
        lambda k, rng: clips[rng.integers(len(clips), size=k)],
    )


def _kept(order: Callable[[int], Indices]) -> Callable[[int], Indices]:
    # A batch asks for one epoch's order or two; hundreds of batches ask for the same.
    return functools.lru_cache(maxsize=2)(order)


def _weights(mix: recipe.Mix, targets: Targets, class_ap: AnyFloats | None) -> Floats | None:
    if not mix.amplify:
        return balanced_weights(targets) if mix.balanced else None
    if not mix.balanced:
        raise UsageError(f"mix.amplify={mix.amplify} adds to balanced weights: set mix.balanced=true")
    if class_ap is None:
        raise UsageError(
            f"mix.amplify={mix.amplify} needs the average precision of every class of an earlier run"
        )
    return balanced_weights(targets, amplify(label_weights(targets), class_ap, mix.amplify))
