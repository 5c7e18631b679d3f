from dataclasses import replace

import numpy as np
import pytest
from fakes import EnvelopeExtractor, make_store, measured, pair_of

from ajbench.core.errors import MissingError
from ajbench.data.clip_set import open_set
from ajbench.evaluation import protocols
from ajbench.evaluation.feature_cache import Embeddings
from ajbench.evaluation.set_pair import SetPair, pairs_of
from ajbench.metrics.distribution import frechet_distance


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return open_set(make_store(tmp_path_factory.mktemp("pairs") / "real").path)


@pytest.fixture(scope="module")
def train(real):
    return open_set(real.path, "train")


def test_pairs_are_parents_else_equal_names(kinds, real, train):
    gen, ref = (open_set(kinds / name) for name in ("gen", "ref"))
    assert pairs_of(gen, ref) == {name: name for name in gen.names}
    assert pairs_of(gen, real) == {}
    made = [*train.names[3:], *train.names[:3]]
    synthetic = replace(train, names=[f"syn-{k}" for k in range(len(train))], parents=made)
    assert pairs_of(synthetic, real) == dict(zip(synthetic.names, made, strict=True))


def test_real_clips_that_are_no_parent_are_not_missing(train, real, tmp_path):
    made = replace(train, names=[f"s{k}" for k in range(12)], parents=train.names)
    pair = SetPair(made, real, EnvelopeExtractor(), protocols.find("ajbench"), tmp_path, resamples=0, task="")
    assert pair.skipped() == []
    (row,) = measured(pair, ["kl"]).rows
    assert row["n"] == 12 and np.isnan(row["ci_low"])


def test_positions_of_pairs_skip_unusable_clips(kinds):
    pair = pair_of(kinds, pairs={"bell/clip-0": "dog/clip-1", "dog/clip-1": "bell/clip-0"})
    mine, other = pair.both
    assert [pair.names[row] for row in mine] == ["bell/clip-0", "dog/clip-1"]
    assert [pair.ref.names[row] for row in other] == ["dog/clip-1", "bell/clip-0"]
    with pytest.raises(MissingError):
        _ = pair_of(kinds, pairs={"bell/clip-0": "elsewhere"}).both


def test_clips_of_one_recording_are_a_group(tmp_path, monkeypatch):
    real = open_set(make_store(tmp_path / "real", recordings={0: "video", 1: "video", 12: "other"}).path)
    held_out = real.take(np.arange(12, 15))
    parents = ["clip00", "clip01", "clip02", "clip02", None]
    gen = replace(real.take(np.arange(5)), names=[f"s{k}" for k in range(5)], parents=parents)
    how = EnvelopeExtractor(), protocols.find("ajbench"), tmp_path
    pair = SetPair(gen, real, *how, task="")
    own = gen.recordings[4]
    assert pair.groups == ["video", "video", "clip02", "clip02", own] and pair.real_groups == real.recordings
    assert SetPair(gen, held_out, *how, task="").groups == ["clip00", "clip01", "clip02", "clip02", own]
    known = dict(zip(real.names, real.recordings, strict=True))
    other = SetPair(gen, held_out, *how, task="", recordings=known)
    assert other.groups == pair.groups and other.real_groups == ["other", "clip13", "clip14"]
    ours, theirs, *counts = pair.drawn("kad")
    assert ours[0] == ours[1] and theirs[0] == theirs[1]
    for members, drawn in zip((ours, theirs), counts, strict=True):
        assert drawn.shape == (pair.resamples, len(set(members.tolist())))
        assert (drawn.sum(axis=1) == drawn.shape[1]).all()
    monkeypatch.setattr("ajbench.evaluation.set_pair.MOST_GROUPS", 2)
    ours, theirs, *counts = pair.drawn("kad")
    assert ours[0] == ours[1] and {*ours.tolist()} == {*theirs.tolist()} == {0, 1}
    assert [drawn.shape[1] for drawn in counts] == [2, 2]


def test_frames_are_drawn_with_their_clip(kinds):
    rng, n = np.random.default_rng(0), 24

    class Frames(EnvelopeExtractor):
        name, classes, frames, texts = "vggish", False, True, False

    def frames(shift):
        owners = np.repeat(np.arange(n), rng.integers(2, 5, n))
        rows = rng.normal(size=(len(owners), 3)) + shift + 3 * rng.normal(size=(n, 3))[owners]
        of_clips = np.split(rows, np.flatnonzero(np.diff(owners)) + 1)
        return Embeddings(np.arange(n), of_clips, np.zeros((n, 0), np.float32), [], n)

    pair, single = pair_of(kinds, Frames(), resamples=300), pair_of(kinds)
    both = pair.__dict__["embeddings"] = frames(1), frames(0)
    assert pair.distance() == pytest.approx(
        frechet_distance(*(np.concatenate(one.rows) for one in both)), rel=1e-9
    )
    assert pair.vectors[0][3] == pytest.approx(both[0].rows[3].mean(axis=0), rel=1e-9)
    # Frames of a clip are alike: drawn one by one, they would make intervals too narrow.
    single.__dict__["embeddings"] = tuple(
        replace(one, rows=[*np.concatenate(one.rows)[:, None]]) for one in both
    )
    sizes = [sum(map(len, one.rows)) for one in both]
    loose = single.distances(*(rng.multinomial(size, np.ones(size) / size, 300) for size in sizes))
    ours, theirs, *counts = pair.drawn("fad")
    together = pair.distances(*(drawn[:, own] for drawn, own in zip(counts, (ours, theirs), strict=True)))
    assert together.std() > 1.2 * loose.std()
    found = measured(pair, ["all"])
    pooled = {row["metric"] for row in found.rows if "mean of its frames" in row["definition"]}
    assert pooled == {"kad", "precision", "recall", "density", "coverage"}
    assert {"fad", "fd_inf"} < {row["metric"] for row in found.rows}
    wide = tuple(replace(one, rows=[np.repeat(rows, 40, axis=1) for rows in one.rows]) for one in both)
    pair.__dict__["embeddings"] = wide
    assert any(f"{min(sizes)} frames in 120 dimensions" in note for note in measured(pair, ["fad"]).notes)
