"""Train an audio-visual classifier on the train clips of a store, and predict with it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor, nn

from ajbench import classifiers
from ajbench.classifiers.scoring import in_batches
from ajbench.classifiers.train import loss_of
from ajbench.core.device import Precision, device_of, full_fp32, resolve_precision
from ajbench.core.documents import read_array
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.files import checksum, replacing, seed_for
from ajbench.core.recipe import Recipe
from ajbench.core.sealed_json import read_sealed, write_sealed
from ajbench.data import mixing
from ajbench.data.shards import ids_hash
from ajbench.data.store import ClipStore
from ajbench.fusion.av_clips import ClipsWithVideo, Inputs, evaluated_as, training_batches
from ajbench.fusion.av_model import AudioVisual
from ajbench.training import loop
from ajbench.training.state import remove_checkpoints

NAME = "audio-visual"
# Learning rate of the backbone relative to that of the rest.
BACKBONE_LR = {"trained": 0.1, "scratch": 1.0}
BATCH = 64


def train_fusion(
    recipe: Recipe,
    clips: ClipsWithVideo,
    out: Path,
    *,
    seed: int,
    fingerprint: str,
    audio: Path | None = None,
    tracker: str = "csv",
) -> Path:
    """Train the audio-visual classifier of `recipe.fusion` and save it in `out`; resumes if interrupted.

    Args:
        recipe: sections fusion, mix and classifier (its backbone and loss).
        clips: train clips, with audio tokens if the backbone is frozen.
        out: receives `model.safetensors` (without a frozen backbone), `config.json` and `metrics.csv`.
        seed: of this training: initialisation, order, mixing and modality dropout.
        fingerprint: written to config.json; a finished model with the same one is not trained again.
        audio: folder of the trained audio classifier; None with `audio_init=scratch`.
        tracker: where loss curves go besides `metrics.csv`.

    Returns:
        `out`.

    Raises:
        UsageError: no clip has video, or the classifier has no tokens.
        NumericError: the loss is not finite.
    """
    settings, meta = recipe.fusion, clips.store.meta
    if (out / classifiers.CONFIG).exists() and classifiers.read_config(out).get("fingerprint") == fingerprint:
        remove_checkpoints(out)  # if it was killed before it had
        return out
    if not clips.store.has_video(clips.indices).any():
        raise UsageError(f"{clips.store.path}: no train clip has video; prepare with data.video=tiny_video")
    first, _ = clips.take(np.arange(1))
    given = clips.audio_tokens is not None
    named = None if given else _backbone(recipe, meta.clip_samples)
    options: dict[str, Any] = {"video_width": first.video.shape[2], "width": settings.width}
    options |= {"discount": settings.discount, "feature": settings.labels == "feature", "backbone": named}
    options["audio_width"] = first.audio.shape[2] if given else 0
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "initialisation"))
        module = build(len(meta.labels), options)
    if module.backbone is not None and audio is not None:
        module.backbone.load_state_dict(classifiers.load(audio, torch.device("cpu")).module.state_dict())
    plan = mixing.plan(recipe.mix, clips.ids, [], clips.targets, seed)

    def step(wrapped: nn.Module, batch: tuple[Inputs, Tensor], index: int) -> Tensor:
        inputs, targets = batch
        return loss_of(recipe.classifier.loss, wrapped(*inputs), targets)

    steps = settings.train_steps
    loop.fit(
        module,
        step,
        training_batches(settings, plan, clips, seed),
        steps=steps,
        optimizer=_optimizer(recipe, module),
        lr_at=loop.cosine(settings.lr, settings.warmup_steps, steps),
        folder=out,
        checkpoint_every=settings.checkpoint_every,
        seed=seed,
        average_after=loop.last_share(steps, settings.average_last),
        precision=settings.precision,
        tracker=tracker,
        what="train-av",
    )
    state = PartialState()
    if state.is_main_process:
        extra = {"fingerprint": fingerprint, "seed": seed, "train_ids_hash": ids_hash(clips.ids)}
        about: dict[str, Any] = {"labels": meta.labels, "clip_samples": meta.clip_samples}
        classifiers.save(module, out, name=NAME, options=options, extra=extra, **about)
        remove_checkpoints(out)
    state.wait_for_everyone()
    return out


def build(num_classes: int, options: dict[str, Any]) -> AudioVisual:
    """Build an untrained model of the options in a `config.json`.

    Raises:
        UsageError: the classifier that is the backbone has no tokens.
    """
    keys = dict(options)
    if named := keys.pop("backbone"):
        backbone = classifiers.build(named["name"], num_classes, **named["options"])
        keys |= {"backbone": backbone, "audio_width": token_width(backbone, named["name"])}
        for name, parameter in backbone.named_parameters():  # its own head has no gradients, which DDP needs
            parameter.requires_grad_(not name.startswith(backbone.head_names))  # type: ignore[arg-type]
    return AudioVisual(num_classes, **keys)


def load(folder: Path) -> AudioVisual:
    """Load a trained model onto the device of this process, in eval mode.

    Raises:
        MissingError: there is none.
        IntegrityError: weights or configuration are damaged, or of another model.
    """
    config = classifiers.read_config(folder)
    if config["name"] != NAME:
        raise IntegrityError(f"{folder}: a classifier {config['name']}, not an audio-visual one")
    weights = classifiers.read_weights(folder, config["xxh3"])
    named = config["options"].get("backbone")
    own = not isinstance(named, dict) or classifiers.is_own(str(named.get("name")))
    module: Any = classifiers.rebuilt(folder, lambda: build(len(config["labels"]), config["options"]), own)
    module.load_state_dict(weights)
    return module.to(device_of()).eval()


def predict(
    module: AudioVisual,
    clips: ClipsWithVideo,
    modality: str,
    precision: Precision = "fp32",
    shared: bool = False,
) -> NDArray[np.float32]:
    """Return logits float32 [N, C] of clips by `A`, `V` or `A+V`; of one without any, those of the bias.

    Args:
        module: a trained model.
        clips: to score.
        modality: `A`, `V` or `A+V`.
        precision: of the training, in which they are computed on a GPU; elsewhere in fp32.
        shared: every process of a launch calls this and computes its part; all return the whole.
    """
    device = next(module.parameters()).device
    bf16 = device.type == "cuda" and resolve_precision(precision, device.type) == "bf16"

    def logits(places: NDArray[np.int64]) -> NDArray[np.float32]:
        given = evaluated_as(clips.take(places)[0], modality)
        with torch.inference_mode(), full_fp32(), torch.autocast(device.type, torch.bfloat16, bf16):
            return module(*(tensor.to(device) for tensor in given)).float().cpu().numpy()

    return in_batches(logits, len(clips), clips.targets.shape[1], BATCH, shared)


def write_audio_tokens(classifier: Path, store: ClipStore, path: Path) -> None:
    """Write the audio tokens of all clips of a store, float16 [M, T, d], as a .npy file that can be mapped.

    Its checksum goes to a .json file beside it.

    Raises:
        UsageError: the classifier has no tokens.
    """
    loaded = classifiers.load(classifier)
    token_width(loaded.module, loaded.config["name"])
    # Not through a memory map: on a full disk, that ends the process.
    with replacing(path) as part, part.open("wb") as file:
        for start in range(0, len(store), BATCH):
            with torch.inference_mode(), full_fp32():
                waves = torch.from_numpy(store.audio(np.arange(start, min(start + BATCH, len(store)))))
                tokens = loaded.module.tokens(waves.to(loaded.device)).cpu().numpy()  # type: ignore[operator]
            if not start:
                about = {"descr": "<f2", "fortran_order": False, "shape": (len(store), *tokens.shape[1:])}
                np.lib.format.write_array_header_1_0(file, about)
            file.write(tokens.astype("<f2").tobytes())
    write_sealed(path.with_suffix(".json"), {"xxh3": checksum(path)})


def read_audio_tokens(path: Path) -> NDArray[np.float16]:
    """Map the audio tokens that `write_audio_tokens` wrote, after checking them.

    Raises:
        IntegrityError: the file is damaged.
    """
    noted, remedy = path.with_suffix(".json"), "delete its folder and run the same command again"
    # Older folders have no note.
    if noted.exists() and read_sealed(noted, remedy, keys=("xxh3",))["xxh3"] != checksum(path):
        raise IntegrityError(f"{path}: checksum mismatch; {remedy}")
    try:
        return read_array(path)
    except ValueError as error:
        raise IntegrityError(f"{path}: damaged ({error}); {remedy}") from None


def token_width(classifier: nn.Module, name: str) -> int:
    """Return d of a classifier's audio tokens.

    Raises:
        UsageError: it has none.
    """
    width = getattr(classifier, "token_width", None)
    if width is None:
        raise UsageError(f"classifier.name={name}: has no tokens; choose taltrans-small, taltrans or an ast")
    return int(width)


def _backbone(recipe: Recipe, clip_samples: int) -> dict[str, Any]:
    classifier = recipe.classifier
    return {"name": classifier.name, "options": classifier.model_options(clip_samples)}


def _optimizer(recipe: Recipe, module: AudioVisual) -> torch.optim.Optimizer:
    backbone = [] if module.backbone is None else list(module.backbone.parameters())
    own = {id(parameter) for parameter in backbone}
    backbone = [parameter for parameter in backbone if parameter.requires_grad]
    rest = [parameter for parameter in module.parameters() if id(parameter) not in own]
    groups: list[dict[str, Any]] = [{"params": rest}]
    if backbone:
        groups.append({"params": backbone, "lr_ratio": BACKBONE_LR[recipe.fusion.audio_init]})
    decay = recipe.fusion.weight_decay
    return torch.optim.AdamW(groups, recipe.fusion.lr, weight_decay=decay, fused=True)
