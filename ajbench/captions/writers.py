"""What writes captions: fixed sentence patterns, or a language model with the paper's few-shot prompts."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ajbench.captions import answers as answers_of
from ajbench.captions import prompts
from ajbench.captions.backends import Backend
from ajbench.core.files import seed_for
from ajbench.generation.prompts import sound_of, spoken

MAX_TOKENS = 96  # the paper's longest caption has 45 words
PLACES = {  # labels that name a place, not a sound
    "Inside, small room": "in a small room",
    "Inside, large room or hall": "in a large room",
    "Inside, public space": "in a public space",
    "Outside, urban or manmade": "outside in a city",
    "Outside, rural or natural": "outside in nature",
}
PATTERNS = ("The sound of {}.", "{} can be heard.", "A recording of {}.", "There is the sound of {}.")
_MERGED = "{audio}, in a scene that shows {visual}."


class Text(NamedTuple):
    """A caption, and where it comes from.

    Attributes:
        text: the caption.
        backend: `rule`, `template`, or the name of a language model's backend.
        model: None for rules and templates.
        model_hash: of the model.
        prompt_hash: of the prompt without the clip's part of it.
        fallback: why the model has not written this text; None if it has.
    """

    text: str
    backend: str
    model: str | None = None
    model_hash: str | None = None
    prompt_hash: str | None = None
    fallback: str | None = None


class Writer(Protocol):
    """Writes captions of N clips; clip ids decide what is drawn."""

    asks_model: bool

    def describe(self, ids: Sequence[str], labels: Sequence[Sequence[str]]) -> list[Text]:
        """Return a caption for the labels of each clip."""
        ...

    def summarize(self, ids: Sequence[str], frames: Sequence[Sequence[str]]) -> list[Text]:
        """Return one caption for the captions of each clip's frames."""
        ...

    def merge(
        self,
        ids: Sequence[str],
        visual: Sequence[str],
        audio: Sequence[str],
        fallbacks: Sequence[str] | None = None,
    ) -> list[Text]:
        """Return one caption for the visual and the audio caption (or label) of each clip."""
        ...


class Template:
    """Sentence patterns without a model: the same clip, labels and seed give the same sentence.

    Args:
        seed: of the choice among the patterns.
    """

    asks_model = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def describe(self, ids: Sequence[str], labels: Sequence[Sequence[str]]) -> list[Text]:
        """Return a sentence with the first name of each label, and the place if one is a label."""
        return [Text(self._sentence(one, names), "template") for one, names in zip(ids, labels, strict=True)]

    def summarize(self, ids: Sequence[str], frames: Sequence[Sequence[str]]) -> list[Text]:
        """Return the frame caption that shares most words with the others."""
        return [Text(_central(captions), "template") for captions in frames]

    def merge(
        self,
        ids: Sequence[str],
        visual: Sequence[str],
        audio: Sequence[str],
        fallbacks: Sequence[str] | None = None,
    ) -> list[Text]:
        """Return both captions in one sentence, the audio first."""
        pairs = zip(visual, audio, strict=True)
        return [
            Text(_MERGED.format(audio=heard.rstrip(". "), visual=_lower(seen.rstrip(". "))), "template")
            for seen, heard in pairs
        ]

    def _sentence(self, clip_id: str, labels: Sequence[str]) -> str:
        places = [PLACES[name] for name in labels if name in PLACES]
        sounds = [_lower(re.split(r",| \(", spoken(name))[0]) for name in labels if name not in PLACES]
        if not sounds:
            return f"A recording {' and '.join(places)}."
        *first, last = dict.fromkeys(sounds)
        listed = f"{', '.join(first)} and {last}" if first else last
        pattern = PATTERNS[seed_for(self.seed, "pattern", clip_id) % len(PATTERNS)]
        sentence = pattern.format(" ".join([listed, *places[:1]]))
        return sentence[0].upper() + sentence[1:]


class LanguageModel:
    """A language model with the few-shot prompts of Tables A3–A5.

    Args:
        backend: the model.
        shots: examples in a prompt; None: all.
        seed: given to the backend.
    """

    asks_model = True

    def __init__(self, backend: Backend, shots: int | None = None, seed: int = 0) -> None:
        self.backend, self.shots, self.seed = backend, shots, seed

    def describe(self, ids: Sequence[str], labels: Sequence[Sequence[str]]) -> list[Text]:
        """Ask with Table A3; the fall-back is "The sound of" and the labels."""
        names = [[spoken(name) for name in row] for row in labels]
        return self._ask(
            "labels", [[f"{', '.join(row)}."] for row in names], [sound_of(row) for row in names]
        )

    def summarize(self, ids: Sequence[str], frames: Sequence[Sequence[str]]) -> list[Text]:
        """Ask with Table A4; the fall-back is the template's."""
        return self._ask("frames", frames, [_central(captions) for captions in frames])

    def merge(
        self,
        ids: Sequence[str],
        visual: Sequence[str],
        audio: Sequence[str],
        fallbacks: Sequence[str] | None = None,
    ) -> list[Text]:
        """Ask with Table A5; the fall-back is the audio caption, or that in `fallbacks`."""
        return self._ask("merge", list(zip(visual, audio, strict=True)), fallbacks or audio)

    def _ask(self, name: str, inputs: Sequence[Sequence[str]], fallbacks: Sequence[str]) -> list[Text]:
        prompt, model = prompts.load(name).shots(self.shots), self.backend
        answers = model.complete(
            [prompt.text(*parts) for parts in inputs],
            max_tokens=MAX_TOKENS,
            stop=prompts.STOP,
            seed=self.seed,
        )
        origin = model.name, model.model, model.model_hash, prompt.hash
        found = []
        for answer, instead in zip(answers, fallbacks, strict=True):
            whole = answer.text is None or answer.reason is None
            text, reason = answers_of.sentence(answer.text or "", cut=not whole)
            reason = answer.reason if answer.text is None else reason
            found.append(Text(text or instead, *origin, reason))
        return found


def _central(captions: Sequence[str]) -> str:
    words = [set(text.lower().split()) for text in captions]
    shared = [sum(len(own & other) / len(own | other) for other in words if own | other) for own in words]
    return captions[shared.index(max(shared))]


def _lower(text: str) -> str:
    """Return a text whose first letter is small, unless the first word is an abbreviation."""
    word = text.partition(" ")[0]
    return text if len(word) > 1 and word.isupper() else text[:1].lower() + text[1:]
