"""Judging synthetic clips: the score, the best of several, and what the mix does with it."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from fakes import SMALL_LABELS, FakeCodec, make_generator, make_store, make_tokens, small_recipe
from scipy.special import softmax

from ajbench.classifiers.dataset import Pool
from ajbench.classifiers.train import faithful
from ajbench.core import recipe, registry
from ajbench.core.errors import UsageError
from ajbench.core.files import seed_for
from ajbench.core.recipe import Mix
from ajbench.data import shards, store
from ajbench.generation.fidelity import Judge
from ajbench.generation.synthesize import synthesize
from ajbench.pipeline.classifier_stages import reference_stage
from ajbench.pipeline.recipe_stages import Pipeline, Places

torch.set_num_threads(1)


class Ear:
    """A tagger of five classes that hears what the first samples of a wave say."""

    name, mids, sample_rate = "ear", None, 16_000
    labels = ("Siren", "Rain", "Dog", "Speech", "Clock tick")

    def __init__(self, name, path=None, device=None):
        self.path = path

    def logits(self, wav):
        return np.asarray(wav)[:, :5] * 400


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(registry.FEATURES, "ear", registry.ExtractorEntry(Ear, "for tests"))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    home = tmp_path_factory.mktemp("fidelity")
    real = make_store(home / "real")
    return real, make_generator(home / "g", real), make_tokens(home / "t")


def make(paths, out, **synth):
    synth = {"n": 12, "judge": "ear", **synth}
    return synthesize(small_recipe(synth=synth), *paths, out, fingerprint="f", codec=FakeCodec(), seed=5)


# The score


def test_the_score_is_the_share_of_the_softmax_that_falls_on_what_was_asked(paths):
    judge = Judge("ear", None, paths[0].meta)
    waves = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32) * 0.01
    asked = [[0], [1], [0, 2], []]
    ours = judge(waves, asked)
    columns = [Ear.labels.index(name) for name in SMALL_LABELS]
    expected = softmax(waves[:, :5].astype(np.float64)[:, columns] * 400, axis=1)
    for score, share, ids in zip(ours[:3], expected, asked, strict=False):
        assert score == pytest.approx(share[ids].sum(), rel=1e-6)
    assert np.isnan(ours[3])


def test_a_judge_of_another_rate_hears_it(paths, monkeypatch):
    monkeypatch.setattr(Ear, "sample_rate", 32_000)
    heard = []
    monkeypatch.setattr(Ear, "logits", lambda self, wav: heard.append(wav.shape) or np.asarray(wav)[:, :5])
    Judge("ear", None, paths[0].meta)(np.zeros((2, 50), np.float32), [[0], [1]])
    assert heard == [(2, 100)]


def test_a_judge_that_does_not_know_a_class_is_refused(paths):
    other = paths[0].meta.model_copy(update={"labels": ["Dog", "Wolf"]})
    with pytest.raises(UsageError, match=r"synth\.judge.*Wolf"):
        Judge("ear", None, other)


# The best of several


def test_of_several_candidates_the_best_is_kept_with_its_seed_and_score(paths, tmp_path):
    one, three = make(paths, tmp_path / "one"), make(paths, tmp_path / "three", candidates=3)
    assert one.clip_ids == three.clip_ids
    first, best = np.array(one.column("fidelity")), np.array(three.column("fidelity"))
    assert (best >= first).all() and (best > first).sum() > 3 and (best == first).any()
    for i, clip_id in enumerate(three.clip_ids):
        attempts = [seed_for(5, clip_id), *(seed_for(5, clip_id, attempt) for attempt in (1, 2))]
        assert three[i].seed in attempts
        assert (three[i].seed == attempts[0]) == (best[i] == first[i])
        assert np.array_equal(three[i].codes, one[i].codes) == (best[i] == first[i])
    # The score is that of the clip that is kept.
    judge = Judge("ear", None, paths[0].meta)
    again = judge(FakeCodec().decode(three.codes(range(12))).numpy(), three.column("label_ids"))
    assert again == pytest.approx(best, rel=1e-3)


def test_clips_without_a_judge_have_no_score(paths, tmp_path):
    assert set(make(paths, tmp_path / "none", judge=None).column("fidelity")) == {None}


def test_statistics_tell_the_mean_score_of_each_shard(paths, tmp_path):
    made = make(paths, tmp_path / "s", candidates=2)
    lines = (made.path / "statistics.csv").read_text().splitlines()
    shown = [float(line.split(",")[lines[0].split(",").index("fidelity_mean")]) for line in lines[1:]]
    scores = np.array(made.column("fidelity"))
    assert shown == pytest.approx([scores[:6].mean(), scores[6:].mean()], abs=1e-5)


# What the mix does with it


def test_doses_count_clips_that_have_the_score(paths, tmp_path):
    made = make(paths, tmp_path / "made")
    scores = np.array(made.column("fidelity"))
    least = float(np.sort(scores)[5])
    used = faithful(Mix(dose=7, min_fidelity=least), made)
    assert used.tolist() == np.flatnonzero(scores >= least).tolist() and len(used) == 7
    assert faithful(Mix(dose=3), made).tolist() == list(range(12))
    with pytest.raises(UsageError, match=r"mix\.dose=8.* 7 of 12"):
        faithful(Mix(dose=8, min_fidelity=least), made)
    real = paths[0]
    train = real.split_indices("train")
    pool = Pool(real, train, made, None, used)
    waves, targets = pool.take(np.arange(len(train), len(train) + 7))
    assert np.allclose(waves.numpy(), made.audio(used), atol=1e-4)
    assert np.array_equal(targets.numpy(), made.targets()[used])


def test_clips_that_were_not_judged_have_no_score_to_go_by(paths, tmp_path):
    made = make(paths, tmp_path / "none", judge=None)
    with pytest.raises(UsageError, match=r"mix\.min_fidelity=0\.5"):
        faithful(Mix(dose=3, min_fidelity=0.5), made)


# Recipes and stores


def small(*overrides):
    options = ("data.n_clips=40", "synth.n=20", "evaluate.doses=[10]", "evaluate.seeds=[0]")
    return Pipeline(recipe.load("mini", [*options, *overrides]), Places())


def test_the_run_s_own_judge_is_trained_before_the_clips_are_made():
    made = small("synth.judge=reference", "synth.candidates=2")
    names = [stage.name for stage in made.sources()]
    assert names == ["prepare", "train-gen", "invert", "train-cls", "synth", "synth"]
    judge = made.sources()[3]
    assert judge.path == reference_stage(made).path
    assert judge.path in [stage.path for stage in made.synth().needs]
    labels = [stage.fingerprint for stage in made.stages()]
    assert len(labels) == len(set(labels))
    assert made.synth().fingerprint != small().synth().fingerprint


def test_a_judge_of_one_s_own_goes_by_its_weights_not_by_its_place(tmp_path):
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    keys = [small(f"synth.judge={tmp_path / name}").synth().fingerprint for name in "abc"]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["synth.candidates=2"], "synth.candidates=2"),
        (["mix.min_fidelity=0.5"], r"mix\.min_fidelity=0\.5"),
        (["evaluate.probes.noise.candidates=3"], r"probes\.noise: synth\.candidates=3 needs a synth\.judge"),
        (["synth.judge=refrence"], "did you mean 'reference'"),
    ],
)
def test_recipes_that_ask_for_a_score_without_a_judge_are_refused(overrides, message):
    with pytest.raises(UsageError, match=message):
        small(*overrides)


def test_a_shard_of_before_has_no_scores(paths, tmp_path):
    whole = shards.map_shard(paths[0].path / "part-00000.arrow")
    old = whole.drop_columns(["fidelity"])
    path = tmp_path / "part-00000.arrow"
    with pa.ipc.new_file(str(path), old.schema) as writer:
        writer.write_batch(old)
    batch = shards.map_shard(path)
    assert batch.schema.equals(whole.schema) and batch.column("fidelity").null_count == len(whole)
    assert batch.column("clip_id").equals(whole.column("clip_id"))
    assert store.COLUMNS[-1] == "fidelity"
