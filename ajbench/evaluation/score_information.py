"""What an entailment score says about the label: a linear classifier of the score and the visual caption.

A score that is computed from the labels of evaluation clips can tell them: it lowers the number of classes
that fit a caption. A classifier that gets neither audio nor video shows by how much.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Floats = NDArray[np.float64]
INPUTS = ("score", "caption", "caption+score")
MOST_CLIPS = 20_000  # to train on
_PENALTY, _STEPS = 1e-3, 200


def thinned(clips: NDArray[np.int64], evaluated: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most `MOST_CLIPS` of the clips to train on, evenly spaced, then those that are evaluated."""
    held_out = np.isin(clips, evaluated)
    train = clips[~held_out]
    keep = np.linspace(0, len(train) - 1, min(len(train), MOST_CLIPS)).astype(np.int64)
    return np.concatenate([train[keep], clips[held_out]])


def inputs(kind: str, score: Floats, caption: Floats) -> Floats:
    """Return the inputs of a classifier [N, d].

    `score` are s and s², `caption` the embedding v, and `caption+score` v, s v and s² v with s and s²: only
    products tell which classes fit the score of a caption.

    Args:
        kind: of INPUTS.
        score: [N], in [0, 1].
        caption: sentence embeddings of visual captions [N, e].
    """
    powers = np.stack([score, score**2], axis=1)
    if kind == "score":
        return powers
    if kind == "caption":
        return caption
    return np.concatenate([powers, caption, *(caption * power[:, None] for power in powers.T)], axis=1)


def linear_logits(x: Floats, targets: NDArray[np.floating], evaluated: Floats) -> Floats:
    """Fit a logistic regression to x [N, d] and targets [N, C] and return its logits for `evaluated` [M, C].

    Inputs are standardised. Of clips with one label each, it is multinomial, otherwise one per class.
    """
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    known = deviation > 1e-9
    train, held_out = (
        torch.from_numpy((values[:, known] - mean[known]) / deviation[known]) for values in (x, evaluated)
    )
    wanted = torch.from_numpy(np.asarray(targets, np.float64))
    weight = torch.zeros(train.shape[1], wanted.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(wanted.shape[1], dtype=torch.float64, requires_grad=True)
    single = bool((wanted.sum(dim=1) == 1).all())
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = train @ weight + bias
        found = (
            functional.cross_entropy(logits, wanted)
            if single
            else functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1).mean()
        )
        found = found + _PENALTY * weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    with torch.no_grad():
        return (held_out @ weight + bias).numpy()
