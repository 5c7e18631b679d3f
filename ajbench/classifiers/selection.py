"""The clips that a classifier is trained on: from which stores, which of them, and how they are drawn."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ajbench.core.console import counted
from ajbench.core.device import device_of, memory_share
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.recipe import Mix, Recipe
from ajbench.data import mixing, real_clips
from ajbench.data.clip_audio import Samples, as_float
from ajbench.data.shards import ids_hash
from ajbench.data.store import ClipStore
from ajbench.data.val_part import ValPart
from ajbench.data.wave_chain import augment

CACHE_BYTES = 512 << 20  # decoded audio kept in memory, 16-bit: 3,300 clips of 5 s
GPU_CACHE_SHARE = 0.125  # of the machine's memory where a GPU computes, which would wait for decoding


def cache_bytes() -> int:
    """Return how much decoded audio a training on this machine keeps in memory."""
    if device_of().type != "cuda":
        return CACHE_BYTES
    return max(CACHE_BYTES, int(GPU_CACHE_SHARE * memory_share()))


class TrainingClips:
    """Real train clips followed by added clips, all in 16 bits: exact for FLAC of a store, rounded for files.

    Args:
        real: store of real clips.
        chosen: indices of the train clips that are used [N].
        added: stores of other clips, each with the indices of those that are used; S in all.
        decoded: a store with the audio of these clips, perhaps among others; None: it is read from `real`.

    Attributes:
        targets: multi-hot, sparse float32 [N + S, C].
    """

    def __init__(
        self,
        real: ClipStore,
        chosen: NDArray[np.int64],
        added: Sequence[tuple[ClipStore, NDArray[np.int64]]] = (),
        decoded: ClipStore | None = None,
    ) -> None:
        places = chosen
        if decoded:
            place = {clip_id: number for number, clip_id in enumerate(decoded.clip_ids)}
            places = np.array([place[real.clip_ids[i]] for i in chosen], np.int64)
        self.parts = [(decoded or real, places), *added]
        self.starts = np.cumsum([0, *(len(used) for _, used in self.parts)])
        parts = [real.sparse_targets()[chosen], *(store.sparse_targets()[used] for store, used in added)]
        self.targets: sparse.csr_array = sparse.vstack(parts, format="csr")
        self.samples = real.meta.clip_samples
        mapped = all(store.pcm for store, _ in self.parts)
        kept = 0 if mapped else min(len(self), cache_bytes() // (2 * self.samples))
        self.cache = np.empty((kept, self.samples), dtype=np.int16)
        self.filled = np.zeros(kept, dtype=bool)

    def take(self, clips: NDArray[np.int64], seeds: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """Return waves float32 [k, n] and targets float32 [k, C] of clips; arguments as for `rows`."""
        rows, targets = self.rows(clips, seeds)
        return torch.from_numpy(as_float(rows, self.samples)), targets

    def rows(self, clips: NDArray[np.int64], seeds: Sequence[int] = ()) -> tuple[list[Samples], Tensor]:
        """Return the samples of clips, k arrays [n], and their targets float32 [k, C].

        Args:
            clips: their indices [k].
            seeds: one for each clip: their waves are augmented (`ajbench.data.wave_chain`), with any clip of
                the mix as background.
        """
        rows = self._rows(clips)
        if seeds:
            waves = as_float(rows, self.samples)
            rows = [
                augment(wave, seed, len(self), self._wave) for wave, seed in zip(waves, seeds, strict=True)
            ]
        return rows, torch.from_numpy(self.targets[clips].toarray())

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _wave(self, clip: int) -> NDArray[np.float32]:
        return as_float(self._rows(np.array([clip])), self.samples)[0]

    def _rows(self, clips: NDArray[np.int64]) -> list[Samples]:
        """Return the 16-bit samples of clips: views of memory or mapped files where they are there."""
        held = clips < len(self.cache)
        mine = clips[held]
        new = np.unique(mine[~self.filled[mine]])
        if len(new):
            for clip, row in zip(new, self._read(new), strict=True):
                self.cache[clip] = row
            self.filled[new] = True
        others = iter(self._read(clips[~held]))
        return [self.cache[clip] if here else next(others) for clip, here in zip(clips, held, strict=True)]

    def _read(self, clips: NDArray[np.int64]) -> list[NDArray[np.int16]]:
        rows = dict[int, NDArray[np.int16]]()
        part = np.searchsorted(self.starts, clips, side="right") - 1
        for k in np.unique(part):
            store, used = self.parts[k]
            places = np.flatnonzero(part == k)
            rows |= zip(places.tolist(), store.audio16(used[clips[places] - self.starts[k]]), strict=True)
        return [rows[place] for place in range(len(clips))]


class Selected(NamedTuple):
    """What a mix trains on: ids of the real clips, all clips, and how they are drawn."""

    ids: Sequence[str]
    clips: TrainingClips
    plan: mixing.Plan


def select(
    recipe: Recipe,
    real: ClipStore,
    synthetic: ClipStore | None,
    decoded: ClipStore | None,
    augmented: ClipStore | None,
    seed: int,
    class_ap: NDArray[np.float64] | None,
    part: ValPart | None = None,
) -> Selected:
    """Return the clips of `recipe.mix` and how they are drawn; arguments, errors: see `train_classifier`."""
    train = real.split_indices("train")
    if recipe.mix.has_real and not len(train):
        raise MissingError(f"{real.path}: its train split is empty")
    chosen = real_clips.chosen(recipe.mix, real)
    added = _added(recipe.mix, {"A": augmented, "G": synthetic, "X": synthetic}, heirs(real, part))
    chosen = chosen if part is None else chosen[np.isin(chosen, part.val, invert=True)]
    for store, _ in added:
        check_descent(real, store)
    ids = [real.clip_ids[i] for i in chosen]
    if decoded and not {*ids} <= {*decoded.clip_ids}:
        raise IntegrityError(f"{decoded.path}: not the train clips of {real.path}; decode them again")
    clips = TrainingClips(real, chosen, added, decoded)
    owners = [parents[i] for store, used in added for parents in [store.column("parent_id")] for i in used]
    repeatable = None
    if recipe.mix.fills_tail:
        repeatable = np.flatnonzero(real_clips.in_tail(recipe.mix, real)[chosen])
    plan = mixing.plan(recipe.mix, ids, owners, clips.targets, seed, class_ap, repeatable)
    return Selected(ids, clips, plan)


def check_descent(real: ClipStore, synthetic: ClipStore) -> None:
    """Check that synthetic clips may be mixed with `real`.

    What their generator was trained on is compared with the eval split when they are made.

    Raises:
        IntegrityError: another codec, clip length or label set; a parent that is outside the train split or
            of a recording in the eval split (the leak rule); clips made for another train split.
    """
    for name in ("codec", "codec_hash", "clip_samples", "labels"):
        ours, theirs = getattr(real.meta, name), getattr(synthetic.meta, name)
        if ours != theirs:
            raise IntegrityError(
                f"{synthetic.path}: {name} {theirs}, but {ours} in {real.path}; use one recipe for both"
            )
    if synthetic.meta.extra.get("external"):  # audited instead, as parents of external clips may be unknown
        return
    split = dict(zip(real.clip_ids, real.column("split"), strict=True))
    recording = dict(zip(real.clip_ids, real.recordings, strict=True))
    eval_clips = real.held_out()
    held_out = set(eval_clips.values())
    for clip_id, parent in zip(synthetic.clip_ids, synthetic.column("parent_id"), strict=True):
        if parent is not None and split.get(parent) != "train":
            where = f"in the {split[parent]} split" if parent in split else "which is not a clip"
            raise IntegrityError(
                f"{synthetic.path}: clip {clip_id} was made from {parent}, {where} of {real.path}; "
                "synthetic clips may descend from the train split only"
            )
        if parent is not None and recording[parent] in held_out:
            raise IntegrityError(
                f"{synthetic.path}: clip {clip_id} was made from {parent}, of a recording in the eval split "
                f"of {real.path} ({recording[parent]}); prepare the corpus again"
            )
    meta, train = synthetic.meta, (i for i, where in split.items() if where == "train")
    # Older stores say only for which train split they were made.
    made_for = meta.eval_ids_hash or meta.train_ids_hash
    if made_for and made_for != ids_hash(eval_clips if meta.eval_ids_hash else train):
        raise IntegrityError(
            f"{synthetic.path}: its generator was compared with another eval split than that of {real.path}; "
            "run synth on this fold"
        )


def heirs(real: ClipStore, part: ValPart | None) -> frozenset[str]:
    """Return the train clips whose generated or augmented versions are left out: those of val recordings."""
    if part is None or not part.recordings:
        return frozenset()
    names = zip(real.clip_ids, real.recordings, strict=True)
    return frozenset(clip for clip, recording in names if recording in part.recordings)


def usable(mix: Mix, store: ClipStore, source: str, without: frozenset[str]) -> NDArray[np.int64]:
    """Return the indices of the clips of a source that may be used, in order.

    Args:
        mix: its `min_fidelity` is used for the sources G and X, and its tail if that is filled alone.
        store: of the source.
        source: A, G or X.
        without: ids of parents whose clips are left out.

    Raises:
        UsageError: as `faithful`.
    """
    used = faithful(mix, store) if source in "GX" else np.arange(len(store))
    if mix.fills_tail:
        used = used[real_clips.in_tail(mix, store)[used]]
    if not without:
        return used
    parents = store.column("parent_id")
    return used[np.array([parents[i] not in without for i in used], bool)]


def _added(
    mix: Mix, stores: Mapping[str, ClipStore | None], without: frozenset[str]
) -> list[tuple[ClipStore, NDArray[np.int64]]]:
    """Return the stores of the sources that the mix adds, each with the indices of its clips to use."""
    alpha = mix.mode == "alpha"
    setting, needed = ("mix.alpha", mix.alpha) if alpha else ("mix.dose", mix.dose)
    added = []
    for source in mix.source.split("+") if needed else ():
        if source == "R":
            continue
        store = stores[source]
        if store is None:
            stage = "augment" if source == "A" else "synth"
            raise UsageError(f"{setting}={needed} needs clips of source {source}; run {stage} first")
        used = usable(mix, store, source, without)
        if mix.fills_tail:
            real_clips.need_of_tail(mix, source, len(used), len(store), f"{store.path}")
        added.append((store, used if alpha else used[: mix.dose]))
        if not alpha and len(used) < mix.dose:
            lost = ", without those made from val clips" if without else ""
            more = "add clips" if source == "X" else "raise synth.n"
            raise UsageError(
                f"mix.dose={mix.dose}: {store.path} has {counted(len(used), 'usable clip')}{lost}; {more} or "
                "lower the dose"
            )
    return added


def faithful(mix: Mix, synthetic: ClipStore) -> NDArray[np.int64]:
    """Return the indices of the synthetic clips whose fidelity is at least `mix.min_fidelity`.

    Raises:
        UsageError: fewer than `mix.dose` such clips, or the clips have no fidelity.
    """
    if not mix.min_fidelity:
        return np.arange(len(synthetic))
    scores = synthetic.column("fidelity")
    if None in scores:
        raise UsageError(
            f"mix.min_fidelity={mix.min_fidelity:g}: the clips of {synthetic.path} have no fidelity; set "
            "synth.judge and run synth again"
        )
    kept = np.flatnonzero(np.array(scores, np.float64) >= mix.min_fidelity)
    if mix.mode == "dose" and mix.dose > len(kept):
        raise UsageError(
            f"mix.dose={mix.dose}: only {len(kept)} of {len(scores)} synthetic clips reach "
            f"mix.min_fidelity={mix.min_fidelity:g}; lower one of these, or raise synth.n or synth.candidates"
        )
    return kept
