"""Trained audio-visual models → rows and notes of Table A8: the work of score-av."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ajbench.captions import score_file
from ajbench.core import console
from ajbench.core.console import counted
from ajbench.core.rows import Context, Row, append_rows
from ajbench.core.run_dir import RunDir
from ajbench.core.sealed_json import write_sealed
from ajbench.data.labels import Scores, load_scores
from ajbench.data.store import ClipStore
from ajbench.evaluation import audio_visual
from ajbench.evaluation.audio_visual import AUDIO, line_name
from ajbench.fusion.av_clips import MODALITIES
from ajbench.pipeline.evaluation_stages import NOTES, ROWS, dataset_name
from ajbench.pipeline.fusion_work import read_clip_scores, scored_clips, scores_name

if TYPE_CHECKING:
    from ajbench.pipeline.fusion_stages import Cell
    from ajbench.pipeline.recipe_stages import Pipeline

MASKED = "clips without a usable video are kept, with a mask in place of the video"


def measure(
    pipeline: "Pipeline", cells: Sequence["Cell"], scored: Mapping[str, tuple[int, Path]], out: Path
) -> None:
    """Write rows.csv and notes.json of trained models to `out`, and add the rows to those of the recipe.

    Args:
        pipeline: stages of the recipe.
        cells: the models.
        scored: line → seed and folder of the scores whose information about the labels is measured.
        out: folder of this evaluation.
    """
    recipe, store = pipeline.recipe, ClipStore.open(pipeline.prepare.path, verify=False)
    dataset, resamples = dataset_name(pipeline), recipe.evaluate.bootstrap
    over = recipe.fusion.interval_over
    place = {clip_id: index for index, clip_id in enumerate(store.clip_ids)}
    rows: list[Row] = []
    found: dict[tuple[str, int], audio_visual.Trained] = {}
    with console.progress(len(cells) + len(scored), "score-av", "models") as advance:
        for cell in cells:
            line = line_name(cell.settings.scorer, cell.settings.labels)
            scores = {m: units(load_scores(cell.stage.path / scores_name(m)), over) for m in MODALITIES}
            seen = store.has_video([place[clip_id] for clip_id in scores[AUDIO].clip_ids])
            found[line, cell.seed] = audio_visual.measure(scores, resamples=resamples, seen=seen)
            context = _context(pipeline, cell.stage.path, out, dataset)
            rows += audio_visual.cell_rows(line, cell.seed, found[line, cell.seed], context)
            advance(1)
        context = _context(pipeline, out, out, dataset)
        rows += audio_visual.compare(found, context)
        for line, (seed, folder) in scored.items():
            for kind, predictions in information(pipeline, store, line, folder).items():
                more: dict[str, Any] = {"resamples": resamples, "seed": seed}
                own = units(predictions, over)
                rows += audio_visual.information_rows(line, kind, own, context, **more)
            advance(1)
    for path in (out / ROWS, pipeline.home / ROWS):
        append_rows(path, rows)
    notes = [*video_notes(store), *_unscored(cells), interval_note(store, over)]
    write_sealed(out / NOTES, {"notes": notes}, indent=2)


def information(pipeline: "Pipeline", store: ClipStore, line: str, folder: Path) -> dict[str, Scores]:
    """Return the predictions of classifiers that get only the score, the visual caption, or both."""
    from ajbench.captions.entailment import embed
    from ajbench.evaluation import score_information as linear
    from ajbench.fusion.label_free import visual_captions

    recipe = pipeline.recipe
    scorer, _, labels = line.partition("/")
    indices = scored_clips(recipe, store)
    captions = visual_captions(store, Path(recipe.fusion.captions) if recipe.fusion.captions else None)
    indices = linear.thinned(indices[[bool(captions[i]) for i in indices]], store.split_indices("eval"))
    ids = [store.clip_ids[i] for i in indices]
    score = score_file.read(folder / score_file.FILE, ids, scorer, labels).scaled
    score = np.where(np.isnan(score), np.nanmean(score), score)
    embeddings = embed([captions[i] or "" for i in indices])
    targets: NDArray[np.float32] = store.sparse_targets()[indices].toarray()
    held_out = np.isin(indices, store.split_indices("eval"))
    about = [ids[n] for n in np.flatnonzero(held_out)]
    recordings = [store.recordings[i] for i in indices[held_out]]
    found = {}
    for kind in linear.INPUTS:
        x = linear.inputs(kind, score, embeddings)
        logits = linear.linear_logits(x[~held_out], targets[~held_out], x[held_out])
        names = tuple(about), tuple(store.meta.labels), tuple(recordings)
        found[kind] = Scores(logits, targets[held_out], *names)
    return found


def video_notes(store: ClipStore) -> list[str]:
    """Return how many clips of each split have a usable, a missing and an undecodable video."""
    counts, parts, masked = store.meta.extra["video"]["counts"], [], False
    for split in [name for name in ("train", "val", "eval") if name in counts]:
        mine = counts[split]
        lost = [f"{mine[kind]} {kind}" for kind in ("missing", "undecodable") if mine[kind]]
        parts.append(f"{split} {mine['usable']} of {counted(sum(mine.values()), 'clip')}")
        parts[-1] += f" ({', '.join(lost)})" if lost else ""
        masked = masked or bool(lost)
    return [f"clips with video: {', '.join(parts)}", *([MASKED] if masked else [])]


def interval_note(store: ClipStore, over: str) -> str:
    """Return what the intervals are over, and how many recordings the evaluation clips have."""
    held_out = store.split_indices("eval")
    recordings = counted(len({store.recordings[i] for i in held_out}), "recording")
    if over == "clips":
        return f"intervals are over clips, not over their {recordings}: they do not cover other recordings"
    return f"intervals are over {recordings} of the evaluation clips"


def units(scores: Scores, over: str) -> Scores:
    """Return scores whose recordings are what intervals are over."""
    return scores if over == "recordings" else replace(scores, recordings=scores.clip_ids)


def _unscored(cells: Sequence["Cell"]) -> list[str]:
    without = {}
    for cell in cells:
        if count := int(read_clip_scores(cell.stage.path)["unscored"]):
            without[line_name(cell.settings.scorer, cell.settings.labels)] = count
    return [
        f"{line}: {counted(count, 'clip')} with video but without a score, which is replaced by the mean of "
        "the train clips"
        for line, count in without.items()
    ]


def _context(pipeline: "Pipeline", folder: Path, out: Path, dataset: str) -> Context:
    info = RunDir(folder, "", "").info()
    return Context(
        run=out.name,
        recipe=pipeline.recipe.name,
        fingerprint=info["fingerprint"],
        git=info["git"] or "",
        dataset=dataset,
        device=info["device"],
        seconds=info.get("seconds"),
        precision=info.get("precision", ""),
    )
