"""The frozen text encoder whose token states the U-Net's cross-attention reads, with class tokens beside it.

Which encoder is meant is the business of `hub.load`; all are this one class around a model and its
tokenizer.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from ajbench.core import weights
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.generation.prompts import expand, vector_names

BATCH = 8  # prompts encoded at once, always: a prompt's states then do not depend on its companions
CACHE_BYTES = 1 << 28  # of states that are kept


class TextEncoder(nn.Module):
    """A frozen transformer of `transformers` with its tokenizer; prompts in, states of its last layer out.

    Padding is masked inside the encoder. Whether the U-Net attends to the states of the padding is another
    question, its own mask (Table 1's masked rows).

    Args:
        model: takes `input_ids` and `attention_mask`, gives `last_hidden_state`; it is frozen.
        tokenizer: the model's own.
        max_tokens: states per prompt; longer prompts are cut.
        name: of the encoder, for messages.
        limit: the most tokens that the model has positions for; None: any number.

    Attributes:
        dim: numbers per state.
        rows: the vectors of the added class tokens, [n, dim]; the only parameters that can be trained.
        vocabulary: words of the tokenizer as it came; ids from there on are rows.
        vectors: how many rows each added token has, in the order of `rows`.

    Raises:
        UsageError: `max_tokens` is above the limit, or too few for a single word.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, max_tokens: int, *, name: str, limit: int | None = None
    ) -> None:
        super().__init__()
        least = tokenizer.num_special_tokens_to_add() + 1
        if max_tokens < least or (limit is not None and max_tokens > limit):
            allowed = f"{least} to {limit}" if limit is not None else f"{least} or more"
            raise UsageError(f"generator.max_tokens={max_tokens}: text encoder {name} takes {allowed}")
        self.name, self.max_tokens, self.tokenizer = name, max_tokens, tokenizer
        self.model = model.requires_grad_(False)
        self.dim: int = self._words.embedding_dim
        self.rows = nn.Parameter(torch.zeros(0, self.dim), requires_grad=False)
        self.vocabulary = len(tokenizer)
        self.vectors: dict[str, int] = {}
        self._start: int = tokenizer("").input_ids[0]
        self._known: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()
        self._kept = max(BATCH, CACHE_BYTES // (4 * max_tokens * self.dim))
        self.eval()

    @property
    def tokens(self) -> list[str]:
        """The names of the added vectors, in the order of `rows`."""
        return [name for token, count in self.vectors.items() for name in vector_names(token, count)]

    def add_tokens(self, vectors: Mapping[str, Tensor]) -> None:
        """Add tokens with their input embeddings, [dim] or [k, dim] for tokens of k vectors.

        In a prompt a token stands for all its vectors, which the encoder then meets one after another.

        Raises:
            UsageError: a token is in the vocabulary already.
            IntegrityError: vectors of another width.
        """
        groups = {token: vector.detach().reshape(-1, vector.shape[-1]) for token, vector in vectors.items()}
        if odd := next((token for token, group in groups.items() if group.shape[1] != self.dim), None):
            raise IntegrityError(
                f"token {odd}: a vector of {groups[odd].shape[1]} numbers, text encoder {self.name} takes "
                f"{self.dim}; run `ajbench invert` with this encoder"
            )
        names = [name for token, group in groups.items() for name in vector_names(token, len(group))]
        known = self.tokenizer.get_vocab()
        if double := next((name for name in names if name in known), None):
            raise UsageError(f"token {double} is in the text encoder's vocabulary already")
        # Without the blank before it, which byte-level tokenizers would make a token of its own.
        self.tokenizer.add_tokens([AddedToken(name, normalized=False, lstrip=True) for name in names])
        first = self.vocabulary + len(self.rows)
        if self.tokenizer.convert_tokens_to_ids(names) != list(range(first, first + len(names))):
            raise IntegrityError(f"text encoder {self.name}: its tokenizer's ids have gaps; get it again")
        new = torch.cat([*groups.values()]).to(self.rows) if groups else self.rows[:0]
        self.rows = nn.Parameter(torch.cat([self.rows.detach(), new]), requires_grad=self.rows.requires_grad)
        self.vectors |= {token: len(group) for token, group in groups.items()}
        self._known.clear()

    def learned(self) -> dict[str, Tensor]:
        """Return the vectors [k, dim] of every added token, on the CPU: diffusers' learned embeddings."""
        parts = self.rows.detach().cpu().split(list(self.vectors.values()))
        return {token: part.clone() for token, part in zip(self.vectors, parts, strict=True)}

    def initial(self, text: str) -> Tensor:
        """Return the mean [dim] of the input embeddings of a text's tokens: where a class token starts."""
        # The blank makes it the word that it is in the middle of a prompt, for byte-level tokenizers.
        ids = self.tokenizer(f" {text}", add_special_tokens=False).input_ids if text.strip() else []
        return self._words.weight[ids or [self.tokenizer.unk_token_id]].mean(0).detach()

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids int64 and mask bool (true on tokens, false on padding), both [B, max_tokens]."""
        out = self.tokenizer(
            [expand(prompt, self.vectors) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return out.input_ids.to(self.rows.device), out.attention_mask.to(self.rows.device, torch.bool)

    def count_cut(self, prompts: Sequence[str]) -> int:
        """Return how many prompts are longer than `max_tokens` and lose their end."""
        whole = [expand(prompt, self.vectors) for prompt in prompts]
        lengths = (len(ids) for ids in self.tokenizer(whole, verbose=False).input_ids) if whole else ()
        return sum(length > self.max_tokens for length in lengths)

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return token states [B, max_tokens, dim]; gradients reach `rows`."""
        added = ids >= self.vocabulary
        # Models number places by ids, padding apart, so they are given ids: where a row goes, one that every
        # prompt begins with.
        with self._with_rows(ids, added):
            out = self.model(input_ids=ids.masked_fill(added, self._start), attention_mask=mask)
        hidden: Tensor = out.last_hidden_state
        return hidden

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return states float32 [B, max_tokens, dim] and mask bool [B, max_tokens], cached by prompt."""
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
        while len(self._known) > self._kept:
            self._known.popitem(last=False)
        return torch.stack([found[p][0] for p in prompts]), torch.stack([found[p][1] for p in prompts])

    def weights_hash(self) -> str:
        """Return a hash of the frozen weights, whatever file they came from."""
        return weights.digest(self.model.parameters())

    @property
    def _words(self) -> nn.Embedding:
        table: nn.Embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        return table

    @contextmanager
    def _with_rows(self, ids: Tensor, added: Tensor) -> Iterator[None]:
        """Let the model's table of words give `rows` where they were asked for.

        They are rows of their own rather than of a longer table: training them cannot touch the others.
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
