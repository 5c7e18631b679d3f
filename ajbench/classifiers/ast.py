"""AST: a distilled vision transformer (DeiT) on patches of filter banks, with two class tokens."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from ajbench.classifiers import ast_weights, locate
from ajbench.classifiers.ast_weights import PATCH, patches
from ajbench.classifiers.frontend import Fbank
from ajbench.classifiers.pretrained import is_ours, load_weights, read_ours
from ajbench.classifiers.saved_folder import need
from ajbench.core.errors import IntegrityError

CLASS_TOKENS = 2


class AST(nn.Module):
    """The paper's AST: features [B, T, 128] (or waves [B, n]) → logits [B, C].

    Args:
        num_classes: C.
        dim, depth, heads: of the transformer.
        stride: between 16×16 patches (10: overlapping, the original).
        clip_samples: wave length of the position table; for other lengths it is cropped or interpolated.
        patchout: share of the patches dropped in training (PaSST's unstructured patchout); 0: none.
        dropout: in the blocks.
        norm_eps: of every layer norm; None: the original's, 1e-6, and 1e-5 in the head.
    """

    head_names = ("head.",)
    class_bias = "head.1.bias"

    def __init__(
        self,
        num_classes: int,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        stride: int = 10,
        clip_samples: int = 161_280,
        patchout: float = 0.0,
        dropout: float = 0.0,
        norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        with torch.device("cpu"):  # its filters are computed, also where the rest takes no memory
            self.frontend = Fbank()
        self.heads, self.norm_eps = heads, norm_eps
        self.adopted: dict[str, Any] = {}  # options adopted from the initial weights
        self.patchout = patchout
        self.patch = nn.Conv2d(1, dim, PATCH, stride)
        self.grid = (patches(Fbank.bands, stride), patches(self.frontend.frames(clip_samples), stride))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, CLASS_TOKENS + self.grid[0] * self.grid[1], dim))
        for table in (self.cls_token, self.dist_token, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)
        norm = partial(nn.LayerNorm, eps=norm_eps or 1e-6)
        kinds = [Block] * (depth - 1) + [LastBlock]
        self.blocks = nn.ModuleList(
            kind(dim, heads, qkv_bias=True, proj_drop=dropout, norm_layer=norm) for kind in kinds
        )
        # DeiT's initialisation: a deviation of 0.02 at width 768, the same gain at other widths.
        for linear in (module for module in self.blocks.modules() if isinstance(module, nn.Linear)):
            nn.init.trunc_normal_(linear.weight, std=0.02 * (768 / dim) ** 0.5)
            nn.init.zeros_(linear.bias)
        self.norm = norm(dim)
        self.head = nn.Sequential(nn.LayerNorm(dim, eps=norm_eps or 1e-5), nn.Linear(dim, num_classes))

    @property
    def token_width(self) -> int:
        """d of `tokens`."""
        return self.cls_token.shape[2]

    def embed(self, x: Tensor) -> Tensor:
        """Features or waves → penultimate vectors [B, d]: the mean state of the two class tokens."""
        patches, _ = self._patches(x)
        if self.training and self.patchout > 0:
            patches = _drop(patches, self.patchout)
        tokens = self._with_class_tokens(patches)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens).mean(dim=1).float()

    def tokens(self, x: Tensor) -> Tensor:
        """Features or waves → tokens before the pooling, float32 [B, 2 + T', d].

        They are the two class tokens and, for each of the T' places in time, the mean over frequency of the
        patches' last states. No patch is dropped.
        """
        patches, grid = self._patches(x)
        tokens = self._with_class_tokens(patches)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        states = self.norm(Block.forward(self.blocks[-1], tokens)).float()
        over_time = states[:, CLASS_TOKENS:].unflatten(1, grid).mean(dim=1)
        return torch.cat([states[:, :CLASS_TOKENS], over_time], dim=1)

    def _patches(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Features or waves → embedded patches with positions [B, F · T', d], and their grid (F, T')."""
        features = self.frontend(x) if x.ndim == 2 else x
        maps = self.patch(features.transpose(1, 2).unsqueeze(1))
        grid = (maps.shape[2], maps.shape[3])
        places = positions(self.pos_embed[:, CLASS_TOKENS:], self.grid, grid)
        return maps.flatten(2).transpose(1, 2) + places, grid

    def _with_class_tokens(self, patches: Tensor) -> Tensor:
        first = torch.cat([self.cls_token, self.dist_token], dim=1) + self.pos_embed[:, :CLASS_TOKENS]
        return torch.cat([first.expand(len(patches), -1, -1).to(patches.dtype), patches], dim=1)

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features or waves → penultimate vectors [B, d] and logits [B, C], float32, in one pass."""
        vectors = self.embed(x)
        with torch.autocast(x.device.type, enabled=False):  # in bf16, many clips would have equal logits
            return vectors, self.head(vectors)

    def forward(self, x: Tensor) -> Tensor:
        """Features or waves → logits [B, C]."""
        return self.outputs(x)[1]

    def need(self, init: str) -> None:
        """Raise what `initialise` would if the weights are not at hand, without a download."""
        if init == "imagenet":
            ast_weights.need_imagenet(self.cls_token.shape[2])
        else:
            need(init)

    def initialise(self, init: str, new_head: bool = False, labels: Sequence[str] | None = None) -> None:
        """Load trained weights, the position table fitted to the grid.

        The epsilon of their layer norms is adopted, unless the module was built with one.

        Args:
            init: "imagenet" for timm's distilled DeiT of the same width, with a new head; or a folder or hub
                id with config.json and model.safetensors, of an AST trained by ajbench or of transformers
                (`MIT/ast-finetuned-audioset-10-10-0.4593`).
            new_head: keep the untrained head.
            labels: classes, compared with those of the weights if both are known.

        Raises:
            UsageError: there are no ImageNet weights of this width.
            MissingError: the weights are missing.
            IntegrityError: damaged, a pickle, not of an AST, or of another width, depth or set of classes.
        """
        if init == "imagenet":
            weights = ast_weights.imagenet(self.cls_token.shape[2], len(self.blocks))
        else:
            folder = locate(init)
            weights = read_ours(folder, AST) if is_ours(folder) else ast_weights.transformers(folder)
        table = weights.state.get("pos_embed")
        if table is None or table.shape[1] != CLASS_TOKENS + weights.grid[0] * weights.grid[1]:
            raise IntegrityError(f"init={init}: no position table of {weights.grid} patches")
        places = positions(table[:, CLASS_TOKENS:], weights.grid, self.grid)
        weights.state["pos_embed"] = torch.cat([table[:, :CLASS_TOKENS], places], dim=1)
        load_weights(self, weights, new_head, labels)
        if self.norm_eps is None and weights.norm_eps is not None:
            for norm in (module for module in self.modules() if isinstance(module, nn.LayerNorm)):
                norm.eps = weights.norm_eps
            self.norm_eps, self.adopted = weights.norm_eps, {"norm_eps": weights.norm_eps}


class LastBlock(Block):
    """A block that computes the class tokens only, all that is read of the last block."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, d] → class tokens [B, 2, d], equal to those of `Block`."""
        attn, width = self.attn, tokens.shape[2]
        normed, weight, bias = self.norm1(tokens), attn.qkv.weight, attn.qkv.bias
        query = functional.linear(normed[:, :CLASS_TOKENS], weight[:width], bias[:width])
        key, value = functional.linear(normed, weight[width:], bias[width:]).chunk(2, dim=2)
        per_head = (x.unflatten(2, (attn.num_heads, -1)).transpose(1, 2) for x in (query, key, value))
        read = functional.scaled_dot_product_attention(*per_head).transpose(1, 2).flatten(2)
        states: Tensor = tokens[:, :CLASS_TOKENS] + attn.proj_drop(attn.proj(read))
        return states + self.mlp(self.norm2(states))


def positions(table: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Fit a position table [1, F · T, d] of grid (F, T) to another grid: [1, F' · T', d].

    As in AST, a shorter axis takes the centre and a longer one is interpolated bilinearly.
    """
    if wanted == grid:
        return table
    image = table.transpose(1, 2).unflatten(2, grid)
    for axis, target in ((3, wanted[1]), (2, wanted[0])):
        size = image.shape[axis]
        if target <= size:
            image = image.narrow(axis, size // 2 - target // 2, target)
        else:
            shape = (image.shape[2], target) if axis == 3 else (target, image.shape[3])
            image = functional.interpolate(image, size=shape, mode="bilinear")
    return image.flatten(2).transpose(1, 2)


def _drop(tokens: Tensor, share: float) -> Tensor:
    """Keep a random share of 1 − `share` of the tokens [B, N, d] of each clip."""
    clips, count, width = tokens.shape
    kept = max(1, round(count * (1 - share)))
    order = torch.rand(clips, count, device=tokens.device).argsort(dim=1)[:, :kept]
    return tokens.gather(1, order.unsqueeze(2).expand(-1, -1, width))


def ast_small(num_classes: int, **options: Any) -> AST:
    """Build an AST of DeiT-S's width with six layers."""
    return AST(num_classes, **({"dim": 384, "depth": 6, "heads": 6} | options))


def ast_tiny(num_classes: int, **options: Any) -> AST:
    """Build an AST for two CPU cores: 128 wide, 4 layers, no overlap, trained on half the patches."""
    return AST(num_classes, **({"dim": 128, "depth": 4, "heads": 4, "stride": 16, "patchout": 0.5} | options))
