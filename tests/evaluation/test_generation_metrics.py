from dataclasses import replace

import numpy as np
import pytest
from fakes import (
    KIND_CLIPS,
    KINDS,
    SMALL_LABELS,
    ClasslessExtractor,
    EnvelopeExtractor,
    FrameExtractor,
    make_store,
    measured,
    overall,
    pair_of,
)
from scipy.special import expit, softmax

from ajbench.core.errors import UsageError
from ajbench.data.clip_set import Requests, open_set
from ajbench.evaluation import compare, generation_metrics, protocols
from ajbench.evaluation.set_pair import SetPair
from ajbench.metrics.distribution import frechet_distance
from ajbench.metrics.intervals import wilson
from ajbench.metrics.kernel_distance import kernel_distance
from ajbench.metrics.precision_recall import neighbours
from ajbench.metrics.spectral_distance import log_spectral_distance

WITHOUT_INTERVAL = {"fd_inf", *generation_metrics.NEIGHBOURS}


@pytest.fixture
def few(kinds):
    """The pair of the first four clips, whatever else is given."""

    def make(**more):
        whole = pair_of(kinds)
        first = {"gen": whole.gen.take(np.arange(4)), "ref": whole.ref.take(np.arange(4))}
        return pair_of(kinds, **first | more)

    return make


# Values


def test_every_metric_has_a_value_an_interval_and_a_definition(kinds):
    pair = pair_of(kinds, resamples=40)
    found = measured(pair, ["all"])
    absent = {"fad", "fd_class", *generation_metrics.GUIDED}
    assert set(overall(found)) == set(generation_metrics.METRICS) - absent
    assert [note.split(":")[0] for note in found.notes if note.startswith("no ")] == ["no fad", "no fd_class"]
    for row in found.rows:
        assert len(row["definition"]) > 20
        if row["metric"] in WITHOUT_INTERVAL:
            assert np.isnan([row["ci_low"], row["ci_high"]]).all()
        else:
            assert row["ci_low"] <= row["value"] <= row["ci_high"] and row["ci_low"] < row["ci_high"], row
    plain = measured(pair_of(kinds, resamples=0), ["all"])
    assert overall(plain) == pytest.approx(overall(found)) and all(
        np.isnan(row["ci_low"]) for row in plain.rows
    )
    definition = {row["metric"]: row["definition"] for row in found.rows}
    assert "8-d features" in definition["fd"] and "covariances over n-1" in definition["fd"]
    assert definition["kl"] == "KL(ref‖gen), softmax, eps 1e-6, mean over pairs"
    assert definition["kl_sigmoid_reverse"] == "KL(gen‖ref), sigmoid, eps 1e-6, mean over pairs"
    assert "6 classes" in definition["label_agreement"] and "first 5" in definition["label_agreement5"]
    x, y = pair.vectors
    expected = {name: getattr(neighbours(x, y), name).mean() for name in generation_metrics.NEIGHBOURS}
    sounds = [[clips.samples(n)[0][:, 0] for clips in (pair.gen, pair.ref)] for n in range(KIND_CLIPS)]
    expected |= {"lsd": np.mean([log_spectral_distance(*waves) for waves in sounds])}
    expected |= {"kad": kernel_distance(x, y)}
    assert {name: overall(found)[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert overall(found)["fd_inf"] < overall(found)["fd"]


@pytest.mark.parametrize(("protocol", "to_gen"), [("ajbench", True), ("stable-audio-metrics", False)])
def test_kl_has_two_directions_and_two_links(kinds, protocol, to_gen):
    pair = pair_of(kinds, protocol=protocol, resamples=0)
    gen, ref = (one.logits.astype(float) for one in pair.embeddings)
    for row in measured(pair, ["kl", "kl_reverse", "kl_sigmoid", "kl_sigmoid_reverse"]).rows:
        way = "ref‖gen" if to_gen != row["metric"].endswith("reverse") else "gen‖ref"
        link = expit if "sigmoid" in row["metric"] else lambda z: softmax(z, axis=1)
        p, q = (link(z) for z in ((ref, gen) if way == "ref‖gen" else (gen, ref)))
        assert row["value"] == pytest.approx((p * np.log(p / (q + 1e-6))).sum(axis=1).mean(), rel=1e-6)
        assert f"KL({way})" in row["definition"]


def test_clap_score_is_the_mean_cosine_of_clips_and_their_captions(kinds):
    pair = pair_of(kinds)
    each = []
    for name, audio in zip(pair.names, pair.vectors[0], strict=True):
        texts = pair.extractor.text(pair.captions[name]).astype(float)
        each.append(np.mean([audio @ t / np.linalg.norm(audio) / np.linalg.norm(t) for t in texts]))
    assert "clap_score" in compare.choose(pair).metrics  # captions that are given are used
    (row,) = measured(pair, ["clap_score"]).rows
    assert len(pair.captions["dog/clip-1"]) == 2
    assert row["value"] == pytest.approx(np.mean(each), rel=1e-6)
    assert row["ci_low"] < row["value"] < row["ci_high"]


def test_label_agreement_is_of_all_clips_and_by_class(kinds):
    pair = pair_of(kinds)
    found = measured(pair, ["label_agreement", "label_agreement5"])
    order = np.argsort(-pair.ours.logits, axis=1)
    requested = np.array([KINDS.index(name.split("/")[0]) for name in pair.names])
    for metric, top in generation_metrics.TOP.items():
        hits = (order[:, :top] == requested[:, None]).any(axis=1)
        rows = {row["of"]: row for row in found.rows if row["metric"] == metric}
        assert list(rows) == ["", *KINDS]
        assert rows[""]["value"] == pytest.approx(hits.mean()) and rows[""]["n"] == KIND_CLIPS
        for c, kind in enumerate(KINDS):
            assert rows[kind]["value"] == pytest.approx(hits[requested == c].mean()) and rows[kind]["n"] == 4
    assert 0 < overall(found)["label_agreement"] < overall(found)["label_agreement5"] < 1


@pytest.mark.filterwarnings("ignore:FD of")
def test_fd_by_class_compares_with_half_of_each_class(tmp_path):
    real = make_store(tmp_path / "real", train=36)
    train = open_set(real.path, "train")
    made = replace(train, names=[f"s{k}" for k in range(36)])
    how = {"protocol": protocols.find("ajbench"), "cache": tmp_path / "cache", "task": "", "resamples": 20}
    how |= {"extractor": EnvelopeExtractor(), "pairs": {}}
    pair = SetPair(made, train, **how)
    (row,) = measured(pair, ["fd_class"]).rows
    each, targets = [], real.targets()[real.split_indices("train")] > 0
    for c in range(3):
        mine = np.flatnonzero(targets[:, c])
        chosen = np.sort(np.random.default_rng(0).permutation(mine)[: len(mine) // 2])
        x, y = pair.vectors
        each.append(frechet_distance(x[chosen], y[mine[::2][: len(mine) // 2]]))
    assert row["value"] == pytest.approx(np.mean(each), rel=1e-9)
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert row["n"] == row["n_reference"] == sum(targets[:, c].sum() // 2 for c in range(3))
    scarce = SetPair(made.take(np.arange(12)), train.take(np.arange(12)), **how)
    found = compare.measure(scarce, compare.choose(scarce, ["fd", "fd_class"], required=False))
    assert list(overall(found)) == ["fd"] and any("no fd_class" in note for note in found.notes)
    with pytest.raises(UsageError, match="--metrics fd_class"):
        measured(scarce, ["fd_class"])


def test_halves_of_a_class_are_disjoint_and_equal():
    targets = np.zeros((20, 3), bool)
    targets[:9, 0] = targets[5:13, 1] = targets[13:, 2] = True
    halves = generation_metrics.class_halves(targets, range(20))
    assert list(halves) == [0, 1]  # seven clips are too few for two halves of four
    for c, (first, second) in halves.items():
        assert len(first) == len(second) == 4 and not {*first} & {*second}
        assert targets[[*first, *second], c].all()


def test_halves_of_a_class_have_no_recording_in_common():
    # Even and odd clips would put each of the six pairs in both halves.
    recordings = ["long"] * 5 + [f"pair{k // 2}" for k in range(12)] + ["alone"]
    halves = generation_metrics.class_halves(np.ones((18, 1), bool), recordings)
    first, second = halves[0]
    assert len(first) == len(second) == 9
    assert not {recordings[k] for k in first} & {recordings[k] for k in second}
    assert not generation_metrics.class_halves(np.ones((18, 1), bool), ["one"] * 16 + ["b", "c"])


def test_agreement_by_guide_is_of_pairs_of_a_clip_and_a_requested_class(tmp_path):
    real = open_set(make_store(tmp_path / "real").path)
    parents = ["clip01", "clip02", "clip03", None]  # of Rain, Clock tick, Dog
    gen = replace(real.take(np.arange(4)), names=["s0", "s1", "s2", "s3"], parents=parents)
    dog, rain, clock = SMALL_LABELS
    labels = {"s0": [rain, clock], "s1": [clock], "s2": [dog, rain], "s3": [dog, rain]}

    class Small(EnvelopeExtractor):
        labels = SMALL_LABELS

    def pair(labels):
        how = {"protocol": protocols.find("ajbench"), "cache": tmp_path / "cache", "task": "", "pairs": {}}
        return SetPair(gen, real, Small(), requests=Requests(SMALL_LABELS, None, labels), **how)

    mixed = pair(labels)
    logits = np.array([[0.5, 1, 0], [0, 0, 1], [-1, 3, 0], [1, 1, 0]])
    ours, theirs = mixed.embeddings
    mixed.__dict__["embeddings"] = replace(ours, logits=logits), theirs
    rows = {row["metric"]: row for row in measured(mixed).rows if not row["of"]}
    # s0: Rain, which its guide has, beats Dog; Clock tick does not. s1 is right. s2: Rain beats Clock tick.
    expected = {
        "agreement_in_guide": (2 / 3, 3),
        "agreement_not_in_guide": (1 / 2, 2),
        "label_agreement": (1, 4),
    }
    assert {name: (rows[name]["value"], rows[name]["n"]) for name in expected} == expected
    assert "lacks" in rows["agreement_not_in_guide"]["definition"]
    assert rows["agreement_in_guide"]["ci_low"] == pytest.approx(wilson(np.array([1, 1, 0]), range(3)).low)
    same = pair({"s0": [rain], "s1": [clock], "s2": [dog], "s3": [dog, rain]})
    assert not {*overall(measured(same))} & {*generation_metrics.GUIDED}
    with pytest.raises(UsageError, match="--metrics agreement_in_guide"):
        compare.choose(same, ["agreement_in_guide"])


def test_an_interval_does_not_depend_on_what_else_is_measured(kinds):
    alone = measured(pair_of(kinds), ["kad"]).rows[0]
    among = measured(pair_of(kinds), ["fd", "density", "kad"]).rows
    assert [row for row in among if row["metric"] == "kad"] == [alone]
    other = measured(pair_of(kinds, seed=1), ["kad"]).rows[0]
    assert other["value"] == alone["value"] and other["ci_low"] != alone["ci_low"]


def test_no_interval_exceeds_the_limits_of_its_metric(few):
    # Four clips, three of which are predicted as requested.
    plain = few()
    best = plain.ours.logits.argmax(axis=1)
    labels = {name: [KINDS[c]] for name, c in zip(plain.names, best, strict=True)}
    labels[plain.names[0]] = [KINDS[best[0] - 1]]
    pair = few(requests=Requests(KINDS, None, labels), captions={name: ["a bear"] for name in labels}, seed=1)
    found = measured(pair, ["label_agreement", "kl", "fd", "lsd", "clap_score"])
    rows = {row["metric"]: row for row in found.rows if not row["of"]}
    assert rows["label_agreement"]["value"] == 0.75
    assert rows["label_agreement"]["ci_low"] < 0.35 and rows["label_agreement"]["ci_high"] > 0.95
    for name, row in rows.items():
        low, high = generation_metrics.METRICS[name].limits
        assert low <= row["ci_low"] <= row["value"] <= row["ci_high"] <= high, row
    assert any("FD of 4 clips in 8 dimensions" in note for note in found.notes)


def test_sets_of_different_size_are_resampled_separately(kinds):
    whole = pair_of(kinds)
    metrics = ["fd", "fd_inf", "kad", "precision", "recall", "density", "coverage"]
    found = measured(pair_of(kinds, ref=whole.ref.take(np.arange(18)), pairs={}, resamples=20), metrics)
    assert {(row["n"], row["n_reference"]) for row in found.rows} == {(24, 18)}


# What metrics need


@pytest.mark.parametrize(
    ("metric", "extractor", "more", "named"),
    [
        ("label_agreement", EnvelopeExtractor, {"labels": None}, "--labels"),
        ("clap_score", EnvelopeExtractor, {"captions": None}, "--captions"),
        ("clap_score", ClasslessExtractor, {}, "encodec .*clap"),
        ("is", ClasslessExtractor, {}, "encodec .*mn04"),
        ("kl_reverse", EnvelopeExtractor, {"pairs": {}}, "--pairs"),
        ("fad", EnvelopeExtractor, {}, "envelope .*fd"),
        ("fd", FrameExtractor, {}, "vggish .*fad"),
        ("fd_class", EnvelopeExtractor, {}, "ref: "),
        ("kadd", EnvelopeExtractor, {}, "'kad'"),
    ],
)
def test_what_a_metric_needs_is_said_in_one_line(kinds, metric, extractor, more, named):
    with pytest.raises(UsageError, match=f"--metrics {metric}: .*{named}") as error:
        compare.choose(pair_of(kinds, extractor(), **more), ["kad", metric])
    assert "\n" not in str(error.value)


def test_how_many_clips_of_a_store_lack_a_caption_is_said(tmp_path, monkeypatch):
    plain = open_set(make_store(tmp_path / "plain").path)
    monkeypatch.setattr(type(plain), "captions", lambda self: ["a bear", *[None] * (len(self) - 1)])
    pair = SetPair(plain, plain, EnvelopeExtractor(), protocols.find("ajbench"), tmp_path)
    with pytest.raises(UsageError, match=rf"--metrics clap_score: .*plain: {len(plain) - 1} of "):
        compare.choose(pair, ["clap_score"])


def test_labels_that_an_extractor_does_not_know_are_named(kinds):
    names = pair_of(kinds).gen.names
    odd = pair_of(kinds, requests=Requests(("dog", "oboe"), None, {name: ["dog"] for name in names}))
    with pytest.raises(UsageError, match=r"--metrics label_agreement: .*1 of 2 classes \(oboe\)"):
        measured(odd, ["label_agreement"])
    found = measured(odd)
    assert "label_agreement" not in overall(found) and any("oboe" in note for note in found.notes)
    five = pair_of(kinds, requests=Requests(KINDS[:5], None, {name: ["dog"] for name in names}))
    with pytest.raises(UsageError, match="--metrics label_agreement5"):
        measured(five, ["label_agreement5"])


def test_by_default_whatever_is_possible_is_measured(kinds):
    usual = ["fd", "is", "kl", "kl_sigmoid", "label_agreement"]
    assert list(overall(measured(pair_of(kinds, captions=None)))) == usual
    assert list(overall(measured(pair_of(kinds)))) == [*usual, "clap_score"]


def test_few_clips_leave_out_what_needs_more(few):
    found = measured(few(resamples=5), ["all"])
    assert {"fd", "kad", "lsd"} < set(overall(found)) and not {"precision", "fd_inf"} & set(overall(found))
    assert any("no precision, recall, density, coverage" in note for note in found.notes)
    with pytest.raises(UsageError, match="--metrics fd_inf"):
        measured(few(), ["fd_inf"])
