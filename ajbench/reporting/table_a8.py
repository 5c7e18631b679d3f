"""Table A8 from rows.csv: audio-visual models by condition and modality, and the published values."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ajbench.core.console import counted
from ajbench.core.recipe import Recipe
from ajbench.evaluation.audio_visual import BOTH, MU, NAIVE_LINE, TABLE
from ajbench.evaluation.score_information import INPUTS
from ajbench.reporting import formats
from ajbench.reporting.formats import Block, Line, percent, signed
from ajbench.reporting.tables import ENDS, RENDERED, published

NAME = "table_a8"
LEAK = "true labels: evaluation clips are scored by their own labels, which leaks them"
NOT_COMPARABLE = "published, trained and evaluated on AudioSet: not comparable with the measured rows"
# Published cells that do not fit other sources: models, dataset, modality (None: all) and the note on them.
_FUSED = ("Naive Fusion", "Alpaca score Fusion", "T5 score Fusion", "BERT score Fusion")
_MBT = ("MBT (Nagrani et al., 2021)",)
SUSPECT: tuple[tuple[tuple[str, ...], str | None, str | None, str], ...] = (
    (
        (*_FUSED, "AST (Gong et al., 2021)"), "AS-20k", "A",
        "in Table A11, the 34.6 of audio on AS-20k is the value of an AST without initial weights on AS-2M",
    ),
    (_FUSED[:1], "AS-2M", BOTH, "46.5 is the value of mid fusion in the cited repository"),
    (
        _FUSED[1:], None, BOTH,
        "how evaluation clips were scored is not stated: scores by their labels would leak them",
    ),
    (_FUSED[2:3], None, BOTH, "the printed T5 scores lie between 0.60 and 0.98: a nearly constant discount"),
    (_MBT, "AS-2M", None, "the AS-2M values of MBT are probably those of AudioSet-500k"),
)  # fmt: skip
METRICS = ("map", "accuracy", MU)
DIFFERENCES = ("delta", "gain", "leak")


def write(rows: pd.DataFrame, recipe: Recipe, notes: Sequence[str]) -> tuple[list[Line], dict[str, str]]:
    """Return the measured lines, and table_a8.{csv,md,tex} as text by name.

    Args:
        rows: of one evaluation.
        recipe: names the video encoder and whether published rows are shown.
        notes: on missing videos and scores.
    """
    measured = lines(rows, recipe, notes)
    every = with_published(measured, recipe)
    made = blocks(every, recipe, notes)
    text = {
        "csv": formats.to_csv(every, formats.PERCENT_DIGITS),
        "md": formats.markdown(made),
        "tex": formats.latex(made),
    }
    return measured, {f"{NAME}.{kind}": content for kind, content in text.items()}


def lines(rows: pd.DataFrame, recipe: Recipe, notes: Sequence[str] = ()) -> list[Line]:
    """Return a line for each condition and modality, in percent, with differences in points.

    `<metric>_delta` is the difference from naive fusion, `_gain` that of A+V to A of the same model, `_leak`
    that of labels=true to labels=predicted; each with its 95 % interval (`_low`, `_high`). Lines whose
    modality is `score`, `caption` or `caption+score` are classifiers that get neither audio nor video.
    """
    rows = rows[rows["table"] == TABLE]
    found = []
    for (name, column), mine in rows.groupby(["row", "column"], sort=False):
        scorer, _, labels = str(name).partition("/")
        line: Line = {"model": condition(str(name)), "scorer": "" if name == NAIVE_LINE else scorer}
        line |= {"labels": labels, "backbone": f"{recipe.classifier_of().name}/{recipe.data.video}"}
        line |= {"modality": column, "source": "measured"}
        alone = column in INPUTS
        for metric in METRICS:
            each = mine[mine["metric"] == metric]
            mean = mine[mine["metric"] == f"{metric}_mean"]
            shown = each if alone or mean.empty else mean
            if shown.empty:
                continue
            for end, field in ENDS.items():
                line[f"{metric}{end}"] = percent(shown[field].iloc[-1])
            values = each["value"]
            line[f"{metric}_std"] = percent(values.std(ddof=1)) if len(values) > 1 else None
            for kind in DIFFERENCES:
                other = mine[mine["metric"] == f"{metric}_{kind}"]
                for end, field in ENDS.items() if len(other) else ():
                    line[f"{metric}_{kind}{end}"] = percent(other[field].iloc[-1])
        line["seeds"] = int(mine.loc[mine["metric"] == "map", "seed"].nunique())
        line["eval_clips"] = int(mine["n"].max())
        line["dataset"] = mine["dataset"].iloc[-1]
        own = [LEAK] if labels == "true" else []
        own += [RENDERED] if recipe.data.corpus == "mini" else []
        line["note"] = "; ".join([*own, *notes])
        found.append(line)
    return found


def published_lines() -> list[Line]:
    """Return Table A8 of the paper, with notes on values that do not fit other sources."""
    found = []
    for row in published(NAME):
        line: Line = {name: row[name] for name in ("model", "backbone", "modality")}
        line |= {"pretraining": row["pretraining"], "dataset": row["dataset"], "source": "published"}
        line |= {"map": float(row["map"]), "map_std": float(row["map_std"]) if row["map_std"] else None}
        found.append(line | {"note": "; ".join([NOT_COMPARABLE, *_suspect(row)])})
    return found


def with_published(measured: Sequence[Line], recipe: Recipe) -> list[Line]:
    """Return measured lines and, if the recipe shows them, the published ones."""
    return [*measured, *(published_lines() if recipe.evaluate.published == "as20k" else [])]


def blocks(every: Sequence[Line], recipe: Recipe, notes: Sequence[str]) -> list[Block]:
    """Return the measured table, that of scores alone, and the published one, whichever there are."""
    measured = [line for line in every if line["source"] == "measured"]
    models = [line for line in measured if line["modality"] not in INPUTS]
    alone = [line for line in measured if line["modality"] in INPUTS]
    paper = [line for line in every if line["source"] == "published"]
    found = [_models(models, recipe, notes)]
    if alone:
        found.append(_alone(alone))
    if paper:
        found.append(_published(paper))
    return found


def condition(name: str) -> str:
    """Return the name of a condition for people: `Naive fusion`, `minilm, true labels`."""
    scorer, _, labels = name.partition("/")
    if name == NAIVE_LINE:
        return "Naive fusion"
    words = {
        "predicted": "predicted labels",
        "noisy-or": "predicted labels, noisy-or",
        "overlap": "overlap of predictions",
        "true": "true labels (label leak)",
        "feature": "score as a feature",
    }
    words |= {"constant": "constant score", "shuffled": "shuffled scores", "clap": "CLAP"}
    return f"{scorer}, {words.get(labels, labels)}"


def _models(models: Sequence[Line], recipe: Recipe, notes: Sequence[str]) -> Block:
    accuracy = any("accuracy" in line for line in models)
    header = ["Model", "Modality", "mAP", *(["Accuracy"] if accuracy else []), "A+V minus A", "μ", "Seeds"]
    metric = "accuracy" if accuracy else "map"
    cells = []
    for line in models:
        values = [(_value(line, "map"), _difference(line, "map", "delta"))]
        values += [(_value(line, "accuracy"), _difference(line, "accuracy", "delta"))] if accuracy else []
        gain = (_difference(line, metric, "gain") or "–", "")
        mu = (_value(line, MU), "") if line["modality"] == BOTH else ("–", "")
        head = [(line["model"], ""), (line["modality"], "")]
        cells.append([*head, *values, gain, mu, (str(line["seeds"]), "")])
    first = models[0]
    alone = all(line["seeds"] == 1 for line in models)
    spread = "of 1 seed" if alone else "mean ± standard deviation over seeds"
    said = [
        f"{first['dataset']}, {counted(first['eval_clips'], 'evaluation clip')}; audio and video models: "
        f"{first['backbone']}; discount {recipe.fusion.discount}",
        *notes,
        f"in percent, {spread}; below it the paired difference in points from naive fusion in the same "
        f"modality, with its 95 % interval, {'over clips' if alone else 'also over seeds'}",
        f"the column A+V minus A is a paired difference of {_word(metric)} by the same model",
        "the column μ is the share of clips that audio or video alone gets right and both together get wrong",
    ]
    own = (part for line in models for part in line["note"].split("; ") if part and part not in notes)
    said = [_sentence(note) for note in (*said, *dict.fromkeys(own))]
    said += [
        f"{line['model']}: {leak} points of {_word(name)} over predicted labels"
        for line in models
        for name in METRICS[:2]
        if line["modality"] == BOTH and (leak := _difference(line, name, "leak"))
    ]
    return Block(f"Table A8, {recipe.name} (measured)", header, cells, said, 2)


def _alone(alone: Sequence[Line]) -> Block:
    accuracy = any("accuracy" in line for line in alone)
    cells = []
    for line in alone:
        values = [(_value(line, "map"), _range(line, "map"))]
        values += [(_value(line, "accuracy"), _range(line, "accuracy"))] if accuracy else []
        cells.append([(line["model"], ""), (line["modality"], ""), *values])
    header = ["Scores", "Input", "mAP", *(["Accuracy"] if accuracy else [])]
    note = (
        "what scores say about the labels: logistic regression on the score, the embedding of the visual "
        "caption, or both with their products; it gets neither audio nor video; first seed"
    )
    return Block("Scores without audio and video", header, cells, [note], 2)


def _published(paper: Sequence[Line]) -> Block:
    cells = [
        [(line["model"], ""), (line["dataset"], ""), (line["modality"], ""), (_value(line, "map", 2), "")]
        for line in paper
    ]
    said = dict.fromkeys(part for line in paper for part in line["note"].split("; "))
    return Block(
        "Table A8 of the paper (published)", ["Model", "Dataset", "Modality", "mAP"], cells,
        [_sentence(note) for note in said], 3,
    )  # fmt: skip


def _suspect(row: Mapping[str, str]) -> list[str]:
    """Return the notes on a published cell."""
    return [
        note
        for models, dataset, modality, note in SUSPECT
        if row["model"] in models
        and dataset in (None, row["dataset"])
        and modality in (None, row["modality"])
    ]


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:]


def _word(metric: str) -> str:
    return "mAP" if metric == "map" else metric


def _value(line: Line, metric: str, digits: int = 1) -> str:
    mean, std = line.get(metric), line.get(f"{metric}_std")
    if mean is None:
        return "–"
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.{digits}f}"


def _range(line: Line, metric: str) -> str:
    low, high = line.get(f"{metric}_low"), line.get(f"{metric}_high")
    return "" if low is None or high is None else f"[{low:.1f}, {high:.1f}]"


def _difference(line: Line, metric: str, kind: str) -> str:
    values: list[Any] = [line.get(f"{metric}_{kind}{end}") for end in ENDS]
    return "" if None in values else "{} [{}, {}]".format(*(signed(value) for value in values))
