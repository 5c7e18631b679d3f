"""Entailment scores of all clips of a store, by any scorer and comparison: what `ajbench entail` computes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ajbench.captions import aggregation, caption_table
from ajbench.captions.aggregation import Scaling
from ajbench.captions.entailment import Scorer
from ajbench.captions.score_file import ScoredClips
from ajbench.core import console, weights
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.files import checksum
from ajbench.data import audio
from ajbench.data.corpora import audioset
from ajbench.data.labels import load_scores
from ajbench.data.store import ClipStore
from ajbench.fusion.label_free import Floats, joined, probabilities, raw_scores, scored, visual_captions

if TYPE_CHECKING:
    from ajbench.classifiers import Classifier
    from ajbench.features.extractor import Extractor

COMPARISONS = {
    "predicted": "the classes that an audio model predicts, weighted by their probabilities",
    "noisy-or": "the same classes: the probability that one of them is audible and seen",
    "true": "the clip's own labels, which leak those of evaluation clips",
    "clap": "the sound itself, by CLAP",
    "overlap": "nothing: the predictions of an audio and of a video model, without text",
}
OF_AUDIO_MODEL = ("predicted", "noisy-or", "overlap")
WITHOUT_SCORER = ("clap", "overlap")  # they are the scorer's name, too
CHUNK = 256  # clips, between which progress is shown
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Inputs:
    """What the clips of a store are scored with.

    Attributes:
        store: of the clips.
        captions: folder of a captions table; None: visual captions of the corpus.
        classifier: folder of the audio model, for `predicted`, `noisy-or` and `overlap`.
        video_scores: file of a video model's predictions (`data.labels.save_scores`), for `overlap`.
        top_k: predicted classes that count.
    """

    store: ClipStore
    captions: Path | None = None
    classifier: Path | None = None
    video_scores: Path | None = None
    top_k: int = 3

    def check(self, comparisons: Sequence[str]) -> None:
        """Check, before any work, that nothing is missing.

        Raises:
            UsageError: an unknown comparison, or one without its model.
            AjbenchError: the captions, the classifier or the file of predictions cannot be used.
        """
        for name in comparisons:
            if name not in COMPARISONS:
                raise UsageError(
                    f"comparison {name!r} is unknown; allowed: {', '.join(COMPARISONS)} (constant, shuffled "
                    "and feature are made of predicted scores in training)"
                )
            if name in OF_AUDIO_MODEL and self.classifier is None:
                raise UsageError(
                    f"--comparison {name} needs --classifier, the folder of an audio model of these classes "
                    "(`ajbench train-cls`); only --comparison true and clap need none"
                )
            _ = self.video_logits if name == "overlap" else self.visual
            if name == "clap":
                _ = self.clap
        if self.classifier is not None:
            _ = self.audio_model

    def about(self, comparisons: Sequence[str]) -> dict[str, Any]:
        """Return what identifies captions, store and models, for the metadata of a file of scores."""
        captions = None if self.captions is None else caption_table.identity(self.captions)
        model = None if self.classifier is None else self.audio_model.config["xxh3"]
        video = None if self.video_scores is None else checksum(self.video_scores)
        found = {"store": self.store.meta.fingerprint, "captions": captions, "classifier": model}
        if "clap" in comparisons:
            found["clap"] = weights.identity(self.clap.weights)
        return found | {"video_scores": video, "top_k": self.top_k, "quantiles": aggregation.QUANTILES}

    @cached_property
    def visual(self) -> list[str | None]:
        """The visual captions of all clips."""
        return visual_captions(self.store, self.captions)

    @cached_property
    def audio_model(self) -> "Classifier":
        """The audio model."""
        from ajbench import classifiers

        if self.classifier is None:
            raise UsageError("--classifier: missing")
        found = classifiers.load(classifiers.locate(self.classifier))
        if "loss" not in found.config:
            raise IntegrityError(
                f"{self.classifier}: its config.json has no loss (bce or ce), which probabilities depend on; "
                "add it or train the classifier again"
            )
        if found.labels != tuple(self.store.meta.labels):
            raise UsageError(
                f"{self.classifier}: other labels than {self.store.path}; train it on that store"
            )
        return found

    @cached_property
    def clap(self) -> "Extractor":
        """CLAP, from its published weights."""
        from ajbench import features

        return features.load("clap")

    @cached_property
    def audio_logits(self) -> NDArray[np.float32]:
        """Predictions [N, C] of the audio model for all clips."""
        from ajbench import classifiers

        return classifiers.predict(self.audio_model, self.store, np.arange(len(self.store)))

    @cached_property
    def video_logits(self) -> Floats:
        """Predictions [N, C] of the video model; NaN for clips that are not in its file."""
        if self.video_scores is None:
            raise UsageError(
                "--comparison overlap needs --video-scores, a file of a video model's predictions such as "
                "scores_v.npz of `ajbench train-av`"
            )
        found = load_scores(self.video_scores)
        if found.labels != tuple(self.store.meta.labels):
            raise UsageError(f"{self.video_scores}: other labels than {self.store.path}")
        of_clip = dict(zip(found.clip_ids, found.scores, strict=True))
        unknown = np.full(len(found.labels), np.nan)
        logits = np.array([of_clip.get(clip_id, unknown) for clip_id in self.store.clip_ids])
        if np.isnan(logits).all():
            raise IntegrityError(f"{self.video_scores}: predictions of other clips than {self.store.path}")
        return logits

    @cached_property
    def own_texts(self) -> list[str | None]:
        """The text of each clip for `true`, as in the paper; None: label by label.

        A single label is compared as "label : description of AudioSet's ontology" where that has it (Table
        A6), several ones by the clip's audio caption where the table has one (Table A7).
        """
        of_table = {}
        if self.captions is not None and "audio" in caption_table.info(self.captions)["counts"]["rows"]:
            of_table = caption_table.texts(self.captions, "audio")
        described = audioset.described()
        clips = zip(self.store.clip_ids, self.store.column("labels"), strict=True)
        return [
            described.get(labels[0]) if len(labels) == 1 else of_table.get(clip_id)
            for clip_id, labels in clips
        ]

    def class_weights(self, name: str, rows: Rows) -> Floats:
        """Return the weights of classes [n, C]."""
        if name == "true":
            found: Floats = self.store.sparse_targets()[rows].toarray()
            return found
        return probabilities(self.audio_logits[rows], self.audio_model.config["loss"])


def entail(inputs: Inputs, comparison_name: str, scorer: Scorer | None = None) -> ScoredClips:
    """Score all clips of a store.

    Args:
        inputs: store, captions and models.
        comparison_name: of `COMPARISONS`.
        scorer: of texts; none for `clap` and `overlap`.

    Raises:
        AjbenchError: something is missing, as `Inputs.check`; or no train clip has a score.
    """
    store, name = inputs.store, comparison_name
    every = np.arange(len(store))
    if name == "overlap":
        loss = inputs.audio_model.config["loss"]
        parts = (probabilities(logits, loss) for logits in (inputs.audio_logits, inputs.video_logits))
        return scored(store, every, aggregation.overlap(*parts)[None], name, name, Scaling(0.0, 1.0))
    if name == "clap":
        return scored(store, every, np.concatenate([*_clap(inputs)], axis=1), name, name)
    if scorer is None:
        raise UsageError(f"comparison {name}: needs a scorer")
    texts = inputs.own_texts if name == "true" else []
    parts_of_raw = []
    for rows in _chunks(len(store), f"{scorer.name} {name}"):
        own = [inputs.visual[i] for i in rows]
        how: dict[str, Any] = {
            "labels": name,
            "top_k": inputs.top_k,
            "texts": [texts[i] for i in rows if texts],
        }
        raw = raw_scores(own, inputs.class_weights(name, rows), store.meta.labels, scorer, **how)
        parts_of_raw.append(raw)
    return scored(store, every, joined(parts_of_raw), scorer.name, name)


def notes(parts: Sequence[ScoredClips]) -> list[str]:
    """Return what a user has to know about scores: clips without one, leaks, a too certain audio model."""
    found = []
    for part in parts:
        if without := int(np.isnan(part.raw).sum()):
            number = f"{without} of {console.counted(len(part.raw), 'clip')}"
            why = "no visual caption, class or answer"
            found.append(f"{part.scorer}/{part.comparison}: {number} without a score ({why})")
    names = {part.comparison for part in parts}
    if "true" in names:
        found.append("true: scores of evaluation clips are made of their labels, which leaks them")
    if names & {*OF_AUDIO_MODEL}:
        found.append(
            "scores of clips that the audio model was trained on are too certain; `ajbench run tables/a8` "
            "takes models that were trained without them"
        )
    return found


def _clap(inputs: Inputs) -> Iterator[Floats]:
    """Yield cosines [1, n] of sound and visual caption, chunk by chunk."""
    extractor = inputs.clap
    for rows in _chunks(len(inputs.store), "clap"):
        raw = np.full((1, len(rows)), np.nan)
        known = np.flatnonzero([bool(inputs.visual[i]) for i in rows])
        for places in np.array_split(known, -(-len(known) // 16)) if len(known) else ():
            waves = audio.at_rate(inputs.store.audio(rows[places]), extractor.sample_rate)
            texts = extractor.text([inputs.visual[i] or "" for i in rows[places]])
            raw[0, places] = np.einsum("nd,nd->n", extractor.features(waves), texts)
        yield raw


def _chunks(clips: int, what: str) -> Iterator[Rows]:
    with console.progress(clips, f"entail {what}") as advance:
        for start in range(0, clips, CHUNK):
            rows = np.arange(start, min(start + CHUNK, clips))
            yield rows
            advance(len(rows))
