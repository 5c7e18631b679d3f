"""Sentence encoders saved by sentence-transformers: mean of the token states, linear layers, unit length."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ajbench.core import transformers_folder, weights
from ajbench.core.documents import read_json
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import checksum

ARCHITECTURES = {"t5": "T5EncoderModel", "bert": "BertModel"}  # by `model_type` in config.json
MODULES, DENSE = "modules.json", "model.safetensors"
MAX_TOKENS = 512  # where the folder names no limit
BATCH = 32


class SentenceEncoder:
    """A sentence-T5 or Sentence-BERT model: its folder has `modules.json` and the files that this names.

    Args:
        folder: of the model.
        kind: t5 or bert.
        device: that computes.

    Attributes:
        model_hash: 16 hexadecimal digits of all weights.

    Raises:
        MissingError: a file is missing.
        IntegrityError: a file is damaged.
        UsageError: a model of another kind, or a module that is unknown here.
    """

    def __init__(self, folder: Path, kind: str, device: str = "cpu") -> None:
        transformers_folder.kind_of(folder, (kind,), "sentence encoder")
        dense = _dense_folders(folder)
        model, self.tokenizer = transformers_folder.parts(folder, ARCHITECTURES[kind])
        self.model = model.eval().requires_grad_(False).to(device)
        self.linear = [_linear(path, device) for path in dense]
        self.device = device
        settings = _json(folder / "sentence_bert_config.json", {})
        longest = settings.get("max_seq_length") or self.tokenizer.model_max_length
        self.max_tokens, self.lower = min(int(longest), MAX_TOKENS), bool(settings.get("do_lower_case"))
        parts = [weights.identity(folder), *(checksum(path / DENSE) for path in dense)]
        self.model_hash = xxhash.xxh3_64_hexdigest("".join(parts).encode())

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the embeddings [N, d], of unit length; longer texts are truncated to the model's limit."""
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))  # little padding in a batch
        parts = [
            self._embed([texts[n] for n in order[start : start + BATCH]])
            for start in range(0, len(texts), BATCH)
        ]
        if not parts:
            return np.empty((0, 0))
        found = np.concatenate(parts)
        out = np.empty_like(found)
        out[order] = found
        return out

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        import torch

        with torch.inference_mode():
            batch = self.tokenizer(
                [text.lower() if self.lower else text for text in texts],
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self.device)
            output = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            # Sums in float64, which MPS does not have.
            exact = torch.float32 if self.device == "mps" else torch.float64
            mask = batch.attention_mask.to(exact)
            vectors = torch.einsum("bt,btd->bd", mask, output.last_hidden_state.to(exact))
            vectors = vectors / mask.sum(dim=1, keepdim=True)
            for weight, bias in self.linear:
                vectors = vectors @ weight.to(exact).T + bias.to(exact)
            unit = torch.nn.functional.normalize(vectors, dim=1)
        return np.asarray(unit.cpu().numpy(), np.float64)


def _dense_folders(folder: Path) -> list[Path]:
    """Return the folders of the linear layers that `modules.json` names, after checking the other modules."""
    path = folder / MODULES
    if not path.is_file():
        raise MissingError(
            f"{path}: missing; name a folder saved by sentence-transformers (a model without it was not "
            "trained to give sentence embeddings)"
        )
    found = []
    for module in _json(path, []):
        if not isinstance(module, dict) or not {"type", "path"} <= module.keys():
            raise IntegrityError(f"{path}: damaged; get it again")
        kind, place = str(module["type"]).rsplit(".", 1)[-1], folder / str(module["path"])
        if kind == "Dense":
            found.append(place)
        elif kind == "Pooling":
            _check_pooling(place / "config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise UsageError(f"{path}: module {kind!r}; allowed: Transformer, Pooling, Dense, Normalize")
    return found


def _check_pooling(path: Path) -> None:
    modes = _json(path, {})
    on = {name.removeprefix("pooling_mode_") for name, value in modes.items() if value is True}
    on -= {"include_prompt"}
    if "pooling_mode" in modes:  # as newer versions of sentence-transformers write it
        on = {f"{modes['pooling_mode']}_tokens"}
    if on != {"mean_tokens"}:
        raise UsageError(f"{path}: pooling {', '.join(sorted(on)) or 'unknown'}; allowed: mean_tokens")


def _linear(folder: Path, device: str) -> tuple[Any, Any]:
    """Return weight [out, in] and bias of a linear layer."""
    import safetensors
    from safetensors.torch import load_file

    path, about = folder / DENSE, _json(folder / "config.json", {})
    if not str(about.get("activation_function")).endswith("Identity"):
        raise UsageError(
            f"{folder / 'config.json'}: activation {about.get('activation_function')}; allowed: Identity"
        )
    if not path.is_file():
        raise MissingError(f"{path}: missing; put the linear layer of the model there as safetensors")
    try:
        tensors = load_file(path, device=device)
        weight = tensors["linear.weight"].float()
        if weight.ndim != 2 or not weight.numel():  # without numbers, any shape fits into a file
            raise ValueError(f"linear.weight has shape {tuple(weight.shape)}")
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise IntegrityError(f"{path}: damaged ({error}); get it again") from None
    return weight, tensors.get("linear.bias", weight.new_zeros(len(weight)))


def _json(path: Path, absent: Any) -> Any:
    """Return the value of a JSON file, of the type of `absent`, which stands for a missing one."""
    try:
        found = read_json(path) if path.is_file() else absent
    except ValueError:
        found = None
    if not isinstance(found, type(absent)):
        raise IntegrityError(f"{path}: damaged; get it again")
    return found
