"""A trained generator for others: one self-contained folder with a model card."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ajbench.core.errors import UsageError
from ajbench.core.files import atomic_write, sync, writing
from ajbench.core.recipe import Recipe
from ajbench.generation import checkpoint as folders
from ajbench.generation import lora

CARD = "README.md"
METRICS = {
    "fd": "FD to the evaluation clips",
    "kl": "KL to the parent clips",
    "is": "inception score",
    "label_agreement": "label agreement",
}
SHOWN_LABELS = 20

_CARD = """\
---
library_name: diffusers
pipeline_tag: text-to-audio
tags: [audio, text-to-audio, ajbench]
---

# {name}

A latent diffusion model that generates {seconds:g} s of audio at 16 kHz from text and, optionally, a guide
clip. It works in the latent space of the codec `{codec}`, conditioned on text embeddings of `{text}`.
Trained with ajbench, after "Audio-Journey".

```python
from ajbench import AudioJourneyPipeline

wave = AudioJourneyPipeline.from_pretrained("PATH")("The sound of {prompt}")  # float32 [{samples}]
```

Class tokens: {tokens}.

## Training

{facts}

`generator.json` lists the ids of the training clips: do not evaluate on them.

## Evaluation

{measured}

## Limits

The model knows only the sounds that it was trained on. Whether its clips help to train a classifier has to be
measured: `ajbench run` does so, with intervals.
"""


def export(
    recipe: Recipe,
    generator: Path,
    tokens: Path,
    out: Path,
    rows: Sequence[Mapping[str, Any]] = (),
    force: bool = False,
) -> Path:
    """Copy a generator, its class tokens and LoRA into one folder with a card, for `AudioJourneyPipeline`.

    The folder is written under a temporary name first, so `out` is complete or missing.

    Args:
        recipe: of the training.
        generator: folder of `train-gen`.
        tokens: folder of `invert`.
        out: the new folder.
        rows: of `eval-gen`, for the card.
        force: replace `out` if it exists.

    Raises:
        MissingError: one of the stages is not finished.
        IntegrityError: one of their files is damaged.
        UsageError: `out` exists or, with `force`, is no exported generator.
    """
    info, known = folders.read_info(generator), folders.read_tokens(tokens)[0]
    if out.exists() and not force:
        raise UsageError(f"{out}: exists; choose another folder, or overwrite it with --force")
    exported = all((out / name).is_file() for name in (CARD, folders.INFO))
    if out.exists() and not exported and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(
            f"{out}: no exported generator, so --force does not delete it; choose another folder"
        )
    part, former = (out.with_name(f".{out.name}{suffix}.tmp") for suffix in ("", ".former"))
    for left in (part, former):  # by an export that was killed
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    files = [(generator, name) for name in ("model_index.json", folders.INFO, *info.xxh3)]
    for home, name in files + [(tokens, name) for name in (folders.TOKENS, *known.xxh3)]:
        (part / name).parent.mkdir(exist_ok=True)
        with writing(out):
            shutil.copyfile(home / name, part / name)
            sync([part / name])
    atomic_write(part / CARD, card(recipe, info, known, rows))
    if out.exists():
        out.replace(former)  # whole: one that is deleted in part may look like none, which --force refuses
    part.replace(out)
    shutil.rmtree(former, ignore_errors=True)
    return out


def card(
    recipe: Recipe,
    info: folders.GeneratorInfo,
    tokens: folders.TokensInfo,
    rows: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the model card: use, training, evaluation with intervals, limits."""
    labels = list(tokens.tokens)
    named = ", ".join(f"`<{name}>`" for name in labels[:SHOWN_LABELS])
    more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    adapted = ["the tokens"] if labels else []
    if tokens.lora_rank is not None:
        adapted.append(f"LoRA of rank {tokens.lora_rank} (`{lora.FILE}`)")
    subset, fold = recipe.data.subset, recipe.data.eval_fold
    corpus = f"{recipe.data.corpus} {subset}" if subset else recipe.data.corpus
    other = recipe.generator.other_store
    source = f"the store {other.name}" if other else f"corpus {corpus}"
    without = f", without fold {fold}" if fold and not other else ""
    facts = {
        "clips": f"{len(info.train_ids)} of {source}{without}",
        "U-Net": f"`{info.preset}`, {info.parameters:,} parameters, predicts {recipe.generator.prediction}",
        "steps": f"{info.train_steps:,}, then {tokens.train_steps:,} for {' and '.join(adapted)}",
        "fingerprints": f"generator `{info.fingerprint}`, tokens `{tokens.fingerprint}`",
    }
    return _CARD.format(
        name=f"{recipe.name}: {info.preset} generator",
        seconds=info.clip_samples / 16_000,
        samples=info.clip_samples,
        codec=info.codec,
        text=info.text_encoder,
        prompt=f"<{labels[0]}>" if labels else "rain",
        tokens=f"{named or 'none'}{more}",
        facts="\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
        measured=_measured(rows),
    )


def _measured(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of whole sets as a Markdown table."""
    lines, features = [], set()
    for row in rows:
        agreement = row["metric"] == "label_agreement"
        if not (row["column"] == "all" if agreement else row["table"] == "1" and row["metric"] in METRICS):
            continue
        value, low, high = (
            f"{100 * float(row[name]):.1f} %" if agreement else f"{float(row[name]):.3g}"
            for name in ("value", "ci_low", "ci_high")
        )
        features.add(str(row["features"]))
        metric = METRICS[row["metric"]]
        lines.append(f"| {row['row']} | {metric} | {value} | {low} to {high} | {int(row['n'])} |")
    if not lines:
        return "None yet (`ajbench eval-gen`)."
    table = "\n".join(lines)
    head = "| clips | metric | value | 95 % interval | n |\n| --- | --- | --- | --- | --- |\n"
    named = f"Extractor{'s' * (len(features) > 1)}: {', '.join(sorted(features))}"
    return f"{head}{table}\n\n{named}. FD depends on the extractor and on n."
