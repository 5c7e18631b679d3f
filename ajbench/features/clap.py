"""CLAP (Wu et al. 2023): one space for sound and text, for FAD and the CLAP score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ajbench.core import transformers_folder
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.features.extractor import Extractor

TOKENS = 77  # to which LAION's own code cuts a prompt
PROMPTS = 64  # per batch
PROCESSOR = "preprocessor_config.json"


class Clap(Extractor):
    """LAION's CLAP (laion/clap-htsat-unfused): 512-d embeddings of sound and of text, no classes.

    Its weights are a folder saved by transformers, with the tokenizer. Embeddings are projected and of unit
    norm, as LAION's code and transformers give them. Clips are cut after 10 s (LAION's code draws a segment
    at random); shorter ones are repeated as often as they fit, then padded with zeros, as in its training.

    Raises:
        UsageError: a model that fuses segments drawn at random, or not a CLAP model.
    """

    def __init__(self, name: str, path: Path | str | None = None, device: torch.device | None = None) -> None:
        super().__init__(name, path, device)
        folder = self.weights
        if (kind := transformers_folder.kind_of(folder)) != "clap":
            raise UsageError(f"features clap: {folder} holds a model of kind {kind!r}; name a folder of CLAP")
        if not (folder / PROCESSOR).is_file():
            raise MissingError(f"features clap: {folder / PROCESSOR} is missing; put it next to the weights")
        from transformers import ClapFeatureExtractor

        try:
            self.processor: Any = ClapFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise IntegrityError(f"{folder / PROCESSOR}: damaged ({reason}); get it again") from None
        model, self.tokenizer = transformers_folder.parts(folder, "ClapModel")
        if model.config.audio_config.enable_fusion:
            raise UsageError(f"features clap: {folder} fuses random segments; use laion/clap-htsat-unfused")
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.sample_rate = self.processor.sampling_rate
        self.min_samples, self.max_samples = self.sample_rate // 4, self.processor.nb_max_samples

    def compute(self, wav: Tensor) -> tuple[Tensor, None]:
        """Return the embeddings [B, 512], of unit norm, of wav [B, n] at 48 kHz."""
        inputs = self.processor(
            list(wav[:, : self.max_samples].cpu().numpy()),
            sampling_rate=self.sample_rate,
            truncation="rand_trunc",  # nothing is left to cut, but this selects LAION's mel filters
            padding="repeatpad",
            return_tensors="pt",
        )
        mel = inputs["input_features"].to(self.device, torch.float32)
        states = self.model.audio_model(input_features=mel, is_longer=inputs["is_longer"].to(self.device))
        return functional.normalize(self.model.audio_projection(states.pooler_output), dim=-1), None

    @torch.inference_mode()
    def text(self, prompts: Sequence[str]) -> np.ndarray:
        """Return the embeddings [n, 512], of unit norm; their products with `features` are cosines."""
        options = {"padding": True, "truncation": True, "max_length": TOKENS, "return_tensors": "pt"}
        parts = []
        for start in range(0, len(prompts), PROMPTS):
            words = self.tokenizer(list(prompts[start : start + PROMPTS]), **options).to(self.device)
            states = self.model.text_model(input_ids=words.input_ids, attention_mask=words.attention_mask)
            found = functional.normalize(self.model.text_projection(states.pooler_output), dim=-1)
            parts.append(found.float().cpu().numpy())
        return np.concatenate(parts)
