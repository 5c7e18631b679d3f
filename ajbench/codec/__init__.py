"""Neural codecs: wav [B, n] ⇒ codes [B, 8, T] ⇒ latents [B, 128, T] and back, in EnCodec's geometry."""

from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ajbench.core.device import full_fp32
from ajbench.core.errors import IntegrityError
from ajbench.data.audio import HOP, SAMPLE_RATE
from ajbench.data.shards import ENTRIES


class Codec(Protocol):
    """Interface of the codecs; waves are mono at 16 kHz, latents are post-quantisation."""

    name: str
    weights_hash: str
    sample_rate: int
    hop: int
    n_codebooks: int
    dim: int

    def to(self, device: torch.device) -> Self:
        """Move the codec, and with it latents and decoded waves, to a device; return it."""
        ...

    def encode(self, wav: torch.Tensor | NDArray[np.float32]) -> NDArray[np.uint16]:
        """Waves [B, n] → codes uint16 [B, 8, T]; on a CPU, `prepare` calls it from several threads."""
        ...

    def latents(self, codes: torch.Tensor | NDArray[np.integer]) -> torch.Tensor:
        """Codes [B, 8, T] → latents float32 [B, 128, T]."""
        ...

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, 128, T] → waves float32 [B, n]."""
        ...

    def decode(self, codes: torch.Tensor | NDArray[np.integer]) -> torch.Tensor:
        """Codes [B, 8, T] → waves float32 [B, n]."""
        ...

    def quantize(self, latents: torch.Tensor) -> NDArray[np.uint16]:
        """Latents [B, 128, T] → codes uint16 [B, 8, T]."""
        ...


class ResidualCodec(Codec):
    """Base of the codecs with the residual quantiser of the `encodec` package, `network.quantizer`.

    Attributes:
        frame_rate, bandwidth: arguments of the quantiser; bandwidth None: every codebook.
    """

    sample_rate, hop, n_codebooks, dim = SAMPLE_RATE, HOP, 8, 128
    frame_rate: int = SAMPLE_RATE // HOP
    bandwidth: float | None = None

    def __init__(self, network: Any, name: str, weights_hash: str) -> None:
        self.network, self.name, self.weights_hash = network.eval().requires_grad_(False), name, weights_hash

    @property
    def device(self) -> torch.device:
        """Device of the network, the latents and the decoded waves."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device) -> Self:
        """Move the network and return the codec."""
        self.network.to(device)
        return self

    # Nothing is multiplied, so without `full_fp32`: it would hold for a training in another thread too.
    @torch.no_grad()
    def latents(self, codes: torch.Tensor | NDArray[np.integer]) -> torch.Tensor:
        """Codes [B, 8, T] → post-quantisation latents float32 [B, 128, T]: the sum of the eight codewords.

        Raises:
            IntegrityError: a code of an array, which comes from a store, has no codeword.
        """
        if not isinstance(codes, torch.Tensor) and np.max(codes, initial=0) >= ENTRIES:
            raise IntegrityError(f"codec {self.name}: code {np.max(codes)} (must be below {ENTRIES})")
        # Widened by NumPy, as torch has few operations on uint16.
        plain = codes if isinstance(codes, torch.Tensor) else torch.from_numpy(np.asarray(codes, np.int64))
        return self.network.quantizer.decode(plain.to(self.device, torch.int64).transpose(0, 1))

    def decode(self, codes: torch.Tensor | NDArray[np.integer]) -> torch.Tensor:
        """Codes [B, 8, T] → waves float32 [B, n]."""
        return self.decode_latents(self.latents(codes))

    @full_fp32()
    @torch.no_grad()
    def quantize(self, latents: torch.Tensor) -> NDArray[np.uint16]:
        """Latents [B, 128, T] → codes uint16 [B, 8, T], greedily codebook by codebook.

        Latents of codes give these codes again if in every stage the codeword that was added is the nearest
        one, which residual quantisation does not guarantee.
        """
        latents = latents.to(self.device, torch.float32)
        codes = self.network.quantizer.encode(latents, self.frame_rate, self.bandwidth)
        return codes.transpose(0, 1).cpu().numpy().astype(np.uint16)


def pieces(batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Split a batch [B, ...] into what a network should process at once.

    One clip on a CPU: 1.4 times as fast as batches of 4 (EnCodec, measured), and the codes and the wave of a
    clip do not depend on the batch.
    """
    return batch.split(1) if batch.device.type == "cpu" else (batch,)


def load(name_or_path: str, device: torch.device | None = None, weights_hash: str | None = None) -> Codec:
    """Load a codec by name (`ajbench ls models`) or a tiny codec from a safetensors file.

    A few codes differ between kinds of devices, so a store should be made on one kind.

    Args:
        name_or_path: name of the codec, or path of the file.
        device: None: the CPU.
        weights_hash: of the store or generator that the codec is for: a former version of the codec that
            comes with ajbench is loaded if it has these weights. Others are not compared here.

    Raises:
        UsageError: unknown name.
        MissingError: its weights are not on this machine; no other codec is used instead.
    """
    from ajbench.codec import tiny
    from ajbench.core.registry import resolve

    if name_or_path == "tiny" and weights_hash in tiny.FORMER:
        codec: Codec = tiny.load_former(weights_hash)
    elif name_or_path.endswith(".safetensors"):
        codec = tiny.load(name_or_path)
    else:
        codec = resolve("codec", name_or_path)()
    return codec if device is None else codec.to(device)
