"""Load the weights of EnCodec's 24 kHz model from either of their two layouts.

The checkpoint of the `encodec` package and the hub's folder `facebook/encodec_24khz`, with transformers'
names, hold the same numbers. Nothing is downloaded.
"""

import json
import re
from pathlib import Path

from encodec import EncodecModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ajbench.core import weights
from ajbench.core.errors import IntegrityError
from ajbench.core.files import sha256

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


def fill(model: EncodecModel, path: Path | None = None) -> None:
    """Load EnCodec's weights into a network built by the package.

    Args:
        model: the network.
        path: a checkpoint of the package, or a folder saved by transformers; None for the usual places, where
            a checkpoint has to be the published one.

    Raises:
        MissingError: the weights are not on this machine.
        IntegrityError: they are damaged, another network's, or not the published ones.
    """
    if path is None:
        path = weights.locate(NAME, who="EnCodec", instead="run without it: codec.name=tiny")
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
        config = _CONFIG | json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, TypeError) as error:
        raise IntegrityError(f"{folder / CONFIG}: damaged ({error}); get it again") from None
    if other := [f"{key} {config[key]}" for key, value in _CONFIG.items() if config[key] != value]:
        raise IntegrityError(f"{folder / CONFIG}: not EnCodec 24 kHz ({', '.join(other)})")
    path = folder / WEIGHTS
    if not path.is_file():
        raise IntegrityError(f"{path}: missing, where {CONFIG} is; get it too")
    # The hub's cache names a large file after its SHA-256; a copied folder cannot be checked.
    blob = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", blob) and sha256(path) != blob:
        raise IntegrityError(f"{path}: its SHA-256 is not the one in its name; get it again")
    return rename(load_file(path))
