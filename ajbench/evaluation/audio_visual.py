"""Rows of Table A8: audio, video and both by one model, compared with naive fusion on the same clips."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ajbench.core.errors import IntegrityError
from ajbench.core.rows import Context, Row, make_row
from ajbench.data.labels import Scores
from ajbench.metrics import bootstrap, ranking
from ajbench.metrics.bootstrap import Resampled
from ajbench.metrics.intervals import Interval, wilson

TABLE = "A8"
NAIVE_LINE = "naive"
BOTH, AUDIO = "A+V", "A"
MU = "mu"
METRICS = ("map", "accuracy")
_BLOCK = 256


class Trained(NamedTuple):
    """A training measured on the evaluation clips, by modality."""

    clips: tuple[tuple[str, ...], ...]  # ids, recordings and class names
    values: Mapping[str, Mapping[str, Resampled]]  # modality → metric → value; accuracy only of single labels
    intervals: Mapping[str, Mapping[str, Interval]]
    classes: int  # with a positive


def line_name(scorer: str, labels: str) -> str:
    """Return the name of a condition in rows.csv: `naive`, `minilm/predicted`, `minilm/shuffled`."""
    return NAIVE_LINE if scorer == "none" else f"{scorer}/{labels}"


def measure(
    scores: Mapping[str, Scores],
    *,
    resamples: int = 1000,
    seed: int = 0,
    seen: NDArray[np.bool_] | None = None,
) -> Trained:
    """Return mAP and, of clips with one label each, accuracy by modality, and μ of A+V.

    μ is the share of clips that audio or video alone gets right (its first class is a label of the clip) and
    both together get wrong.

    Args:
        scores: modality → predictions on the same clips.
        resamples: of recordings; trainings can be compared if this and `seed` are equal.
        seed: of the resampling.
        seen: whether each clip has a usable video, [N]: video alone gets none of the others right in μ.
    """
    values: dict[str, dict[str, Resampled]] = {}
    intervals: dict[str, dict[str, Interval]] = {}
    right: dict[str, NDArray[np.bool_]] = {}
    draws = {"resamples": resamples, "seed": seed}
    classes = 0
    for modality, found in scores.items():
        s, t = ranking.check(found.scores, found.targets)
        mean_ap, _ = bootstrap.map_and_auc(s, t, found.recordings, **draws)
        values[modality], classes = {"map": mean_ap}, int(t.any(axis=0).sum())
        intervals[modality] = {"map": bootstrap.share_interval([mean_ap])}
        right[modality] = t[np.arange(len(s)), s.argmax(axis=1)]
        if (t.sum(axis=1) == 1).all():
            values[modality]["accuracy"] = share(right[modality], found.recordings, **draws)
            intervals[modality]["accuracy"] = wilson(right[modality], found.recordings)
    alone = {m: hits if m == AUDIO or seen is None else hits & seen for m, hits in right.items() if m != BOTH}
    lost = np.any([*alone.values()], axis=0) & ~right[BOTH]
    recordings = scores[BOTH].recordings
    values[BOTH][MU] = share(lost, recordings, **draws)
    intervals[BOTH][MU] = wilson(lost, recordings)
    of = scores[BOTH]
    return Trained((of.clip_ids, of.recordings, of.labels), values, intervals, classes)


def share(
    hits: NDArray[np.bool_], recordings: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> Resampled:
    """Return the share of hits [N], on the same resamples of recordings as `bootstrap.map_and_auc`."""
    groups, rng = bootstrap.groups_of(recordings), np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, _BLOCK):
        drawn = bootstrap.counts(groups, min(_BLOCK, resamples - start), rng)
        parts.append((drawn @ hits.astype(np.float64)) / drawn.sum(axis=1))
    return Resampled(float(hits.mean()), np.concatenate(parts), len(groups))


def cell_rows(line: str, seed: int, trained: Trained, context: Context) -> list[Row]:
    """Return map, accuracy, μ and the number of classes of one training, by modality, with 95 % intervals."""
    n = len(trained.clips[0])
    rows = []
    for modality, intervals in trained.intervals.items():
        row = partial(make_row, context, TABLE, line, modality, n=n, seed=seed)
        rows += [row(metric, found.value, found[1:]) for metric, found in intervals.items()]
        rows.append(row("classes", trained.classes))
    return rows


def compare(cells: Mapping[tuple[str, int], Trained], context: Context) -> list[Row]:
    """Return means over seeds and paired differences, with intervals over recordings and seeds.

    `map_mean` is the mean over seeds, `map_delta` the difference from naive fusion in the same modality,
    `map_gain` that of A+V to A of the same model, and `map_leak` that of `labels=true` to
    `labels=predicted` of the same scorer; the same for accuracy and μ (no gain). Only shared seeds count.

    Args:
        cells: (line, seed) → training, all on the same clips.
        context: the run.

    Raises:
        IntegrityError: two trainings were scored on other clips.
    """
    first = next(iter(cells.values()))
    if odd := next((key for key, trained in cells.items() if trained.clips != first.clips), None):
        raise IntegrityError(f"{odd}: scored on other clips than the rest; train it again")
    lines: dict[str, dict[int, Trained]] = {}
    for (line, seed), trained in sorted(cells.items(), key=lambda item: item[0][1]):
        lines.setdefault(line, {})[seed] = trained
    rows: list[Row] = []

    def add(line: str, modality: str, metric: str, found: Interval, seeds: Iterable[int]) -> None:
        named = ";".join(map(str, seeds))
        row = partial(make_row, context, TABLE, line, modality, metric, found.value, found[1:])
        rows.append(row(n=len(first.clips[0]), seed=named))

    for line, runs in lines.items():
        scorer, _, labels = line.partition("/")
        for modality, metrics in next(iter(runs.values())).values.items():
            for metric in metrics:
                mine = {seed: run.values[modality][metric] for seed, run in runs.items()}
                add(line, modality, f"{metric}_mean", bootstrap.share_interval(list(mine.values())), mine)
                others = {
                    "delta": (line != NAIVE_LINE, lines.get(NAIVE_LINE), modality),
                    "gain": (modality == BOTH and metric != MU, runs, AUDIO),
                    "leak": (labels == "true", lines.get(f"{scorer}/predicted"), modality),
                }
                for name, (wanted, baseline, column) in others.items():
                    shared = sorted(set(mine) & set(baseline or {})) if wanted else []
                    if not baseline or not shared:
                        continue
                    theirs = [baseline[seed].values[column][metric] for seed in shared]
                    found = bootstrap.gain_interval([mine[seed] for seed in shared], theirs)
                    add(line, modality, f"{metric}_{name}", found, shared)
    return rows


def information_rows(
    line: str, kind: str, scores: Scores, context: Context, *, resamples: int = 1000, seed: int | str = ""
) -> list[Row]:
    """Return map and accuracy of a classifier that gets a score or caption but neither audio nor video.

    Args:
        line: the condition whose score it gets.
        kind: its inputs (`score_information.INPUTS`), the column.
        scores: its predictions.
        context: the run.
        resamples: of recordings.
        seed: of the audio models that the score depends on.
    """
    s, t = ranking.check(scores.scores, scores.targets)
    row = partial(make_row, context, TABLE, line, kind, n=len(s), seed=seed)
    mean_ap, _ = bootstrap.map_and_auc(s, t, scores.recordings, resamples=resamples)
    found = bootstrap.share_interval([mean_ap])
    rows = [row("map", found.value, found[1:])]
    if (t.sum(axis=1) == 1).all():
        hits = wilson(t[np.arange(len(s)), s.argmax(axis=1)], scores.recordings)
        rows.append(row("accuracy", hits.value, hits[1:]))
    return rows
