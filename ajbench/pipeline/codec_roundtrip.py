"""Real clips decoded from their codes: a control for the sound of the codec."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ajbench import codec as codecs
from ajbench.core import console, memory
from ajbench.core.device import device_of
from ajbench.data import audio, shards
from ajbench.data.shard_job import ShardJob, open_job
from ajbench.data.store import COLUMNS, ClipStore, require_codec
from ajbench.pipeline.shard_encoding import BATCH, COUNTED


def decode_clips(
    real: ClipStore,
    clips: NDArray[np.int64],
    out: Path,
    *,
    fingerprint: str,
    codec: codecs.Codec | None = None,
) -> ClipStore:
    """Write a store of train clips of `real`, decoded from their codes, in the same order.

    Any number of processes on the same folder share the shards.

    It is a control for codec artefacts: synthetic clips have them and evaluation clips do not. A classifier
    trained on these real clips has learned from the artefacts alone.

    Args:
        real: the store of real clips.
        clips: indices of the train clips, ascending.
        out: folder of the new store.
        fingerprint: of everything that affects it; a folder with another fingerprint is refused.
        codec: use this instance instead of loading the one that made the codes.

    Raises:
        IntegrityError: the codec is not the one that made the codes, or the folder belongs to another job.
    """
    if open_job(out, fingerprint):
        return ClipStore.open(out)
    codec = codec or codecs.load(real.meta.codec, device_of(), real.meta.codec_hash)
    require_codec(real, codec.name, codec.weights_hash)
    columns = {name: real.column(name) for name in COLUMNS}
    job = ShardJob(out, len(clips), shards.SHARD_CLIPS)

    def make(shard: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        records: list[dict[str, Any]] = []
        mine = clips[job.items(shard)]
        for start in range(0, len(mine), BATCH):
            batch = mine[start : start + BATCH]
            codes = np.zeros((BATCH, *real.view(0).shape), np.uint16)
            codes[: len(batch)] = real.codes(batch)
            memory.need_reserve()
            waves = codec.decode(codes).cpu().numpy()
            for clip, wave, own in zip(batch, waves, codes, strict=False):
                values = {name: column[clip] for name, column in columns.items()}
                flac = audio.flac_encode(audio.fit(wave, real.meta.clip_samples))
                records.append({**values, "audio": flac, "codes": own})
            advance(len(batch))
        return records, {}

    with console.progress(job.n, "decode") as advance:
        job.run(make, advance)
    counts = {"train": dict.fromkeys(COUNTED, job.n)}
    changes = {"counts": counts, "fingerprint": fingerprint, "shards": [], "extra": {"decoded_from": "codes"}}
    job.close(lambda notes: shards.finish(out, real.meta.model_copy(update=changes)))
    return ClipStore.open(out)
