"""The folders of trained generators, in diffusers' layout, and of their class tokens and LoRA.

A generator's folder has `model_index.json`, `unet/` and `scheduler/` (which diffusers can load alone),
`whitening.json` and, written last, `generator.json`: training data and settings, checksums, and the ids and
recordings of the training clips for the leak rule.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ajbench.codec.whitening import Whitening
from ajbench.core.documents import IDS_BYTES
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.files import atomic_write, checksum, sync, writing
from ajbench.core.schema import Preset
from ajbench.core.sealed_json import read_sealed, write_sealed
from ajbench.data import leak_rule
from ajbench.data.audio import FRAME_MULTIPLE, SAMPLE_RATE
from ajbench.data.store import ClipStore

if TYPE_CHECKING:
    from diffusers import DDPMScheduler, UNet2DConditionModel

INFO = "generator.json"
TOKENS = "tokens.json"
EMBEDS = "learned_embeds.safetensors"
CURVE = "metrics_classes.csv"
Info = TypeVar("Info", "GeneratorInfo", "TokensInfo")


class Start(BaseModel):
    """The weights that a training started from.

    Attributes:
        source: `generator.init` of the recipe.
        file: name of the weights file; `xxh3` is its checksum.
        tensors: number of tensors loaded, with `parameters` parameters.
        left_out: tensors that kept their random initialisation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    file: str
    xxh3: str
    tensors: int
    parameters: int
    left_out: tuple[str, ...]


class GeneratorInfo(BaseModel):
    """The content of `generator.json`.

    Attributes:
        text_encoder: registry name or folder of the weights; `text_hash` is their hash, `text_setup` that of
            its tokenizer and settings ("": unknown).
        mask: whether padding is masked in the U-Net's attention; `encoder_mask`: inside the text encoder.
        frames: codec frames per clip; the grid has frames / 21 rows.
        train_ids: all clips of the pool, sorted, including those in `held_out`; `train_recordings` has the
            recording of each. Without them, the generator is refused by the leak rule.
        held_out: the clips of the pool used for validation only, sorted (`generator.val_share`).
        start: the weights that training started from; None: random ones.
        prompts_cut: number of training prompts truncated to `max_tokens`.
        xxh3: checksums of the other files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    fingerprint: str
    preset: Preset
    text_encoder: str
    text_hash: str = ""
    text_setup: str = ""
    max_tokens: int = Field(ge=1, le=4096)
    mask: bool
    encoder_mask: bool = True
    codec: str
    codec_hash: str
    clip_samples: int = Field(ge=1, le=3600 * SAMPLE_RATE)
    frames: int = Field(ge=FRAME_MULTIPLE, le=10**6, multiple_of=FRAME_MULTIPLE)
    labels: tuple[str, ...]
    train_ids: tuple[str, ...]
    train_recordings: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    start: Start | None = None
    train_steps: int
    seed: int
    precision: str
    parameters: int
    prompts: int
    prompts_cut: int
    xxh3: dict[str, str] = {}


class TokensInfo(BaseModel):
    """The content of `tokens.json`; files without `vectors` have one vector per token.

    Attributes:
        generator: its fingerprint.
        tokens: label → class token; empty if only LoRA was trained.
        vectors: per token.
        lora_rank: of the adapters in the same folder; None: there are none.
        init: of the vectors, as in the recipe.
        train_ids: the training clips, sorted; `train_recordings` has the recording of each.
        prompts_cut: number of training prompts truncated to the generator's `max_tokens`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    fingerprint: str
    generator: str
    text_encoder: str
    tokens: dict[str, str]
    vectors: int = 1
    init: str = "name"
    lora_rank: int | None = None
    train_ids: tuple[str, ...]
    train_recordings: tuple[str, ...] = ()
    train_steps: int
    seed: int
    prompts_cut: int = 0
    xxh3: dict[str, str] = {}


def save(
    folder: Path,
    unet: "UNet2DConditionModel",
    process: "DDPMScheduler",
    whitening: Whitening,
    info: GeneratorInfo,
) -> None:
    """Write a generator's folder, `generator.json` last; that of an earlier one goes first."""
    import diffusers  # here, because reading what is known about a generator does not need it

    (folder / INFO).unlink(missing_ok=True)
    for name, part in (("unet", unet), ("scheduler", process)):
        shutil.rmtree(folder / name, ignore_errors=True)  # a kill may have left a partial file there
        with writing(folder / name):
            part.save_pretrained(folder / name)
    index = {
        "_class_name": "AudioJourneyPipeline",
        "_diffusers_version": diffusers.__version__,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    atomic_write(folder / "model_index.json", json.dumps(index, indent=2))
    atomic_write(folder / "whitening.json", json.dumps(whitening.to_json()))
    files = [folder / "whitening.json", *(folder / "scheduler").iterdir(), *(folder / "unet").iterdir()]
    write_info(folder / INFO, info, files)


def write_info(path: Path, info: GeneratorInfo | TokensInfo, files: Iterable[Path]) -> None:
    """Sync `files`, then write `generator.json` or `tokens.json`, sealed, with their checksums."""
    files = sorted(files)
    with writing(path):
        sync(files)
    sums = {str(file.relative_to(path.parent)): checksum(file) for file in files}
    write_sealed(path, info.model_copy(update={"xxh3": sums}).model_dump(mode="json"), indent=1)


def read_info(folder: Path) -> GeneratorInfo:
    """Read `generator.json` in `folder` and verify it and the files that it lists.

    Raises:
        MissingError: there is no finished generator.
        IntegrityError: a file is damaged.
    """
    return _read(Path(folder) / INFO, GeneratorInfo, "ajbench train-gen")


def read_tokens(folder: Path) -> tuple[TokensInfo, dict[str, Tensor]]:
    """Read the folder that `invert` wrote; return `tokens.json` and the vectors [k, dim] by token.

    Raises:
        MissingError: there is no such folder.
        IntegrityError: a file is damaged.
    """
    info = _read(Path(folder) / TOKENS, TokensInfo, "ajbench invert")
    file = Path(folder) / EMBEDS
    try:
        vectors = load_file(file) if info.tokens else {}
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{file}: damaged ({error}); run `ajbench invert` again") from None
    if odd := next((name for name, vector in vectors.items() if not 1 <= vector.ndim <= 2), None):
        raise IntegrityError(f"{file}: {odd[:80]} is no vector; run `ajbench invert` again")
    return info, vectors


def named(
    store: ClipStore, indices: Iterable[int], start: GeneratorInfo | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ids of training clips, sorted, and the recording of each.

    `start`: of the generator that the training began with, whose clips are added.
    """
    before = zip(start.train_ids, start.train_recordings, strict=True) if start else ()
    pairs = sorted({*before, *((store.clip_ids[i], store.recordings[i]) for i in indices)})
    return tuple(clip_id for clip_id, _ in pairs), tuple(recording for _, recording in pairs)


def refuse_leak(path: Path, info: GeneratorInfo | TokensInfo, store: ClipStore) -> None:
    """Refuse what was trained on recordings of the store's eval clips (`ajbench.data.leak_rule`).

    Raises:
        IntegrityError: it was, or its training clips are unknown.
    """
    leak_rule.refuse_leak(path, info.train_ids, info.train_recordings, store.held_out())


def _read(path: Path, kind: type[Info], command: str) -> Info:
    remedy = f"remove the folder and run `{command}`"
    if not path.is_file():
        raise MissingError(f"{path}: missing; run `{command}` first")
    try:
        info = kind.model_validate(read_sealed(path, remedy, IDS_BYTES))
    except ValidationError as error:
        raise IntegrityError(f"{path}: damaged ({error.error_count()} errors); {remedy}") from None
    for name, expected in info.xxh3.items():
        file = path.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise IntegrityError(f"{path}: lists {name[:80]}, which is outside its folder")
        if not file.is_file() or checksum(file) != expected:
            raise IntegrityError(f"{file}: missing or damaged; remove {path.parent} and run `{command}`")
    return info
