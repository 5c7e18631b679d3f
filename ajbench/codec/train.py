"""Training of the codec `tiny` on folders of sounds, by the energy score of multi-scale spectra.

The decoder adds noise (`codec/tiny_network.py`), so one input has many outputs, and a regression loss would
teach it to silence the noise. The energy score (Gritsenko et al. 2020, "A spectral energy distance for
parallel speech synthesis") compares two outputs y, y' drawn with different noise to the target x,
    L = ½ d(x, y) + ½ d(x, y') − ½ d(y, y'),
and is minimal if outputs are distributed like targets: textures stay textures, without an adversary.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import accelerate
import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch import Tensor, nn

from ajbench.codec import codebooks
from ajbench.codec.sounds import gather, sampling_share
from ajbench.codec.subspace import narrowed
from ajbench.codec.tiny import OF_TRAINING
from ajbench.codec.tiny_network import HOP, TinyCodec
from ajbench.core.device import Precision, device_of
from ajbench.core.errors import UsageError
from ajbench.core.files import replacing, seed_for
from ajbench.data import audio
from ajbench.training import loop

MEL_SCALES = ((128, 20), (256, 40), (512, 64), (1024, 96), (2048, 128))  # window in samples, mel bands
LINEAR_SCALES = (512, 2048)
FLOOR = 1e-3
COMMITMENT = 0.25
START_BATCHES, REVIVE_EVERY, REVIVE_UNTIL = 16, 10, 0.6
NARROW_BATCHES = 64  # whose latents the subspace is fitted to


class Spectra(nn.Module):
    """Waves [B, n] → the log spectra that are compared, one [B, bands, frames] per scale."""

    def __init__(self) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        for window, mels in MEL_SCALES:
            bank = melscale_fbanks(
                window // 2 + 1, 0.0, audio.SAMPLE_RATE / 2, mels, audio.SAMPLE_RATE, mel_scale="slaney"
            )
            self.register_buffer(f"bank{window}", bank, persistent=False)
            self.register_buffer(f"window{window}", torch.hann_window(window), persistent=False)

    def forward(self, wav: Tensor) -> list[Tensor]:
        """Return the log spectra of waves [B, n]."""
        spectra = []
        for window, _ in MEL_SCALES:
            # Windows overlap by half: cheaper to join than to cut.
            halves = wav[:, : wav.shape[1] // window * window].unflatten(1, (-1, window // 2))
            frames = torch.cat((halves[:, :-1], halves[:, 1:]), dim=2) * self.get_buffer(f"window{window}")
            magnitude = torch.fft.rfft(frames).abs() * (2.0 / window**0.5)
            spectra.append(torch.log(torch.matmul(magnitude, self.get_buffer(f"bank{window}")) + FLOOR))
            if window in LINEAR_SCALES:
                spectra.append(torch.log(magnitude + FLOOR))
        return spectra


def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Return the mean absolute difference of two lists of log spectra, summed over scales."""
    return torch.stack([(x - y).abs().mean() for x, y in zip(a, b, strict=True)]).sum()


def energy_score(codec: TinyCodec, spectra: Spectra, wav: Tensor, *, quantize: bool) -> tuple[Tensor, Tensor]:
    """Return energy score and commitment penalty of a batch of waves [B, n], this process's part of all."""
    latents = codec.embed(wav)
    penalty = latents.new_zeros(())
    if quantize:
        with torch.autocast(wav.device.type, enabled=False), codebooks.moved_together(codec.quantizer):
            result = codec.quantizer(latents, audio.SAMPLE_RATE // HOP)
        latents, penalty = result.quantized, result.penalty
    tones, gains = codec.spectrum(latents)
    with torch.autocast(wav.device.type, enabled=False):
        tonal, outputs = codec.tonal(tones), []
        for _ in range(2):
            outputs.append(tonal + codec.noisy(gains, [_noise(one) for one in gains]))
        together = spectra(torch.cat((wav, *outputs)))
        target, first, second = zip(*(one.chunk(3) for one in together), strict=True)
        score = 0.5 * (distance(target, first) + distance(target, second) - distance(first, second))
    return score, penalty


def _noise(gains: Tensor) -> Tensor:
    """Return complex noise of the shape of gains; all processes draw that of the whole batch."""
    state = PartialState()
    shape = (len(gains) * state.num_processes, *gains.shape[1:], 2)
    whole = torch.view_as_complex(torch.randn(shape, device=gains.device))
    return whole.chunk(state.num_processes)[state.process_index]


class Scored(nn.Module):
    """A codec and the loss that it is trained with."""

    def __init__(self, codec: TinyCodec) -> None:
        super().__init__()
        self.codec, self.spectra = codec, Spectra()

    def forward(self, wav: Tensor, quantize: bool) -> Tensor:
        """Return energy score plus weighted commitment penalty of waves [B, n]."""
        score, penalty = energy_score(self.codec, self.spectra, wav, quantize=quantize)
        return score + COMMITMENT * penalty


def train_codec(
    folders: Sequence[Path],
    out: Path,
    *,
    steps: int,
    batch_size: int = 16,
    lr: float = 1.5e-3,
    quantize_from: int | None = None,
    mini_clips: int = 600,
    seed: int = 0,
    precision: Precision = "auto",
    tracker: str = "csv",
    start: TinyCodec | None = None,
) -> TinyCodec:
    """Train the codec `tiny` on the sounds under `folders` and the mini corpus.

    Writes `out`/tiny.safetensors and the loss curve `out`/metrics.csv; resumes if it was interrupted. With
    several processes (torchrun), each computes its part of every batch.

    Args:
        folders: of sounds.
        out: folder of the training.
        steps: of the optimiser.
        batch_size: segments per step.
        lr: highest learning rate.
        quantize_from: step at which codebooks are started; None: 250, or 0 with `start`.
        mini_clips: clips of the mini corpus that are added.
        seed: of weights, segments and noise.
        precision: of the networks; spectra are float32.
        tracker: of the loss.
        start: a codec to continue from, with new codebooks; None: a vocoder of mel bands. One with latents in
            all dimensions is brought into a subspace first.

    Raises:
        UsageError: the number of processes does not divide the batch.
        MissingError: there is nothing to train on.
        NumericError: the loss is not finite.
    """
    state = PartialState()
    processes = state.num_processes
    if batch_size % processes:
        raise UsageError(f"--batch-size {batch_size}: not divisible by {processes} processes")
    if quantize_from is None:
        quantize_from = 250 if start is None else 0
    with state.main_process_first():
        sounds = gather(folders, out, mini_clips=mini_clips, mini_seed=seed)
    share = sampling_share(sounds)
    torch.manual_seed(seed_for(seed, "codec"))
    device = device_of()

    def whole(step: int) -> Tensor:
        rng = np.random.default_rng(seed_for(seed, "codec", step))
        return torch.from_numpy(sounds.draw(rng, batch_size, share))

    def batches(index: int) -> Tensor:
        step, part = divmod(index, processes)
        return whole(step).chunk(processes)[part]

    codec = (start or TinyCodec(rank=None)).to(device)
    if codec.config["rank"] is None:
        some = [_frames(codec, whole(-1 - k).to(device)) for k in range(NARROW_BATCHES)]
        codec = narrowed(codec, torch.cat(some))
    codec.requires_grad_(True)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=lr, betas=(0.8, 0.99), weight_decay=1e-3)

    def step(module: nn.Module, wav: Tensor, index: int) -> Tensor:
        torch.manual_seed(seed_for(seed, "step", index, 0))  # the same draws in all processes
        if index == quantize_from:
            many = [_frames(codec, whole(quantize_from + k).to(device)) for k in range(START_BATCHES)]
            codebooks.start(codec.quantizer, torch.cat(many), many[0].shape[0])
        # codes that move late would not fit the moving average of the weights
        elif quantize_from < index < REVIVE_UNTIL * steps and index % REVIVE_EVERY == 0:
            codebooks.revive(codec.quantizer, accelerate.utils.gather(_frames(codec, wav)))
        loss: Tensor = module(wav, index >= quantize_from)
        return loss

    loop.fit(
        Scored(codec).to(device),
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
    if state.is_main_process:
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
        if tensor.is_floating_point() and not name.endswith(OF_TRAINING)
    }
    with replacing(path) as part:
        save_file(keep, part, {"config": json.dumps(codec.config)})
