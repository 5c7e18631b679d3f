"""How long a training step takes here, from a few steps on noise."""

import time

import torch
from torch.nn import functional

from ajbench import classifiers
from ajbench.core.schema import Classifier

SLOW_S = 0.5  # a model that takes longer over one clip is not timed on more


def step_seconds(settings: Classifier, classes: int, clip_samples: int) -> float:
    """Return the seconds of one training step of `settings.batch_size` clips on one thread (or the GPU).

    Front end, forward and backward pass are timed on a few clips of noise and scaled to the batch.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = classifiers.build(settings.name, classes, **settings.model_options(clip_samples))
        module = module.to(device).train()
        wav = torch.randn(min(8, settings.batch_size), clip_samples, device=device) * 0.1

    def timed(clips: int) -> float:
        start = time.perf_counter()
        logits = module(wav[:clips])
        functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / clips

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the cells of a grid are trained
    try:
        first = timed(2)  # batch norm needs two
        if first < SLOW_S:
            first = min(timed(len(wav)) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    return first * settings.batch_size
