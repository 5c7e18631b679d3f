"""EnCodec's 24 kHz model at 6 kbps (8 codebooks, hop 320), through the `encodec` package.

Two modes, never mixed in one store. `encodec_24khz@16k` is the paper's: 16 kHz audio enters the 24 kHz
network as it is, so 161,280 samples (10.08 s) give 504 frames. `encodec_24khz@24k` resamples: 756 frames.

Two layouts hold the same weights: the checkpoint of the package, and the hub's folder
`facebook/encodec_24khz` with transformers' names.
"""

import hashlib
import re
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import soxr
import torch
from encodec import EncodecModel
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils import remove_weight_norm

from ajbench.codec import ResidualCodec, pieces
from ajbench.core import weights
from ajbench.core.device import full_fp32
from ajbench.core.documents import read_json
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.files import sha256
from ajbench.data.audio import HOP, SAMPLE_RATE

BANDWIDTH_KBPS = 6.0
CODEBOOKS = 8
NAME = "encodec_24khz"  # in weights.csv
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Settings that do not show in the weights' shapes; also transformers' defaults, which a config.json may omit.
_CONFIG = {
    "model_type": "encodec",
    "sampling_rate": 24_000,
    "audio_channels": 1,
    "normalize": False,
    "use_causal_conv": True,
    "norm_type": "weight_norm",
    "pad_mode": "reflect",
    "trim_right_ratio": 1.0,
    "upsampling_ratios": [8, 5, 4, 2],
    "dilation_growth_rate": 2,
}
# transformers' names → the package's, applied in this order. transformers has two names for weight norm.
_RENAMED = {
    r"^quantizer\.layers\.(\d+)\.codebook\.": r"quantizer.vq.layers.\1._codebook.",
    r"^(encoder|decoder)\.layers\.": r"\1.model.",
    r"\.parametrizations\.weight\.original0$": ".weight_g",
    r"\.parametrizations\.weight\.original1$": ".weight_v",
    r"^(decoder\.model\.(?:3|6|9|12))\.conv\.": r"\1.convtr.convtr.",  # upsampling
    r"\.conv\.(weight_g|weight_v|bias)$": r".conv.conv.\1",
}

Mode = Literal["16k", "24k"]


class Encodec24(ResidualCodec):
    """A `Codec` around one `EncodecModel`: `encodec_24khz@16k` or `encodec_24khz@24k`.

    Attributes:
        weights_hash: hash of the weights, the same for both layouts.
        network_rate: sample rate of the network's input, in Hz; `hop` is in its samples.
    """

    bandwidth = BANDWIDTH_KBPS

    def __init__(self, model: EncodecModel, mode: Mode, weights_hash: str) -> None:
        super().__init__(model, f"{NAME}@{mode}", weights_hash)
        self.network_rate = {"16k": 16_000, "24k": 24_000}[mode]
        self.frame_rate = model.frame_rate

    @full_fp32()
    @torch.no_grad()
    def encode(self, wav: torch.Tensor | NDArray[np.float32]) -> NDArray[np.uint16]:
        """Waves [B, n] at 16 kHz → codes uint16 [B, 8, T] below 1024; T = n/320, or 1.5·n/320 in mode 24k.

        Raises:
            UsageError: not [B, n], or n is not a whole number of frames.
        """
        if wav.ndim != 2:
            raise UsageError(f"{self.name}: waves of shape {tuple(wav.shape)}, expected [B, n]")
        unit = HOP if self.network_rate == SAMPLE_RATE else 2 * HOP
        if wav.shape[1] == 0 or wav.shape[1] % unit:
            raise UsageError(
                f"{self.name}: waves of {wav.shape[1]} samples, expected a multiple of {unit} (whole frames)"
            )
        waves = torch.as_tensor(self._resample(wav, SAMPLE_RATE, self.network_rate))
        waves = waves.to(self.device, torch.float32)
        codes = [self.network.encode(piece[:, None])[0][0] for piece in pieces(waves)]
        return torch.cat(codes).cpu().numpy().astype(np.uint16)

    @full_fp32()
    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, 128, T] → waves float32 [B, n] at 16 kHz, n as in `encode`."""
        latents = latents.to(self.device, torch.float32)
        wav = torch.cat([self.network.decoder(piece)[:, 0] for piece in pieces(latents)])
        return torch.as_tensor(self._resample(wav, self.network_rate, SAMPLE_RATE)).to(self.device)

    def _resample(
        self, wav: torch.Tensor | NDArray[np.float32], source: int, target: int
    ) -> torch.Tensor | NDArray[np.float32]:
        if source == target:
            return wav
        columns = np.ascontiguousarray(torch.as_tensor(wav).cpu().numpy().astype(np.float32, copy=False).T)
        rows = soxr.resample(columns, source, target, quality="HQ").T
        n = columns.shape[0] * target // source
        return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, max(0, n - rows.shape[1]))))[:, :n])


def load_16k() -> Encodec24:
    """Load EnCodec for 16 kHz audio without resampling (`encodec_24khz@16k`, the paper's mode).

    Raises:
        MissingError: the weights are not on this machine.
        IntegrityError: they are damaged, or of another network.
    """
    return _load("16k")


def load_24k() -> Encodec24:
    """Load EnCodec for audio resampled to 24 kHz (`encodec_24khz@24k`); raises as `load_16k`."""
    return _load("24k")


def from_model(model: EncodecModel, mode: Mode) -> Encodec24:
    """Wrap a model, which is modified: set to eval, frozen, its weight norm folded into the weights.

    Raises:
        UsageError: not mono, or not 8 or more codebooks of 1024 entries of dimension 128 at hop 320.
    """
    shape = (model.channels, model.encoder.dimension, int(model.encoder.hop_length), model.quantizer.bins)
    if shape != (1, 128, HOP, 1024) or model.quantizer.n_q < CODEBOOKS:
        raise UsageError(
            f"encodec model: channels, dimension, hop, entries {shape} with {model.quantizer.n_q} codebooks; "
            f"expected (1, 128, {HOP}, 1024) with at least {CODEBOOKS}"
        )
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    for module in model.modules():
        if hasattr(module, "weight_g"):
            remove_weight_norm(module)
    model.set_target_bandwidth(BANDWIDTH_KBPS)
    return Encodec24(model, mode, digest.hexdigest()[:16])


def _load(mode: Mode) -> Encodec24:
    with warnings.catch_warnings():  # the package uses torch's deprecated weight norm
        warnings.simplefilter("ignore", FutureWarning)
        model = EncodecModel.encodec_model_24khz(pretrained=False)
    fill(model)
    return from_model(model, mode)


def fill(model: EncodecModel, path: Path | None = None) -> None:
    """Load EnCodec's weights into a network built by the package.

    Args:
        model: the network.
        path: a checkpoint of the package, or a folder saved by transformers; None for the usual places, where
            a checkpoint has to be the published one.

    Raises:
        MissingError: the weights are not on this machine.
        IntegrityError: they are damaged, of another network, or not the published ones.
    """
    if path is None:
        path = weights.of_codec(NAME)
        assert path is not None
        weights.check(NAME, path)
    try:
        model.load_state_dict(_transformers(path) if path.is_dir() else weights.unpickled(path))
    except (OSError, SafetensorError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise IntegrityError(f"{path}: not EnCodec's weights ({reason})") from None


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of transformers' EncodecModel to the package's names."""
    for theirs, ours in _RENAMED.items():
        state = {re.sub(theirs, ours, name): tensor for name, tensor in state.items()}
    return state


def _transformers(folder: Path) -> dict[str, Tensor]:
    try:
        config = _CONFIG | read_json(folder / CONFIG)
    except (ValueError, TypeError) as error:
        raise IntegrityError(f"{folder / CONFIG}: damaged ({error}); get it again") from None
    if other := [f"{key} {config[key]}" for key, value in _CONFIG.items() if config[key] != value]:
        raise IntegrityError(f"{folder / CONFIG}: not EnCodec 24 kHz ({', '.join(other)})")
    path = folder / WEIGHTS
    if not path.is_file():
        raise IntegrityError(f"{path}: missing next to {CONFIG}; get it too")
    # The hub's cache names a large file after its SHA-256; a copied folder cannot be checked.
    blob = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", blob) and sha256(path) != blob:
        raise IntegrityError(f"{path}: its SHA-256 is not the one in its name; get it again")
    return rename(load_file(path))
