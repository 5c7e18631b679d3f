"""Clips with audio, video and an entailment score: what a model is trained on and evaluated on."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ajbench.captions import aggregation, score_file
from ajbench.classifiers import frontend
from ajbench.core.errors import UsageError
from ajbench.core.files import seed_for
from ajbench.core.fusion_section import NAIVE, Fusion
from ajbench.core.run_dir import world
from ajbench.data import mixing
from ajbench.data.store import ClipStore

Floats = NDArray[np.float64]
MODALITIES = ("A", "V", "A+V")


class Inputs(NamedTuple):
    """A batch, in the order of the arguments of `AudioVisual`."""

    audio: Tensor  # waves [B, n] or tokens [B, T, d]
    video: Tensor  # [B, W, d]
    has_audio: Tensor  # bool [B]
    has_video: Tensor  # bool [B]
    score: Tensor  # [B]


class ClipsWithVideo:
    """Some clips of a store.

    Args:
        store: has video tokens.
        indices: of the clips [N].
        scores: of the clips, in [0, 1] [N].
        audio_tokens: of all clips of the store [M, T, d]; None: the clips are given as waves.
    """

    def __init__(
        self,
        store: ClipStore,
        indices: NDArray[np.int64],
        scores: Floats,
        audio_tokens: NDArray[np.float16] | None = None,
    ) -> None:
        self.store, self.indices, self.audio_tokens = store, indices, audio_tokens
        self.ids = [store.clip_ids[i] for i in indices]
        self.targets = store.sparse_targets()[indices]
        self.scores = np.asarray(scores, np.float32)

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, places: NDArray[np.int64]) -> tuple[Inputs, Tensor]:
        """Return clips by their place [k] as a batch, and their targets float32 [k, C]."""
        wanted = self.indices[places]
        video, there = self.store.video_tokens(wanted)
        if self.audio_tokens is None:
            audio = torch.from_numpy(self.store.audio(wanted))
        else:
            audio = torch.from_numpy(self.audio_tokens[wanted].astype(np.float32))
        made = torch.ones(len(places), dtype=torch.bool), torch.from_numpy(np.array(there, bool))
        score = torch.from_numpy(self.scores[places])
        targets = torch.from_numpy(self.targets[places].toarray())
        return Inputs(audio, torch.from_numpy(np.array(video, np.float32)), *made, score), targets


def training_batches(
    settings: Fusion, plan: mixing.Plan, clips: ClipsWithVideo, seed: int
) -> Callable[[int], tuple[Inputs, Tensor]]:
    """Return the function index → inputs and targets of one process' part of a step's batch.

    What is drawn for a clip is a function of (seed, clip id, how many clips were drawn before): whether it is
    mixed, with which partner and weight λ, and whether its audio or its video is dropped. A partner gives
    audio, video, labels and score with the same λ; the mix has video if both clips have.

    Raises:
        UsageError: the processes do not divide the batch.
    """
    processes, _ = world()
    if settings.batch_size % processes:
        raise UsageError(f"fusion.batch_size={settings.batch_size}: not divisible by {processes} processes")
    size, dropped = settings.batch_size // processes, settings.modality_dropout

    def batch(index: int) -> tuple[Inputs, Tensor]:
        chosen = mixing.batch(plan.order, plan.epoch_size, size, index)
        keep, partners, drop = np.ones(size, np.float32), np.empty(size, np.int64), np.empty(size)
        for n, place in enumerate(chosen.tolist()):
            rng = np.random.default_rng(seed_for(seed, clips.ids[place], index * size + n))
            if rng.random() < settings.mixup:
                keep[n] = rng.beta(settings.mixup_beta, settings.mixup_beta)
            partners[n], drop[n] = plan.partners(1, rng)[0], rng.random()
        mixed = np.flatnonzero(keep < 1)
        inputs, targets = clips.take(np.concatenate([chosen, partners[mixed]]))
        inputs, targets = _mixed(inputs, targets, torch.from_numpy(mixed), torch.from_numpy(keep[mixed]))
        # Never both, and never the only one that there is.
        without_audio = torch.from_numpy(drop < dropped) & inputs.has_video
        without_video = torch.from_numpy((drop >= dropped) & (drop < 2 * dropped))
        has = {"has_audio": inputs.has_audio & ~without_audio, "has_video": inputs.has_video & ~without_video}
        return inputs._replace(**has), targets

    return batch


def _mixed(inputs: Inputs, targets: Tensor, mixed: Tensor, keep: Tensor) -> tuple[Inputs, Tensor]:
    """Mix clips at places `mixed` [k] with their partners, which follow the B clips, with weights λ [k]."""
    clips = len(targets) - len(mixed)

    def blend(values: Tensor) -> Tensor:
        out = values[:clips].clone()
        weight = keep.view(-1, *[1] * (values.ndim - 1))
        out[mixed] = torch.lerp(values[clips:], values[mixed], weight)
        return out

    waves = inputs.audio.ndim == 2
    audio = frontend.mixup(inputs.audio, targets, mixed, keep)[0] if waves else blend(inputs.audio)
    has_video = inputs.has_video[:clips].clone()
    has_video[mixed] &= inputs.has_video[clips:]
    has_audio = inputs.has_audio[:clips]
    made = Inputs(audio, blend(inputs.video), has_audio, has_video, blend(inputs.score))
    return made, blend(targets)


def clip_scores(
    settings: Fusion, store: ClipStore, indices: NDArray[np.int64], file: Path | None, seed: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the scores in [0, 1] of clips [n], and which of them have one, as none has in naive fusion.

    The others get the mean score of the train clips.

    Args:
        settings: scorer and labels, also the controls.
        store: of the clips.
        indices: of the clips that are trained on and evaluated [n].
        file: of scores (`score_file`); None for naive fusion.
        seed: of the control `shuffled`.

    Raises:
        MissingError: there is no such file, or it lacks the scores.
        IntegrityError: it is of other clips, or a score is outside [0, 1].
        UsageError: no train clip has a score.
    """
    if settings.scorer == NAIVE or file is None:
        return np.ones(len(indices)), np.zeros(len(indices), bool)
    ids, splits = ([column[i] for i in indices] for column in (store.clip_ids, store.column("split")))
    control = settings.labels in ("constant", "shuffled", "feature")
    found = score_file.read(file, ids, settings.scorer, "predicted" if control else settings.labels).scaled
    train = np.array([split == "train" for split in splits])
    if not np.isfinite(found[train]).any():
        raise UsageError(f"{file}: no train clip has a score; are there visual captions?")
    scored = ~np.isnan(found)
    found = np.where(scored, found, aggregation.constant(found, train))
    if settings.labels == "constant":
        return aggregation.constant(found, train), scored
    if settings.labels == "shuffled":
        return aggregation.shuffled(found, splits, seed), scored
    return found, scored


def evaluated_as(inputs: Inputs, modality: str) -> Inputs:
    """Return a batch with the masks of a modality: `A` audio alone, `V` video alone, `A+V` what there is."""
    nothing = torch.zeros_like(inputs.has_audio)
    if modality == "A":
        return inputs._replace(has_video=nothing)
    return inputs._replace(has_audio=nothing) if modality == "V" else inputs
