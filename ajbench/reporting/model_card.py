"""A trained generator as others take it: one folder, and a model card that tells what it is and does."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ajbench.core.errors import UsageError
from ajbench.core.files import atomic_write
from ajbench.core.recipe import Recipe
from ajbench.generation import checkpoint as folders
from ajbench.generation import lora

CARD = "README.md"
METRICS = {
    "fd": "FD to the evaluation clips",
    "kl": "KL to the parent clips",
    "is": "inception score",
    "label_agreement": "asked class heard",
}
SHOWN_LABELS = 20

_HEAD = """\
---
library_name: diffusers
pipeline_tag: text-to-audio
tags: [audio, text-to-audio, ajbench]
---

# {name}

Text (and a guide clip, if there is one) to sound of {seconds:g} s at 16 kHz: latent diffusion in the space
of the codec `{codec}`, conditioned on `{text}`. Made by ajbench, after "Audio-Journey".

```python
from ajbench import AudioJourneyPipeline

wave = AudioJourneyPipeline.from_pretrained("PATH")("The sound of {prompt}")  # float32 [{samples}]
```
"""

_LIMITS = """
## Limits

It knows the sounds that it was trained on and no others. What its clips are good for in training a classifier
is a question of measurement: `ajbench run` answers it with intervals.
"""


def export(
    recipe: Recipe,
    generator: Path,
    tokens: Path,
    out: Path,
    rows: Sequence[Mapping[str, Any]] = (),
    force: bool = False,
) -> Path:
    """Put a generator, its class tokens and LoRA into one folder, with a card, for `AudioJourneyPipeline`.

    Written beside it first: `out` is whole or not there.

    Args:
        recipe: that both were made by.
        generator: folder of `train-gen`.
        tokens: folder of `invert`.
        out: the new folder.
        rows: of `eval-gen`, for the card.
        force: replace `out` if it is there.

    Raises:
        MissingError: one of the folders is not finished.
        IntegrityError: a file of theirs is damaged.
        UsageError: `out` is there.
    """
    info, known = folders.read_info(generator), folders.read_tokens(tokens)[0]
    if out.exists() and not force:
        raise UsageError(f"{out}: there already; choose another folder, or replace it with --force")
    part = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for home, document, listed in (
        (generator, folders.INFO, info.xxh3),
        (tokens, folders.TOKENS, known.xxh3),
    ):
        for name in (document, *listed):
            (part / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(home / name, part / name)
    shutil.copyfile(generator / "model_index.json", part / "model_index.json")
    atomic_write(part / CARD, card(recipe, info, known, rows))
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)
    return out


def card(
    recipe: Recipe,
    info: folders.GeneratorInfo,
    tokens: folders.TokensInfo,
    rows: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the model card: use, training, measurements with intervals, limits."""
    label = next(iter(tokens.tokens), None)
    text = _HEAD.format(
        name=f"{recipe.name}: {info.preset} generator",
        seconds=info.clip_samples / 16_000,
        samples=info.clip_samples,
        codec=info.codec,
        text=info.text_encoder,
        prompt=f"<{label}>" if label else "rain",
    )
    labels = list(tokens.tokens)
    more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    named = ", ".join(f"`<{name}>`" for name in labels[:SHOWN_LABELS])
    text += f"\nClass tokens: {named or 'none'}{more}.\n\n## Training\n\n"
    adapted = ["the tokens"] if labels else []
    if tokens.lora_rank is not None:
        adapted.append(f"LoRA of rank {tokens.lora_rank} (`{lora.FILE}`)")
    facts = {
        "clips": f"{len(info.train_ids)} of corpus {recipe.data.corpus}"
        + (f" {recipe.data.subset}" if recipe.data.subset else "")
        + (f", fold {recipe.data.eval_fold} left out" if recipe.data.eval_fold else ""),
        "U-Net": f"`{info.preset}`, {info.parameters:,} parameters, predicts {recipe.generator.prediction}",
        "steps": f"{info.train_steps:,}, then {tokens.train_steps:,} for {' and '.join(adapted)}",
        "fingerprints": f"generator `{info.fingerprint}`, tokens `{tokens.fingerprint}`",
    }
    text += "".join(f"- {name}: {fact}\n" for name, fact in facts.items())
    text += (
        "\nThe ids of the training clips are in `generator.json`: do not test on those.\n\n## Measured\n\n"
    )
    lines = [_measured(row) for row in rows if _shown(row)]
    if lines:
        features = sorted({str(row["features"]) for row in rows if _shown(row)})
        text += "| clips | measure | value | 95 % interval | n |\n| --- | --- | --- | --- | --- |\n"
        text += "\n".join(lines) + f"\n\nFeatures: {', '.join(features)}. FD depends on them and on n.\n"
    else:
        text += "Nothing yet (`ajbench eval-gen`).\n"
    return text + _LIMITS


def _shown(row: Mapping[str, Any]) -> bool:
    asked = row["metric"] == "label_agreement" and row["column"] == "all"
    return bool(asked or (row["table"] == "1" and row["metric"] in METRICS))


def _measured(row: Mapping[str, Any]) -> str:
    share = row["metric"] == "label_agreement"
    value, low, high = (
        f"{100 * float(row[name]):.1f} %" if share else f"{float(row[name]):.3g}"
        for name in ("value", "ci_low", "ci_high")
    )
    return f"| {row['row']} | {METRICS[row['metric']]} | {value} | {low} to {high} | {int(row['n'])} |"
