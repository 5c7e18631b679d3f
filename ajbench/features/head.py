"""A classifier on frozen features: one layer, or two, on one vector per clip.

With one layer it is scikit-learn's logistic regression: one-vs-rest for the loss `bce`, multinomial for `ce`
(also of two classes, where scikit-learn has a single vector of weights and thus twice the penalty).
"""

from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ajbench.core.device import Array, to_numpy
from ajbench.core.errors import NumericError, UsageError
from ajbench.data.audio import SAMPLE_RATE
from ajbench.features.extractor import LazyExtractor

# Most iterations of L-BFGS. The loss of one layer has a single minimum, which is reached before; with a
# hidden layer it has not, and 200 iterations take seconds.
ITERATIONS, HIDDEN_ITERATIONS = 1000, 200


class ClipFeatures(LazyExtractor):
    """An extractor with one vector per clip: of frames, their mean and standard deviation over time.

    Args:
        name: of the extractor.

    Raises:
        UsageError: the name is unknown, or `reference`.
        MissingError: the weights are missing.
    """

    def __init__(self, name: str) -> None:
        if name == "reference":
            raise UsageError(
                "classifier.options.features=reference: is itself trained on the real clips; use tiny or mn04"
            )
        super().__init__(name)
        if self.frames:
            self.weights_hash += "-mean-std"  # cached apart from the frames

    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors [B, d] and logits [B, C] of waves [B, n] at `sample_rate`."""
        features, logits = super().__call__(wav)
        if self.frames:
            features = np.concatenate([features.mean(axis=1), features.std(axis=1)], axis=1)
        return features, logits

    def of_waves(self, wav: Array) -> np.ndarray:
        """Return the vectors float32 [B, d] of waves [B, n] at 16 kHz, preprocessed as for the cache."""
        waves = to_numpy(wav)
        if self.sample_rate != SAMPLE_RATE:
            waves = soxr.resample(waves.T, SAMPLE_RATE, self.sample_rate, quality="HQ").T
        length = max(waves.shape[1], self.min_samples)
        length = min(length, self.max_samples or length)
        waves = np.pad(waves[:, :length], ((0, 0), (0, max(0, length - waves.shape[1]))))
        return self(np.ascontiguousarray(waves))[0]


class Head(nn.Module):
    """Waves [B, n] at 16 kHz → logits [B, C] of layers on frozen features, standardised.

    Args:
        num_classes: C.
        features: name of an extractor.
        hidden: width of a hidden layer with ReLU; None: no hidden layer.
        c: inverse strength of the L2 penalty on the weights, as `C` in scikit-learn.
        width: of the features, d; a training finds it.

    Raises:
        UsageError: an unknown extractor, or a value out of range.
        MissingError: the weights of the extractor are missing.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        num_classes: int,
        features: str = "tiny",
        hidden: int | None = None,
        c: float = 1.0,
        width: int = 256,
    ) -> None:
        super().__init__()
        if hidden is not None and not (isinstance(hidden, int) and hidden >= 1):
            raise UsageError(f"classifier.options.hidden={hidden}: must be null or an integer of at least 1")
        if not (isinstance(c, int | float) and c > 0):
            raise UsageError(f"classifier.options.c={c}: must be a number above 0")
        self.extractor, self.c = ClipFeatures(features), c
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.out = nn.Linear(hidden or width, num_classes)
        if not hidden:  # so that the fit has no random part
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def outputs(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """Waves [B, n] → the input of the last layer [B, d] or [B, hidden], and logits [B, C]."""
        vectors = self.embed(wav)
        return vectors, self.out(vectors)

    def forward(self, wav: Tensor) -> Tensor:
        """Waves [B, n] → logits [B, C]."""
        return self.outputs(wav)[1]

    def embed(self, wav: Tensor) -> Tensor:
        """Waves [B, n] → the input of the last layer [B, d] or [B, hidden]."""
        vectors = torch.from_numpy(self.extractor.of_waves(wav)).to(self.mean.device)
        return self.hidden(self.standardised(vectors))

    def standardised(self, vectors: Tensor) -> Tensor:
        """Return vectors [B, d] minus the mean of those it was fitted to, over their standard deviation."""
        return (vectors - self.mean) / self.scale

    @torch.no_grad()
    def logits(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features [B, d] → logits float32 [B, C]."""
        return self.out(self.hidden(self.standardised(torch.from_numpy(vectors)))).numpy()

    def fit(
        self, vectors: NDArray[np.float32], targets: NDArray[Any], weights: NDArray[np.float64], loss: str
    ) -> None:
        """Minimise c · Σ w · loss + ½ ‖W‖² by L-BFGS in float64, from the present weights.

        Args:
            vectors: features [N, d].
            targets: multi-hot [N, C].
            weights: w of each clip [N], also for mean and standard deviation.
            loss: `ce`, with targets divided by their number, or `bce`, summed over classes.

        Raises:
            NumericError: the loss is not finite.
        """
        self.double()
        x, y, w = (torch.from_numpy(np.asarray(values, np.float64)) for values in (vectors, targets, weights))
        share = (w / w.sum())[:, None]
        self.mean.copy_((share * x).sum(0))
        deviation = (share * (x - self.mean).square()).sum(0).sqrt()
        self.scale.copy_(torch.where(deviation > 1e-6 * (1 + self.mean.abs()), deviation, 1.0))
        x = self.standardised(x)
        if loss == "ce":
            y /= y.sum(dim=1, keepdim=True).clamp_min(1)
        penalised = [weight for name, weight in self.named_parameters() if name.endswith("weight")]
        decay = 0.5 / (self.c * float(w.sum()))
        optimizer = torch.optim.LBFGS(
            self.parameters(),
            max_iter=HIDDEN_ITERATIONS if isinstance(self.hidden, nn.Sequential) else ITERATIONS,
            history_size=20,
            tolerance_grad=1e-5 / max(10.0, self.c),  # the penalty, and with it the gradient, falls with c
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = self.out(self.hidden(x))
            if loss == "ce":
                each = functional.cross_entropy(logits, y, reduction="none")
            else:
                each = functional.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(1)
            norm = torch.stack([weight.square().sum() for weight in penalised]).sum()
            value = share[:, 0] @ each + decay * norm
            value.backward()
            return value

        optimizer.step(closure)
        if not bool(torch.isfinite(closure())):
            raise NumericError(
                f"classifier head: the loss is not finite; lower classifier.options.c={self.c}"
            )
        self.float()
