"""What is measured of two sets beside FD, IS and KL: values, needs, single clips, curve, command."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from scipy.special import expit, softmax
from small_generator import LABELS, make_store
from typer.testing import CliRunner

from ajbench import classifiers, clipwise, compare, protocols, scores
from ajbench.annotations import Asked, asked_of, captions_of
from ajbench.cli import app
from ajbench.clipsets import open_set
from ajbench.embeddings import Embeddings, embed
from ajbench.errors import MissingError, UsageError
from ajbench.material import Material
from ajbench.metrics.distribution import frechet_distance
from ajbench.metrics.kernel import kernel_distance
from ajbench.metrics.manifold import neighbours
from ajbench.metrics.spectral import log_spectral_distance

PLAIN, STABLE = protocols.find("ajbench"), protocols.find("stable-audio-metrics")
KINDS = ("bell", "dog", "rain", "siren", "train", "wind")
N = 24


class Ear:
    """Levels of eight pieces as features, sums of them as logits of six classes; texts by their letters."""

    name, labels, mids, weights_hash = "ear", KINDS, None, "w1"
    sample_rate, least, most = 16_000, 240, None
    mix = np.random.default_rng(3).normal(size=(8, 6)).astype(np.float32)

    def __call__(self, wav):
        pieces = np.stack([part.std(axis=1) for part in np.array_split(np.asarray(wav), 8, axis=1)], axis=1)
        return pieces.astype(np.float32), (np.log(pieces + 1e-3) @ self.mix).astype(np.float32)

    def text(self, texts):
        letters = [[text.count(letter) for letter in "abcdeirt"] for text in texts]
        return np.array(letters, np.float32) + 0.5


class Deaf(Ear):
    """Knows neither classes nor texts."""

    name, labels, text = "deaf", (), property()


@pytest.fixture
def deaf(monkeypatch):
    """The network that knows no classes, whose features are not kept."""

    def hear(clips, extractor, protocol, cache, advance=lambda n: None):
        found = embed(clips, Ear(), protocol, cache, advance)
        return replace(found, logits=found.logits[:, :0]) if extractor.name == "deaf" else found

    monkeypatch.setattr(compare, "embed", hear)
    return Deaf()


def write(path, seed, seconds=0.25, loudest=0.3):
    rng = np.random.default_rng(seed)
    n = int(seconds * 16_000)
    envelope = np.interp(np.arange(n), np.linspace(0, n, 9), rng.uniform(0.02, loudest, 9))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, rng.normal(size=n) * envelope * 0.3, 16_000, subtype="PCM_16")


@pytest.fixture
def folders(tmp_path):
    """Four clips of each kind, generated and real, in a folder of their kind's name."""
    for k in range(N):
        name = f"{KINDS[k % 6]}/clip-{k}"
        write(tmp_path / "gen" / f"{name}.wav", k)
        write(tmp_path / "ref" / f"{name}.wav", 100 + k, loudest=0.2)
    lines = [f"{KINDS[k % 6]}/clip-{k},a {KINDS[k % 6]} in the distance" for k in range(N)]
    (tmp_path / "captions.csv").write_text("\n".join(["clip,caption", *lines, "dog/clip-1,barking"]))
    return tmp_path


def sets(folders):
    return open_set(folders / "gen"), open_set(folders / "ref")


def heard(folders, ear=None, protocol=PLAIN):
    return [embed(clips, ear or Ear(), protocol, folders / "cache") for clips in sets(folders)]


def measure(folders, ear=None, protocol=PLAIN, **more):
    gen, ref = sets(folders)
    given = {"asked": asked_of(gen, "parent"), "captions": captions_of(gen, folders / "captions.csv")}
    return compare.compare(gen, ref, ear or Ear(), protocol, folders / "cache", **(given | more))


def values(found):
    return {row["metric"]: row["value"] for row in found.rows if not row["of"]}


# Values


def test_all_takes_every_metric_with_an_interval_and_a_definition(folders):
    found = measure(folders, metrics=["all"], resamples=40)
    assert set(values(found)) == set(scores.METRICS) - {"fad"}
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
    found = measure(folders, Deaf(), resamples=300)
    (row,) = found.rows
    assert row["metric"] == "fad" and row["definition"].startswith("Gaussian FD of 3-d frames pooled over")
    rng = np.random.default_rng(0)
    ours, theirs = (frames(clips, None, None, None) for clips in (gen, ref))
    assert row["value"] == pytest.approx(frechet_distance(ours.features, theirs.features), rel=1e-9)
    # Frames of a clip are alike: drawn one by one they would seem to tell much more than they do.
    m = Material(gen, ref, ours, theirs, Deaf(), PLAIN, {}, resamples=300)
    own = [Embeddings(o.clips, o.features, np.arange(len(o.clips)), o.logits, [], 0) for o in (ours, theirs)]
    counts = [rng.multinomial(len(o.features), np.ones(len(o.features)) / len(o.features), 300) for o in own]
    loose = Material(gen, ref, *own, Deaf(), PLAIN, {}).distances(*counts)
    assert m.distances(*m.counts("fad")).std() > 1.2 * loose.std()
    assert m.vectors[0][3] == pytest.approx(ours.features[ours.clips == 3].mean(axis=0), rel=1e-9)
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match=r"--metrics fd: deaf hears frames.*ask for fad"):
        measure(folders, Deaf(), metrics=["fd"])
    rng = np.random.default_rng(0)
    everything = measure(folders, Deaf(), metrics=["all"], resamples=5)
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
        low, high = scores.METRICS[name].limits
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
    assert any("more than 5 clips are needed" in note for note in found.notes)
    with pytest.raises(UsageError, match="--metrics fd_inf: there are 4 clips"):
        measure(folders, metrics=["fd_inf"])


# Labels and captions


def test_labels_are_of_a_store_a_table_or_folders(folders, tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", captions=True)
    clips = open_set(store.path, "eval")
    asked = asked_of(clips)
    assert list(asked.names) == list(LABELS)
    assert asked.targets(clips.names).tolist() == (store.targets()[store.split_indices("eval")] > 0).tolist()
    assert captions_of(clips)[clips.names[0]][0].endswith("nearby, recording 12")
    plain = open_set(make_store(tmp_path / "plain").path)
    assert captions_of(plain) is None
    texts = ["a bear", *[None] * (len(plain) - 1)]
    monkeypatch.setattr(type(plain), "captions", lambda self: texts)
    said = rf"captions of {len(plain) - 1} of {len(plain)} clips of .*plain; give --captions"
    with pytest.raises(UsageError, match=said):
        compare.compare(plain, plain, Ear(), PLAIN, tmp_path / "c", metrics=["clap_score"])
    monkeypatch.undo()
    gen = sets(folders)[0]
    assert asked_of(gen) is None and captions_of(gen) is None
    assert asked_of(gen, "parent").labels["dog/clip-1"] == ["dog"]
    table = folders / "labels.csv"
    table.write_text("\n".join(["clip,labels", *(f"{name},wind; {name[:3]}" for name in gen.names)]))
    assert asked_of(gen, str(table)).labels["dog/clip-1"] == ["wind", "dog"]
    assert asked_of(gen, str(table)).names == sorted({"wind", *(name[:3] for name in gen.names)})


def test_what_does_not_tell_of_every_clip_is_refused(folders):
    gen = sets(folders)[0]
    table = folders / "some.csv"
    table.write_text("clip,labels,caption\ndog/clip-1,dog,a dog\ndog/clip-7,,\n")
    with pytest.raises(UsageError, match=r"--labels .*nothing of 23 of 24 clips \(bell/clip-0, "):
        asked_of(gen, str(table))
    with pytest.raises(UsageError, match=r"--captions .*nothing of 23 of 24 clips"):
        captions_of(gen, table)
    table.write_text("name,text\nx,y\n")
    with pytest.raises(UsageError, match="columns name, text; clip and labels are needed"):
        asked_of(gen, str(table))
    with pytest.raises(MissingError, match="no such file"):
        asked_of(gen, str(folders / "none.csv"))
    write(folders / "gen" / "top.wav", 1)
    with pytest.raises(UsageError, match="'top' lies in no folder"):
        asked_of(open_set(folders / "gen"), "parent")


# Single clips, curve


def test_single_clips_have_their_scores_and_the_worst_are_named(folders):
    found = measure(folders, metrics=["kl", "agreement", "precision", "clap_score", "lsd"], clips=True)
    lines = {line["gen"]: line for line in found.clips}
    assert len(lines) == N and lines["dog/clip-1"]["ref"] == "dog/clip-1"
    for metric in ("kl", "precision", "clap_score", "lsd"):
        assert np.mean([line[metric] for line in found.clips]) == pytest.approx(values(found)[metric])
    ranks = np.array([line["rank"] for line in found.clips])
    assert np.mean(ranks == 1) == pytest.approx(values(found)["agreement"])
    worst = clipwise.worst(found.clips, 3)
    assert set(worst) == {"kl", "rank", "clap_score", "lsd", "distance"}
    for name, falling in (("kl", True), ("clap_score", False), ("distance", True)):
        ordered = sorted((line[name] for line in found.clips), reverse=falling)[:3]
        assert [one["value"] for one in worst[name]] == ordered
        assert all(lines[one["gen"]][name] == one["value"] for one in worst[name])
    x, y = (one.features.astype(float) for one in heard(folders))
    place = sets(folders)[0].names.index(worst["distance"][0]["gen"])
    distances = np.linalg.norm(x[place] - y, axis=1)
    assert worst["distance"][0]["value"] == pytest.approx(distances.min(), rel=1e-6)
    assert worst["distance"][0]["ref"] == sets(folders)[1].names[distances.argmin()]


def test_the_curve_goes_from_few_clips_to_all_and_on(folders):
    found = measure(folders, metrics=["fd", "fd_inf"], curve=True)
    *own, last = found.curve
    assert [line["n"] for line in own] == [3, 6, 12, 24] and last["n"] == "inf"
    assert own[-1]["fd"] == pytest.approx(values(found)["fd"], rel=1e-9) and own[-1]["low"] is None
    assert last["fd"] == values(found)["fd_inf"] and own[0]["fd"] > own[2]["fd"] > last["fd"]
    assert all(line["low"] < line["fd"] < line["high"] for line in own[:-1])
    slope = (own[1]["fit"] - last["fit"]) * 6
    assert own[3]["fit"] == pytest.approx(last["fit"] + slope / 24, rel=1e-9)


# The command


def test_the_command_writes_rows_clips_and_curve(folders):
    saved = {"name": "taltrans-small", "labels": list(KINDS), "clip_samples": 4_000, "options": {}}
    classifiers.save(classifiers.build("taltrans-small", 6), folders / "judge", **saved, extra={})
    command = ["eval-gen", "--gen", str(folders / "gen"), "--ref", str(folders / "ref"), "--json", "-q"]
    command += [
        "--features",
        f"reference={folders / 'judge'}",
        "--work",
        str(folders / "w"),
        "--bootstrap",
        "5",
    ]
    written = ["--out", "rows.csv", "--clips", "clips.csv", "--curve", "fd.svg"]
    written = [str(folders / one) if "." in one else one for one in written]
    wanted = ["--metrics", "all", "--labels", "parent", "--worst", "2"]
    done = CliRunner().invoke(app, [*command, *wanted, *written])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    named = {row["metric"] for row in shown["rows"]}
    assert named == set(scores.METRICS) - {"fad", "clap_score"}
    assert {row["of"] for row in shown["rows"]} == {"", *KINDS}
    assert len(shown["worst"]["reference"]["kl"]) == 2 and shown["curve"][-1]["n"] == "inf"
    with (folders / "rows.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(shown["rows"]) and all(line["definition"] for line in lines)
    with (folders / "clips.csv").open() as file:
        assert [line["gen"] for line in csv.DictReader(file)] == sets(folders)[0].names
    assert "FD∞" in (folders / "fd.svg").read_text()
    assert CliRunner().invoke(app, [*command, *written[2:4]]).exit_code == 2  # it is there
    for kind, begin in (("png", b"\x89PNG"), ("csv", b"features,n,draws,fd")):
        path = folders / f"fd.{kind}"
        assert CliRunner().invoke(app, [*command, "--curve", str(path)]).exit_code == 0
        assert path.read_bytes().startswith(begin)
    for wrong in (["--curve", "fd.pdf"], ["--metrics", "agreement"], ["--metrics", "clap_score"]):
        refused = CliRunner().invoke(app, [*command, *wrong])
        assert refused.exit_code == 2 and len(refused.stderr.strip().splitlines()) == 1, refused.output


def test_what_people_see_has_definitions_and_no_rows_by_class(folders):
    saved = {"name": "taltrans-small", "labels": list(KINDS), "clip_samples": 4_000, "options": {}}
    classifiers.save(classifiers.build("taltrans-small", 6), folders / "judge", **saved, extra={})
    command = ["eval-gen", "--gen", str(folders / "gen"), "--ref", str(folders / "ref"), "--worst", "1"]
    command += [
        "--features",
        f"reference={folders / 'judge'}",
        "--work",
        str(folders / "w"),
        "--bootstrap",
        "5",
    ]
    done = CliRunner().invoke(app, [*command, "--metrics", "fd,agreement", "--labels", "parent"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["metric", "fd", "agreement"]
    assert "covariances over n-1" in lines[1]
    assert "6 rows by class" in done.stderr and "reference: worst by rank: " in done.stderr
