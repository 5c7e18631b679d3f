"""The audio-visual classifier: audio and video tokens, pooled together by discounted attention."""

from typing import Any

import torch
from torch import Tensor, nn

from ajbench.fusion.pooling import Discount, pool


class AudioVisual(nn.Module):
    """Audio and video of a clip → logits [B, C]; masks make it a model of audio, of video, or of both.

    Args:
        num_classes: C.
        audio_width: d of the audio tokens.
        video_width: d of the video tokens.
        width: of the tokens that are pooled.
        discount: how the entailment score lowers the attention to video tokens (`fusion.pool`).
        backbone: classifier whose `tokens` are the audio tokens; None: they are given.
        feature: concatenate the score to the pooled vector instead of discounting.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        audio_width: int,
        video_width: int,
        width: int = 128,
        discount: Discount = "renormalised",
        backbone: nn.Module | None = None,
        feature: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.discount, self.feature = backbone, discount, feature
        self.from_audio = _projection(audio_width, width)
        self.from_video = _projection(video_width, width)
        self.attention = nn.Linear(width, 1)
        self.head = nn.Linear(width + feature, num_classes)

    def forward(
        self, audio: Tensor, video: Tensor, has_audio: Tensor, has_video: Tensor, score: Tensor
    ) -> Tensor:
        """Return logits [B, C].

        Args:
            audio: tokens [B, T, d], or with a backbone waves [B, n].
            video: tokens [B, W, d].
            has_audio, has_video: bool [B]; what is absent has no influence.
            score: entailment [B] in [0, 1]. It has no influence on a clip with only one of audio and video.
        """
        sound: Any = audio if self.backbone is None else self.backbone.tokens(audio)  # type: ignore[operator]
        heard, seen = self.from_audio(sound), self.from_video(video)
        is_video = torch.arange(heard.shape[1] + seen.shape[1], device=seen.device) >= heard.shape[1]
        present = torch.where(is_video, has_video[:, None], has_audio[:, None])
        both = has_audio & has_video
        weighed = torch.where(both, score, torch.ones_like(score)).to(seen.dtype)
        tokens = torch.cat([heard, seen], dim=1)
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            levels = self.attention(tokens).squeeze(2)
            discounts = torch.ones_like(weighed) if self.feature else weighed
            pooled = pool(tokens, levels, is_video, discounts, self.discount, present)
            if self.feature:  # centred, so that 0 says nothing
                known = torch.where(both, score.to(pooled) - 0.5, torch.zeros_like(pooled[:, 0]))
                pooled = torch.cat([pooled, known[:, None]], dim=1)
            logits: Tensor = self.head(pooled)
        return logits


def _projection(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out), nn.GELU())
