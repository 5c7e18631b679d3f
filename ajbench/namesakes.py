"""Which outputs of a tagger stand for the classes of a corpus: of the same name or machine id, or akin."""

from collections.abc import Mapping, Sequence

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
    "insects": ("Insect",),
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
Columns = Sequence[NDArray[np.int64]]  # of each class, which outputs stand for it


def columns_of(
    names: Sequence[str], mids: Sequence[str] | None, theirs: Sequence[str], their_mids: Sequence[str] | None
) -> Columns | None:
    """Return where the classes `names` stand among a model's outputs.

    By name; else by AudioSet's machine id; else, where all are categories of ESC-50, at the AudioSet classes
    akin to them.

    Args:
        names: of the classes.
        mids: their machine ids, where known.
        theirs: names of the model's outputs.
        their_mids: machine ids of those, where known.

    Returns:
        Indices for each class, or None where the model lacks one.
    """
    known = {label: i for i, label in enumerate(theirs)}
    ids = {mid: i for i, mid in enumerate(their_mids or ())}
    if set(names) <= set(known):
        found: list[list[int]] = [[known[name]] for name in names]
    elif mids and set(mids) <= set(ids):
        found = [[ids[mid]] for mid in mids]
    elif set(names) <= set(ESC50) and {akin for name in names for akin in ESC50[name]} <= set(known):
        found = [[known[akin] for akin in ESC50[name]] for name in names]
    else:
        return None
    return [np.array(places, np.int64) for places in found]


def class_logits(logits: NDArray, columns: Columns) -> NDArray:
    """Return logits [n, C] of a model's logits [n, C']: of several outputs for one class the highest."""
    starts = np.cumsum([0, *map(len, columns[:-1])])
    pooled: NDArray = np.maximum.reduceat(logits[:, np.concatenate(columns)], starts, axis=1)
    return pooled
