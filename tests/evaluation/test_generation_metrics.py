"""What is measured of two sets beside FD, IS and KL: values, and what metrics need."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import make_store
from scipy.special import expit, softmax
from six_kinds import KINDS, PLAIN, STABLE, Deaf, Ear, N, fill, heard, measure, sets, values

from ajbench.core.errors import UsageError
from ajbench.data.annotations import Asked, asked_of, captions_of
from ajbench.data.clip_set import open_set
from ajbench.evaluation import compare, generation_metrics
from ajbench.evaluation.feature_cache import Embeddings, embed
from ajbench.evaluation.set_pair import Material
from ajbench.metrics.distribution import frechet_distance
from ajbench.metrics.kernel_distance import kernel_distance
from ajbench.metrics.precision_recall import neighbours
from ajbench.metrics.spectral_distance import log_spectral_distance


@pytest.fixture
def folders(tmp_path):
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def deaf(monkeypatch):
    """The network that knows no classes, whose features are not kept."""

    def hear(clips, extractor, protocol, cache, advance=lambda n: None):
        found = embed(clips, Ear(), protocol, cache, advance)
        return replace(found, logits=found.logits[:, :0]) if extractor.name == "deaf" else found

    monkeypatch.setattr(compare, "embed", hear)
    return Deaf()


# Values


def test_all_takes_every_metric_with_an_interval_and_a_definition(folders):
    found = measure(folders, metrics=["all"], resamples=40)
    assert set(values(found)) == set(generation_metrics.METRICS) - {"fad"}
    assert [note for note in found.notes if note.startswith("no ")] == [
        "no fad: ear has one vector a clip; ask for fd"
    ]
    for row in found.rows:
        assert row["ci_low"] <= row["value"] <= row["ci_high"], row
        assert len(row["definition"]) > 20
        assert row["of"] or row["ci_low"] < row["ci_high"], row
    told = {row["metric"]: row["definition"] for row in found.rows}
    assert told["fd"] == "Gaussian FD of 8-d features, one vector a clip, covariances over n-1"
    assert told["kl"] == "KL(ref‖gen), softmax, eps 1e-6, mean over pairs"
    assert told["kl_sigmoid_reverse"] == "KL(gen‖ref), sigmoid, eps 1e-6, mean over pairs"
    assert told["agreement"].endswith("first of the 6 classes of the label set, found by name")
    assert "first 5" in told["agreement5"]
    gen, ref = heard(folders)
    x, y = gen.features, ref.features
    assert values(found)["kad"] == pytest.approx(kernel_distance(x, y), rel=1e-9)
    for name in ("precision", "recall", "density", "coverage"):
        assert values(found)[name] == pytest.approx(getattr(neighbours(x, y), name).mean(), rel=1e-9)
    assert values(found)["fd_inf"] < values(found)["fd"]
    waves = [[clips.samples(n)[0][:, 0] for clips in sets(folders)] for n in range(N)]
    lsd = np.mean([log_spectral_distance(*pair) for pair in waves])
    assert values(found)["lsd"] == pytest.approx(lsd, rel=1e-9)


def test_kl_goes_both_ways_by_the_protocol(folders):
    names = ["kl", "kl_reverse", "kl_sigmoid", "kl_sigmoid_reverse"]
    for protocol, ways in ((PLAIN, ("ref‖gen", "gen‖ref")), (STABLE, ("gen‖ref", "ref‖gen"))):
        found = measure(folders, protocol=protocol, metrics=names, resamples=0)
        gen, ref = (one.logits.astype(float) for one in heard(folders, protocol=protocol))
        for row in found.rows:
            way = ways[row["metric"].endswith("reverse")]
            link = expit if "sigmoid" in row["metric"] else lambda z: softmax(z, axis=1)
            p, q = (link(z) for z in ((ref, gen) if way == "ref‖gen" else (gen, ref)))
            assert row["value"] == pytest.approx((p * np.log(p / (q + 1e-6))).sum(axis=1).mean(), rel=1e-6)
            assert f"KL({way})" in row["definition"]


def test_clap_score_is_the_mean_cosine_of_a_clip_and_its_captions(folders):
    (row,) = measure(folders, metrics=["clap_score"]).rows
    features = heard(folders)[0].features.astype(float)
    captions = captions_of(sets(folders)[0], folders / "captions.csv")
    each = []
    for name, audio in zip(sets(folders)[0].names, features, strict=True):
        texts = Ear().text(captions[name]).astype(float)
        cosines = [audio @ t / np.linalg.norm(audio) / np.linalg.norm(t) for t in texts]
        each.append(np.mean(cosines))
    assert len(captions["dog/clip-1"]) == 2
    assert row["value"] == pytest.approx(np.mean(each), rel=1e-6)
    assert row["ci_low"] < row["value"] < row["ci_high"]


def test_agreement_is_by_class_and_of_all(folders):
    found = measure(folders, metrics=["agreement", "agreement5"])
    logits, names = heard(folders)[0].logits, sets(folders)[0].names
    order = np.argsort(-logits, axis=1)
    asked = np.array([KINDS.index(name.split("/")[0]) for name in names])
    for metric, top in (("agreement", 1), ("agreement5", 5)):
        hits = (order[:, :top] == asked[:, None]).any(axis=1)
        rows = {row["of"]: row for row in found.rows if row["metric"] == metric}
        assert list(rows) == ["", *KINDS]
        assert rows[""]["value"] == pytest.approx(hits.mean()) and rows[""]["n"] == N
        for c, kind in enumerate(KINDS):
            assert rows[kind]["value"] == pytest.approx(hits[asked == c].mean()) and rows[kind]["n"] == 4
    assert 0 < values(found)["agreement"] < values(found)["agreement5"] < 1


def test_frames_are_pooled_and_clips_drawn_whole(folders, monkeypatch):
    gen, ref = sets(folders)
    rng = np.random.default_rng(0)

    def frames(clips, extractor, protocol, cache, advance=None):
        owners = np.repeat(np.arange(N), rng.integers(2, 5, N))
        rows = (
            rng.normal(size=(len(owners), 3))
            + (clips.path.name == "gen")
            + 3 * rng.normal(size=(N, 3))[owners]
        )
        return Embeddings(np.arange(N), rows, owners, np.zeros((N, 0), np.float32), [], N)

    monkeypatch.setattr(compare, "embed", frames)
    ear = Deaf()
    ear.frames = True
    found = measure(folders, ear, resamples=300)
    (row,) = found.rows
    assert row["metric"] == "fad" and row["definition"].startswith("Gaussian FD of 3-d frames pooled over")
    rng = np.random.default_rng(0)
    ours, theirs = (frames(clips, None, None, None) for clips in (gen, ref))
    assert row["value"] == pytest.approx(frechet_distance(ours.features, theirs.features), rel=1e-9)
    # Frames of a clip are alike: drawn one by one they would seem to tell much more than they do.
    m = Material(gen, ref, ours, theirs, ear, PLAIN, {}, resamples=300)
    own = [Embeddings(o.clips, o.features, np.arange(len(o.clips)), o.logits, [], 0) for o in (ours, theirs)]
    counts = [rng.multinomial(len(o.features), np.ones(len(o.features)) / len(o.features), 300) for o in own]
    loose = Material(gen, ref, *own, Deaf(), PLAIN, {}).distances(*counts)
    assert m.distances(*m.counts("fad")).std() > 1.2 * loose.std()
    assert m.vectors[0][3] == pytest.approx(ours.features[ours.clips == 3].mean(axis=0), rel=1e-9)
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match=r"--metrics fd: deaf hears frames.*ask for fad"):
        measure(folders, ear, metrics=["fd"])
    rng = np.random.default_rng(0)
    everything = measure(folders, ear, metrics=["all"], resamples=5)
    rng, fewer = np.random.default_rng(0), frames(gen, None, None, None)
    m.ours, m.theirs = (replace(one, features=np.repeat(one.features, 40, axis=1)) for one in (fewer, fewer))
    rows = len(fewer.features)
    assert compare._warnings(m, ["fd_inf"])[0].startswith(f"FD of {rows} frames in 120 dimensions")
    pooled = {
        row["metric"] for row in everything.rows if "a clip is the mean of its frames" in row["definition"]
    }
    assert pooled == {"kad", "precision", "recall", "density", "coverage"}
    assert {"fad", "fd_inf"} < set(values(everything))


def test_an_interval_is_the_same_whatever_else_is_measured(folders):
    alone = measure(folders, metrics=["kad"]).rows[0]
    beside = [
        row for row in measure(folders, metrics=["fd", "density", "kad"]).rows if row["metric"] == "kad"
    ]
    assert beside == [alone]
    other = measure(folders, metrics=["kad"], seed=1).rows[0]
    assert other["value"] == alone["value"] and other["ci_low"] != alone["ci_low"]


def test_no_interval_goes_beyond_what_can_be(folders):
    for k in range(4, N):
        for side in ("gen", "ref"):
            (folders / side / KINDS[k % 6] / f"clip-{k}.wav").unlink()
    # Of four clips, three of which are heard as what they were asked to be.
    gen = sets(folders)[0]
    best = heard(folders)[0].logits.argmax(axis=1)
    labels = {name: [KINDS[c]] for name, c in zip(gen.names, best, strict=True)}
    labels[gen.names[0]] = [KINDS[best[0] - 1]]
    asked = Asked(KINDS, None, labels)
    wanted = ["agreement", "kl", "is", "fd", "lsd", "clap_score"]
    captions = {name: ["a bear"] for name in gen.names}
    found = measure(folders, metrics=wanted, asked=asked, captions=captions, seed=1)
    rows = {row["metric"]: row for row in found.rows if not row["of"]}
    assert rows["agreement"]["value"] == 0.75
    assert 0 <= rows["agreement"]["ci_low"] < 0.5 and rows["agreement"]["ci_high"] == 1
    for name, row in rows.items():
        low, high = generation_metrics.METRICS[name].limits
        assert low <= row["ci_low"] <= row["value"] <= row["ci_high"] <= high, row
    assert any("FD of 4 clips in 8 dimensions" in note for note in found.notes)


def test_clips_of_one_parent_are_drawn_together(tmp_path):
    real = make_store(tmp_path / "real", train=12)
    gen, ref = open_set(real.path, "train"), open_set(real.path)
    widths = []
    for parents in ([None] * 48, [gen.names[k // 4] for k in range(48)]):  # each clip four times
        some = compare.ClipSet(
            gen.path,
            [f"s{k}" for k in range(48)],
            parents,
            _store=real,
            _indices=np.repeat(gen._indices, 4),
        )
        found = compare.compare(some, ref, Ear(), PLAIN, tmp_path / "c", metrics=["density"], resamples=800)
        widths.append(found.rows[0]["ci_high"] - found.rows[0]["ci_low"])
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.15)  # twelve instead of 48


def test_sets_of_unequal_size_are_each_resampled_for_themselves(folders):
    for k in range(6):
        (folders / "ref" / KINDS[k] / f"clip-{k}.wav").unlink()
    metrics = ["fd", "fd_inf", "kad", "precision", "recall", "density", "coverage"]
    found = measure(folders, metrics=metrics, pairs={}, resamples=20, clips=True)
    assert {(row["n"], row["n_reference"]) for row in found.rows} == {(N, N - 6)}
    assert list(found.clips[0]) == ["features", "gen", "ref", "precision", "density", "distance", "nearest"]


# What metrics need


def test_what_a_metric_needs_is_told_in_one_line(folders, deaf):
    gen = sets(folders)[0]
    for metric, more, said in (
        ("agreement", {"asked": None}, "nothing tells the labels of .*--labels FILE.csv or --labels parent"),
        ("clap_score", {"captions": None}, "nothing tells the captions of .*--captions FILE.csv"),
        ("clap_score", {"ear": deaf}, "deaf has no text side"),
        ("is", {"ear": deaf}, "deaf knows no classes"),
        ("kl_reverse", {"pairs": {}}, "share no name"),
        ("fad", {}, "ear has one vector a clip; ask for fd"),
        ("kadd", {}, "unknown, did you mean 'kad'"),
    ):
        with pytest.raises(
            UsageError, match=f"--metrics {metric}: .*{said}|--metrics {metric}: {said}"
        ) as error:
            measure(folders, metrics=["fd", metric], **more)
        assert "\n" not in str(error.value)
    few = asked_of(gen, "parent")
    five = type(few)(KINDS[:5], None, {name: ["dog"] for name in gen.names})
    with pytest.raises(UsageError, match="agreement5: there are 5 classes"):
        measure(folders, metrics=["agreement5"], asked=five)
    odd = type(few)(("dog", "oboe"), None, {name: ["dog"] for name in gen.names})
    with pytest.raises(UsageError, match=r"agreement: ear does not know 1 of 2 classes \(oboe\)"):
        measure(folders, metrics=["agreement"], asked=odd)
    found = measure(folders, asked=odd)
    assert "agreement" not in values(found) and any("oboe" in note for note in found.notes)


def test_without_being_asked_what_is_known_is_taken(folders, deaf):
    assert list(values(measure(folders))) == ["fd", "is", "kl", "kl_sigmoid", "agreement"]
    found = measure(folders, deaf)
    assert list(values(found)) == ["fd"] and not found.notes  # once, and not again as fad
    assert list(values(measure(folders, deaf, metrics=["fad"]))) == ["fad"]


def test_few_clips_leave_out_what_needs_more(folders):
    for k in range(4, N):
        for side in ("gen", "ref"):
            (folders / side / KINDS[k % 6] / f"clip-{k}.wav").unlink()
    (folders / "captions.csv").write_text(
        "clip,caption\n" + "\n".join(f"{n},x" for n in sets(folders)[0].names)
    )
    found = measure(folders, metrics=["all"], resamples=5)
    assert {"fd", "kad", "lsd"} < set(values(found)) and not {"precision", "fd_inf"} & set(values(found))
    assert any("more than 5 clips" in note for note in found.notes)
    with pytest.raises(UsageError, match="--metrics fd_inf: there are 4 clips"):
        measure(folders, metrics=["fd_inf"])
