"""Captions of clips, and how well a visual caption agrees with what is audible."""

from ajbench.captions.entailment import entailment

__all__ = ["entailment"]
