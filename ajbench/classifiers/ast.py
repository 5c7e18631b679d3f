"""AST: a distilled vision transformer (DeiT) on fbank patches, two class tokens, mean of their states."""

import json
import re
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from ajbench.classifiers.frontend import Fbank
from ajbench.errors import IntegrityError, MissingError, UsageError

PATCH = 16
IMAGENET = {768: "deit_base_distilled_patch16_384", 384: "deit_small_distilled_patch16_224"}
# transformers' names → ours, applied in this order.
_RENAMED = {
    r"^audio_spectrogram_transformer\.": "",
    r"^embeddings\.distillation_token": "dist_token",
    r"^embeddings\.position_embeddings": "pos_embed",
    r"^embeddings\.patch_embeddings\.projection": "patch",
    r"^embeddings\.": "",
    r"^encoder\.layer\.(\d+)\.": r"blocks.\1.",
    r"\.attention\.attention\.": ".attn.",
    r"\.attention\.output\.dense\.": ".attn.proj.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"\.output\.dense\.": ".mlp.fc2.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"^layernorm\.": "norm.",
    r"^classifier\.layernorm\.": "head.0.",
    r"^classifier\.dense\.": "head.1.",
}


class AST(nn.Module):
    """Features [B, T, 128] (or waves [B, n]) → logits [B, C].

    Args:
        num_classes: C.
        dim, depth, heads: of the transformer.
        stride: between 16×16 patches (10: overlapping, the original).
        clip_samples: wave length for which the position table is made; other lengths cut or interpolate it.
        patchout: share of the patches left out while training (PaSST's unstructured patchout); 0: none.
        dropout: within the blocks.
    """

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
    ) -> None:
        super().__init__()
        self.frontend = Fbank()
        self.patchout = patchout
        self.patch = nn.Conv2d(1, dim, PATCH, stride)
        self.grid = (_patches(Fbank.bands, stride), _patches(self.frontend.frames(clip_samples), stride))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 2 + self.grid[0] * self.grid[1], dim))
        for table in (self.cls_token, self.dist_token, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)
        self.blocks = nn.ModuleList(
            Block(dim, heads, qkv_bias=True, proj_drop=dropout, norm_layer=nn.LayerNorm) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, num_classes))

    def embed(self, x: Tensor) -> Tensor:
        """Features or waves → mean state of the two class tokens [B, d], the penultimate vector."""
        features = self.frontend(x) if x.ndim == 2 else x
        maps = self.patch(features.transpose(1, 2).unsqueeze(1))
        places = positions(self.pos_embed[:, 2:], self.grid, (maps.shape[2], maps.shape[3]))
        tokens = maps.flatten(2).transpose(1, 2) + places
        if self.training and self.patchout > 0:
            tokens = _drop(tokens, self.patchout)
        first = torch.cat([self.cls_token, self.dist_token], dim=1) + self.pos_embed[:, :2]
        tokens = torch.cat([first.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        # Only the two class tokens are read.
        return self.norm(tokens[:, :2]).mean(dim=1).float()

    def forward(self, x: Tensor) -> Tensor:
        """Features or waves → logits [B, C]."""
        logits: Tensor = self.head(self.embed(x))
        return logits.float()


def positions(table: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Fit a position table [1, F · T, d] of grid (F, T) to another grid (F', T') as AST does.

    A shorter axis takes the centre, a longer one is interpolated bilinearly; returns [1, F' · T', d].
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
    """Keep a random 1 − share of the tokens [B, N, d] of every clip."""
    clips, count, width = tokens.shape
    kept = max(1, round(count * (1 - share)))
    order = torch.rand(clips, count, device=tokens.device).argsort(dim=1)[:, :kept]
    return tokens.gather(1, order.unsqueeze(2).expand(-1, -1, width))


def _patches(size: int, stride: int) -> int:
    return (size - PATCH) // stride + 1


def initialise(module: AST, source: str) -> None:
    """Load trained weights into `module`; the position table is fitted to its grid.

    Args:
        module: receives them.
        source: "imagenet" for timm's distilled DeiT of the same width (patch weights summed over RGB, new
            head), or a folder with config.json and model.safetensors of `MIT/ast-finetuned-audioset-*` (whose
            head is taken where the number of classes is the same).

    Raises:
        UsageError: there are no ImageNet weights of this width.
        MissingError: the weights are not there.
        IntegrityError: they are not an AST's, or of another width or depth.
    """
    state, grid = _imagenet(module) if source == "imagenet" else _transformers(Path(source))
    places = positions(state["pos_embed"][:, 2:], grid, module.grid)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :2], places], dim=1)
    own = module.state_dict()
    if "head.1.bias" not in state or state["head.1.bias"].shape != own["head.1.bias"].shape:
        state |= {name: tensor for name, tensor in own.items() if name.startswith("head.")}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise IntegrityError(f"{source}: not the weights of an AST like this ({reason})") from None


def _imagenet(module: AST) -> tuple[dict[str, Tensor], tuple[int, int]]:
    """Fetch timm's DeiT; returns its weights under our names and the grid of its position table."""
    width = module.cls_token.shape[2]
    if width not in IMAGENET:
        raise UsageError(f"init=imagenet: no weights of width {width}; there are {sorted(IMAGENET)}")
    try:
        state = timm.create_model(IMAGENET[width], pretrained=True).state_dict()
    except Exception as error:  # the hub's client raises a dozen kinds
        raise MissingError(
            f"init=imagenet: timm cannot get {IMAGENET[width]} ({' '.join(str(error).split())[:160]}); "
            "connect once, or train from scratch without init"
        ) from None
    state["patch.weight"] = state.pop("patch_embed.proj.weight").sum(dim=1, keepdim=True)
    state["patch.bias"] = state.pop("patch_embed.proj.bias")
    side = round((state["pos_embed"].shape[1] - 2) ** 0.5)
    depth = len(module.blocks)
    names = (name for name in state if not name.startswith("head"))
    kept = (name for name in names if not name.startswith("blocks.") or int(name.split(".")[1]) < depth)
    return {name: state[name] for name in kept}, (side, side)


def _transformers(folder: Path) -> tuple[dict[str, Tensor], tuple[int, int]]:
    """Read a checkpoint of transformers' ASTForAudioClassification; returns as `_imagenet` does."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        state = load_file(folder / "model.safetensors")
        grid = (
            _patches(config["num_mel_bins"], config["frequency_stride"]),
            _patches(config["max_length"], config["time_stride"]),
        )
    except FileNotFoundError as error:
        raise MissingError(f"init={folder}: {Path(error.filename).name} is missing") from None
    except (ValueError, KeyError, SafetensorError) as error:
        raise IntegrityError(f"init={folder}: not a checkpoint of transformers' AST ({error})") from None
    for theirs, ours in _RENAMED.items():
        state = {re.sub(theirs, ours, name): tensor for name, tensor in state.items()}
    for name in [name for name in state if ".attn.query." in name]:
        parts = [state.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        state[name.replace("query", "qkv")] = torch.cat(parts)
    return state, grid


def ast(num_classes: int, init: str | None = None, **options: Any) -> AST:
    """Build the paper's AST: 88 M parameters, stride 10; `init` as `initialise` takes it."""
    module = AST(num_classes, **options)
    if init:
        initialise(module, init)
    return module


def ast_small(num_classes: int, init: str | None = None, **options: Any) -> AST:
    """Build an AST of DeiT-S's width with six layers."""
    return ast(num_classes, init, **({"dim": 384, "depth": 6, "heads": 6} | options))


def ast_tiny(num_classes: int, **options: Any) -> AST:
    """Build an AST for two CPU cores: 128 wide, 4 layers, no overlap, trained on half the patches."""
    return ast(num_classes, **({"dim": 128, "depth": 4, "heads": 4, "stride": 16, "patchout": 0.5} | options))
