import numpy as np
import pytest
from fakes import HUM_LABELS, caption_table_of, hum_captions, hum_record, hum_store, save_classifier

from ajbench import classifiers
from ajbench.captions import score_file
from ajbench.captions.aggregation import Scaling
from ajbench.captions.entailment import load
from ajbench.core.errors import AjbenchError, IntegrityError, MissingError, UsageError
from ajbench.data.corpora import audioset
from ajbench.data.labels import save_scores
from ajbench.fusion import label_free, store_scores
from ajbench.fusion.store_scores import Inputs, entail

CLIPS = 24


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    records = [hum_record(i, visual_caption=None if i == 7 else hum_captions(i)) for i in range(CLIPS)]
    return hum_store(tmp_path_factory.mktemp("store_scores") / "store", records)


@pytest.fixture(scope="module")
def classifier(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    module = classifiers.build("taltrans-small", 2).eval()
    about = {"name": "taltrans-small", "labels": HUM_LABELS, "clip_samples": store.meta.clip_samples}
    classifiers.save(module, folder, **about, options={}, extra={"loss": "ce"})
    return folder


class Lengths:
    """A scorer of two repeats: half the number of shared words, and that plus 0.1; notes its pairs."""

    name, about = "lengths", {"model_hash": "0"}

    def __init__(self):
        self.pairs = []

    def __call__(self, pairs):
        self.pairs += pairs
        values = np.array([len({*a.split()} & {*b.split()}) / 10 for a, b in pairs])
        return np.stack([values, values + 0.1])


def test_predicted_scores_are_those_of_the_pipeline(store, classifier):
    inputs = Inputs(store, classifier=classifier, top_k=1)
    inputs.check(["predicted"])
    found = entail(inputs, "predicted", load("minilm"))
    logits = classifiers.predict(classifiers.load(classifier), store, np.arange(CLIPS))
    weights = label_free.probabilities(logits, "ce")
    how = {"scorer": "minilm", "labels": "predicted", "top_k": 1}
    theirs = label_free.score(store, np.arange(CLIPS), weights.__getitem__, **how)
    np.testing.assert_allclose(found.raw, theirs.raw, atol=1e-6)
    assert found.scaling == pytest.approx(theirs.scaling, abs=1e-6) and found.spread is None
    either = entail(inputs, "noisy-or", load("minilm"))
    expected = weights.max(axis=1) * np.clip(theirs.raw, 0, 1)
    np.testing.assert_allclose(either.raw, expected, atol=1e-6)
    assert np.isnan(found.raw[7]) and np.isnan(either.scaled[7])


def test_repeats_give_mean_and_spread_of_each_clip_in_any_chunks(store, monkeypatch):
    whole = entail(Inputs(store), "true", Lengths())
    monkeypatch.setattr(store_scores, "CHUNK", 1)  # the clip without a caption is a chunk
    found = entail(Inputs(store), "true", Lengths())
    for one in (whole, found):
        assert np.isnan(one.spread[7])
        np.testing.assert_allclose(np.delete(one.spread, 7), np.std([0, 0.1], ddof=1))
    np.testing.assert_array_equal(found.raw, whole.raw)


def test_own_labels_are_compared_as_in_the_paper(tmp_path):
    labels = [["Whip"], ["Whip", "Tick"], ["Whip", "Tick"], ["Humming machine"]]
    records = [
        hum_record(i, split="train", labels=own, label_ids=[0, 1][: len(own)], visual_caption="a caption")
        for i, own in enumerate(labels)
    ]
    store = hum_store(tmp_path / "store", records, labels=["Whip", "Tick", "Humming machine"])
    rows = {f"clip-{i}": "a caption" for i in range(4)}
    table = caption_table_of(tmp_path / "visual", rows, "visual")
    without = Inputs(store, table).own_texts
    assert without == [audioset.described()["Whip"], None, None, None]
    assert without[0].startswith("Whip : The sound of whipping, i.e., the greatly")
    scorer = Lengths()
    entail(Inputs(store, table), "true", scorer)
    heard = [audio for _, audio in scorer.pairs]
    assert heard[:3] == [without[0], "The sound of Whip", "The sound of Tick"]


def test_audio_captions_of_the_table_are_the_text_of_several_labels(tmp_path):
    from ajbench.captions import caption_table

    store = hum_store(
        tmp_path / "store",
        [hum_record(i, split="train", labels=HUM_LABELS, label_ids=[0, 1]) for i in range(2)],
    )
    rows = [
        {"clip_id": "clip-0", "kind": kind, "text": f"{kind} caption", "backend": "rule"}
        for kind in ("visual", "audio")
    ]
    caption_table.start(tmp_path / "t", "key")
    caption_table.fill(tmp_path / "t", lambda: [(0, rows)], 1, lambda rows: rows, lambda _: None)
    caption_table.finish(tmp_path / "t", 1, {"fingerprint": "key", "counts": {}})
    scorer = Lengths()
    found = entail(Inputs(store, tmp_path / "t"), "true", scorer)
    assert scorer.pairs == [("visual caption", "audio caption")]
    assert np.isnan(found.raw).tolist() == [False, True]


def test_the_overlap_needs_no_text(store, classifier, tmp_path):
    logits = classifiers.predict(classifiers.load(classifier), store, np.arange(CLIPS))
    ids = store.clip_ids[:20]
    file = save_scores(tmp_path / "v.npz", logits[:20], np.zeros((20, 2)), ids, HUM_LABELS, ids)
    inputs = Inputs(store, classifier=classifier, video_scores=file)
    inputs.check(["overlap"])
    found = entail(inputs, "overlap")
    np.testing.assert_allclose(found.scaled[:20], 1)
    assert np.isnan(found.scaled[20:]).all() and found.scaling == Scaling(0, 1)
    assert inputs.about(["overlap"])["video_scores"]


def test_clap_compares_the_caption_with_the_sound(store, clap_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    (tmp_path / "clap").symlink_to(clap_folder)
    inputs = Inputs(store)
    inputs.check(["clap"])
    found = entail(inputs, "clap")
    from ajbench import features
    from ajbench.data import audio

    clap = features.load("clap", clap_folder)
    wave = audio.at_rate(store.audio([3]), clap.sample_rate)
    expected = clap.features(wave)[0] @ clap.text([hum_captions(3)])[0]
    assert found.raw[3] == pytest.approx(expected, abs=1e-5) and np.isnan(found.raw[7])
    assert (found.scorer, found.comparison) == ("clap", "clap") and inputs.about(["clap"])["clap"]


def test_scores_are_read_by_the_training(store, tmp_path):
    found = entail(Inputs(store), "true", load("minilm"))
    score_file.write(tmp_path / "s", [found], Inputs(store).about(["true"]))
    again = score_file.read(tmp_path / "s", store.clip_ids, "minilm", "true")
    np.testing.assert_array_equal(again.scaled, found.scaled)


@pytest.mark.parametrize(
    ("name", "more", "error", "word"),
    [
        ("predictd", {}, UsageError, "predictd"),
        ("predicted", {}, UsageError, "--classifier"),
        ("noisy-or", {}, UsageError, "--classifier"),
        ("overlap", {"classifier": True}, UsageError, "--video-scores"),
        ("predicted", {"classifier": "nowhere"}, MissingError, "nowhere"),
    ],
)
def test_what_is_missing_is_said_before_any_work(store, classifier, name, more, error, word, tmp_path):
    if given := more.get("classifier"):
        more = {"classifier": classifier if given is True else tmp_path / given}
    with pytest.raises(error, match=word):
        Inputs(store, **more).check([name])


def test_clap_without_weights_is_an_error_of_one_line(store, tmp_path, monkeypatch):
    for variable in ("AJBENCH_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(MissingError, match="clap"):
        Inputs(store).check(["clap"])


def test_inputs_of_other_clips_or_classes_are_refused(store, classifier, tmp_path):
    table = caption_table_of(tmp_path / "t", {"x": "a cat"}, "visual")
    with pytest.raises(IntegrityError, match="other clips"):
        Inputs(store, table).check(["true"])
    audio_only = caption_table_of(tmp_path / "a", {"clip-1": "a cat"}, "audio")
    with pytest.raises(UsageError, match="visual"):
        Inputs(store, audio_only).check(["true"])
    file = save_scores(tmp_path / "v.npz", np.zeros((1, 2)), np.zeros((1, 2)), ["x"], HUM_LABELS, ["x"])
    with pytest.raises(IntegrityError, match=r"v\.npz"):
        Inputs(store, classifier=classifier, video_scores=file).check(["overlap"])
    save_classifier(tmp_path / "other", labels=["a", "b"])
    with pytest.raises(AjbenchError, match="other"):
        Inputs(store, classifier=tmp_path / "other").check(["predicted"])
