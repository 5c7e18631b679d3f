"""LAION's CLAP through the package `frechet-audio-distance`, for FAD over its embeddings.

The extractor `clap` reads the model of LAION that transformers distributes; the package reads another
checkpoint with LAION's own code.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import constants
from torch import Tensor

from ajbench.core import weights
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.features.extractor import Extractor

FILE = "630k-audioset-best.pt"  # the name that the package looks for


class LaionClap(Extractor):
    """LAION's CLAP as frechet-audio-distance takes it (630k-audioset, no fusion): 512-d, no classes.

    Clips are cut after 10 s, of which LAION's code would draw a segment at random.
    """

    sample_rate = 48_000
    min_samples, max_samples = 12_000, 480_000

    def __init__(self, name: str, path: Path | str | None = None, device: torch.device | None = None) -> None:
        super().__init__(name, path, device)
        if self.weights.name != FILE:
            raise UsageError(f"features {name}: {self.weights} has to be called {FILE}, as the package does")
        # LAION's code reads the file as a pickle, which could run code; of a plain one nothing is run.
        with self.reading():
            weights.unpickled(self.weights)
        folder = torch.hub.get_dir()
        try:
            with _offline(), contextlib.redirect_stdout(io.StringIO()):  # it prints every parameter
                from frechet_audio_distance import FrechetAudioDistance

                self.model = FrechetAudioDistance(
                    ckpt_dir=str(self.weights.parent), model_name="clap", sample_rate=self.sample_rate
                )
        except OSError as error:
            reason = " ".join(str(error).split())[:160]
            raise MissingError(
                f"features {name}: laion_clap needs roberta-base, bert-base-uncased and facebook/bart-base "
                f"in the hub's cache ({reason}); `hf download` them, or use clap"
            ) from None
        finally:
            torch.hub.set_dir(folder)  # which the package has changed

    def compute(self, wav: Tensor) -> tuple[np.ndarray, None]:
        """Return the embeddings [B, 512] of wav [B, n] at 48 kHz."""
        clips = list(wav[:, : self.max_samples].cpu().numpy())
        said = io.StringIO()
        with contextlib.redirect_stdout(said):  # where the package prints errors, and goes on
            found = self.model.get_embeddings(clips, sr=self.sample_rate)
        if len(found) != len(clips):
            raise IntegrityError(f"features {self.name}: {' '.join(said.getvalue().split())[:160]}")
        return found, None


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keep the hub's client from connecting: laion_clap looks for three tokenizers when it is imported."""
    variable, constant = os.environ.get("HF_HUB_OFFLINE"), constants.HF_HUB_OFFLINE
    os.environ["HF_HUB_OFFLINE"], constants.HF_HUB_OFFLINE = "1", True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = constant
        del os.environ["HF_HUB_OFFLINE"]
        if variable is not None:
            os.environ["HF_HUB_OFFLINE"] = variable
