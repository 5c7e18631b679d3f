"""What a language model's answer says: one sentence, or one number, or the reason why it does not."""

import re

from ajbench.core.documents import parse_json

CUT = "cut at the limit of tokens"
FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)
_LABEL = re.compile(r"^\W*(?:response|caption|answer|sentence|output)\W*:\W*", re.IGNORECASE)
_REFUSAL = re.compile(
    r"^(?:(?:i['’]m|i am) (?:sorry|unable|not able)|sorry\b|i can(?:['’]t|not)\b|as an ai\b)", re.IGNORECASE
)
_NUMBER = re.compile(
    r"\W*(?:(?:response|answer|score|probability|entailment)\s*[:=]\s*)?"
    r"(?<![.,])(0?[.,]\d+|[01](?:[.,]\d+)?)(?P<end>\W*)",
    re.IGNORECASE,
)
QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("*", "*"), ("`", "`"))


def sentence(answer: str, cut: bool = False) -> tuple[str, str | None]:
    """Return the sentence of an answer, and why there is none, which is None where there is one.

    Left out are what a model thinks aloud, fences of code, an introduction that ends with a colon, and
    quotation marks around the sentence. An object or list of JSON stands for its first text.

    Args:
        answer: of a language model.
        cut: whether it ended at the limit of tokens, which matters if its last line is the sentence.
    """
    text = re.split("</think>", answer, flags=re.IGNORECASE)[-1]
    if "<think>" in text.lower():
        return "", "unfinished thought"
    lines = [line for line in map(str.strip, FENCE.sub("", text).splitlines()) if line]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines = lines[1:]
    if (value := _of_json("\n".join(lines))) is not None:
        lines, cut = [line for line in map(str.strip, value.splitlines()) if line], False
    line = _unquoted(_LABEL.sub("", _unquoted(lines[0] if lines else "")))
    if _REFUSAL.match(line):
        return "", "refusal"
    if cut and len(lines) == 1:
        return "", CUT
    line = " ".join(line.split()) if re.search(r"\w", line) and not line.endswith(":") else ""
    return line, None if line else "empty answer"


def number(answer: str, cut: bool = False) -> float | str:
    """Return the number in [0, 1] that an answer consists of, or why there is none.

    An answer with other numbers or words, such as `1/10`, is not read, nor one that ends within a number.

    Args:
        answer: of a language model.
        cut: whether it ended at the limit of tokens, which may have been within the number.
    """
    lines = [line for line in map(str.strip, answer.splitlines()) if line]
    line = lines[0] if lines else ""
    match = _NUMBER.fullmatch(line)
    if cut and match and len(lines) == 1 and not match["end"]:
        return CUT
    whole = match and match[1].isdigit()
    if not match or (whole and "." in match["end"]):  # `0.` was cut, and may have been 0.9
        return "no number in [0, 1]"
    value = float(match[1].replace(",", "."))
    minus = "-" in line[: match.start(1)] or "−" in line[: match.start(1)]
    return "no number in [0, 1]" if minus or "%" in match["end"] or value > 1 else value


def _of_json(text: str) -> str | None:
    """Return the first text of an object or list of JSON; None if it is neither."""
    if not text.startswith(("{", "[")):
        return None
    try:
        found = parse_json(text)
    except ValueError:
        return None
    values = found.values() if isinstance(found, dict) else found
    return next((value for value in values if isinstance(value, str)), "")


def _unquoted(line: str) -> str:
    for start, end in QUOTES:
        inside = line[1:-1]
        if len(line) > 2 and line[0] == start and line[-1] == end and end not in inside.strip(end):
            return inside.strip(f"{start}{end} ")
    lone = [mark for mark in '"“”' if line.count(mark) == 1]
    return line.strip("".join(lone)).strip() if len(lone) == 1 else line
