"""Seconds of the ranking metrics at AudioSet's size, compared with scikit-learn's loops over classes.

python benchmarks/ranking_speed.py [--clips 20000] [--rounds 5] [--scores FILE.npz] [--out FILE.csv]

Scores are normal, float32, then rounded to float16 (ties); 2.4 labels per clip over 527 classes, long-tailed.
Average precision is compared with a loop of `average_precision_score`, and the whole summary with the loop of
AST's `calculate_stats` (AP, AUC, precision-recall and ROC curve of each class). They take turns within a
round, all on one thread. Printed are medians over rounds, and of each round's ratio, the largest difference
from scikit-learn (of any class's AP and AUC, and of d′), and the peak memory of the process so far. Run it on
an idle machine.

--scores also compares the values on the predictions of a training (its scores.npz).
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import sklearn
import torch
from recorded import processor, record
from scipy.stats import norm
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from ajbench.core import console
from ajbench.data.labels import load_scores
from ajbench.metrics import ranking

CLASSES = 527


def draw(clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 and targets bool, [clips, CLASSES]."""
    rng = np.random.default_rng(0)
    share = np.arange(1, CLASSES + 1) ** -0.8
    targets = rng.random((clips, CLASSES)) < share * (2.4 / share.sum())
    return rng.normal(size=(clips, CLASSES)).astype(np.float32), targets


def sklearn_ap(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision of each class [C]."""
    return np.array([average_precision_score(t, s) for s, t in zip(scores.T, targets.T, strict=True)])


def ast_statistics(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and AUC of each class [C], with the curves that AST's loop also computes."""
    ap, auc = [], []
    for s, t in zip(scores.T, targets.T, strict=True):
        ap.append(average_precision_score(t, s, average=None))
        auc.append(roc_auc_score(t, s, average=None))
        precision_recall_curve(t, s)
        roc_curve(t, s)
    return np.array(ap), np.array(auc)


def difference(scores: np.ndarray, targets: np.ndarray) -> float:
    """Largest difference from scikit-learn of any class's AP and AUC, and of d′."""
    usable = targets.any(axis=0) & ~targets.all(axis=0)
    ap, auc = ast_statistics(scores[:, usable], targets[:, usable])
    found = ranking.average_precision(scores, targets)[usable], ranking.roc_auc(scores, targets)[usable]
    prime = ranking.summary(scores, targets)["dprime"] - np.sqrt(2) * norm.ppf(auc.mean())
    return float(max(np.abs(found[0] - ap).max(), np.abs(found[1] - auc).max(), abs(prime)))


def measure(scores: np.ndarray, targets: np.ndarray, rounds: int) -> list[list]:
    """Rows [kind, seconds, its loop's ratio] of the four kinds."""
    kinds: dict[str, Callable] = {
        "average_precision": ranking.average_precision,
        "scikit-learn AP loop": sklearn_ap,
        "summary": ranking.summary,
        "AST statistics loop": ast_statistics,
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with console.progress(rounds * len(kinds), "measure", "runs") as advance:
        for _ in range(rounds):
            for kind, function in kinds.items():
                began = time.perf_counter()
                function(scores, targets)
                seconds[kind].append(time.perf_counter() - began)
                advance(1)
    names, rows = list(kinds), []
    for ours, loop in zip(names[::2], names[1::2], strict=True):
        ratio = median(b / a for a, b in zip(seconds[ours], seconds[loop], strict=True))
        rows += [[ours, round(median(seconds[ours]), 4), round(ratio, 1)]]
        rows += [[loop, round(median(seconds[loop]), 4), 1.0]]
    return rows


def main() -> None:
    """Measure both kinds of scores; compare on predictions if --scores is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.scores:
        predictions = load_scores(options.scores)
        worst = difference(predictions.scores, predictions.targets.astype(bool))
        console.say(f"{options.scores.name}: largest difference {worst:.1e}")
    scores, targets = draw(options.clips)
    rows: list[list] = []
    for case in ("normal", "float16 ties"):
        if case != "normal":
            scores = scores.astype(np.float16).astype(np.float32)
        measured = measure(scores, targets, options.rounds)
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        worst = difference(scores, targets)
        about = [options.rounds, processor(), np.__version__, sklearn.__version__]
        rows += [
            [case, options.clips, CLASSES, *row, float(f"{worst:.1e}"), peak, *about] for row in measured
        ]
    header = ["scores", "clips", "classes", "kind", "seconds", "ratio", "max_diff", "peak_mb"]
    header += ["rounds", "processor", "numpy", "scikit_learn"]
    record(header, rows, 8, options.out)


if __name__ == "__main__":
    main()
