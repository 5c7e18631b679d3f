"""Attention pooling of audio and video tokens; a score per clip discounts the video."""

from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ajbench.core.errors import UsageError

Discount = Literal["renormalised", "paper", "logit"]
DISCOUNTS = ("renormalised", "paper", "logit")
Array = TypeVar("Array", Tensor, NDArray[np.floating])


def pool(
    tokens: Array,
    logits: Any,
    is_video: Any,
    score: Any,
    discount: Discount = "renormalised",
    present: Any = None,
) -> Array:
    """Pool the audio and video tokens of each clip with attention α = softmax(logits).

    With d = score on video tokens (clamped to [0, 1]) and 1 on audio tokens, the weights are

    - `renormalised`: α·d / Σ α·d, the same as adding log d to the logits. Score 0 leaves audio alone, score 1
      is plain attention pooling.
    - `paper`: α·d, not renormalised, so that a low score also shrinks the result.
    - `logit`: softmax(logits·d), an ablation. It does not always discount: negative logits rise, and at score
      0 video tokens keep the weight of logit 0.

    Args:
        tokens: float [B, T, d], a tensor or an array.
        logits: attention logits [B, T].
        is_video: bool [T], true on video tokens.
        score: entailment score of each clip [B].
        discount: how the score lowers the weights of video tokens.
        present: bool [B, T], false on tokens that do not count, as of a missing video; None: all count.

    Returns:
        Pooled tokens [B, d], a tensor or an array like `tokens`; gradients reach tokens, logits and score.
        Without any token that counts (with `renormalised`, those of score 0 do not) they are zeros.

    Raises:
        UsageError: an unknown discount, tokens that are not floats, or shapes that do not match.
    """
    if discount not in DISCOUNTS:
        raise UsageError(f"discount {discount!r} is unknown; allowed: {', '.join(DISCOUNTS)}")
    values: Tensor = _tensor(tokens)
    if values.ndim != 3 or not values.is_floating_point():
        raise UsageError(f"tokens: {values.dtype} {[*values.shape]}; expected floats [B, T, d]")
    levels, scores = _tensor(logits).to(values), _tensor(score).to(values)
    video = _tensor(is_video).to(values.device, torch.bool)
    clips, length = values.shape[:2]
    _check_shape("logits", levels, clips, length)
    _check_shape("is_video", video, length)
    _check_shape("score", scores, clips)
    counts = torch.ones_like(levels)
    if present is not None:
        counts = _tensor(present).to(levels)
        _check_shape("present", counts, clips, length)
    factor = torch.where(video, scores.clamp(0, 1)[:, None], torch.ones_like(levels))
    if discount == "paper":
        weights = _renormalised(levels, counts) * factor
    elif discount == "logit":
        weights = _renormalised(levels * factor, counts)
    else:
        weights = _renormalised(levels, counts * factor)
    pooled = torch.einsum("bt,btd->bd", weights, values)
    return pooled if isinstance(tokens, Tensor) else pooled.numpy()


def _tensor(array: Any) -> Tensor:
    # Read-only arrays, such as mapped columns of a store, are copied: torch warns of them.
    return array if isinstance(array, Tensor) else torch.as_tensor(np.require(array, requirements="W"))


def _check_shape(name: str, tensor: Tensor, *shape: int) -> None:
    if tensor.shape != shape:
        raise UsageError(f"{name}: shape {[*tensor.shape]}; expected {[*shape]}")


def _renormalised(logits: Tensor, factor: Tensor) -> Tensor:
    # The largest logit that counts: with that of a token of factor 0, all others could underflow. Not
    # softmax(logits + log(factor)), whose gradient is NaN at factor 0.
    top = logits.detach().masked_fill(factor == 0, -torch.inf).amax(dim=1, keepdim=True)
    weights = factor * (logits - top).clamp(max=0).exp()
    return weights / weights.sum(dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
