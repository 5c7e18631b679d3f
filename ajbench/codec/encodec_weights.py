"""Where the weights of EnCodec's 24 kHz model lie on this machine, and how they get into the network.

Two layouts hold the same numbers: the checkpoint of the `encodec` package, and the hub's folder
`facebook/encodec_24khz` in transformers' names. Nothing is ever downloaded.
"""

import json
import re
from pathlib import Path

import torch
from encodec import EncodecModel
from encodec.model import ROOT_URL
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ajbench.core import weights
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.files import sha256

CHECKPOINT = "encodec_24khz-d7cc33bc.th"  # the package's name for it; after the dash its SHA-256 begins
HUB_ID = "facebook/encodec_24khz"
FOLDER = "encodec_24khz"  # of transformers' layout, in $AJBENCH_WEIGHTS
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# What the shapes of the weights do not tell; also transformers' defaults, which a config.json may leave out.
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
# transformers' names → the package's, applied in this order. Weight norm goes by two names in transformers.
_RENAMED = {
    r"^quantizer\.layers\.(\d+)\.codebook\.": r"quantizer.vq.layers.\1._codebook.",
    r"^(encoder|decoder)\.layers\.": r"\1.model.",
    r"\.parametrizations\.weight\.original0$": ".weight_g",
    r"\.parametrizations\.weight\.original1$": ".weight_v",
    r"^(decoder\.model\.(?:3|6|9|12))\.conv\.": r"\1.convtr.convtr.",  # upsampling
    r"\.conv\.(weight_g|weight_v|bias)$": r".conv.conv.\1",
}


def fill(model: EncodecModel, named: Path | None = None) -> None:
    """Put EnCodec's weights into a network built by the package.

    Args:
        model: the network.
        named: the user's own file or folder; None: the first place that has the published weights, see
            `locate`.

    Raises:
        MissingError: no place has them; the message says what to put where, and how to run without.
        IntegrityError: they are damaged, another network's, or not the published ones.
    """
    path = locate(named)
    if path.is_file() and named is None:
        _check(path)
    try:
        state = _transformers(path) if path.is_dir() else _checkpoint(path)
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise IntegrityError(f"{path}: not EnCodec's weights ({reason})") from None


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of transformers' EncodecModel under the names of the package's."""
    for theirs, ours in _RENAMED.items():
        state = {re.sub(theirs, ours, name): tensor for name, tensor in state.items()}
    return state


def locate(named: Path | None = None) -> Path:
    """Return the checkpoint, or the folder of transformers' layout.

    Places: $AJBENCH_WEIGHTS (checkpoint, then folder `encodec_24khz`), torch's cache, the hub's cache.

    Args:
        named: the user's own.

    Raises:
        MissingError: it is not there, or in no place.
    """
    if named is not None:
        if named.is_file() or all((named / part).is_file() for part in (CONFIG, WEIGHTS)):
            return named
        raise MissingError(f"{named}: neither EnCodec's checkpoint nor a folder with {CONFIG} and {WEIGHTS}")
    torch_home = Path(torch.hub.get_dir()) / "checkpoints"
    downloaded = torch_home / CHECKPOINT
    found = (
        weights.own(CHECKPOINT)
        or _whole(weights.own(f"{FOLDER}/{WEIGHTS}"))
        or (downloaded if downloaded.is_file() else None)
        or _whole(weights.cached([HUB_ID], WEIGHTS))
    )
    if found is None:
        own = f"{home} or " if (home := weights.folder()) else ""
        raise MissingError(
            f"EnCodec's weights are not on this machine: neither {CHECKPOINT} (93 MB) in {own}{torch_home} "
            f"nor {CONFIG} and {WEIGHTS} of {HUB_ID} {weights.places(FOLDER)}; get {ROOT_URL}{CHECKPOINT} or "
            f"{HUB_ID}, put it there ({weights.VARIABLE} names a folder), or run without: codec.name=tiny"
        )
    return found


def _whole(file: Path | None) -> Path | None:
    """Return the folder of transformers' weights where their configuration lies beside them."""
    return file.parent if file and (file.parent / CONFIG).is_file() else None


def _check(path: Path) -> None:
    found, expected = sha256(path)[:8], Path(CHECKPOINT).stem.split("-")[1]
    if found != expected:
        raise IntegrityError(
            f"{path}: SHA-256 begins with {found}, not {expected}; get it again from {ROOT_URL}{CHECKPOINT}"
        )


def _checkpoint(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = weights.unpickled(path)
    return state


def _transformers(folder: Path) -> dict[str, Tensor]:
    try:
        config = _CONFIG | json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, TypeError) as error:
        raise IntegrityError(f"{folder / CONFIG}: damaged ({error}); get {HUB_ID} again") from None
    if other := [f"{key} {config[key]}" for key, value in _CONFIG.items() if config[key] != value]:
        raise IntegrityError(f"{folder / CONFIG}: not of {HUB_ID} ({', '.join(other)})")
    path = folder / WEIGHTS
    # The hub's cache names a large file after its SHA-256; a copied folder has nothing to check it by.
    blob = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", blob) and sha256(path) != blob:
        raise IntegrityError(f"{path}: does not have the SHA-256 that it is named by; get {HUB_ID} again")
    return rename(load_file(path))
