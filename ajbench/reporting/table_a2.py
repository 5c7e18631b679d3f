"""Table A2: metrics of captions, in the paper's layout, with the published figures below."""

from collections.abc import Sequence

from ajbench.captions.caption_metrics import METRICS, CaptionScores
from ajbench.core.console import counted
from ajbench.core.recipe import Recipe
from ajbench.reporting import formats
from ajbench.reporting.formats import Block, Line, to_csv
from ajbench.reporting.tables import RENDERED, published

NOT_COMPARABLE = (
    "published: similarity is a rating of 500 captions by five people, not a cosine; clips and number of "
    "reference captions are not stated, so no column is comparable"
)
HEADER = ["Captions", "Similarity", "BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "Vocabulary", "n"]


def write(
    found: Sequence[tuple[str, CaptionScores]], recipe: Recipe, notes: Sequence[str], references: int
) -> tuple[list[Line], dict[str, str]]:
    """Return the measured lines, and table_a2.{csv,md,tex} as text by name.

    Args:
        found: name and metrics of each set of captions.
        recipe: names the corpus.
        notes: below the table.
        references: captions with which each caption was compared.
    """
    note = RENDERED if recipe.data.corpus == "mini" else ""
    measured = [_line(name, scores) | {"source": "measured", "note": note} for name, scores in found]
    printed: list[Line] = []
    for row in published("table_a2"):
        line: Line = {"captions": row["captions"]}
        line |= {name: float(row[name]) if row[name] else None for name in METRICS}
        size = row["vocabulary_size"]
        line |= {
            "vocabulary_size": int(size) if size else None,
            "source": "published",
            "note": NOT_COMPARABLE,
        }
        printed.append(line)
    by = "" if note else " by people"
    about = (
        f"{recipe.data.corpus}, compared with {counted(references, 'caption')}{by} per clip; "
        "similarity is the cosine of MiniLM's sentence embeddings; 95 % intervals over clips"
    )
    below = [about, *filter(None, [note]), *notes]
    blocks = [
        _block(f"Table A2, {recipe.name} (measured)", measured, below),
        _block("Table A2 of the paper (published)", printed, [NOT_COMPARABLE]),
    ]
    texts = {
        "csv": to_csv(measured + printed, formats.VALUE_DIGITS),
        "md": formats.markdown(blocks),
        "tex": formats.latex(blocks),
    }
    return measured, {f"table_a2.{kind}": text for kind, text in texts.items()}


def _line(name: str, scores: CaptionScores) -> Line:
    line: Line = {"captions": name}
    for metric in METRICS:
        value, low, high = scores.values.get(metric, (None, None, None))
        ends = {"": value, "_low": low, "_high": high}
        line |= {f"{metric}{end}": None if x is None or x != x else x for end, x in ends.items()}
    return line | {"vocabulary_size": scores.vocabulary, "n": scores.n}


def _block(title: str, lines: Sequence[Line], notes: list[str]) -> Block:
    cells = []
    for line in lines:
        values = [(formats.plain(line[name]), formats.interval(line, name)) for name in METRICS]
        counts = [
            ("–" if line.get(name) is None else str(line[name]), "") for name in ("vocabulary_size", "n")
        ]
        cells.append([(line["captions"], ""), *values, *counts])
    return Block(title, HEADER, cells, notes, 1)
