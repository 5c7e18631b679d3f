"""Training of the codec `tiny` on folders of sounds, by the energy score of multi-scale spectra.

The decoder adds noise (`codec/tiny_network.py`), so one input has many outputs, and a regression loss would
teach it to silence the noise. The energy score (Gritsenko et al. 2020, "A spectral energy distance for
parallel speech synthesis") compares two outputs y, y' drawn with different noise to the target x,
    L = ½ d(x, y) + ½ d(x, y') − ½ d(y, y'),
and is minimal if outputs are distributed like targets: textures stay textures, without an adversary.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from ajbench.codec.tiny_network import HOP, TinyCodec
from ajbench.core import console
from ajbench.core.device import Precision, device_of
from ajbench.core.errors import MissingError
from ajbench.core.files import atomic_write, replacing, seed_for, walk
from ajbench.data import audio
from ajbench.data.corpora import mini
from ajbench.training import loop

SEGMENT = 64 * HOP
LONGEST_S = 60.0
MEL_SCALES = ((256, 40), (512, 64), (1024, 96), (2048, 128))  # window in samples, mel bands
LINEAR_SCALES = (512, 2048)
FLOOR = 1e-3
COMMITMENT = 0.25
START_BATCHES, REVIVE_EVERY, REVIVE_UNTIL = 16, 10, 0.6


@dataclass(frozen=True)
class Sounds:
    """All training sounds in one memory-mapped int16 file at 16 kHz; a group is one source of sounds."""

    samples: NDArray[np.int16]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    groups: NDArray[np.int64]

    def draw(self, rng: np.random.Generator, count: int, share: NDArray[np.float64]) -> NDArray[np.float32]:
        """Cut `count` segments [count, SEGMENT] at random positions and levels; `share` weights sounds."""
        picks = np.searchsorted(np.cumsum(share), rng.random(count) * share.sum(), side="right")
        out = np.zeros((count, SEGMENT), np.float32)
        for row, pick in enumerate(picks):
            length = int(self.lengths[pick])
            # up to half a segment of silence before or after, so that onsets and ends are learned
            offset = int(rng.integers(-SEGMENT // 4, max(1, length - 3 * SEGMENT // 4)))
            first, last = max(0, offset), min(length, offset + SEGMENT)
            piece = self.samples[self.starts[pick] + first : self.starts[pick] + last]
            out[row, first - offset : first - offset + len(piece)] = piece
        peak = np.abs(out).max(axis=1, keepdims=True)
        level = 10 ** (rng.uniform(-24.0, 0.0, (count, 1)) / 20)
        return (out / np.maximum(peak, 300.0) * level).astype(np.float32)


def gather(folders: Sequence[Path], out: Path, *, mini_clips: int, mini_seed: int) -> Sounds:
    """Decode every sound under `folders` (a group per sub-folder) and `mini_clips` rendered ones into `out`.

    Of sounds over a minute the middle minute is used; files that cannot be read are counted and left out.

    Raises:
        MissingError: nothing to train on.
    """
    index, pool = out / "sounds.json", out / "sounds.i16"
    if not index.exists():
        out.mkdir(parents=True, exist_ok=True)
        entries: list[tuple[str, str, int, int]] = []
        refused, total = 0, 0
        partial = pool.with_suffix(".tmp")
        with partial.open("wb") as file:
            for group, name, wav in _decode(list(_list(folders)), mini_clips, mini_seed):
                if wav is None:
                    refused += 1
                    continue
                file.write((np.clip(wav, -1, 1) * 32767).astype(np.int16).tobytes())
                entries.append((group, name, total, len(wav)))
                total += len(wav)
        if not entries:
            places = ", ".join(map(str, folders)) or "the mini corpus"
            raise MissingError(f"no sounds to train on in {places}")
        partial.replace(pool)
        atomic_write(index, json.dumps({"refused": refused, "entries": entries}).encode())
    table = json.loads(index.read_text())
    groups, _, starts, lengths = zip(*table["entries"], strict=True)
    numbers = np.unique(groups, return_inverse=True)[1]
    return Sounds(np.memmap(pool, np.int16, "r"), np.array(starts), np.array(lengths), numbers)


def sampling_share(sounds: Sounds) -> NDArray[np.float64]:
    """Weight sounds by √length within their group and groups by √(total length), so that none dominates."""
    lengths = np.minimum(sounds.lengths, 20 * audio.SAMPLE_RATE).astype(np.float64)
    totals = np.bincount(sounds.groups, lengths)
    inside = np.sqrt(lengths)
    return inside / np.bincount(sounds.groups, inside)[sounds.groups] * np.sqrt(totals)[sounds.groups]


class Spectra(nn.Module):
    """Waves [B, n] → the log spectra that are compared, one [B, bands, frames] per scale."""

    def __init__(self) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        for window, mels in MEL_SCALES:
            bank = melscale_fbanks(
                window // 2 + 1, 0.0, audio.SAMPLE_RATE / 2, mels, audio.SAMPLE_RATE, mel_scale="slaney"
            )
            self.register_buffer(f"bank{window}", bank.T.contiguous())
            self.register_buffer(f"window{window}", torch.hann_window(window))

    def forward(self, wav: Tensor) -> list[Tensor]:
        """Return the log spectra of waves [B, n]."""
        spectra = []
        for window, _ in MEL_SCALES:
            taper = self.get_buffer(f"window{window}")
            spectrum = torch.stft(wav, window, window // 2, window=taper, center=False, return_complex=True)
            magnitude = (torch.view_as_real(spectrum).square().sum(-1) + 1e-8).sqrt() * (2.0 / window**0.5)
            spectra.append(torch.log(torch.matmul(self.get_buffer(f"bank{window}"), magnitude) + FLOOR))
            if window in LINEAR_SCALES:
                spectra.append(torch.log(magnitude + FLOOR))
        return spectra


def distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Return the mean absolute difference of two lists of log spectra, summed over scales."""
    return torch.stack([(x - y).abs().mean() for x, y in zip(a, b, strict=True)]).sum()


def energy_score(codec: TinyCodec, spectra: Spectra, wav: Tensor, *, quantize: bool) -> tuple[Tensor, Tensor]:
    """Return energy score and commitment penalty of a batch of waves [B, n]."""
    latents = codec.embed(wav)
    penalty = latents.new_zeros(())
    if quantize:
        with torch.autocast(wav.device.type, enabled=False):
            result = codec.quantizer(latents, audio.SAMPLE_RATE // HOP)
        latents, penalty = result.quantized, result.penalty
    tones, gains = codec.spectrum(latents)
    with torch.autocast(wav.device.type, enabled=False):
        noises = (torch.randn(*gains.shape, 2, device=wav.device) for _ in range(2))
        outputs = [codec.synthesize(tones, gains, torch.view_as_complex(noise)) for noise in noises]
        target, first, second = (spectra(signal) for signal in (wav, *outputs))
        score = 0.5 * (distance(target, first) + distance(target, second) - distance(first, second))
    return score, penalty


@torch.no_grad()
def start_codebooks(codec: TinyCodec, latents: Tensor, frames_per_step: int, iterations: int = 8) -> None:
    """Initialise every codebook with k-means centres of its residuals; latents [N, 128], N over 1024."""
    residual = latents
    for layer in codec.quantizer.vq.layers:
        book = layer._codebook
        centres = residual[torch.randperm(len(residual))[: len(book.embed)]]
        for _ in range(iterations):
            nearest = _nearest(residual, centres)
            counts = torch.bincount(nearest, minlength=len(centres)).to(residual.dtype)
            sums = torch.zeros_like(centres).index_add_(0, nearest, residual)
            spare = residual[torch.randint(len(residual), (len(centres),))]
            centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), spare)
        every = torch.ones(len(centres), dtype=torch.bool, device=centres.device)
        _set_codes(book, every, centres, counts * frames_per_step / len(residual))
        residual = residual - centres[_nearest(residual, centres)]


@torch.no_grad()
def revive_codes(codec: TinyCodec, latents: Tensor, below: float = 0.05) -> int:
    """Move codes used less than `below` times per step to residuals of latents [N, 128]; return how many."""
    residual, moved = latents, 0
    for layer in codec.quantizer.vq.layers:
        book = layer._codebook
        unused = book.cluster_size < below
        if count := int(unused.sum()):
            picks = residual[torch.randint(len(residual), (count,))]
            _set_codes(book, unused, picks, picks.new_full((count,), 0.5))
            moved += count
        residual = residual - book.embed[_nearest(residual, book.embed)]
    return moved


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    return (centres.square().sum(1) - 2 * points @ centres.T).argmin(dim=1)


def _set_codes(book: Any, which: Tensor, codes: Tensor, used: Tensor) -> None:
    book.embed[which], book.embed_avg[which], book.cluster_size[which] = codes, codes * used[:, None], used


def train_codec(
    folders: Sequence[Path],
    out: Path,
    *,
    steps: int,
    batch_size: int = 16,
    lr: float = 1.5e-3,
    quantize_from: int = 250,
    mini_clips: int = 600,
    seed: int = 0,
    precision: Precision = "auto",
    tracker: str = "csv",
) -> TinyCodec:
    """Train the codec `tiny` on the sounds under `folders` and the mini corpus.

    Writes `out`/tiny.safetensors and the loss curve `out`/metrics.csv; resumes if it was interrupted.
    """
    sounds = gather(folders, out, mini_clips=mini_clips, mini_seed=seed)
    share = sampling_share(sounds)
    torch.manual_seed(seed_for(seed, "codec"))
    device = device_of()
    codec, spectra = TinyCodec(), Spectra().to(device)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=lr, betas=(0.8, 0.99), weight_decay=1e-3)

    def batches(step: int) -> Tensor:
        rng = np.random.default_rng(seed_for(seed, "codec", step))
        return torch.from_numpy(sounds.draw(rng, batch_size, share))

    def step(module: nn.Module, wav: Tensor, index: int) -> Tensor:
        if index == quantize_from:
            many = [_frames(codec, batches(quantize_from + k).to(device)) for k in range(START_BATCHES)]
            start_codebooks(codec, torch.cat(many), many[0].shape[0])
        # codes that move late would not fit the moving average of the weights
        elif quantize_from < index < REVIVE_UNTIL * steps and index % REVIVE_EVERY == 0:
            revive_codes(codec, _frames(codec, wav))
        score, penalty = energy_score(codec, spectra, wav, quantize=index >= quantize_from)
        return score + COMMITMENT * penalty

    loop.fit(
        codec,
        step,
        batches,
        steps=steps,
        optimizer=optimizer,
        lr_at=loop.cosine(lr, 100, steps, floor=0.02),
        folder=out,
        checkpoint_every=250,
        seed=seed,
        ema_decay=0.999,
        precision=precision,
        tracker=tracker,
        what="train-codec",
    )
    save(codec, out / "tiny.safetensors")
    return codec


@torch.no_grad()
def _frames(codec: TinyCodec, wav: Tensor) -> Tensor:
    return codec.embed(wav).transpose(1, 2).flatten(0, 1)


def save(codec: TinyCodec, path: Path) -> None:
    """Write the codec's weights as float16 safetensors, with its configuration in the header."""
    keep = {
        name: tensor.half().contiguous()
        for name, tensor in codec.state_dict().items()
        if tensor.is_floating_point() and not name.endswith(("embed_avg", "cluster_size", "inited"))
    }
    with replacing(path) as part:
        save_file(keep, part, {"config": json.dumps(codec.config)})


def _list(folders: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    for folder in folders:
        if not folder.is_dir():
            raise MissingError(f"{folder}: no such folder of sounds")
        for path in walk(folder):
            if path.suffix.lower() in audio.SUFFIXES and path.is_file():
                yield path.relative_to(folder).parts[0], path


def _decode(
    files: list[tuple[str, Path]], mini_clips: int, mini_seed: int
) -> Iterator[tuple[str, str, NDArray[np.float32] | None]]:
    def read(item: tuple[str, Path]) -> tuple[str, str, NDArray[np.float32] | None]:
        group, path = item
        try:
            rate, _, frames = audio.probe(path)
            start_s = max(0.0, frames / rate / 2 - LONGEST_S / 2)
            return group, path.name, audio.read(path, start_s=start_s, duration_s=LONGEST_S)
        except audio.AudioError:
            return group, path.name, None

    def render(index: int) -> tuple[str, str, NDArray[np.float32] | None]:
        return "mini", f"mini:{mini_seed}:{index}", mini.render(mini_seed, index)[0]

    with (
        ThreadPoolExecutor(2) as pool,
        console.progress(len(files) + mini_clips, "decode", "sounds") as advance,
    ):
        tasks: tuple[tuple[Callable, Iterable], ...] = ((read, files), (render, range(mini_clips)))
        for function, items in tasks:
            for result in pool.map(function, items):
                yield result
                advance(1)
