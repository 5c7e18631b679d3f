"""Fidelity of synthetic clips: the score, the best of several candidates, and its use in the mix."""

import numpy as np
import pytest
from fakes import SMALL_LABELS, FakeCodec, mini_pipeline
from scipy.special import softmax

from ajbench.classifiers.selection import TrainingClips, faithful
from ajbench.core import registry
from ajbench.core.errors import UsageError
from ajbench.core.files import seed_for
from ajbench.core.recipe import Mix
from ajbench.generation.fidelity import Judge
from ajbench.pipeline.classifier_stages import reference_stage


class SampleTagger:
    """A tagger of five classes whose logits are the first samples of a waveform."""

    name, mids, sample_rate = "samples", None, 16_000
    labels = ("Siren", "Rain", "Dog", "Speech", "Clock tick")

    def __init__(self, name, path=None, device=None):
        self.path = path

    def logits(self, wav):
        return np.asarray(wav)[:, :5] * 400


@pytest.fixture(autouse=True, scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.FEATURES, "samples", registry.ExtractorEntry(SampleTagger, "for tests"))
        yield


@pytest.fixture(scope="module")
def judged(registered, generate, tmp_path_factory):
    """Twelve judged clips."""
    return generate(tmp_path_factory.mktemp("judged") / "s", n=12, judge="samples", seed=5)


def test_the_score_is_the_softmax_share_of_the_requested_classes(real):
    judge = Judge("samples", None, real.meta)
    waves = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32) * 0.01
    requested = [[0], [1], [0, 2], []]
    ours = judge(waves, requested)
    columns = [SampleTagger.labels.index(name) for name in SMALL_LABELS]
    expected = softmax(waves[:, :5].astype(np.float64)[:, columns] * 400, axis=1)
    for score, share, ids in zip(ours[:3], expected, requested, strict=False):
        assert score == pytest.approx(share[ids].sum(), rel=1e-6)
    assert np.isnan(ours[3])


def test_waveforms_are_resampled_to_the_judges_rate(real, monkeypatch):
    shapes = []
    monkeypatch.setattr(SampleTagger, "sample_rate", 32_000)
    monkeypatch.setattr(
        SampleTagger, "logits", lambda self, wav: shapes.append(wav.shape) or np.asarray(wav)[:, :5]
    )
    Judge("samples", None, real.meta)(np.zeros((2, 50), np.float32), [[0], [1]])
    assert shapes == [(2, 100)]


def test_a_judge_that_lacks_a_class_is_refused(real):
    other = real.meta.model_copy(update={"labels": ["Dog", "Wolf"]})
    with pytest.raises(UsageError, match=r"synth\.judge.*Wolf"):
        Judge("samples", None, other)


def test_of_several_candidates_the_best_is_kept_with_its_seed_and_score(judged, generate, real, tmp_path):
    one, three = judged, generate(tmp_path / "s", n=12, judge="samples", seed=5, candidates=3)
    assert one.clip_ids == three.clip_ids
    first, best = np.array(one.column("fidelity")), np.array(three.column("fidelity"))
    assert (best >= first).all() and (best > first).sum() > 3 and (best == first).any()
    for i, clip_id in enumerate(three.clip_ids):
        attempts = [seed_for(5, clip_id), *(seed_for(5, clip_id, attempt) for attempt in (1, 2))]
        assert three[i].seed in attempts
        assert (three[i].seed == attempts[0]) == (best[i] == first[i])
        assert np.array_equal(three[i].codes, one[i].codes) == (best[i] == first[i])
    # The score is that of the clip in the store.
    judge = Judge("samples", None, real.meta)
    again = judge(FakeCodec().decode(three.codes(range(12))).numpy(), three.column("label_ids"))
    assert again == pytest.approx(best, rel=1e-3)


def test_statistics_have_the_mean_score_of_each_shard(judged, made):
    lines = (judged.path / "statistics.csv").read_text().splitlines()
    shown = [float(line.split(",")[lines[0].split(",").index("fidelity_mean")]) for line in lines[1:]]
    scores = np.array(judged.column("fidelity"))
    assert shown == pytest.approx([scores[:6].mean(), scores[6:].mean()], abs=1e-5)
    assert set(made.column("fidelity")) == {None}  # without a judge


def test_doses_count_clips_with_a_sufficient_score(judged, made, real):
    scores = np.array(judged.column("fidelity"))
    minimum = float(np.sort(scores)[5])
    used = faithful(Mix(dose=7, min_fidelity=minimum), judged)
    assert used.tolist() == np.flatnonzero(scores >= minimum).tolist() and len(used) == 7
    assert faithful(Mix(dose=3), judged).tolist() == list(range(12))
    with pytest.raises(UsageError, match=r"mix\.dose=8.*7 of 12"):
        faithful(Mix(dose=8, min_fidelity=minimum), judged)
    with pytest.raises(UsageError, match="min_fidelity"):
        faithful(Mix(dose=3, min_fidelity=0.5), made)
    train = real.split_indices("train")
    pool = TrainingClips(real, train, [(judged, used)])
    waves, targets = pool.take(np.arange(len(train), len(train) + 7))
    assert np.allclose(waves.numpy(), judged.audio(used), atol=1e-4)
    assert np.array_equal(targets.numpy(), judged.targets()[used])


def test_the_reference_judge_is_trained_before_the_clips_are_generated():
    made = mini_pipeline("synth.judge=reference", "synth.candidates=2", "evaluate.doses=[10]")
    names = [stage.name for stage in made.sources()]
    assert names == ["prepare", "train-gen", "invert", "train-cls", "synth", "synth"]
    judge = made.sources()[3]
    assert judge.path == reference_stage(made, all_real=True).path
    assert judge.path in [stage.path for stage in made.synth().needs]
    labels = [stage.fingerprint for stage in made.stages()]
    assert len(labels) == len(set(labels))
    assert made.synth().fingerprint != mini_pipeline("evaluate.doses=[10]").synth().fingerprint


def test_the_fingerprint_depends_on_the_judges_weights_not_on_its_path(tmp_path):
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    keys = [mini_pipeline(f"synth.judge={tmp_path / name}").synth().fingerprint for name in "abc"]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["synth.candidates=2"], r"synth\.candidates=2"),
        (["mix.min_fidelity=0.5"], r"mix\.min_fidelity=0\.5"),
        (["evaluate.probes.noise.candidates=3"], r"probes\.noise.*synth\.candidates=3"),
        (["synth.judge=refrence"], r"synth\.judge.*reference"),
    ],
)
def test_recipes_that_need_scores_without_a_judge_are_refused(overrides, key):
    with pytest.raises(UsageError, match=key):
        mini_pipeline(*overrides)
