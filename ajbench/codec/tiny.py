"""The default codec: `TinyCodec` with the weights that come with ajbench."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ajbench.codec import ResidualCodec, pieces
from ajbench.codec.tiny_network import NOISE_BINS, NOISE_FRAMES, TONE_BINS, TinyCodec
from ajbench.core import tensor_shapes
from ajbench.core.device import full_fp32
from ajbench.core.documents import parse_json
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import sha256
from ajbench.data.audio import HOP

WEIGHTS = Path(__file__).with_name("tiny.safetensors")
# Weights of former versions, by their hash: stores and generators of theirs can still be used.
FORMER = {"ff1b92258faaad59": Path(__file__).with_name("tiny_ff1b92258faaad59.safetensors")}
OF_TRAINING = ("embed_avg", "cluster_size", "inited")  # ends of the names of tensors that a file may lack


class Tiny(ResidualCodec):
    """A `Codec` around a trained `TinyCodec`; its weights_hash: SHA-256 of the weights file, 16 digits."""

    @full_fp32()
    @torch.no_grad()
    def encode(self, wav: torch.Tensor | NDArray[np.float32]) -> NDArray[np.uint16]:
        """Waves [B, n] at 16 kHz, n a multiple of 320 → codes uint16 [B, 8, n / 320].

        Raises:
            UsageError: not [B, n], or n is not a whole number of frames.
        """
        if wav.ndim != 2 or wav.shape[1] == 0 or wav.shape[1] % HOP:
            raise UsageError(
                f"codec tiny: waves of shape {tuple(wav.shape)}, expected [B, n], n a multiple of {HOP}"
            )
        waves = torch.as_tensor(wav, dtype=torch.float32).to(self.device)
        return np.concatenate([self.quantize(self.network.embed(one)) for one in pieces(waves)])

    @full_fp32()
    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, 128, T] → waves float32 [B, 320 · T]."""
        latents = latents.to(self.device, torch.float32)
        return torch.cat([self.network.decode(one) for one in pieces(latents)])


def load(path: str | Path = WEIGHTS) -> Tiny:
    """Load the weights that come with ajbench, or those of another training by `ajbench train-codec`.

    Raises:
        MissingError: no such file.
        IntegrityError: the file is damaged, or of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(
            f"codec tiny: no weights at {path}; train them with `ajbench train-codec` or reinstall ajbench"
        )
    try:
        with safe_open(path, "pt") as file:
            config = parse_json((file.metadata() or {})["config"])
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        network = build(config, tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise IntegrityError(f"{path}: not a tiny codec ({' '.join(str(error).split())[:120]})") from None
    shipped = path in (WEIGHTS, *FORMER.values())
    return Tiny(network, "tiny" if shipped else str(path.absolute()), sha256(path)[:16])


def load_today() -> Tiny:
    """Today's version of `tiny` by the hash of its weights: for recipes that are to be repeated."""
    return load()


def load_former(weights_hash: str = "ff1b92258faaad59") -> Tiny:
    """A former version of `tiny`, for stores and generators that were made with it."""
    return load(FORMER[weights_hash])


def build(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> TinyCodec:
    """Return a network of `config` with `tensors`; codebook averages, for training only, may be missing.

    Raises:
        ValueError, TypeError, RuntimeError: they do not fit each other; no memory of that size was taken.
    """
    first = "rank" not in config
    options: dict[str, Any] = {"rank": None, **config}
    if max(options.get(f"{side}_blocks", 0) for side in ("encoder", "decoder")) > len(tensors):
        raise ValueError("more blocks than tensors")
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected = tensor_shapes.of_network(lambda: TinyCodec(**options))
    needed = {n: shape for n, shape in expected.items() if n in found or not n.endswith(OF_TRAINING)}
    if fault := tensor_shapes.difference(needed, found):
        raise ValueError(fault)
    network = TinyCodec(**options)
    if first:  # its noise gains were ordered by bin
        tensors = {**tensors, **{name: _by_frame(tensors[name]) for name in ("head.weight", "head.bias")}}
    network.load_state_dict(tensors, strict=False)
    # Codebooks marked as untrained would be initialised from the first batch.
    for layer in network.quantizer.vq.layers:
        layer._codebook.inited.fill_(1.0)
    return network


def _by_frame(head: torch.Tensor) -> torch.Tensor:
    tones, noise = head.split((3 * TONE_BINS, NOISE_BINS * NOISE_FRAMES))
    return torch.cat((tones, noise.unflatten(0, (NOISE_BINS, NOISE_FRAMES)).transpose(0, 1).flatten(0, 1)))
