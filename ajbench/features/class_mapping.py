"""Which outputs of a tagger stand for the classes of a corpus: of the same name or machine id, or akin."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# ESC-50's categories → AudioSet's classes, of which the one heard best counts. Those that AudioSet's
# 527 lack are not here: can opening, drinking, mouse click, washing machine.
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
NAME, MID, AKIN = "name", "AudioSet id", "AudioSet's classes akin to ESC-50's"
SHOWN = 3
Columns = Sequence[NDArray[np.int64]]  # of each class, which outputs stand for it


@dataclass(frozen=True)
class Namesakes:
    """Where classes stand among a model's outputs.

    Attributes:
        columns: indices for each class, none of one that the model lacks.
        by: how each class was found; None of one that the model lacks.
        unknown: the classes that it lacks.
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
        """How many classes of how many are unknown, and some of them."""
        shown = ", ".join(self.unknown[:SHOWN]) + (", …" if len(self.unknown) > SHOWN else "")
        return f"{len(self.unknown)} of {len(self.by)} classes ({shown})"


def namesakes_of(
    names: Sequence[str], mids: Sequence[str] | None, theirs: Sequence[str], their_mids: Sequence[str] | None
) -> Namesakes:
    """Return where the classes `names` stand among a model's outputs, each found for itself.

    By name; else by AudioSet's machine id; else, of a category of ESC-50, at all AudioSet classes akin to it.

    Args:
        names: of the classes.
        mids: their machine ids, where known.
        theirs: names of the model's outputs.
        their_mids: machine ids of those, where known.
    """
    known = {label: i for i, label in enumerate(theirs)}
    ids = {mid: i for i, mid in enumerate(their_mids or ())}
    columns, by = list[NDArray[np.int64]](), list[str | None]()
    for name, mid in zip(names, mids or names, strict=True):
        akin = ESC50.get(name, ())
        if name in known:
            way, places = NAME, [known[name]]
        elif mid in ids:
            way, places = MID, [ids[mid]]
        elif akin and set(akin) <= set(known):
            way, places = AKIN, [known[one] for one in akin]
        else:
            way, places = None, []
        columns.append(np.array(places, np.int64))
        by.append(way)
    return Namesakes(columns, by, [name for name, way in zip(names, by, strict=True) if way is None])


def class_logits(logits: NDArray, columns: Columns) -> NDArray:
    """Return logits [n, C] of a model's logits [n, C']: of several outputs for one class the highest."""
    starts = np.cumsum([0, *map(len, columns[:-1])])
    pooled: NDArray = np.maximum.reduceat(logits[:, np.concatenate(columns)], starts, axis=1)
    return pooled
