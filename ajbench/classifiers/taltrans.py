"""TALtrans: ten convolutions, one transformer layer applied twice, attention pooling over frames.

As in lijuncheng16/AudioTaggingDoneRight (Net_mModal_mgpu.TransformerEncoder), which the paper uses.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ajbench.classifiers import locate
from ajbench.classifiers.frontend import TalMel
from ajbench.classifiers.pretrained import load_weights, read_ours
from ajbench.classifiers.saved_folder import need
from ajbench.core.errors import UsageError

POOLS = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2))
CHANNELS = (32, 32, 64, 64, 128, 128, 256, 256, 512, 512)
SMALL_CHANNELS = (8, 8, 16, 16, 32, 32, 48, 48, 64, 64)
_CLAMP = 1e-7
NO_IMAGENET = "init=imagenet: no such weights for TALtrans; give the folder of a trained one"


class TalTrans(nn.Module):
    """The paper's TALtrans: features [B, T, 64] (or waves [B, n]) → logits [B, C].

    12.1 M parameters at 527 classes.

    Args:
        num_classes: C.
        channels: of the ten 3×3 convolutions (batch norm, ReLU). A max-pool after every second one leaves a
            quarter of the frames and two bands: the model is 2 · channels[-1] wide.
        heads, feedforward: of the transformer layer (post-norm).
        passes: number of times that a transformer layer is applied.
        tied: the same layer in every pass, as in the paper; else one per pass.
        dropout: of the attention weights and of the output of either half of the transformer layer; there is
            none between the two feed-forward layers.
        n_fft: of the front end.
    """

    head_names = ("attention.", "frame_logits.")
    class_bias = "frame_logits.bias"
    revision = 2  # to be raised when the same weights would give other logits

    def __init__(
        self,
        num_classes: int,
        channels: Sequence[int] = CHANNELS,
        heads: int = 8,
        feedforward: int = 1024,
        passes: int = 2,
        tied: bool = True,
        dropout: float = 0.75,
        n_fft: int = 4096,
    ) -> None:
        super().__init__()
        with torch.device("cpu"):  # its filters are computed, also where the rest takes no memory
            self.frontend = TalMel(n_fft)
        sizes = (1, *channels)
        blocks: list[nn.Module] = []
        for i, pool in enumerate(POOLS):
            for inside, outside in pairwise(sizes[2 * i : 2 * i + 3]):
                blocks += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(True)]
            blocks.append(nn.MaxPool2d(pool))
        # This memory layout trains a fifth faster on a CPU, and more on a GPU with tensor cores.
        self.convolutions = nn.Sequential(*blocks)
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        width = channels[-1] * self.frontend.bands // math.prod(bands for _, bands in POOLS)
        self.heads, self.passes, self.tied = heads, passes, tied
        layer = partial(nn.TransformerEncoderLayer, width, heads, feedforward, dropout, batch_first=True)
        layers = [layer() for _ in range(1 if tied else passes)]
        for each in layers:
            each.dropout.p = 0.0
        self.layer, self.further = layers[0], nn.ModuleList(layers[1:])
        self.attention = nn.Linear(width, num_classes)
        self.frame_logits = nn.Linear(width, num_classes)
        self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        """Draw the initial weights as the repository does.

        Matrices and kernels are Xavier-uniform, queries, keys and values each a matrix of its own. The biases
        of the heads are 0. The others are PyTorch's defaults for convolutions and linear layers, also inside
        the attention, where nn.MultiheadAttention sets them to 0.
        """
        bound = self.attention.in_features**-0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                for matrix in parameter.chunk(3 if name.endswith("in_proj_weight") else 1):
                    nn.init.xavier_uniform_(matrix)
            elif name.endswith(("in_proj_bias", "out_proj.bias")):
                nn.init.uniform_(parameter, -bound, bound)
            elif name.startswith(self.head_names):
                nn.init.zeros_(parameter)

    def hidden(self, x: Tensor) -> Tensor:
        """Features [B, T, 64] (or waves [B, n]) → frame states [B, T // 4, d]."""
        features = self.frontend(x) if x.ndim == 2 else x
        frames, bands = features.shape[1:]
        features = features * math.sqrt(bands) + sinusoid(frames, bands).to(features)
        maps = self.convolutions(features.unsqueeze(1))
        states: Tensor = maps.permute(0, 2, 1, 3).flatten(2)
        for layer in [self.layer] * self.passes if self.tied else [self.layer, *self.further]:
            states = layer(states)
        return states

    @property
    def token_width(self) -> int:
        """d of `tokens`."""
        return self.attention.in_features

    def tokens(self, x: Tensor) -> Tensor:
        """Features or waves → tokens before the pooling, float32 [B, T // 4, d]: the frame states."""
        return self.hidden(x).float()

    def embed(self, x: Tensor) -> Tensor:
        """Features or waves → penultimate vectors [B, d]: the mean frame state."""
        return self.hidden(x).mean(dim=1).float()

    def need(self, init: str) -> None:
        """Raise what `initialise` would if the weights are not at hand, without a download."""
        if init == "imagenet":
            raise UsageError(NO_IMAGENET)
        need(init)

    def initialise(self, init: str, new_head: bool = False, labels: Sequence[str] | None = None) -> None:
        """Load the weights of a TALtrans trained by ajbench.

        Args:
            init: its folder or hub id.
            new_head: keep the untrained head.
            labels: classes, compared with those of the weights.

        Raises:
            UsageError: "imagenet", which has no weights for this architecture.
            MissingError: the weights are missing.
            IntegrityError: damaged, a pickle, not of a TALtrans of this size, or of other classes.
        """
        if init == "imagenet":
            raise UsageError(NO_IMAGENET)
        load_weights(self, read_ours(locate(init), TalTrans), new_head, labels)

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features or waves → penultimate vectors [B, d] and logits [B, C], float32, in one pass."""
        states = self.hidden(x)
        return states.mean(dim=1).float(), self._logits(states)

    def forward(self, x: Tensor) -> Tensor:
        """Features or waves → logits [B, C]."""
        return self._logits(self.hidden(x))

    def _logits(self, states: Tensor) -> Tensor:
        """Pool frame states [B, T // 4, d] to logits [B, C].

        The pooled value is a probability, the attention-weighted mean of frame probabilities clamped to
        [1e-7, 1 − 1e-7]. Its logit is returned.
        """
        with torch.autocast(states.device.type, enabled=False):
            weights = functional.softmax(self.attention(states.float()), dim=1)
            logits = self.frame_logits(states.float())

            def pooled(logits: Tensor) -> Tensor:
                return (weights * torch.sigmoid(logits).clamp(_CLAMP, 1 - _CLAMP)).sum(dim=1)

            # Both probabilities are pooled, since 1 − p would lose the digits of a p near 1.
            return pooled(logits).log() - pooled(-logits).log()


def sinusoid(length: int, width: int) -> Tensor:
    """Return sinusoidal positions [length, width]: sines in the even columns, cosines in the odd ones."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


def taltrans_small(num_classes: int, **options: Any) -> TalTrans:
    """Build a TALtrans an eighth to a quarter as wide, for two CPU cores and some hundred clips."""
    small: dict[str, Any] = {"channels": SMALL_CHANNELS, "heads": 4, "feedforward": 256}
    small |= {"dropout": 0.2, "n_fft": 1024}
    return TalTrans(num_classes, **(small | options))
