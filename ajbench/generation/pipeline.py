"""Text-to-audio with a trained generator, optionally starting from a guide clip."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn

from ajbench import codec as codecs
from ajbench.codec.whitening import Whitening
from ajbench.core.device import Precision, resolve_precision
from ajbench.core.errors import IntegrityError
from ajbench.core.files import seed_for
from ajbench.data import audio
from ajbench.generation import hub_encoders, lora, saved_parts
from ajbench.generation.checkpoint import TOKENS, GeneratorInfo, read_info, read_tokens
from ajbench.generation.prompts import with_tokens
from ajbench.generation.sampling import Sampler, sample
from ajbench.generation.text_encoder import TextEncoder


class AudioJourneyPipeline:
    """Generates audio from text, optionally starting from a guide clip.

    Attributes:
        info: the content of `generator.json`.
        unet: the denoiser, in eval mode, with LoRA merged into its weights if there is one.
        text: the text encoder, with class tokens if they were loaded.
        tokens: label → class token, if they were loaded.
        whitening: latents ⇔ grid.
        codec: latents ⇔ codes ⇔ audio.
        training: configuration of the training noise schedule.
    """

    def __init__(
        self,
        info: GeneratorInfo,
        unet: UNet2DConditionModel,
        text: TextEncoder,
        whitening: Whitening,
        codec: "codecs.Codec",
        training: Mapping[str, Any],
    ) -> None:
        if (codec.name, codec.weights_hash) != (info.codec, info.codec_hash):
            raise IntegrityError(
                f"generator {info.fingerprint}: trained with codec {info.codec} (weights {info.codec_hash}), "
                f"this is {codec.name} (weights {codec.weights_hash}); train it again"
            )
        self.info, self.unet, self.text, self.codec = info, unet.eval().requires_grad_(False), text, codec
        self.whitening, self.training = whitening, training
        self.tokens: dict[str, str] = {}

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str,
        tokens: Path | str | None = None,
        codec: "codecs.Codec | None" = None,
        device: str | torch.device = "cpu",
        bare: bool = False,
        precision: Precision = "fp32",
    ) -> "AudioJourneyPipeline":
        """Load a generator and, if given, class tokens and LoRA.

        Args:
            path: the folder that `train-gen` wrote.
            tokens: the folder that `invert` wrote; None: those in `path`, if there are any.
            codec: an instance to use instead of loading the generator's codec.
            device: for U-Net, text encoder and a codec loaded here.
            bare: ignore tokens and LoRA in `path`.
            precision: of the U-Net's weights, into which LoRA is merged in fp32; auto: bf16 on CUDA.

        Raises:
            MissingError: a folder, or the weights of codec or text encoder, are missing.
            IntegrityError: a file is damaged, or codec, text encoder or tokens belong to another generator.
        """
        path = Path(path)
        info = read_info(path)
        unet = saved_parts.read_unet(path, info)
        text = hub_encoders.load(info.text_encoder, info.max_tokens, info.encoder_mask)
        if info.text_hash and text.weights_hash() != info.text_hash:
            raise IntegrityError(
                f"{path}: trained with text encoder {info.text_encoder} (weights {info.text_hash}), but on "
                f"this machine it has weights {text.weights_hash()}; use the former, or train it again"
            )
        if info.text_setup and text.setup_hash() != info.text_setup:
            raise IntegrityError(
                f"{path}: trained with text encoder {info.text_encoder}, which on this machine has the same "
                "weights but another tokenizer or configuration; use the former, or train it again"
            )
        whitening, training = saved_parts.read_whitening(path), saved_parts.read_schedule(path)
        codec = codec or codecs.load(info.codec, torch.device(device), info.codec_hash)
        pipeline = cls(info, unet.to(device), text.to(device), whitening, codec, training)
        if tokens is not None or ((path / TOKENS).exists() and not bare):
            pipeline._load_tokens(Path(tokens or path))
        if resolve_precision(precision, torch.device(device).type) == "bf16":
            nn.Module.to(pipeline.unet, torch.bfloat16)  # its own `to` warns of layers that it has not
        return pipeline

    @property
    def rows(self) -> int:
        """The height of the grid."""
        return self.info.frames // audio.FRAME_MULTIPLE

    def __call__(
        self,
        prompt: str | Sequence[str],
        seed: int = 0,
        guide: NDArray[np.float32] | None = None,
        strength: float = 1.0,
        guidance: float = 4.0,
        steps: int = 20,
        sampler: Sampler = "dpmsolver++",
        negative: str = "",
        rescale: float = 0.0,
    ) -> NDArray[np.float32]:
        """Return audio, float32 [n] at 16 kHz, or [B, n] for a list of prompts.

        Args:
            prompt: free text; labels in angle brackets, `The sound of <dog>`, stand for their class tokens.
            seed: the same call with the same seed gives the same audio; the clips of a list all differ.
            guide: a waveform [n] at 16 kHz to start from, cut or padded to the generator's clip length.
            strength: amount of noise added to the guide, in (0, 1]; 1 ignores the guide.
            guidance: scale of classifier-free guidance; 1 turns it off.
            steps: of the sampler, when starting from noise.
            sampler: the solver.
            negative: prompt to steer away from, in place of the empty one.
            rescale: as in `sample`.

        Raises:
            UsageError: strength below 1 without a guide, or angle brackets around what is no label.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        grid = None
        if guide is not None and strength < 1:
            wave = audio.fit(np.asarray(guide, np.float32), self.info.clip_samples)[None]
            grid = self.whitening.grid(self.codec.latents(self.codec.encode(wave)))
            grid = grid.expand(len(prompts), -1, -1, -1)
        seeds = [seed_for(seed, "pipeline", number) for number in range(len(prompts))]
        prompts = [with_tokens(one, self.tokens) for one in prompts]
        made = self.grids(prompts, grid, seeds, strength, guidance, steps, sampler, negative, rescale)
        wave = self.codec.decode_latents(self.whitening.latents(made)).cpu().numpy()
        return wave[0] if isinstance(prompt, str) else wave

    def grids(
        self,
        prompts: Sequence[str],
        guide: Tensor | None,
        seeds: Sequence[int],
        strength: float,
        guidance: float,
        steps: int,
        sampler: Sampler,
        negative: str = "",
        rescale: float = 0.0,
    ) -> Tensor:
        """Return whitened grids float32 [B, 128, H, 21] on the CPU; arguments as in `sample`."""
        states, mask = self.text.encode(prompts)
        uncond, uncond_mask = self.text.encode([with_tokens(negative, self.tokens)])
        masks = {"mask": mask, "uncond_mask": uncond_mask} if self.info.mask else {}
        return sample(
            self.unet,
            states,
            uncond,
            guide,
            seeds,
            strength=strength,
            guidance=guidance,
            steps=steps,
            sampler=sampler,
            training=self.training,
            rows=self.rows,
            rescale=rescale,
            **masks,
        ).cpu()

    def _load_tokens(self, folder: Path) -> None:
        info, vectors = read_tokens(folder)
        if info.generator != self.info.fingerprint:
            raise IntegrityError(
                f"{folder}: tokens of generator {info.generator}, not of {self.info.fingerprint}; run "
                "`ajbench invert`"
            )
        self.text.add_tokens(vectors)
        self.tokens = dict(info.tokens)
        if info.lora_rank is not None:
            lora.merge(self.unet, folder)
