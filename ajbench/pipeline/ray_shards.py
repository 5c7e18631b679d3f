"""Preparing a corpus with Ray, one task per shard, on this machine or on a cluster with shared folders.

A task claims its shard as any process does, so Ray and other processes can work on the same store.
"""

import socket
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ajbench import codec as codecs
from ajbench.core import ray_tasks
from ajbench.core.device import device_of
from ajbench.core.errors import IntegrityError
from ajbench.core.recipe import Recipe
from ajbench.data.labels import LabelSet
from ajbench.data.shard_job import ShardJob
from ajbench.fusion.video_tokens import VideoEncoder
from ajbench.pipeline.shard_encoding import Listed, ShardEncoding, readers, video_encoder

_loaded: dict[Path, ShardEncoding] = {}  # kept in a worker for its next shard


@dataclass(frozen=True)
class Order:
    """What a worker of Ray needs to encode shards.

    `codec` and `encoder` are instances to use instead of loading the recipe's; `weights_hash` is the codec's.
    """

    job: ShardJob
    recipe: Recipe
    labels: LabelSet
    samples: int
    link: bool
    absent: Set[str] | None
    codec: codecs.Codec | None
    encoder: VideoEncoder | None
    weights_hash: str

    def load(self) -> ShardEncoding:
        """Load the codec and the encoder of videos.

        Raises:
            IntegrityError: the codec has other weights on this machine.
        """
        codec = self.codec or codecs.load(self.recipe.codec.name, device_of())
        if codec.weights_hash != self.weights_hash:
            raise IntegrityError(
                f"codec.name={codec.name}: {socket.gethostname()} has other weights than the machine that "
                "began the job; give all machines the same"
            )
        encoder = self.encoder or video_encoder(self.recipe)
        return ShardEncoding(self.recipe, self.labels, codec, encoder, self.samples, self.link, self.absent)


def share(
    order: Order,
    listed: Callable[[int], list[Listed]],
    seen: Sequence[Path],
    advance: Callable[[int], None],
) -> None:
    """Let Ray's workers encode the shards, each with as many threads as this process would use.

    Args:
        order: what to do.
        listed: gives the rows of a shard.
        seen: files and folders of the corpus. A machine without them would list all clips as missing.
        advance: called with the number of clips finished.

    Raises:
        AjbenchError: as `ray_tasks.run`.
    """
    import torch

    job, threads = order.job, torch.get_num_threads()
    if device_of().type == "cuda":  # the codes do not depend on them
        threads = max(1, threads // torch.cuda.device_count())
    missing = job.missing
    advance(job.n - sum(len(job.items(shard)) for shard in missing))
    ray_tasks.run(
        _make,
        order,
        ((shard, listed(shard)) for shard in missing),
        lambda part, _: advance(len(part[1])),
        title=lambda part: f"{job.folder}: shard {part[0]}",
        workers=None,
        threads=threads,
        shared=[job.folder, *seen],
        fewer="a higher OMP_NUM_THREADS",
    )


def _make(order: Order, part: tuple[int, list[Listed]], _: int) -> None:
    """Encode one shard (runs in a worker of Ray)."""
    shard, listed = part
    encoding = _loaded.get(order.job.folder) or order.load()
    _loaded[order.job.folder] = encoding
    with ThreadPoolExecutor(readers()) as pool:
        order.job.run(lambda _: encoding.make(listed, pool, lambda n: None), lambda n: None, [shard])
