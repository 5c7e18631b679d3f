"""The Audio Spectrogram Transformer (Gong et al. 2021) with MIT's AudioSet weights as features."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ajbench.classifiers.ast import AST, initialise
from ajbench.classifiers.ast_weights import PATCH, patches, transformers
from ajbench.classifiers.frontend import Fbank
from ajbench.core.device import Array, device_of
from ajbench.core.errors import IntegrityError
from ajbench.data.audio import SAMPLE_RATE
from ajbench.data.corpora.audioset import label_set
from ajbench.features import weights as places

FRAMES = 1_024  # of 10 ms


class AudioSetAST:
    """AST fine-tuned on AudioSet (MIT/ast-finetuned-audioset-10-10-0.4593): 768-d embeddings, 527 logits.

    Clips are cut after 10.24 s; shorter ones are padded with zeros, as AST was trained. Embeddings are means
    of its two class tokens.

    Args:
        path: a folder with config.json and model.safetensors, as transformers saves it; None is the folder
            `ast` in the one named by AJBENCH_WEIGHTS, or the hub's cache.
        device: where it computes; None is that of this process.

    Raises:
        MissingError: no such folder.
        IntegrityError: it holds something else, or not the published weights.
    """

    name = "ast"
    sample_rate = SAMPLE_RATE
    min_samples, max_samples = 4_000, 400 + 160 * (FRAMES - 1)
    frames = False

    def __init__(self, path: Path | str | None = None, device: torch.device | None = None) -> None:
        self.device = device or device_of()
        folder = places.checked(self.name, path)
        weights = transformers(folder)
        classes = label_set()
        self.labels: tuple[str, ...] = weights.labels or classes.names
        self.mids = classes.mids if self.labels == tuple(classes.names) else None
        try:
            dim = weights.state["cls_token"].shape[2]
            count = len(weights.state["head.1.bias"])
            depth = len({name.split(".")[1] for name in weights.state if name.startswith("blocks.")})
        except KeyError as error:
            raise IntegrityError(f"features ast: {folder}: {error} is missing; get it again") from None
        if count != len(self.labels):
            raise IntegrityError(f"features ast: {folder}: {count} classes and {len(self.labels)} names")
        grids = {
            (patches(Fbank.bands, stride), patches(FRAMES, stride)): stride for stride in range(1, PATCH + 1)
        }
        if weights.grid not in grids:
            raise IntegrityError(
                f"features ast: {folder}: not made for {FRAMES} frames of {Fbank.bands} bands"
            )
        model = AST(count, dim, depth, weights.heads, grids[weights.grid], clip_samples=self.max_samples)
        initialise(model, str(folder))
        self.model = model.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, 768], logits [B, 527]) of wav [B, n] at 16 kHz."""
        embedded = self.model.embed(self._heard(wav))
        return embedded.cpu().numpy(), self.model.head(embedded).cpu().numpy()

    def features(self, wav: Array) -> np.ndarray:
        """Return the embeddings [B, 768] of wav [B, n]."""
        return self(wav)[0]

    def logits(self, wav: Array) -> np.ndarray:
        """Return the logits [B, 527], before the sigmoid, of wav [B, n]."""
        return self(wav)[1]

    def _heard(self, wav: Array) -> Tensor:
        """Return the log-mel [B, 1024, 128] of wav [B, n], behind a short clip what a raw 0 becomes."""
        front: Tensor = torch.as_tensor(wav, dtype=torch.float32, device=self.device)[:, : self.max_samples]
        heard: Tensor = self.model.frontend(front)
        return functional.pad(heard, (0, 0, 0, FRAMES - heard.shape[1]), value=self.model.frontend.zero)
