"""Train clips as the codec gives them back, in a store of their own: a control for the codec's own sound.

A classifier that gains from synthetic clips may gain from having heard the codec, which evaluation clips do
not pass through; trained on real clips of this store it has heard the codec and nothing else.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ajbench import codec as codecs
from ajbench.codec import Codec
from ajbench.core import console
from ajbench.core.device import device_of
from ajbench.data import audio, store

DECODE_BATCH = 8  # always so many, padded: a clip's wave depends on the size of its batch


def decode_train_split(
    real: store.ClipStore, out: Path, *, fingerprint: str, codec: Codec | None = None
) -> store.ClipStore:
    """Write the train split of `real`, decoded from its codes, in its order; finished shards are kept.

    Args:
        real: the store of real clips.
        out: folder of the new store.
        fingerprint: of everything that bears on it; another one is refused in the same folder.
        codec: use this one instead of the one that made the codes.

    Raises:
        IntegrityError: the codec is not the one that made the codes, or the folder is another job's.
    """
    if store.open_job(out, fingerprint):
        return store.ClipStore.open(out)
    codec = codec or codecs.load(real.meta.codec, device_of())
    store.require_codec(real, codec.name, codec.weights_hash)
    train = real.split_indices("train")
    rows = {name: real.column(name) for name in store.COLUMNS}
    with console.progress(len(train), "decode") as advance:
        for shard, start in enumerate(range(0, len(train), store.SHARD_CLIPS)):
            mine = train[start : start + store.SHARD_CLIPS]
            if not store.shard_path(out, shard).exists():
                records: list[dict[str, Any]] = []
                for i in range(0, len(mine), DECODE_BATCH):
                    clips = mine[i : i + DECODE_BATCH]
                    codes = np.zeros((DECODE_BATCH, *real.view(0).shape), np.uint16)
                    codes[: len(clips)] = real.codes(clips)
                    waves = codec.decode(codes).cpu().numpy()
                    for clip, wav, own in zip(clips, waves, codes, strict=False):
                        values = {name: column[clip] for name, column in rows.items()}
                        flac = audio.flac_encode(audio.fit(wav, real.meta.clip_samples))
                        records.append({**values, "audio": flac, "codes": own})
                store.write_shard(out, shard, records)
            advance(len(mine))
    counts = {"train": dict.fromkeys(("expected", "found", "decoded", "kept"), len(train))}
    about = {"counts": counts, "fingerprint": fingerprint, "shards": [], "extra": {"decoded_from": "codes"}}
    store.finish(out, real.meta.model_copy(update=about))
    return store.ClipStore.open(out)
