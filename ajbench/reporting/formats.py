"""Finished tables as text: blocks of cells for reading, written as Markdown, LaTeX or terminal lines."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajbench.core.recipe import Recipe

Line = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """A table for reading: each cell is its text and, in small print, a difference or an interval.

    The first `words` columns are text, the others figures.
    """

    title: str
    header: list[str]
    lines: list[list[tuple[str, str]]]
    notes: list[str]
    words: int


def blocks_a11(lines: list[Line], recipe: Recipe) -> list[Block]:
    """Return Table A11 for reading: the measured block, and the published one where the recipe wants it."""
    blocks = []
    for source in ("measured", "published"):
        mine = [line for line in lines if line["source"] == source]
        if not mine and source == "published":
            continue
        columns = list(dict.fromkeys(k[:-4] for line in mine for k in line if k.endswith("_std")))
        cells = []
        for line in mine:
            head = [
                (line["model"], ""),
                (line["backbone"] or "–", ""),
                (line["pretraining"].strip("-") or "–", ""),
            ]
            head.append((line["augmentation"], ""))
            cells.append(head + [(_mean_std(line, c), _delta(line, c)) for c in columns])
        notes = _notes(mine)
        if source == "measured" and mine:
            notes = [
                f"{mine[0]['dataset']}, {mine[0]['eval_clips']} evaluation clips{_classes(mine[0])}"
                f"{_kept(mine[0])}",
                *notes,
            ]
            seeds = "–".join(str(n) for n in sorted({line["seeds"] for line in mine}))
            notes.append(
                f"mAP in percent, mean ± standard deviation over {seeds} seeds; below it the paired "
                f"difference to {recipe.name} with its 95 % interval over clips and seeds; "
                f"{_training(recipe)}"
            )
        title = (
            f"Table A11, {recipe.name} (measured)"
            if source == "measured"
            else "Table A11 of the paper (published)"
        )
        blocks.append(Block(title, ["Model", "Backbone", "PT", "Aug", *columns], cells, notes, 4))
    return blocks


def blocks_1(lines: list[Line], recipe: Recipe) -> list[Block]:
    """Return Table 1 for reading: measured sets and published models."""
    blocks = []
    for source in ("measured", "published"):
        mine = [line for line in lines if line["source"] == source]
        if not mine:
            continue
        header = ["Model", "Datasets", "FD ↓", "IS ↑", "KL ↓", "Features"] + ["n"] * (source == "measured")
        cells = []
        for line in mine:
            values = [(_plain(line.get(m)), _range(line, m)) for m in ("fd", "is", "kl")]
            cells.append([(line["model"], ""), (line["datasets"], ""), *values, (line["features"], "")])
            if source == "measured":
                cells[-1].append((str(line["n"]), ""))
        notes = _notes(mine)
        if source == "measured":
            notes.insert(
                0, f"FD to the real clips of the {mine[0]['reference']} split; KL of each clip to its parent"
            )
        title = (
            f"Table 1, {recipe.name} (measured)"
            if source == "measured"
            else "Table 1 of the paper (published)"
        )
        blocks.append(Block(title, header, cells, notes, 2))
    return blocks


def markdown(blocks: Iterable[Block]) -> str:
    """Return blocks as GitHub Markdown."""
    parts = []
    for block in blocks:
        rule = ["---" if i < block.words else "---:" for i in range(len(block.header))]
        body = [
            [f"{text}<br><sub>{small}</sub>" if small else text for text, small in line]
            for line in block.lines
        ]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in [block.header, rule, *body])
        parts.append("\n\n".join([f"### {block.title}", table, *(f"*{note}.*" for note in block.notes)]))
    return "\n\n".join(parts) + "\n"


def latex(blocks: Iterable[Block]) -> str:
    r"""Return blocks as LaTeX tables (`\usepackage{booktabs}`)."""
    parts = []
    for block in blocks:
        lines = [" & ".join(map(_tex, block.header)) + r" \\", r"\midrule"]
        for line in block.lines:
            lines.append(" & ".join(_tex(text) for text, _ in line) + r" \\")
            if any(small for _, small in line):
                lines.append(
                    " & ".join(rf"{{\scriptsize {_tex(small)}}}" if small else "" for _, small in line)
                    + r" \\"
                )
        caption = _tex(". ".join([block.title, *block.notes]) + ".")
        align = "l" * block.words + "r" * (len(block.header) - block.words)
        body = [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
        ]
        parts.append("\n".join([*body, r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


def html(template: str, page: dict[str, Any]) -> str:
    """Return the HTML of a template of this package (`report`, `audit`), filled with the values of `page`."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(f"{template}.html.j2").render(page)


def console_table(block: Block) -> tuple[list[str], list[list[str]]]:
    """Return (header, lines) for the terminal: differences on a line of their own, marked Δ."""
    keep = [i for i, name in enumerate(block.header) if name not in ("Backbone", "PT")]
    lines = []
    for line in block.lines:
        lines.append([line[i][0] for i in keep])
        if any(small for _, small in line):
            lines.append(["", "Δ", *(line[i][1] for i in keep[2:])])
    return [block.header[i] for i in keep], lines


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def _range(line: Line, metric: str) -> str:
    low, high = line.get(f"{metric}_low"), line.get(f"{metric}_high")
    return "" if low is None or high is None else f"[{_plain(low)}, {_plain(high)}]"


def _mean_std(line: Line, column: str) -> str:
    mean, std = line.get(column), line.get(f"{column}_std")
    if mean is None:
        return "–"
    # Published deviations go down to 0.01.
    digits = 1 if line["source"] == "measured" else 2
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.{digits}f}"


def _delta(line: Line, column: str) -> str:
    values = [line.get(f"{column}_delta{end}") for end in ("", "_low", "_high")]
    return "" if None in values else "{} [{}, {}]".format(*(signed(v) for v in values if v is not None))


def signed(value: float) -> str:
    """Return a difference in percent points with its sign: `+1.8`, `−0.4`, `0.0`."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _notes(lines: list[Line]) -> list[str]:
    return list(dict.fromkeys(part for line in lines for part in line["note"].split("; ") if part))


def _training(recipe: Recipe) -> str:
    settings = [recipe.classifier_of(line.model_dump()) for line in recipe.evaluate.models]
    if all(one.train_steps for one in settings):
        return "all mixes of a line train for the same number of steps"
    return "training counts epochs: a larger mix takes more steps"


def _classes(line: Line) -> str:
    return f" of {line['classes']} classes" if line.get("classes") else ""


def _lost(line: Line, split: str) -> str:
    """Say why clips that a corpus lists are not in the store."""
    expected, found, decoded, kept = (
        line.get(f"{split}_{name}") for name in ("expected", "found", "decoded", "kept")
    )
    if found is None or decoded is None or expected == kept:
        return ""
    lost = {"missing": expected - found, "broken": found - decoded, "duplicate": decoded - kept}
    return ": " + ", ".join(f"{number} {what}" for what, number in lost.items() if number)


def _kept(line: Line) -> str:
    parts = [
        f"{split} {line[f'{split}_kept']} of {line[f'{split}_expected']}{_lost(line, split)}"
        for split in ("train", "val", "eval")
        if line.get(f"{split}_expected")
    ]
    return f" (clips kept: {', '.join(parts)})" if parts else ""


_TEX = {
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "$": r"\$",
    "−": "$-$",
    "±": r"$\pm$",
    "α": r"$\alpha$",
}
_TEX |= {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "–": "--", "Δ": r"$\Delta$", "×": r"$\times$"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
