"""Where a process computes."""

import os

import torch


def device_of(rank: int | None = None) -> torch.device:
    """Return where the process of this number on this machine computes: GPUs are dealt out in turn.

    Args:
        rank: of the process on this machine; None is what torchrun or accelerate say, or 0.
    """
    # accelerate's PartialState would make the processes of a launch wait for each other.
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return torch.device("cpu")
    if torch.cuda.is_available():
        here = int(os.environ.get("LOCAL_RANK", 0)) if rank is None else rank
        return torch.device("cuda", here % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
