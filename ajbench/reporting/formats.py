"""Tables as text: Markdown, LaTeX, CSV, HTML and lines for the terminal."""

import csv
import io
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajbench.core.console import counted
from ajbench.core.files import inert
from ajbench.core.recipe import Recipe
from ajbench.core.rows import folds_in

Line = dict[str, Any]
PERCENT_DIGITS, VALUE_DIGITS = 2, 4  # decimals in CSV files
COUNTED = ("expected", "found", "decoded", "kept")  # of the clips that the corpus lists


@dataclass(frozen=True)
class Block:
    """A table for reading."""

    title: str
    header: list[str]
    lines: list[list[tuple[str, str]]]  # cells: text and, in small print, a difference or an interval
    notes: list[str]  # below the table, without full stops
    words: int  # number of leading text columns; the others are numbers


def blocks_a11(lines: list[Line], recipe: Recipe) -> list[Block]:
    """Return Table A11 as blocks: measured lines and, if there are any, published ones."""
    measured = [line for line in lines if line["source"] == "measured"]
    blocks = [_block_a11(f"Table A11, {recipe.name} (measured)", measured, recipe)]
    if published := [line for line in lines if line["source"] == "published"]:
        blocks.append(_block_a11("Table A11 of the paper (published)", published, None))
    return blocks


def _block_a11(title: str, lines: list[Line], recipe: Recipe | None) -> Block:
    columns = list(dict.fromkeys(k[:-4] for line in lines for k in line if k.endswith("_std")))
    cells = []
    several = len({line.get("codec") for line in lines}) > 1
    models = [f"{line['model']}, {line['codec']}" if several else line["model"] for line in lines]
    for line, model in zip(lines, models, strict=True):
        head = model, line["backbone"], line["pretraining"].strip("-"), line["augmentation"]
        values = [(_mean_std(line, c), _delta(line, c)) for c in columns]
        cells.append([*((text or "–", "") for text in head), *values])
    notes = _notes(lines)
    if recipe and lines:
        first = lines[0]
        classes = f" of {counted(first['classes'], 'class')}" if first.get("classes") else ""
        clips = counted(first["eval_clips"], "evaluation clip")
        notes.insert(0, f"{first['dataset']}, {clips}{classes}{_kept(first)}{_sizes(lines)}")
        training = (
            "each arm trains with the keys chosen for it from the same candidates (evaluate.tune)"
            if recipe.evaluate.tune
            else "all mixes of a line train for the same number of steps"
            if equal_steps(recipe)
            else "training is counted in epochs, so larger mixes train for more steps"
        )
        folds = folds_in(first["dataset"])
        over_folds = f", each the mean over {folds} folds" if folds > 1 else ""
        redrawn = recipe.evaluate.redraw and recipe.mix.by_chance
        alone = f" ({first['codec']})" if several else ""  # earlier runs may have drawn otherwise
        seeds = seed_counts(lines)
        drawn = f", each with other real clips{alone}" if redrawn and seeds != {1} else ""
        notes.append(
            f"mAP in percent, {over_seeds(seeds)}{drawn}{over_folds}; below it the paired difference from "
            f"{recipe.name}{shared_seeds(seeds)} with its 95 % interval over {covered(seeds)}; {training}"
        )
        notes += [
            f"{model}, {line['augmentation']}: {column}: {line[f'{column}_seeds']} of {line['seeds']} seeds"
            for line, model in zip(lines, models, strict=True)
            for column in columns
            if f"{column}_seeds" in line
        ]
        notes += [
            f"{model}, {line['augmentation']}: {line['dataset']}, "
            f"{counted(line['eval_clips'], 'evaluation clip')}"
            for line, model in zip(lines, models, strict=True)
            if line["dataset"] != first["dataset"]
        ]
        if first.get("tail"):
            notes.append(f"Tail: {first['tail']} real clips{', filled alone' * fills(recipe)}")
        notes += [
            f"{model}, {line['augmentation']}: {column} minus {column.rpartition('+')[0]}: {gain}"
            for line, model in zip(lines, models, strict=True)
            for column in columns
            if (gain := _delta(line, column, "delta_a"))
        ]
    return Block(title, ["Model", "Backbone", "PT", "Aug", *columns], cells, notes, 4)


def blocks_1(lines: list[Line], recipe: Recipe) -> list[Block]:
    """Return Table 1 as blocks: measured sets and published models, whichever there are."""
    blocks = []
    measured, paper = f"Table 1, {recipe.name} (measured)", "Table 1 of the paper (published)"
    for source, title in (("measured", measured), ("published", paper)):
        mine = [line for line in lines if line["source"] == source]
        if not mine:
            continue
        header = ["Model", "Datasets", "FD ↓", "IS ↑", "KL ↓", "Features"]
        cells, notes = [], _notes(mine)
        for line in mine:
            values = [(plain(line.get(m)), interval(line, m)) for m in ("fd", "is", "kl")]
            cells.append([(line["model"], ""), (line["datasets"], ""), *values, (line["features"], "")])
        if source == "measured":
            header.append("n")
            cells = [[*row, (str(line["n"]), "")] for row, line in zip(cells, mine, strict=True)]
            split = mine[0]["reference"]
            notes.insert(
                0, f"FD to the real clips of the {split} split; KL of each clip to its parent{_sizes(mine)}"
            )
        blocks.append(Block(title, header, cells, notes, 2))
    return blocks


def markdown(blocks: Iterable[Block]) -> str:
    """Return blocks as GitHub Markdown."""
    parts = []
    for block in blocks:
        rule = ["---" if i < block.words else "---:" for i in range(len(block.header))]
        body = [
            [f"{_md(a)}<br><sub>{_md(small)}</sub>" if small else _md(a) for a, small in line]
            for line in block.lines
        ]
        lines = [[*map(_md, block.header)], rule, *body]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        notes = (f"*{_md(note)}.*" for note in block.notes)
        parts.append("\n\n".join([f"### {_md(block.title)}", table, *notes]))
    return "\n\n".join(parts) + "\n"


def latex(blocks: Iterable[Block]) -> str:
    r"""Return blocks as LaTeX tables (`\usepackage{booktabs}`)."""
    parts = []
    for block in blocks:
        lines = [" & ".join(map(_tex, block.header)) + r" \\", r"\midrule"]
        for line in block.lines:
            lines.append(" & ".join(_tex(text) for text, _ in line) + r" \\")
            if any(small for _, small in line):
                small_print = (rf"{{\scriptsize {_tex(small)}}}" if small else "" for _, small in line)
                lines.append(" & ".join(small_print) + r" \\")
        caption = _tex(". ".join([block.title, *block.notes]) + ".")
        align = "l" * block.words + "r" * (len(block.header) - block.words)
        head = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
        end = [r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}"]
        parts.append("\n".join([*head, *lines, *end]))
    return "\n\n".join(parts) + "\n"


def seed_counts(lines: Iterable[Line]) -> set[int]:
    """Return how many seeds the cells of lines have: of a line's `seeds`, or fewer (`<column>_seeds`)."""
    return {n for line in lines for name, n in line.items() if name == "seeds" or name.endswith("_seeds")}


def over_seeds(counts: Collection[int]) -> str:
    """Return what a value is, given the numbers of seeds: of one seed there is no mean."""
    if {*counts} == {1}:
        return "of 1 seed"
    ends = sorted({min(counts), max(counts)})
    return f"mean ± standard deviation over {'–'.join(map(str, ends))} seeds"


def shared_seeds(counts: Collection[int]) -> str:
    """Return the seeds that paired differences are over, if the numbers of seeds are not all the same."""
    return " over the seeds that both have," if len({*counts}) > 1 else ""


def covered(counts: Collection[int]) -> str:
    """Return what 95 % intervals cover, given the numbers of seeds: one seed says nothing of others."""
    if {*counts} == {1}:
        return "clips"
    return "clips and seeds" if len({*counts}) == 1 else "clips and, from two seeds on, seeds"


def percent(value: float) -> float | None:
    """Return a fraction in percent, None if it is not finite; not rounded, which texts do once."""
    return finite(100 * value)


def finite(value: float) -> float | None:
    """Return a number, or None if it is not finite."""
    return float(value) if math.isfinite(value) else None


def to_csv(lines: Sequence[Line], digits: int | None = None, columns: Sequence[str] = ()) -> str:
    """Return mappings as CSV, None and NaN as empty cells, free text (tail, note, …) in the last columns.

    Args:
        lines: column → cell.
        digits: decimals of numbers; None: all that they have.
        columns: those that the header has even if there is no line.
    """
    text = io.StringIO()
    names = list(dict.fromkeys([*columns, *(name for line in lines for name in line)]))
    names.sort(key=lambda name: name in ("tail", "tail_eval_clips", "dataset", "note"))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()

    def cell(value: Any) -> Any:
        if value is None or value != value:  # NaN, an absent bound of an interval, is not equal to itself
            return ""
        if isinstance(value, float) and digits is not None:
            return round(value, digits)
        return inert(value) if isinstance(value, str) else value

    writer.writerows({name: cell(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


def html(template: str, page: dict[str, Any]) -> str:
    """Return the HTML of a template (such as `report`), filled with the values of `page`."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(f"{template}.html.j2").render(page)


def console_table(block: Block) -> tuple[list[str], list[list[str]]]:
    """Return (header, lines) for the terminal, with differences on lines of their own, marked Δ."""
    keep = [i for i, name in enumerate(block.header) if name not in ("Backbone", "PT")]
    lines = []
    for line in block.lines:
        lines.append([line[i][0] for i in keep])
        if any(small for _, small in line):
            lines.append(["", "Δ", *(line[i][1] for i in keep[2:])])
    return [block.header[i] for i in keep], lines


def signed(value: float) -> str:
    """Return a difference in percentage points with its sign: `+1.8`, `−0.4`, `0.0`."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def plain(value: float | None) -> str:
    """Return a number with three or two decimals; a dash for None."""
    return "–" if value is None else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def interval(line: Line, metric: str) -> str:
    """Return the bounds of a metric in brackets; an empty text where there are none."""
    low, high = line.get(f"{metric}_low"), line.get(f"{metric}_high")
    return "" if low is None or high is None else f"[{plain(low)}, {plain(high)}]"


def _mean_std(line: Line, column: str) -> str:
    mean, std = line.get(column), line.get(f"{column}_std")
    if mean is None:
        return "–"
    digits = 1 if line["source"] == "measured" else 2  # published deviations go down to 0.01
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.{digits}f}"


def _delta(line: Line, column: str, kind: str = "delta") -> str:
    values = [line.get(f"{column}_{kind}{end}") for end in ("", "_low", "_high")]
    return "" if None in values else "{} [{}, {}]".format(*(signed(v) for v in values if v is not None))


def _notes(lines: list[Line]) -> list[str]:
    """Return the notes of all lines, each once, as sentences."""
    found = dict.fromkeys(part for line in lines for part in line["note"].split("; ") if part)
    return [note[0].upper() + note[1:] for note in found]


def fills(recipe: Recipe) -> bool:
    """Return whether the clips that mixes add all have a label of the tail."""
    return bool(recipe.mix.tail and recipe.mix.tail.fill)


def equal_steps(recipe: Recipe) -> bool:
    """Return whether all classifiers train for a fixed number of steps, whatever the mix."""
    return all(recipe.classifier_of(line.model_dump()).train_steps for line in recipe.evaluate.models)


def _kept(line: Line) -> str:
    """Return how many of the clips that the corpus lists are in the store, and why the others are not."""
    parts = []
    for split in ("train", "val", "eval"):
        expected, found, decoded, kept = (line.get(f"{split}_{name}") for name in COUNTED)
        if not expected:
            continue
        part = f"{split} {kept} of {expected}"
        if found is not None and decoded is not None and expected != kept:
            lost = {"missing": expected - found, "broken": found - decoded, "duplicate": decoded - kept}
            part += ": " + ", ".join(f"{number} {what}" for what, number in lost.items() if number)
        parts.append(part)
    return f" (clips kept: {', '.join(parts)})" if parts else ""


def _sizes(lines: Sequence[Line]) -> str:
    """Return the sizes of the generator's pool and of the real clips, and the codec, where rows have them."""
    named = {"pool": "pool", "real": "real", "all_real": "all real"}
    found = {name: sorted({line[key] for line in lines if line.get(key)}) for key, name in named.items()}
    parts = [f"{name} {'–'.join(f'{n:,}' for n in sizes)}" for name, sizes in found.items() if sizes]
    if codecs := sorted({line["codec"] for line in lines if line.get("codec")}):
        parts.append(f"codec {'; '.join(codecs)}")
    return f"; {', '.join(parts)}" if parts else ""


_TEX = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "−": "$-$", "±": r"$\pm$", "–": "--"}
_TEX |= {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_TEX |= {"\n": " ", "\r": " "}
_TEX |= {"α": r"$\alpha$", "Δ": r"$\Delta$", "μ": r"$\mu$", "×": r"$\times$"}
_TEX |= {"↓": r"$\downarrow$", "↑": r"$\uparrow$"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def _md(text: str) -> str:
    """Return text that is neither HTML nor the end of a cell in Markdown."""
    return " ".join(text.splitlines()).replace("<", "&lt;").replace("|", r"\|")
