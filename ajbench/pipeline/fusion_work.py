"""The work of the audio-visual stages, as functions that worker processes can call."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ajbench.core.documents import read_arrays
from ajbench.core.errors import IntegrityError
from ajbench.core.files import atomic_write, replacing
from ajbench.core.fusion_section import NAIVE
from ajbench.core.recipe import Recipe, dump
from ajbench.core.run_dir import world
from ajbench.pipeline.cell_training import SCORES, settings_of

if TYPE_CHECKING:
    from ajbench.data.store import ClipStore

TOKENS = "audio_tokens.npy"
CLIP_SCORES = "clip_scores.npz"


def scores_name(modality: str) -> str:
    """Return the name of the file of predictions by a modality, such as `scores_av.npz`."""
    return f"scores_{modality.lower().replace('+', '')}.npz"


def train_part(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    fingerprint: str,
    real: Path,
    part: int,
    parts: int,
    tuning: Path | None = None,
    pcm: Path | None = None,
) -> None:
    """Train the audio model without one part of the train clips, then write its scores of that part.

    Args:
        recipe: sections classifier and mix.
        out: receives the checkpoint and `scores.npz`.
        seed: of the training and of the parts.
        fingerprint: stored with the checkpoint.
        real: folder of the clip store.
        part: its number, from 0.
        parts: how many there are.
        tuning: folder of the finished choice of keys, which replace those of the recipe.
        pcm: folder of caches of decoded sound, if there are to be any.
    """
    import torch

    from ajbench import classifiers
    from ajbench.classifiers.train import train_classifier
    from ajbench.data import real_clips
    from ajbench.data.pcm import open_store
    from ajbench.data.val_part import ValPart
    from ajbench.fusion.label_free import parts_of

    torch.set_num_threads(1)
    if tuning:
        recipe = recipe.model_copy(update={"classifier": settings_of(tuning, recipe.classifier)})
        if world()[1] == 0:
            atomic_write(out / "recipe.yaml", dump(recipe))
    store = open_store(real, pcm)
    chosen = real_clips.chosen(recipe.mix, store)
    own = parts_of(store, chosen, parts, seed) == part
    left_out = ValPart(chosen[~own], chosen[own], frozenset())
    train_classifier(recipe, store, None, out, seed=seed, fingerprint=fingerprint, part=left_out)
    scores = classifiers.predict(classifiers.load(out), store, chosen[own], shared=True)
    if world()[1] == 0:
        _save(out / SCORES, scores, store, chosen[own])


def write_tokens(out: Path, *, real: Path, audio: Path) -> None:
    """Write the audio tokens of a store's clips by a trained classifier; one process of a launch does."""
    import torch

    from ajbench.data.store import ClipStore
    from ajbench.fusion.train import write_audio_tokens

    if world()[1] > 0:
        return
    torch.set_num_threads(1)
    write_audio_tokens(audio, ClipStore.open(real), out / TOKENS)


def score_clips(
    recipe: Recipe, file: Path, *, scorer: str, labels: str, real: Path, models: Sequence[Path]
) -> None:
    """Write the entailment scores of the train and evaluation clips; one process of a launch does.

    Args:
        recipe: sections mix, classifier and fusion.
        file: of scores.
        scorer: name.
        labels: predicted, noisy-or or true.
        real: folder of the clip store.
        models: folders of the audio model and of those trained without a part.
    """
    import torch

    from ajbench.captions import score_file
    from ajbench.data.labels import load_scores
    from ajbench.data.store import ClipStore
    from ajbench.fusion.label_free import probabilities, score

    if world()[1] > 0:
        return
    torch.set_num_threads(1)
    store = ClipStore.open(real)
    indices = scored_clips(recipe, store)
    if labels == "true":
        targets = store.sparse_targets()[indices]

        def weights(chunk: slice) -> NDArray[np.floating]:
            return targets[chunk].toarray()
    else:
        of_clip: dict[str, NDArray[np.float32]] = {}
        for folder in models:
            found = load_scores(folder / SCORES)
            of_clip |= dict(zip(found.clip_ids, found.scores, strict=True))

        def weights(chunk: slice) -> NDArray[np.floating]:
            logits = np.stack([of_clip[store.clip_ids[i]] for i in indices[chunk]])
            return probabilities(logits, recipe.classifier.loss)

    captions = Path(recipe.fusion.captions) if recipe.fusion.captions else None
    how: dict[str, Any] = {"scorer": scorer, "labels": labels, "top_k": recipe.fusion.top_k}
    score_file.write(file, [score(store, indices, weights, captions=captions, **how)])


def train_and_score(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    fingerprint: str,
    real: Path,
    audio: Path | None,
    tokens: Path | None,
    scores: Path | None,
    parts: int | None = None,
    tracker: str = "csv",
    pcm: Path | None = None,
) -> None:
    """Train an audio-visual model, then write its scores of the evaluation clips by A, V and A+V.

    Args:
        recipe: sections fusion, mix and classifier.
        out: receives the checkpoint, `scores_a.npz`, `scores_v.npz` and `scores_av.npz`.
        seed: of the training.
        fingerprint: stored with the checkpoint.
        real: folder of the clip store.
        audio: folder of the trained audio model, if there is one.
        tokens: folder of its tokens, if it stays as it is.
        scores: file of entailment scores; None for naive fusion.
        parts: of the train clips, if the audio model was trained without the first, which alone is used.
        tracker: where loss curves go besides `metrics.csv`.
        pcm: folder of caches of decoded sound, if there are to be any.
    """
    import torch

    from ajbench.data.pcm import open_store
    from ajbench.fusion.av_clips import MODALITIES, ClipsWithVideo, clip_scores
    from ajbench.fusion.label_free import parts_of
    from ajbench.fusion.train import load, predict, read_audio_tokens, train_fusion

    torch.set_num_threads(1)
    store = open_store(real, None if tokens else pcm)
    indices = scored_clips(recipe, store)
    values, scored = clip_scores(recipe.fusion, store, indices, scores, seed)
    audio_tokens = read_audio_tokens(tokens / TOKENS) if tokens else None
    held_out = np.isin(indices, store.split_indices("eval"))
    used = ~held_out
    if parts:
        used[used] = parts_of(store, indices[used], parts, seed) == 0
    train = ClipsWithVideo(store, indices[used], values[used], audio_tokens)
    train_fusion(recipe, train, out, seed=seed, fingerprint=fingerprint, audio=audio, tracker=tracker)
    clips, module = ClipsWithVideo(store, indices[held_out], values[held_out], audio_tokens), load(out)
    logits = {
        modality: predict(module, clips, modality, recipe.fusion.precision, shared=True)
        for modality in MODALITIES
    }
    if world()[1] > 0:
        return
    for modality, found in logits.items():
        _save(out / scores_name(modality), found, store, clips.indices)
    expected = store.has_video(indices) & (recipe.fusion.scorer != NAIVE)
    write_clip_scores(out, indices, values, scored, expected)


def write_clip_scores(
    folder: Path,
    indices: NDArray[np.int64],
    values: NDArray[np.float64],
    scored: NDArray[np.bool_],
    expected: NDArray[np.bool_],
) -> None:
    """Write the entailment scores of clips, with which of them have one and how many lack an expected one."""
    unscored = int((expected & ~scored).sum())
    with replacing(folder / CLIP_SCORES) as part, part.open("wb") as file:
        np.savez(file, scores=values, scored=scored, indices=indices, unscored=unscored)


def read_clip_scores(folder: Path) -> dict[str, NDArray[Any]]:
    """Return what `train_and_score` wrote of the entailment scores: scores, scored, indices and unscored.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = folder / CLIP_SCORES
    try:
        found = read_arrays(path)
        return {name: found[name] for name in ("scores", "scored", "indices", "unscored")}
    except (ValueError, KeyError) as error:
        raise IntegrityError(f"{path}: damaged ({error}); train the model again with --force") from None


def scored_clips(recipe: Recipe, store: "ClipStore") -> NDArray[np.int64]:
    """Return the indices of the train clips that are used, then of the evaluation clips."""
    from ajbench.data import real_clips

    return np.concatenate([real_clips.chosen(recipe.mix, store), store.split_indices("eval")])


def _save(path: Path, scores: Any, store: "ClipStore", indices: NDArray[np.int64]) -> None:
    from ajbench.data.labels import save_scores

    ids, recordings = ([names[i] for i in indices] for names in (store.clip_ids, store.recordings))
    save_scores(path, scores, store.sparse_targets()[indices].toarray(), ids, store.meta.labels, recordings)
