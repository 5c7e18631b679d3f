"""Checks of captions: invented sounds, echoes of the prompts' examples, lengths, words, duplicates."""

import heapq
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ajbench.captions import caption_table, prompts
from ajbench.core.errors import UsageError
from ajbench.data.corpora.audioset import label_set, ontology

ECHO_WORDS = 4  # an echo is this many words of an example in a row
WORST = 100  # examples kept for each kind and check
TOP_WORDS = 20  # as in Figures 5–7
REPEATED = 10  # texts listed
EXAMPLES = ("labels", "frames", "merge")
FILLERS = frozenset({"heard", "sound", "sounds"})  # words of any caption, like stop words
# Classes whose names are mostly said of something else.
AMBIGUOUS = frozenset(
    {
        "Run",
        "Hands",
        "Tools",
        "Wood",
        "Glass",
        "Liquid",
        "Country",
        "Organ",
        "Fill (with liquid)",
        "Roll",
        "Static",
    }
)

SYNONYMS = {  # other words that captions have for a class
    "talking": "Speech",
    "speaking": "Speech",
    "voice": "Speech",
    "phone": "Telephone",
    "airplane": "Aircraft",
    "laughing": "Laughter",
    "applauding": "Applause",
    "exploding": "Explosion",
}
# Of the paper's appendix A.5: captions, their number of words (min, mean, max), and their vocabulary.
PUBLISHED = (
    ("AudioCaps", 3, 10.49, 31, 871),
    ("WavCaps", 3, 6.89, 25, 509),
    ("Audio-Visual Merge", 3, 17.07, 45, 1480),
)

Words = tuple[str, ...]
COLUMNS = ("clip_id", "kind", "text", "labels", "sources")


@dataclass(frozen=True)
class Flagged:
    """A caption that a check found: the check (invented, echo), and the classes or words it is about."""

    check: str
    kind: str
    clip_id: str
    text: str
    labels: Sequence[str]
    about: Sequence[str]

    def row(self) -> dict[str, Any]:
        """Return a row of the CSV."""
        joined = {"labels": "; ".join(self.labels), "about": "; ".join(self.about)}
        return {"check": self.check, "kind": self.kind, "clip_id": self.clip_id, "text": self.text, **joined}


@dataclass
class KindReport:
    """What the captions of one kind are like.

    Attributes:
        captions: number of captions.
        invented: captions that name a sound which neither labels nor picture have.
        refined: captions that name a more special sound than the labels.
        echoes: captions with words of an example.
        lengths: number of words → captions.
        words: word → times.
        invented_classes: class → captions that invent it.
        worst: check → captions, those with most invented classes or echoes first.
        repeated: texts of several captions → captions.
        distinct: number of different texts.
    """

    captions: int = 0
    invented: int = 0
    refined: int = 0
    echoes: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    invented_classes: Counter[str] = field(default_factory=Counter)
    worst: dict[str, list[Flagged]] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    distinct: int = 0

    def summary(self) -> dict[str, Any]:
        """Return the numbers: shares of captions, lengths in words, vocabulary."""
        total = self.captions
        return {
            "captions": total,
            "invented": self.invented / total,
            "refined": self.refined / total,
            "echoes": self.echoes / total,
            "duplicates": 1 - self.distinct / total,
            "min_words": min(self.lengths),
            "mean_words": sum(n * times for n, times in self.lengths.items()) / total,
            "max_words": max(self.lengths),
            "vocabulary": len(self.words),
        }

    def top_words(self) -> list[tuple[str, int]]:
        """Return the most frequent words that are not stop words, with their number (Figures 5–7)."""
        telling = [(word, n) for word, n in self.words.items() if word not in _stop_words()]
        return sorted(telling, key=lambda item: (-item[1], item[0]))[:TOP_WORDS]


def check(folder: Path) -> dict[str, KindReport]:
    """Check a captions table, chunk by chunk; return kind → report.

    Raises:
        MissingError: there is no finished table.
        IntegrityError: it is damaged.
        UsageError: it has no captions.
    """
    found: dict[str, KindReport] = {}
    hashes: dict[str, array[int]] = {}
    flagged: dict[tuple[str, str], list[tuple[int, int, Flagged]]] = {}
    for number, row in enumerate(_rows(folder)):
        kind, text, words = row["kind"], row["text"], words_of(row["text"])
        report = found.setdefault(kind, KindReport())
        report.captions += 1
        report.lengths[len(words)] += 1
        report.words.update(words)
        hashes.setdefault(kind, array("Q")).append(_hash(text))
        labels, sources = row["labels"] or [], row["sources"] or []
        invented, refined = ([], []) if kind == "visual" else sounds(text, labels, sources)
        echoes = echoed(words, [*labels, *sources])
        report.invented += bool(invented)
        report.refined += bool(refined)
        report.echoes += bool(echoes)
        report.invented_classes.update(invented)
        for name, about in (("invented", invented), ("echo", echoes)):
            if about:
                one = Flagged(name, kind, row["clip_id"], text, labels, about)
                kept = flagged.setdefault((kind, name), [])
                heapq.heappush(kept, (len(about), -number, one))
                if len(kept) > WORST:
                    heapq.heappop(kept)
    if not found:
        raise UsageError(f"{folder}: has no captions (no clip had what they are made of); make it again")
    for (kind, name), kept in flagged.items():
        found[kind].worst[name] = [one for *_, one in sorted(kept, reverse=True)]
    _count_duplicates(folder, found, hashes)
    return found


def words_of(text: str) -> Words:
    """Return the words of a text in lower case, without punctuation."""
    return tuple(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower()))


def sounds(text: str, labels: Sequence[str], sources: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Return the AudioSet classes that a caption names although no label implies them.

    A label implies itself and the classes above it in the ontology: Bark implies Dog and Animal. A class is
    found by one of its names ("Walk, footsteps" has two), whatever the ending of the words. Classes that the
    sources name, such as the visual caption of a merge, are not invented either.

    Args:
        text: the caption.
        labels: of the clip; other corpora's imply what their words name.
        sources: texts that the caption was made of.

    Returns:
        Invented classes; and refined ones, which lie below a label.
    """
    given = {_stem(word) for one in (*labels, *sources) for word in words_of(one)}
    mids = {mid for label in labels for mid in _mids_of(label)}
    implied = mids.union(*(_ancestors(mid) for mid in mids))
    invented: list[str] = []
    refined: list[str] = []
    for stems in _named(tuple(map(_stem, words_of(text)))):
        classes = _names()[stems]
        if given.issuperset(stems) or implied.intersection(classes):
            continue
        below = any(mids & _ancestors(mid) for mid in classes)
        (refined if below else invented).append(ontology()[classes[0]].name)
    return list(dict.fromkeys(invented)), list(dict.fromkeys(refined))


def echoed(words: Words, given: Iterable[str]) -> list[str]:
    """Return the runs of ECHO_WORDS words that a caption repeats from the prompts' examples.

    Args:
        words: of the caption.
        given: labels and sources of the clip; a run of their words and of common ones is no echo.
    """
    own = {_stem(word) for text in given for word in words_of(text)}
    runs = [gram for gram in _grams(words) if gram in _example_grams()]
    return [
        " ".join(gram) for gram in runs if not own.issuperset(map(_stem, set(gram) - _stop_words() - FILLERS))
    ]


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for part in caption_table.parts(folder, COLUMNS):
        yield from part.to_pylist()


def _count_duplicates(
    folder: Path, found: Mapping[str, KindReport], hashes: Mapping[str, "array[int]"]
) -> None:
    wanted: dict[str, dict[int, int]] = {}
    for kind, values in hashes.items():
        distinct, times = np.unique(np.frombuffer(values, np.uint64), return_counts=True)
        found[kind].distinct = len(distinct)
        most = np.argsort(-times, kind="stable")[:REPEATED]
        wanted[kind] = {int(distinct[i]): int(times[i]) for i in most if times[i] > 1}
    for row in _rows(folder) if any(wanted.values()) else ():
        if repeats := wanted[row["kind"]].get(_hash(row["text"])):
            found[row["kind"]].repeated[row["text"]] = repeats
    for report in found.values():
        report.repeated = dict(sorted(report.repeated.items(), key=lambda item: (-item[1], item[0])))


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def _grams(words: Words) -> Iterator[Words]:
    return (words[i : i + ECHO_WORDS] for i in range(len(words) - ECHO_WORDS + 1))


@cache
def _example_grams() -> frozenset[Words]:
    answers = (answer for name in EXAMPLES for _, answer in prompts.load(name).examples)
    return frozenset(gram for answer in answers for gram in _grams(words_of(answer)))


@cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


@cache
def _mids_of(label: str) -> tuple[str, ...]:
    """Return the mids of a label: of AudioSet by its name, of other corpora by its words."""
    exact = tuple(mid for mid, sound in ontology().items() if sound.name == label)
    return exact or tuple(_names().get(tuple(map(_stem, words_of(label))), ()))


@cache
def _names() -> Mapping[Words, list[str]]:
    """Stems of each name or synonym of AudioSet's classes → mids of the classes that have it."""
    found: dict[Words, list[str]] = {}
    labels = label_set()
    for mid, label in zip(labels.mids or (), labels.names, strict=True):
        for name in re.sub(r"\(.*?\)", "", label).split(",") if label not in AMBIGUOUS else ():
            if stems := tuple(map(_stem, words_of(name))):
                found.setdefault(stems, []).append(mid)
    for word, label in SYNONYMS.items():
        found.setdefault((_stem(word),), []).append((labels.mids or ())[labels.index(label)])
    return found


@cache
def _longest() -> int:
    return max(map(len, _names()))


def _named(stems: Words) -> Iterator[Words]:
    """Yield the names of classes in a text, the longest at each place."""
    place = 0
    while place < len(stems):
        sizes = range(min(_longest(), len(stems) - place), 0, -1)
        size = next((n for n in sizes if stems[place : place + n] in _names()), 0)
        if size:
            yield stems[place : place + size]
        place += size or 1


@cache
def _ancestors(mid: str) -> frozenset[str]:
    above = ontology()[mid].parents
    return frozenset(above).union(*(_ancestors(parent) for parent in above))


@cache
def _stem(word: str) -> str:
    """Return a word without its ending: "barking", "barks" and "barked" become "bark"."""
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        word = word[:-1]
    for ending in ("ing", "ed", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word
