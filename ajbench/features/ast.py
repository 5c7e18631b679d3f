"""The Audio Spectrogram Transformer (Gong et al. 2021) with MIT's AudioSet weights."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ajbench.classifiers.ast import AST
from ajbench.classifiers.ast_weights import PATCH, patches, transformers
from ajbench.classifiers.frontend import Fbank
from ajbench.core import tensor_shapes
from ajbench.data.corpora.audioset import label_set
from ajbench.features.extractor import Extractor

FRAMES = 1_024  # of 10 ms


class AudioSetAST(Extractor):
    """AST fine-tuned on AudioSet (MIT/ast-finetuned-audioset-10-10-0.4593): 768-d embeddings, 527 logits.

    Its weights are a folder saved by transformers. Clips are cut after 10.24 s and shorter ones padded with
    zeros, as in AST's training. Embeddings are the mean of its two class tokens.
    """

    max_samples = 400 + 160 * (FRAMES - 1)

    def __init__(self, name: str, path: Path | str | None = None, device: torch.device | None = None) -> None:
        super().__init__(name, path, device)
        folder = self.weights
        weights = transformers(folder)
        classes = label_set()
        self.labels = weights.labels or classes.names
        self.mids = classes.mids if tuple(self.labels) == tuple(classes.names) else None
        with self.reading():
            dim = weights.state["cls_token"].shape[2]
            count = len(weights.state["head.1.bias"])
            depth = len({key.split(".")[1] for key in weights.state if key.startswith("blocks.")})
            grids = {
                (patches(Fbank.bands, step), patches(FRAMES, step)): step for step in range(1, PATCH + 1)
            }
            if count != len(self.labels) or weights.grid not in grids:
                raise ValueError(
                    f"{count} classes with {len(self.labels)} names, patches {weights.grid} instead of those "
                    f"of {FRAMES} frames with {Fbank.bands} bands"
                )
        sizes = (count, dim, depth, weights.heads, grids[weights.grid])

        def build() -> AST:
            return AST(*sizes, clip_samples=self.max_samples)

        with self.reading():  # sizes are read from a few tensors, which may be larger than the others
            found = {name: tuple(tensor.shape) for name, tensor in weights.state.items()}
            if fault := tensor_shapes.difference(tensor_shapes.of_network(build), found):
                raise ValueError(fault)
        model = build()
        model.initialise(str(folder))
        self.model = model.eval().requires_grad_(False).to(self.device)

    def compute(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings [B, 768] and the logits [B, 527], before the sigmoid."""
        mel: Tensor = self.model.frontend(wav[:, : self.max_samples])
        # Short clips are padded with what the front end makes of a raw 0.
        mel = functional.pad(mel, (0, 0, 0, FRAMES - mel.shape[1]), value=self.model.frontend.zero)
        embedded = self.model.embed(mel)
        return embedded, self.model.head(embedded)
