"""PANNs' Cnn14 (Kong et al. 2020), the basis of most published FD, IS and KL.

One architecture, two networks: `panns16k` takes 16 kHz audio (Cnn14_16k_mAP=0.438.pth), `panns32k` 32 kHz
(Cnn14_mAP=0.431.pth). The embeddings are what audioldm_eval calls "2048"; IS and KL use the logits.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchaudio.functional import melscale_fbanks

from ajbench.core import weights
from ajbench.features.extractor import AudioSetTagger
from ajbench.features.fast_conv import ScratchBuffer, Winograd

MELS, CLASSES, WIDTHS = 64, 527, (64, 128, 256, 512, 1024, 2048)
WIDE = 128  # input channels from which Winograd is faster
# Values of a layer that a CPU computes at once, so that memory is reused: the first use of fresh memory
# takes as long as a layer.
HELD = 1 << 22
MIN_FRAMES = 32  # one frame is left after time is halved five times


@dataclass(frozen=True)
class Setting:
    """Front end of one of the networks: `rate`, `low` and `high` in Hz, `window` and `hop` in samples."""

    rate: int
    window: int
    hop: int
    low: float
    high: float


SETTINGS = {
    "panns16k": Setting(16_000, 512, 160, 50.0, 8_000.0),
    "panns32k": Setting(32_000, 1_024, 320, 50.0, 14_000.0),
}


class Block(nn.Module):
    """Two convolutions, each with batch norm and ReLU, then average pooling over `pool` × `pool`."""

    def __init__(self, inputs: int, outputs: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, outputs, T / pool, F / pool] of [B, inputs, T, F]."""
        x = functional.relu_(self.bn1(self.conv1(x)))
        x = functional.relu_(self.bn2(self.conv2(x)))
        return functional.avg_pool2d(x, self.pool) if self.pool > 1 else x

    def fuse(self, scratch: ScratchBuffer | None) -> None:
        """Fold batch norms into the convolutions (eval mode); with `scratch`, use Winograd for wide ones."""
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
            fused = fuse_conv_bn_eval(getattr(self, conv), getattr(self, norm))
            wide = fused.in_channels >= WIDE
            setattr(self, conv, Winograd(fused, scratch) if scratch and wide else fused)
            setattr(self, norm, nn.Identity())


class Cnn14(nn.Module):
    """The network with its log-mel front end; modules are named as in the checkpoints."""

    window: Tensor
    mel: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        self.held: int | None = None
        mel = melscale_fbanks(
            setting.window // 2 + 1, setting.low, setting.high, MELS, setting.rate, "slaney", "slaney"
        )
        self.register_buffer("mel", mel)
        self.register_buffer("window", torch.hann_window(setting.window), persistent=False)
        self.bn0 = nn.BatchNorm2d(MELS)
        for number, (inputs, outputs) in enumerate(zip((1, *WIDTHS), WIDTHS, strict=False), 1):
            self.add_module(f"conv_block{number}", Block(inputs, outputs, 1 if number == len(WIDTHS) else 2))
        self.fc1 = nn.Linear(WIDTHS[-1], WIDTHS[-1])
        self.fc_audioset = nn.Linear(WIDTHS[-1], CLASSES)

    def spectrogram(self, wav: Tensor) -> Tensor:
        """Return the log-mel in dB, [B, 1, T, 64], of wav [B, n]."""
        s = self.setting
        spectrum = torch.stft(
            wav, s.window, s.hop, window=self.window, center=True, pad_mode="reflect", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return (10 * torch.log10((power.transpose(1, 2) @ self.mel).clamp_min(1e-10)))[:, None]

    def forward(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """Map wav [B, n] at the setting's rate to embeddings [B, 2048] and logits [B, 527]."""
        x = self.bn0(self.spectrogram(wav).transpose(1, 3)).transpose(1, 3)
        for number, width in enumerate(WIDTHS, 1):
            block = self.get_submodule(f"conv_block{number}")
            clips = max(1, self.held // (width * x[0, 0].numel())) if self.held else len(x)
            x = torch.cat([block(some) for some in x.split(clips)])
        x = x.mean(dim=3)
        embedding = functional.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
        return embedding, self.fc_audioset(embedding)

    def fuse(self, cpu: bool = False) -> "Cnn14":
        """Fold the batch norms into the convolutions; return the network in eval mode.

        Args:
            cpu: use what is faster on a CPU: Winograd for wide convolutions, and wide layers for only a few
                clips at once.
        """
        self.eval()
        scratch = ScratchBuffer() if cpu else None
        self.held = HELD if cpu else None
        for block in self.children():
            if isinstance(block, Block):
                block.fuse(scratch)
        return self


class Panns(AudioSetTagger):
    """The extractors `panns16k` and `panns32k`: 2048-d embeddings and 527 AudioSet logits.

    Its weights are PANNs' checkpoint.
    """

    def __init__(self, name: str, path: Path | str | None = None, device: torch.device | None = None) -> None:
        super().__init__(name, path, device)
        setting = SETTINGS[name]
        self.sample_rate, self.min_samples = setting.rate, setting.hop * (MIN_FRAMES - 1)
        with init_empty_weights():  # the file brings all 80 M values
            model = Cnn14(setting)
        with self.reading():
            saved = weights.unpickled(self.weights)
            state = dict(saved.get("model", saved))
            bank = state.get("logmel_extractor.melW", model.mel)
            # The kernels of its spectrogram are what `Cnn14` computes itself.
            state = {key: value for key, value in state.items() if "_extractor." not in key}
            model.load_state_dict(state | {"mel": bank}, assign=True)
        model = model.float().fuse(cpu=self.device.type == "cpu")
        self.model = model.requires_grad_(False).to(self.device)
        # Convolutions on a CPU are faster with channels last.
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def compute(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings [B, 2048] and the logits [B, 527], before the sigmoid.

        Raises:
            UsageError: the clips are shorter than 0.31 s.
        """
        self.refuse_short(wav)
        features, logits = self.model(wav)
        return features, logits
