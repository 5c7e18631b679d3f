"""What can be known before any work: whether a recipe can be done at all, and what its inputs are."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash
from pydantic import BaseModel, ValidationError

from ajbench.core import registry, transformers_folder
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.recipe import Recipe, Synth, fingerprint
from ajbench.data.manifest import Manifest, Row
from ajbench.generation import hub_encoders
from ajbench.generation.prompts import chosen_classes

MANY_FILES = 50_000  # of more only a part is opened, since millions of them take an hour
HEAD_BYTES = 1 << 16  # of every sound file: its header and enough of its content to tell it from another


def check_names(recipe: Recipe) -> None:
    """Refuse names that stand for nothing, without importing what they stand for.

    Raises:
        UsageError: the first unknown name, with its key, the near one and the allowed ones.
    """
    named = [
        ("data.corpus", "corpus", recipe.data.corpus),
        ("evaluate.features", "features", recipe.evaluate.features),
        ("classifier.name", "classifier", recipe.classifier.name),
        *(("evaluate.models", "classifier", model.name) for model in recipe.evaluate.models),
    ]
    if not registry.is_folder(recipe.generator.text_encoder):
        named.append(("generator.text_encoder", "text encoder", recipe.generator.text_encoder))
    if not recipe.codec.name.endswith(".safetensors"):
        named.append(("codec.name", "codec", recipe.codec.name))
    for key, kind, name in named:
        table = registry.KINDS[kind]
        if name not in table:
            raise UsageError(
                f"{key}: {kind} {name!r} is unknown{registry.suggest(name, table)}; "
                f"allowed: {', '.join(table)}"
            )
    for key, chosen in (("evaluate.features", recipe.evaluate.features), ("synth.judge", recipe.synth.judge)):
        if chosen in registry.FEATURES and not registry.FEATURES[chosen].classes:
            able = [name for name, entry in registry.FEATURES.items() if entry.classes]
            raise UsageError(
                f"{key}={chosen}: knows no classes, which is needed here; allowed: {', '.join(able)}; FD "
                f"of it: ajbench eval-gen --gen DIR --ref DIR --features {chosen}"
            )
    judge_weights(recipe.synth.judge)
    if recipe.mix.min_fidelity and recipe.synth.judge is None:
        raise UsageError(
            f"mix.min_fidelity={recipe.mix.min_fidelity:g}: nothing scores the clips; set synth.judge, such "
            "as reference"
        )


def judge_weights(name: str | None) -> Path | None:
    """Return the folder of a judge of synthetic clips that is a trained classifier; None for others.

    Raises:
        UsageError: `name` is neither that of features nor a folder.
    """
    if name is None or name in registry.FEATURES:
        return None
    if not Path(name).is_dir():
        allowed = ", ".join(registry.FEATURES)
        raise UsageError(
            f"synth.judge: {name!r} is no folder{registry.suggest(name, registry.FEATURES)}; allowed: "
            f"{allowed}, or the folder of a trained classifier"
        )
    return Path(name)


def check_amounts(recipe: Recipe, manifest: Manifest, doses: Sequence[int] = ()) -> None:
    """Refuse what would fail after hours for want of clips or classes.

    Raises:
        UsageError: doses above `synth.n`, more classes than the corpus has or others, or an empty split.
    """
    n = recipe.synth.n
    for key, dose in [("mix.dose", recipe.mix.dose), *(("evaluate.doses", dose) for dose in doses)]:
        if dose > n:
            raise UsageError(
                f"{key}: {dose} synthetic clips asked for, synth.n={n} are made; raise synth.n or lower it"
            )
    corpus, classes = recipe.data.corpus, len(manifest.label_set)
    if recipe.synth.classes and recipe.synth.classes > classes:
        raise UsageError(
            f"synth.classes={recipe.synth.classes}: corpus {corpus} has {classes} classes; at most that many"
        )
    if recipe.invert.classes is not None:
        chosen_classes(recipe.invert.classes, manifest.label_set.names)
    for split in ("train", "eval"):
        if not manifest.split(split):
            raise UsageError(
                f"corpus {corpus}: no clip in split {split!r}; choose another data.eval_fold or add some"
            )


def check_text_encoder(name: str) -> None:
    """Refuse a text encoder whose weights are not on this machine.

    Raises:
        MissingError: they are not; the message says where to put them.
        UsageError: a folder of another kind of model.
        IntegrityError: its configuration is damaged.
    """
    if registry.is_folder(name):
        transformers_folder.kind_of(Path(name))
    elif name in hub_encoders.WIDTHS:
        hub_encoders.find(name)


def check_generator(folder: Path, recipe: Recipe, manifest: Manifest) -> None:
    """Refuse a trained generator that does not belong to this corpus and codec.

    Raises:
        MissingError: no generator is there.
        IntegrityError: it has heard evaluation clips (the leak rule), or speaks another codec.
    """
    path = folder / "generator.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        heard, codec = set(info["train_ids"]), info["codec"]
    except FileNotFoundError:
        raise MissingError(
            f"--generator {folder}: no trained generator there ({path.name} is missing)"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(f"{path}: damaged; train the generator again") from None
    held_out = [row.clip_id for row in manifest.split("eval")]
    if leaked := [clip_id for clip_id in held_out if clip_id in heard]:
        raise IntegrityError(
            f"--generator {folder}: trained on {len(leaked)} of the {len(held_out)} evaluation clips (such "
            f"as {leaked[0]}); use one trained on this fold's train split"
        )
    if codec in registry.CODECS and recipe.codec.name in registry.CODECS and codec != recipe.codec.name:
        raise IntegrityError(f"--generator {folder}: of codec {codec}, the recipe is of {recipe.codec.name}")


def label_table(recipe: Recipe, data: Path | None, error: MissingError) -> Manifest:
    """Read a corpus whose sound is missing by its label table alone.

    Args:
        recipe: its data section says which.
        data: where the corpus lies.
        error: what its reader said.

    Raises:
        MissingError: that error, where the corpus has no label table; or the table is missing too.
    """
    corpus = recipe.data.corpus
    if corpus not in registry.LABEL_TABLES:
        raise error
    found: Manifest = registry.resolve("corpus", corpus)(recipe.data, data, need_files=False)
    return found


def probe(recipe: Recipe, name: str, changes: Mapping[str, Any]) -> Synth:
    """Return the synth section of a probe: the recipe's own with `evaluate.probes.<name>` laid over it.

    Raises:
        UsageError: a key or value that the section does not take.
    """
    try:
        return Synth.model_validate(recipe.synth.model_dump() | dict(changes))
    except ValidationError as error:
        raise misfit(f"evaluate.probes.{name}", error, Synth) from None


def misfit(where: str, error: ValidationError, section: type[BaseModel]) -> UsageError:
    """Return the refusal of what a recipe lays over a section under the key `where`, by its first fault."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if not key:  # the section does not fit together
        return UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}")
    near = registry.suggest(key, section.model_fields) if first["type"] == "extra_forbidden" else ""
    return UsageError(f"{where}.{key}: {first['msg']}{near}")


def corpus_identity(manifest: Manifest) -> str:
    """Hash what the clips are: ids, labels, splits, sizes and first 64 kB of files; not where they lie.

    Of more than 50,000 files all sizes, but the content of 50,000 spread over them.
    """
    paths = list(dict.fromkeys(row.path for row in manifest.rows))
    stride = -(-len(paths) // MANY_FILES) or 1
    with ThreadPoolExecutor(4) as pool:
        heads = dict(pool.map(_size, paths) if stride > 1 else ())
        heads |= pool.map(_head, paths[::stride])
    problems = [(p.clip_id, p.line, p.split) for p in manifest.problems]
    clips = [[*_meaning(row), heads[row.path]] for row in manifest.rows]
    return fingerprint(list(manifest.label_set.names), clips, problems)


def codec_identity(name: str) -> str:
    """Hash a codec's weights that lie on this disk; others go by name, and the store checks their hash."""
    if name == "tiny":
        return weights_identity(Path(__file__).parents[1] / "codec")
    return weights_identity(Path(name)) if name.endswith(".safetensors") else name


def text_encoder_identity(name: str) -> tuple[str, ...]:
    """Hash the weights of a text encoder that is a folder; nothing for others, which go by name."""
    return (weights_identity(Path(name)),) if registry.is_folder(name) else ()


def store_mb(recipe: Recipe, clips: int) -> float:
    """Return about what a clip store takes on disk, in MB."""
    # 16-bit FLAC at about 0.6 of its samples, and eight 16-bit codes a frame of 320 samples.
    samples = recipe.data.duration_s * 16_000
    return round(clips * (samples * 2 * 0.6 + samples / 320 * 8 * 2) / 1e6, 1)


def weights_identity(path: Path) -> str:
    """Hash a weights file, or all the safetensors files of a folder.

    Raises:
        MissingError: there is no such file or folder.
    """
    if not path.exists():
        raise MissingError(f"{path}: no such file or folder of weights")
    digest = xxhash.xxh3_64()
    for file in [path] if path.is_file() else sorted(path.rglob("*.safetensors")):
        digest.update(file.name.encode())
        with file.open("rb") as content:
            while chunk := content.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _meaning(row: Row) -> list[Any]:
    return [
        row.clip_id,
        row.start_s,
        row.duration_s,
        list(row.labels),
        row.split,
        row.fold,
        row.caption,
        row.parent_id,
    ]


def _size(path: str) -> tuple[str, str]:
    try:
        return path, str(Path(path).stat().st_size)
    except OSError:
        return path, path


def _head(path: str) -> tuple[str, str]:
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return path, f"{size}:{xxhash.xxh3_64_hexdigest(file.read(HEAD_BYTES))}"
    except OSError:
        # A rendered clip, whose path says how; or a file that is not there, which prepare will list.
        return path, path
