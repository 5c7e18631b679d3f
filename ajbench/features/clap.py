"""CLAP (Wu et al. 2023) as features: one space for sound and text, of which FAD and the CLAP score are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ajbench.core import transformers_folder
from ajbench.core.device import Array, device_of
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.features import weights

TOKENS = 77  # of a prompt, as LAION's own code cuts them
PROMPTS = 64  # at once
PROCESSOR = "preprocessor_config.json"


class Clap:
    """LAION's CLAP (laion/clap-htsat-unfused): 512-d embeddings of sound and of text, no classes.

    Embeddings are projected and of length 1, as LAION's code and transformers give them. Clips are cut after
    10 s (that code draws a piece at random); shorter ones are repeated as often as they fit, then padded with
    zeros, as CLAP was trained.

    Args:
        path: a folder with weights, configurations and tokenizer, as transformers saves it; None is `clap` in
            the folder named by AJBENCH_WEIGHTS, or the hub's cache.
        device: where it computes; None is that of this process.

    Raises:
        MissingError: a file is not there.
        IntegrityError: one is damaged, or not the published one.
        UsageError: a model that fuses pieces drawn at random, or none of CLAP.
    """

    name = "clap"
    sample_rate = 48_000
    labels: tuple[str, ...] = ()
    mids = None
    frames = False

    def __init__(self, path: Path | str | None = None, device: torch.device | None = None) -> None:
        self.device = device or device_of()
        folder = weights.checked(self.name, path)
        if (kind := transformers_folder.kind_of(folder)) != "clap":
            raise UsageError(f"features clap: {folder} holds a model of kind {kind!r}; name a folder of CLAP")
        if not (folder / PROCESSOR).is_file():
            raise MissingError(f"features clap: {folder / PROCESSOR} is not there; put it beside the weights")
        from transformers import ClapFeatureExtractor

        try:
            self.processor: Any = ClapFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise IntegrityError(f"{folder / PROCESSOR}: damaged ({reason}); get it again") from None
        model, self.tokenizer = transformers_folder.parts(folder, "ClapModel")
        if model.config.audio_config.enable_fusion:
            raise UsageError(
                f"features clap: {folder} fuses pieces of a clip that it draws at random; use "
                "laion/clap-htsat-unfused"
            )
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.sample_rate = self.processor.sampling_rate
        self.min_samples, self.max_samples = self.sample_rate // 4, self.processor.nb_max_samples

    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, 512], logits [B, 0]) of wav [B, n] at 48 kHz."""
        return self.features(wav), self.logits(wav)

    @torch.inference_mode()
    def features(self, wav: Array) -> np.ndarray:
        """Return the embeddings [B, 512], of length 1, of wav [B, n]."""
        clips = list(torch.as_tensor(wav, dtype=torch.float32)[:, : self.max_samples].cpu().numpy())
        heard = self.processor(
            clips,
            sampling_rate=self.sample_rate,
            truncation="rand_trunc",  # nothing is left to cut; it also names LAION's filters
            padding="repeatpad",
            return_tensors="pt",
        )
        mel = heard["input_features"].to(self.device, torch.float32)
        states = self.model.audio_model(input_features=mel, is_longer=heard["is_longer"].to(self.device))
        return _unit(self.model.audio_projection(states.pooler_output))

    def logits(self, wav: Array) -> np.ndarray:
        """Return nothing, [B, 0]: it knows no classes."""
        return np.zeros((len(wav), 0), np.float32)

    @torch.inference_mode()
    def text(self, prompts: Sequence[str]) -> np.ndarray:
        """Return the embeddings [n, 512], of length 1, of text; products with `features` are cosines."""
        return np.concatenate(
            [self._text(list(prompts[start : start + PROMPTS])) for start in range(0, len(prompts), PROMPTS)]
        )

    def _text(self, prompts: list[str]) -> np.ndarray:
        words = self.tokenizer(
            prompts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        states = self.model.text_model(input_ids=words.input_ids, attention_mask=words.attention_mask)
        return _unit(self.model.text_projection(states.pooler_output))


def _unit(vectors: Tensor) -> np.ndarray:
    found: np.ndarray = functional.normalize(vectors, dim=-1).float().cpu().numpy()
    return found
