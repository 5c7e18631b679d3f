"""What a language model's answer says: one sentence, or one number, or the reason why it does not."""

import json
import re
from typing import Any

THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)
_LABEL = re.compile(r"^(?:response|caption|answer|sentence|output)\s*:\s*", re.IGNORECASE)
_REFUSAL = re.compile(
    r"^(?:(?:i['’]m|i am) (?:sorry|unable|not able)|sorry\b|i can(?:['’]t|not)\b|as an ai\b)", re.IGNORECASE
)
_NUMBER = re.compile(
    r"\W*(?:(?:response|answer|score|probability|entailment)\s*[:=]\s*)?"
    r"(0?[.,]\d+|[01](?:[.,]\d+)?)(?P<end>\W*)",
    re.IGNORECASE,
)
QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("*", "*"), ("`", "`"))


def sentence(answer: str) -> tuple[str, str | None]:
    """Return the sentence of an answer, and why there is none, which is None where there is one.

    Left out are what a model thinks aloud, fences of code, an introduction that ends with a colon, and
    quotation marks around the sentence. An object of JSON stands for its first text.
    """
    text = THOUGHT.sub("", answer)
    if "<think>" in text.lower():
        return "", "unfinished thought"
    text = FENCE.sub("", text).strip()
    lines = [line for line in map(str.strip, _of_json(text).splitlines()) if line]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines = lines[1:]
    line = _unquoted(_LABEL.sub("", _unquoted(lines[0] if lines else "")))
    if _REFUSAL.match(line):
        return "", "refusal"
    return " ".join(line.split()), None if line else "empty answer"


def number(answer: str) -> float | str:
    """Return the number in [0, 1] that an answer consists of, or why there is none.

    An answer with other numbers or words, such as `1/10`, is not read, nor one that ends within a number.
    """
    line = next((line for line in map(str.strip, answer.splitlines()) if line), "")
    match = _NUMBER.fullmatch(line)
    whole = match and match[1].isdigit()
    if not match or (whole and "." in match["end"]):  # `0.` was cut, and may have been 0.9
        return "no number in [0, 1]"
    value = float(match[1].replace(",", "."))
    minus = "-" in line[: match.start(1)] or "−" in line[: match.start(1)]
    return "no number in [0, 1]" if minus or "%" in match["end"] or value > 1 else value


def _of_json(text: str) -> str:
    try:
        found: Any = json.loads(text)
    except ValueError:
        return text
    if isinstance(found, dict):
        found = next((value for value in found.values() if isinstance(value, str)), "")
    return found if isinstance(found, str) else text


def _unquoted(line: str) -> str:
    for start, end in QUOTES:
        inside = line[1:-1]
        if len(line) > 2 and line[0] == start and line[-1] == end and end not in inside.strip(end):
            return inside.strip(f"{start}{end} ")
    return line
