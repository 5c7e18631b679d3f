"""EnCodec's 24 kHz model at 6 kbps (8 codebooks, hop 320), through the `encodec` package.

Two modes, never mixed in one store. `encodec_24khz@16k` is the paper's: 16 kHz audio enters the 24 kHz
network as it is, so 161,280 samples (10.08 s) give 504 frames. `encodec_24khz@24k` resamples: 756 frames.
"""

import hashlib
import warnings
from typing import Literal

import numpy as np
import soxr
import torch
from encodec import EncodecModel
from numpy.typing import NDArray
from torch.nn.utils import remove_weight_norm

from ajbench.codec import encodec_weights
from ajbench.core.errors import UsageError
from ajbench.data.audio import HOP, SAMPLE_RATE

BANDWIDTH_KBPS = 6.0
CODEBOOKS = 8

Mode = Literal["16k", "24k"]


class Encodec24:
    """A codec (see `ajbench.codec`) around one `EncodecModel`; waves in and out are mono at 16 kHz.

    Attributes:
        name: `encodec_24khz@16k` or `encodec_24khz@24k`.
        weights_hash: hash of the network's weights, whatever file they came from.
        network_rate: sample rate, in Hz, that the network is given; `hop` counts its samples.
    """

    sample_rate = SAMPLE_RATE
    hop = HOP
    n_codebooks = CODEBOOKS
    dim = 128

    def __init__(self, model: EncodecModel, mode: Mode, weights_hash: str) -> None:
        self.name = f"encodec_24khz@{mode}"
        self.weights_hash = weights_hash
        self.network_rate = {"16k": 16_000, "24k": 24_000}[mode]
        self._model = model

    @property
    def device(self) -> torch.device:
        """Where the network is, and where `latents` and the waves come out."""
        return next(self._model.parameters()).device

    def to(self, device: torch.device) -> "Encodec24":
        """Move the network; return the codec itself."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def encode(self, wav: torch.Tensor | NDArray[np.float32]) -> NDArray[np.uint16]:
        """Waves [B, n] at 16 kHz → codes uint16 [B, 8, T] below 1024; T = n/320, or 1.5·n/320 in mode 24k.

        Raises:
            UsageError: the wave is no [B, n], or n gives no whole number of frames.
        """
        if wav.ndim != 2:
            raise UsageError(f"{self.name}: a wave of shape {tuple(wav.shape)}, expected [B, n]")
        unit = HOP if self.network_rate == SAMPLE_RATE else 2 * HOP
        if wav.shape[1] == 0 or wav.shape[1] % unit:
            raise UsageError(
                f"{self.name}: {wav.shape[1]} samples are no whole number of frames; use a multiple of {unit}"
            )
        heard = torch.as_tensor(self._resample(wav, SAMPLE_RATE, self.network_rate))
        heard = heard.to(self.device, torch.float32)
        codes = [self._model.encode(piece[:, None])[0][0] for piece in self._pieces(heard)]
        return torch.cat(codes).cpu().numpy().astype(np.uint16)

    @torch.no_grad()
    def latents(self, codes: torch.Tensor | NDArray[np.integer]) -> torch.Tensor:
        """Codes [B, 8, T] → post-quantisation latents float32 [B, 128, T]: the sum of the eight codewords."""
        return self._model.quantizer.decode(self._long(codes).transpose(0, 1))

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, 128, T] → waves float32 [B, n] at 16 kHz, n as it was at `encode`."""
        pieces = self._pieces(latents.to(self.device, torch.float32))
        wav = torch.cat([self._model.decoder(piece)[:, 0] for piece in pieces])
        return torch.as_tensor(self._resample(wav, self.network_rate, SAMPLE_RATE)).to(self.device)

    def decode(self, codes: torch.Tensor | NDArray[np.integer]) -> torch.Tensor:
        """Codes [B, 8, T] → waves float32 [B, n] at 16 kHz."""
        return self.decode_latents(self.latents(codes))

    @torch.no_grad()
    def quantize(self, latents: torch.Tensor) -> NDArray[np.uint16]:
        """Latents [B, 128, T] → codes uint16 [B, 8, T], greedily codebook by codebook.

        Of latents that came from codes it finds those codes again wherever the nearest codeword of every
        stage is the one that was added; residual quantisation does not guarantee that.
        """
        found = self._model.quantizer.encode(
            latents.to(self.device, torch.float32), self._model.frame_rate, BANDWIDTH_KBPS
        )
        return found.transpose(0, 1).cpu().numpy().astype(np.uint16)

    def _pieces(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # One clip at a time on a CPU: faster than a batch (measured, 1.4 times at 4), and a clip's codes then
        # cannot depend on the batch size either.
        return batch.split(1) if self.device.type == "cpu" else (batch,)

    def _resample(
        self, wav: torch.Tensor | NDArray[np.float32], source: int, target: int
    ) -> torch.Tensor | NDArray[np.float32]:
        if source == target:
            return wav
        columns = np.ascontiguousarray(torch.as_tensor(wav).cpu().numpy().astype(np.float32, copy=False).T)
        rows = soxr.resample(columns, source, target, quality="HQ").T
        n = columns.shape[0] * target // source
        return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, max(0, n - rows.shape[1]))))[:, :n])

    def _long(self, codes: torch.Tensor | NDArray[np.integer]) -> torch.Tensor:
        # NumPy does the widening: torch has few operations on uint16.
        plain = codes if isinstance(codes, torch.Tensor) else torch.from_numpy(np.asarray(codes, np.int64))
        return plain.to(self.device, torch.int64)


def load_16k() -> Encodec24:
    """Load EnCodec for 16 kHz audio fed as it is (`encodec_24khz@16k`, the paper's mode).

    Raises:
        MissingError: the weights are not on this machine; the message says what to do.
        IntegrityError: they are damaged, or another network's.
    """
    return _load("16k")


def load_24k() -> Encodec24:
    """Load EnCodec for audio resampled to 24 kHz (`encodec_24khz@24k`); raises as `load_16k` does."""
    return _load("24k")


def from_model(model: EncodecModel, mode: Mode) -> Encodec24:
    """Wrap a built model, which is taken over: set to eval, frozen, its weight norm folded into the weights.

    Raises:
        UsageError: the model is not mono with 8 or more codebooks of 1024 128-dimensional entries at hop 320.
    """
    shape = (model.channels, model.encoder.dimension, int(model.encoder.hop_length), model.quantizer.bins)
    if shape != (1, 128, HOP, 1024) or model.quantizer.n_q < CODEBOOKS:
        raise UsageError(
            f"encodec model: channels, dimension, hop, entries {shape} with {model.quantizer.n_q} codebooks; "
            f"expected (1, 128, {HOP}, 1024) with {CODEBOOKS} or more"
        )
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    for module in model.modules():
        if hasattr(module, "weight_g"):
            remove_weight_norm(module)
    model.eval().requires_grad_(False)
    model.set_target_bandwidth(BANDWIDTH_KBPS)
    return Encodec24(model, mode, digest.hexdigest()[:16])


def _load(mode: Mode) -> Encodec24:
    with warnings.catch_warnings():  # the package builds on torch's older weight norm, which warns
        warnings.simplefilter("ignore", FutureWarning)
        model = EncodecModel.encodec_model_24khz(pretrained=False)
    encodec_weights.fill(model)
    return from_model(model, mode)
