"""Yardsticks for generated clips: material of known quality, measured as if it had been generated."""

from collections.abc import Iterator

import numpy as np

from ajbench.codec import Codec
from ajbench.core.device import to_numpy
from ajbench.core.rows import Context, Row
from ajbench.data.store import ClipStore
from ajbench.evaluation.generation import MIN_HALF, TABLE, Embedded, Sheet, class_halves, draw, split_of
from ajbench.features.extractor import Extractor, extract, of_store

BATCH = 16


def yardstick_rows(
    real: Embedded,
    extractor: Extractor,
    codec: Codec,
    context: Context,
    *,
    n: int,
    resamples: int = 200,
    seed: int = 0,
) -> tuple[list[Row], list[str]]:
    """Measure material of known quality as if it were generated: rows of table `generation`.

    `fd` to the real clips of `context.split`, of `real, train split`, `real through the codec`, `shuffled
    codes` (real codes, each codebook permuted over all clips and frames), `white noise` (each clip at the
    level of a real one) and, within that split, `real, two halves`. `fd_class` of `real, same class` and
    `real, another class`. `label_agreement` of the real clips of `context.split`, what the extractor itself
    reaches.

    Args:
        real: the real store, embedded by `extractor`.
        extractor: named in the rows' column `features`.
        codec: that of the store.
        context: `split` is that of the real clips which FD compares with.
        n: clips in each yardstick: as many as the generated set has, at most the train split.
        resamples: bootstrap draws.
        seed: of the draws, the noise and the choice of clips.

    Returns:
        Rows and notes, as `generation_rows`.
    """
    sheet = Sheet(context, extractor.name, resamples, seed)
    rng = np.random.default_rng(seed)
    held_out = split_of(real, context.split)
    chosen = draw(split_of(real, "train"), n, seed)
    codes = real.store.codes(chosen)
    sounds = {
        "real through the codec": _decoded(real.store, codec, codes),
        "shuffled codes": _decoded(real.store, codec, _shuffled(codes, rng)),
        "white noise": _noise(real.store, chosen, rng),
    }
    features = {"real, train split": real.features[chosen]}
    features |= {row: extract(extractor, sound)[0] for row, sound in sounds.items()}
    for row, x in features.items():
        sheet.fd(TABLE, row, x, real.features[held_out], _alone(len(x)), context.split)
    first, second = np.array_split(rng.permutation(held_out), 2)
    if len(second) > 1:
        x, y = real.features[first], real.features[second]
        sheet.fd(TABLE, "real, two halves", x, y, _alone(len(x)), context.split)

    halves, targets = class_halves(real), real.store.targets().astype(bool)
    same, another = [], []
    for c, following in zip(halves, [*list(halves)[1:], *list(halves)[:1]], strict=True):
        reference, rest = (real.features[half] for half in halves[c])
        same.append((rest, reference))
        strangers = np.concatenate(halves[following])
        strangers = strangers[~targets[strangers, c]][: len(rest)]
        if len(strangers) >= MIN_HALF:
            another.append((real.features[strangers], reference))
    sheet.class_fd("real, same class", same, len(real.store.meta.labels))
    sheet.class_fd("real, another class", another, len(real.store.meta.labels))
    row = f"real, {context.split} split"
    sheet.agreement(row, real, extractor, list(held_out[:, None]), context.split)
    return sheet.rows, sheet.notes


def _decoded(store: ClipStore, codec: Codec, codes: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(codes), BATCH):
        yield to_numpy(codec.decode(codes[start : start + BATCH]))[:, : store.meta.clip_samples]


def _noise(store: ClipStore, indices: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for wav in of_store(store, indices, BATCH):
        level = np.sqrt(np.mean(wav**2, axis=1, keepdims=True))
        yield (rng.standard_normal(wav.shape) * level).astype(np.float32)


def _shuffled(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n, books, frames = codes.shape
    flat = rng.permuted(codes.transpose(1, 0, 2).reshape(books, n * frames), axis=1)
    return np.ascontiguousarray(flat.reshape(books, n, frames).transpose(1, 0, 2))


def _alone(n: int) -> list[np.ndarray]:
    return list(np.arange(n)[:, None])
