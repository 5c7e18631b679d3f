"""Made-up outcomes of a run (predictions, rows, clip stores), for the tests of tables and report."""

import numpy as np

from ajbench.core import recipe
from ajbench.core.recipe import Mix
from ajbench.core.rows import Context, append_rows, make_row
from ajbench.data import audio, shards
from ajbench.evaluation import classification
from ajbench.evaluation.classification import Scores, TableCell

LABELS = [
    "chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog",
    "helicopter", "rain", "rooster", "sea_waves", "sneezing",
]  # fmt: skip
CONTEXT = Context("eval-cls-1", "esc10", "f0", "c0ffee", "esc10 fold 5", seconds=61.0)
DURATION_S = 1.26


def small_recipe(**evaluate_keys):
    """The shipped esc10 recipe with two models, two doses and few resamples."""
    section = {
        "models": [
            {"name": "taltrans-small", "aug": "mx+sp"},
            {"name": "ast-tiny", "aug": "mx+sp"},
        ],
        "doses": [160, 320],
        "bootstrap": 100,
        **evaluate_keys,
    }
    base = recipe.load("esc10", ["data.duration_s=1.26"])
    return recipe.Recipe.model_validate(
        base.model_dump() | {"evaluate": base.evaluate.model_dump() | section}
    )


def predictions(plan, seeds=(0, 1, 2), n=80):
    """Scores of a grid: skill grows with the dose, synthetic only is worst, classes differ."""
    truth = np.arange(n) % len(LABELS)
    targets = np.eye(len(LABELS), dtype=np.uint8)[truth]
    ids = tuple(f"5-{i:03d}" for i in range(n))
    real = plan.mix.model_copy(update={"dose": 0})
    mixes = [real, Mix(real=False, dose=320), *(Mix(dose=dose) for dose in plan.evaluate.doses)]
    cells = {}
    for m, model in enumerate(plan.evaluate.models):
        for k, mix in enumerate(mixes):
            skill = (1.6 - 0.4 * m + 0.15 * k) * np.linspace(0.7, 1.5, len(LABELS))
            skill = skill * (0.4 if not mix.real else 1.0)
            for seed in seeds:
                rng = np.random.default_rng([m, seed])
                noise = rng.standard_normal(targets.shape) + 0.2 * rng.standard_normal(len(LABELS)) * k
                cell = TableCell(model.name, "-", model.aug, classification.column_name(plan.name, mix), seed)
                cells[cell] = Scores(
                    (noise + skill * targets).astype(np.float32), targets, ids, tuple(LABELS)
                )
    return cells


def write_rows(path, plan, cells):
    """rows.csv as a run would leave it, classifiers and generated clips."""
    rows = [
        row
        for cell, scores in cells.items()
        for row in classification.cell_rows(cell, scores, CONTEXT, resamples=50)
    ]
    rows += classification.compare_to_real(cells, plan.name, CONTEXT, resamples=100)
    append_rows(path, rows + generation(plan))
    return path


def generation(plan):
    """Rows of three generated sets and the yardsticks."""
    rows = []

    def add(table, row, column, metric, value, n=160, split="eval"):
        ends = (0.85 * value, 1.15 * value)
        rows.append(
            make_row(CONTEXT, table, row, column, metric, value, ends, n=n, features="reference", split=split)
        )

    for k, name in enumerate(["img2img", *plan.evaluate.probes]):
        add("1", name, "", "fd", 21.0 + 17 * k)
        add("1", name, "", "is", 5.2 - 0.9 * k)
        if name != "unconditional":
            add("1", name, "", "kl", 0.61 + 0.8 * k, split="train")
        add("generation", name, "", "fd", 15.0 + 16 * k, split="train")
        add("generation", name, "", "fd_class", 34.0 + 15 * k, split="train")
        add("generation", name, "all", "label_agreement", 0.84 / (1 + k), split="train")
        for c, label in enumerate(LABELS):
            share = min(0.99, (0.6 + 0.04 * c) / (1 + k))
            add("generation", name, label, "label_agreement", share, n=16, split="train")
    known = {"real, train split": 5.4, "real, two halves": 7.9, "real through the codec": 12.4}
    known |= {"shuffled codes": 142.0, "white noise": 210.0}
    for row, value in known.items():
        add("generation", row, "", "fd", value)
    add("generation", "real, same class", "", "fd_class", 18.0, split="train")
    add("generation", "real, another class", "", "fd_class", 96.0, split="train")
    add("generation", "real, eval split", "all", "label_agreement", 0.83, n=80)
    for c, label in enumerate(LABELS):
        add("generation", "real, eval split", label, "label_agreement", 0.65 + 0.03 * c, n=8)
    return rows


def write_store(folder, source="real", per_class=3, blur=0.0, parents=()):
    """A clip store of a few seconds: each class has its own pitch and rhythm; `blur` drowns it in noise."""
    folder.mkdir(parents=True)
    n = audio.clip_samples(DURATION_S)
    t = np.arange(n) / audio.SAMPLE_RATE
    records = []
    for c, label in enumerate(LABELS):
        for k in range(per_class):
            rng = np.random.default_rng([c, k, source == "real"])
            pulse = (np.sin(2 * np.pi * (1.5 + c) * t + k) > 0) * np.exp(-((t * (1.5 + c)) % 1) * 3)
            tone = sum(np.sin(2 * np.pi * 180 * (c + 2) * h * t) / h for h in (1, 2, 3))
            wav = (1 - blur) * 0.25 * tone * pulse + (0.01 + 0.1 * blur) * rng.standard_normal(n)
            fold = k % 2
            records.append(
                {
                    "clip_id": f"{source}-{label}-{k}",
                    "path": f"audio/{label}-{k}.ogg",
                    "duration_s": DURATION_S,
                    "labels": [label],
                    "label_ids": [c],
                    "split": "train" if source != "real" or fold == 0 else "eval",
                    "fold": fold,
                    "source": "real" if source == "real" else "synthetic",
                    "parent_id": f"real-{label}-{k}" if parents else None,
                    "strength": None if source == "real" else 0.6 + 0.4 * (blur > 0.5),
                    "guidance": None if source == "real" else 4.0,
                    "seed": None if source == "real" else 7,
                    "audio": audio.flac_encode(wav.astype(np.float32)),
                    "codes": rng.integers(0, 1024, (8, n // audio.HOP)).astype(np.uint16),
                }
            )
    shards.write_shard(folder, 0, records)
    shards.write_quarantine(folder, [])
    counts = {"train": {"expected": 21, "found": 21, "decoded": 20, "kept": 20}}
    counts["eval"] = {"expected": 10, "found": 10, "decoded": 10, "kept": 10}
    meta = shards.StoreMeta(
        codec="tiny",
        codec_hash="0" * 12,
        clip_samples=n,
        labels=LABELS,
        counts=counts if source == "real" else {},
        fingerprint="f0",
        source="real" if source == "real" else "synthetic",
    )
    shards.finish(folder, meta)
    return folder
