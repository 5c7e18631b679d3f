"""Visual captions: given in a column, or made of video frames by a captioner of transformers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from ajbench.core import transformers_folder
from ajbench.core.device import available
from ajbench.core.files import checksum
from ajbench.data import video
from ajbench.data.container import VideoDefect
from ajbench.data.corpora.rendered import video_source
from ajbench.data.manifest import Row

PLACES = (1 / 3, 1 / 2, 3 / 4)  # of a clip's duration, where the paper takes frames
AT_ONCE = 8  # clips whose frames are captioned together; always the same ones, so that captions are too
MAX_TOKENS = 40
WEIGHTS = (".safetensors", ".bin")


class Seen(NamedTuple):
    """Captions of a clip's frames.

    Attributes:
        texts: one for each frame, or a single given one.
        times_s: of the frames in their video file; None of a given caption.
    """

    texts: list[str]
    times_s: list[float] | None = None


class Captioner(Protocol):
    """Makes visual captions.

    Attributes:
        about: its `name`, and all that affects captions.
        reads: the column of the manifest that it needs.
        defects: reason → clips whose video is unusable, so far.
    """

    about: dict[str, Any]
    reads: str
    defects: Counter[str]

    def captions(self, rows: Sequence[Row]) -> list[Seen | None]:
        """Return the captions of each clip; None where there are none."""
        ...


class Given:
    """The visual captions in the clips' column `visual_caption`."""

    reads = "visual_caption"

    def __init__(self) -> None:
        self.about: dict[str, Any] = {"name": "given"}
        self.defects: Counter[str] = Counter()

    def captions(self, rows: Sequence[Row]) -> list[Seen | None]:
        """Return the given caption of each clip."""
        texts = [(row.visual_caption or "").strip() for row in rows]
        return [Seen([text]) if text else None for text in texts]


class FrameCaptioner:
    """Captions of frames at 1/3, 1/2 and 3/4 of a clip, by BLIP, BLIP-2 or GIT, without sampling.

    Args:
        folder: of the model, as saved by transformers.
        device: auto, cpu, cuda or mps.
        clip_s: of a clip that is cut to length, in s; None: clips are as long as their rows or videos.

    Raises:
        MissingError: a file of the model, or the device, is missing.
        IntegrityError: a file of the model is damaged.
        UsageError: a model of another kind.
    """

    reads = "video"

    def __init__(self, folder: Path, device: str = "auto", clip_s: float | None = None) -> None:
        self.clip_s = clip_s
        self.device = available(device)
        model, self.processor = transformers_folder.captioner(folder)
        self.model = model.to(self.device).eval()
        self.defects: Counter[str] = Counter()
        weights = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS)
        digest = xxhash.xxh3_64_hexdigest("".join(map(checksum, weights)).encode())
        self.about: dict[str, Any] = {
            "name": "transformers", "model": folder.resolve().name, "model_hash": digest,
            "places": PLACES, "max_tokens": MAX_TOKENS, "clip_s": clip_s,
        }  # fmt: skip

    def captions(self, rows: Sequence[Row]) -> list[Seen | None]:
        """Return the captions of each clip's three frames; None where its video is absent or unusable."""
        found: list[Seen | None] = []
        for start in range(0, len(rows), AT_ONCE):
            frames = [self._frames(row) for row in rows[start : start + AT_ONCE]]
            images = [image for one in frames if one for image in one[1]]
            texts = iter(self._describe(images) if images else ())
            for one in frames:
                told = [text for _ in one[1] if (text := next(texts))] if one else []
                found.append(Seen(told, one[0]) if one and told else None)
        return found

    def _frames(self, row: Row) -> tuple[list[float], NDArray[np.uint8]] | None:
        """Return times in s and frames [3, H, W, 3]."""
        if not row.video:
            return None
        try:
            source = video_source(row.video)
            duration_s = row.duration_s or video.duration_s(source) - row.start_s
            duration_s = min(duration_s, self.clip_s or duration_s)
            times = [row.start_s + place * duration_s for place in PLACES]
            return times, video.frames(source, times)
        except VideoDefect as defect:
            self.defects[defect.reason] += 1
            return None

    def _describe(self, images: Iterable[NDArray[np.uint8]]) -> list[str]:
        import torch

        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"].to(self.device)
        with torch.inference_mode():
            ids = self.model.generate(
                pixel_values=pixels, max_new_tokens=MAX_TOKENS, do_sample=False, num_beams=1
            )
        return [" ".join(text.split()) for text in self.processor.batch_decode(ids, skip_special_tokens=True)]
