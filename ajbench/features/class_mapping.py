"""Map the classes of a corpus to the logits of a tagger: by name, by AudioSet id, or to related classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# ESC-50's categories → related AudioSet classes, of which the one with the highest logit counts. Categories
# without one are left out: can opening, drinking, mouse click, washing machine.
ESC50: Mapping[str, tuple[str, ...]] = {
    "airplane": ("Aircraft", "Fixed-wing aircraft, airplane"),
    "breathing": ("Breathing",),
    "brushing_teeth": ("Toothbrush",),
    "car_horn": ("Vehicle horn, car horn, honking",),
    "cat": ("Cat", "Meow"),
    "chainsaw": ("Chainsaw",),
    "chirping_birds": ("Bird vocalization, bird call, bird song", "Chirp, tweet"),
    "church_bells": ("Church bell",),
    "clapping": ("Clapping",),
    "clock_alarm": ("Alarm clock",),
    "clock_tick": ("Tick", "Tick-tock", "Clock"),
    "coughing": ("Cough",),
    "cow": ("Cattle, bovinae", "Moo"),
    "crackling_fire": ("Crackle", "Fire"),
    "crickets": ("Cricket",),
    "crow": ("Crow", "Caw"),
    "crying_baby": ("Baby cry, infant cry",),
    "dog": ("Dog", "Bark"),
    "door_wood_creaks": ("Creak",),
    "door_wood_knock": ("Knock",),
    "engine": ("Engine",),
    "fireworks": ("Fireworks",),
    "footsteps": ("Walk, footsteps",),
    "frog": ("Frog", "Croak"),
    "glass_breaking": ("Shatter", "Glass"),
    "hand_saw": ("Sawing",),
    "helicopter": ("Helicopter",),
    "hen": ("Cluck",),
    "insects": ("Insect", "Fly, housefly", "Bee, wasp, etc.", "Mosquito"),
    "keyboard_typing": ("Computer keyboard", "Typing"),
    "laughing": ("Laughter",),
    "pig": ("Pig", "Oink"),
    "pouring_water": ("Pour",),
    "rain": ("Rain",),
    "rooster": ("Crowing, cock-a-doodle-doo",),
    "sea_waves": ("Waves, surf", "Ocean"),
    "sheep": ("Sheep", "Bleat"),
    "siren": ("Siren",),
    "sneezing": ("Sneeze",),
    "snoring": ("Snoring",),
    "thunderstorm": ("Thunderstorm", "Thunder"),
    "toilet_flush": ("Toilet flush",),
    "train": ("Train", "Rail transport"),
    "vacuum_cleaner": ("Vacuum cleaner",),
    "water_drops": ("Drip",),
    "wind": ("Wind",),
}
NAME, MID, RELATED = "name", "AudioSet id", "related AudioSet classes"
SHOWN = 3
Columns = Sequence[NDArray[np.int64]]  # for each class, the indices of its logits


@dataclass(frozen=True)
class ClassMapping:
    """The logits of a model that stand for each class of a corpus.

    Attributes:
        columns: indices for each class; none for a class that the model lacks.
        by: how each class was found; None for a class that the model lacks.
        unknown: the classes that the model lacks.
    """

    columns: Columns
    by: Sequence[str | None]
    unknown: Sequence[str]

    @property
    def how(self) -> str:
        """How the classes were found: `by name`, or how many in which way."""
        ways = Counter(way for way in self.by if way)
        if len(ways) == 1:
            return f"by {next(iter(ways))}"
        return ", ".join(f"{count} by {way}" for way, count in ways.items())

    @property
    def lacking(self) -> str:
        """How many classes are unknown, and some of them."""
        shown = ", ".join(self.unknown[:SHOWN]) + (", …" if len(self.unknown) > SHOWN else "")
        noun = "class" if len(self.by) == 1 else "classes"
        return f"{len(self.unknown)} of {len(self.by)} {noun} ({shown})"


def map_classes(
    names: Sequence[str], mids: Sequence[str] | None, labels: Sequence[str], label_mids: Sequence[str] | None
) -> ClassMapping:
    """Map each class of a corpus to the logits of a model.

    Each class is looked up by name, then by AudioSet id; a category of ESC-50 then by its related AudioSet
    classes, if the model has all of them.

    Args:
        names: of the classes.
        mids: their AudioSet ids, if known.
        labels: names of the model's logits.
        label_mids: AudioSet ids of the logits, if known.
    """
    known = {label: i for i, label in enumerate(labels)}
    ids = {mid: i for i, mid in enumerate(label_mids or ())}
    columns, by = list[NDArray[np.int64]](), list[str | None]()
    for name, mid in zip(names, mids or names, strict=True):
        related = ESC50.get(name, ())
        if name in known:
            way, places = NAME, [known[name]]
        elif mid in ids:
            way, places = MID, [ids[mid]]
        elif related and set(related) <= set(known):
            way, places = RELATED, [known[one] for one in related]
        else:
            way, places = None, []
        columns.append(np.array(places, np.int64))
        by.append(way)
    return ClassMapping(columns, by, [name for name, way in zip(names, by, strict=True) if way is None])


def class_logits(logits: NDArray, columns: Columns) -> NDArray:
    """Return the logits of classes, [n, C], from those of a model, [n, C']: the highest of each class's."""
    starts = np.cumsum([0, *map(len, columns[:-1])])
    pooled: NDArray = np.maximum.reduceat(logits[:, np.concatenate(columns)], starts, axis=1)
    return pooled
