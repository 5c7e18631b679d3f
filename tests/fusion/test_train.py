"""Training of audio-visual models on clips whose video tokens tell their labels."""

import json

import numpy as np
import pytest
import torch
from fakes import (
    hum_record,
    hum_store,
    reseal,
    save_classifier,
    stopped_at,
    video_record,
    video_store,
    weight_difference,
)

from ajbench.captions import score_file
from ajbench.captions.aggregation import Scaling
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.recipe import Fusion, Mix, Recipe
from ajbench.core.schema import Classifier
from ajbench.data import mixing
from ajbench.fusion import train
from ajbench.fusion.av_clips import ClipsWithVideo, clip_scores, evaluated_as, training_batches
from ajbench.pipeline.fusion_work import CLIP_SCORES, read_clip_scores, write_clip_scores
from ajbench.training.state import State

N = 24


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    records = [video_record(i) for i in range(N)]
    return video_store(tmp_path_factory.mktemp("av") / "store", records)


def recipe(**fusion):
    short = {"train_steps": 10, "batch_size": 8, "warmup_steps": 2, "checkpoint_every": 4, "width": 16}
    fusion = Fusion(**(short | {"precision": "fp32"} | fusion))
    return Recipe(name="t", fusion=fusion, mix=Mix(), classifier=Classifier(name="taltrans-small"))


def clips(store, split="train", scores=0.7, frozen=True):
    indices = store.split_indices(split)
    tokens = np.random.default_rng(0).normal(size=(N, 5, 8)).astype(np.float16) if frozen else None
    return ClipsWithVideo(store, indices, np.full(len(indices), scores), tokens)


def batches(store, seed=0, plan=None, **settings):
    given = clips(store)
    plan = plan or mixing.plan(Mix(), given.ids, [], given.targets, seed)
    return training_batches(recipe(**settings).fusion, plan, given, seed)


def test_what_is_drawn_for_a_clip_depends_on_seed_and_clip_not_on_its_companions(store):
    given = clips(store)
    forward = mixing.plan(Mix(), given.ids, [], given.targets, 0)
    order = forward.order(0)

    def swapped(epoch):
        changed = order.copy()
        changed[0], changed[-1] = order[-1], order[0]
        return changed

    other = mixing.Plan(forward.epoch_size, swapped, forward.partners, forward.shares)
    one, two = batches(store, plan=forward)(0), batches(store, plan=other)(0)
    for a, b in zip((*one[0], one[1]), (*two[0], two[1]), strict=True):
        assert torch.equal(a[1:], b[1:])
    again = batches(store, plan=forward)(0)
    assert all(torch.equal(a, b) for a, b in zip(one[0], again[0], strict=True))


def test_modalities_are_dropped_but_never_both_nor_the_only_one(store):
    seen = [batches(store, modality_dropout=0.45, mixup=0.0)(index)[0] for index in range(12)]
    audio = torch.cat([inputs.has_audio for inputs in seen])
    video = torch.cat([inputs.has_video for inputs in seen])
    assert (audio | video).all()
    assert 0.2 < (~audio).float().mean() < 0.5
    assert (audio & video).any()


def test_mixup_takes_audio_video_labels_and_score_of_one_partner(store):
    given = clips(store)
    given.scores[:] = np.arange(len(given)) / len(given)
    plan, partner = mixing.plan(Mix(), given.ids, [], given.targets, 0), 3
    fixed = mixing.Plan(plan.epoch_size, plan.order, lambda k, rng: np.full(k, partner), plan.shares)
    settings = recipe(mixup=1.0, modality_dropout=0.0).fusion
    inputs, targets = training_batches(settings, fixed, given, 0)(0)
    every, labels = given.take(np.arange(len(given)))
    weights = []
    for n, place in enumerate(mixing.batch(plan.order, plan.epoch_size, 8, 0)):
        difference = every.score[place] - every.score[partner]
        keep = float((inputs.score[n] - every.score[partner]) / difference) if place != partner else 1.0
        weights.append(keep)
        for mixed, own in ((inputs.audio, every.audio), (inputs.video, every.video), (targets, labels)):
            torch.testing.assert_close(
                mixed[n], torch.lerp(own[partner], own[place], keep), atol=1e-4, rtol=0
            )
        assert inputs.has_video[n] == (every.has_video[place] and every.has_video[partner])
    assert len({round(keep, 3) for keep in weights}) > 4


def test_a_killed_training_ends_with_the_same_bits(store, tmp_path):
    def fit(out):
        return train.train_fusion(recipe(), clips(store), out, seed=1, fingerprint="abc")

    whole = fit(tmp_path / "whole")
    with stopped_at(State, "save", 2, after=True):
        fit(tmp_path / "killed")
    assert not (tmp_path / "killed" / "config.json").exists()
    assert weight_difference(whole, fit(tmp_path / "killed")) == 0
    with stopped_at(train, "remove_checkpoints", 1):
        fit(tmp_path / "late")
    assert weight_difference(whole, fit(tmp_path / "late")) == 0
    assert not (tmp_path / "late" / "checkpoints").exists()
    assert train.load(whole).discount == "renormalised"
    with pytest.raises(IntegrityError, match="audio-visual"):
        save_classifier(tmp_path / "cls")
        train.load(tmp_path / "cls")


@pytest.mark.parametrize("start", ["trained", "scratch"])
def test_a_backbone_is_trained_from_waves(store, tmp_path, start):
    save_classifier(tmp_path / "audio")
    own = recipe(audio_init=start, train_steps=2)
    audio = tmp_path / "audio" if start == "trained" else None
    out = train.train_fusion(
        own, clips(store, frozen=False), tmp_path / "m", seed=0, fingerprint="a", audio=audio
    )
    logits = train.predict(train.load(out), clips(store, "eval", frozen=False), "A+V")
    assert logits.shape == (8, 2)
    assert np.isfinite(logits).all()
    config = json.loads((out / "config.json").read_text())
    sizes = {"passes": 150, "tied": False, "feedforward": 16_384, "channels": [16_384] * 10}
    for changed in ({"width": 16_384}, {"backbone": {"name": "taltrans-small", "options": sizes}}):
        reseal(out / "config.json", options=config["options"] | changed)
        with pytest.raises(IntegrityError, match=r"model\.safetensors: not the weights of config\.json"):
            train.load(out)


def test_models_learn_from_video_and_predict_by_modality(store, tmp_path):
    out = train.train_fusion(
        recipe(train_steps=60, lr=1e-2, mixup=0.0), clips(store), tmp_path / "m", seed=0, fingerprint="a"
    )
    held_out = clips(store, "eval")
    inputs, targets = held_out.take(np.arange(len(held_out)))
    right = train.predict(train.load(out), held_out, "V").argmax(axis=1) == targets.argmax(dim=1).numpy()
    assert right[inputs.has_video.numpy()].all()
    by_audio = train.predict(train.load(out), held_out, "A")
    both = train.predict(train.load(out), held_out, "A+V")
    without = ~inputs.has_video.numpy()
    np.testing.assert_array_equal(by_audio[without], both[without])
    assert (by_audio[~without] != both[~without]).any()
    assert not evaluated_as(inputs, "V").has_audio.any()


def test_audio_tokens_are_those_of_the_classifier(store, tmp_path):
    module = save_classifier(tmp_path / "audio")
    train.write_audio_tokens(tmp_path / "audio", store, tmp_path / "tokens.npy")
    written = train.read_audio_tokens(tmp_path / "tokens.npy")
    with torch.no_grad():
        expected = module.tokens(torch.from_numpy(store.audio([3])))[0].numpy()
    np.testing.assert_allclose(written[3], expected, atol=2e-3)
    assert written.dtype == np.float16
    content = bytearray((tmp_path / "tokens.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "tokens.npy").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"tokens\.npy: checksum"):
        train.read_audio_tokens(tmp_path / "tokens.npy")
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "tokens.json").write_text(damaged)
        with pytest.raises(IntegrityError, match=r"tokens\.json: damaged"):
            train.read_audio_tokens(tmp_path / "tokens.npy")
    (tmp_path / "tokens.json").unlink()  # as in older folders
    (tmp_path / "tokens.npy").write_bytes(content[:9])
    with pytest.raises(IntegrityError, match=r"tokens\.npy: damaged"):
        train.read_audio_tokens(tmp_path / "tokens.npy")


def test_damaged_scores_of_clips_are_named(tmp_path):
    scored, expected = np.array([True, False, False]), np.array([True, True, False])
    write_clip_scores(tmp_path, np.arange(3), np.ones(3), scored, expected)
    found = read_clip_scores(tmp_path)
    assert list(found["indices"]) == [0, 1, 2] and found["unscored"] == 1
    np.testing.assert_array_equal(found["scored"], scored)
    content = bytearray((tmp_path / CLIP_SCORES).read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 1
    (tmp_path / CLIP_SCORES).write_bytes(content)
    with pytest.raises(IntegrityError, match=r"clip_scores\.npz: damaged"):
        read_clip_scores(tmp_path)


def test_a_store_without_video_and_a_classifier_without_tokens_are_refused(tmp_path):
    bare = hum_store(tmp_path / "bare", [hum_record(i) for i in range(N)])
    with pytest.raises(UsageError, match=r"data\.video"):
        train.train_fusion(recipe(), clips(bare), tmp_path / "m", seed=0, fingerprint="a")
    with pytest.raises(UsageError, match=r"classifier\.name=head"):
        train.token_width(torch.nn.Linear(1, 1), "head")


def scores_of(store, path, scaled, labels="predicted"):
    ids = store.clip_ids
    score_file.write(path, [score_file.ScoredClips(ids, "minilm", labels, scaled, scaled, Scaling(0, 1))])
    return path


def test_scores_of_clips_by_condition(store, tmp_path):
    scaled = np.arange(N) / N
    scaled[[0, 4]] = np.nan  # of these, clip 4 has no video
    path = scores_of(store, tmp_path / "s", scaled)
    indices = np.concatenate([store.split_indices("train"), store.split_indices("eval")])
    train_mean = np.nanmean(scaled[store.split_indices("train")])
    naive, scored = clip_scores(Fusion(scorer="none"), store, indices, None, 0)
    assert (naive == 1).all() and not scored.any()
    found, scored = clip_scores(Fusion(), store, indices, path, 0)
    np.testing.assert_array_equal(scored, np.isfinite(scaled)[indices])
    expected = np.where(np.isnan(scaled), train_mean, scaled)[indices]
    np.testing.assert_allclose(found, expected)
    constant, _ = clip_scores(Fusion(labels="constant"), store, indices, path, 0)
    np.testing.assert_allclose(constant, expected[: len(store.split_indices("train"))].mean())
    shuffled, _ = clip_scores(Fusion(labels="shuffled"), store, indices, path, 0)
    assert sorted(shuffled) == pytest.approx(sorted(expected))
    assert not np.allclose(shuffled, expected)
    np.testing.assert_allclose(clip_scores(Fusion(labels="feature"), store, indices, path, 0)[0], expected)
    with pytest.raises(UsageError, match="visual captions"):
        clip_scores(Fusion(), store, indices, scores_of(store, tmp_path / "n", np.full(N, np.nan)), 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [("taltrans-small", {}), ("ast-tiny", {"depth": 1, "patchout": 0.0})],
)
def test_everything_that_is_trained_has_a_gradient(name, options):
    """DDP waits for ever for the gradient of a parameter that is not used, as a backbone's own head."""
    backbone = {"name": name, "options": options}
    module = train.build(2, {"video_width": 4, "width": 8, "audio_width": 0, "backbone": backbone})
    nothing = torch.ones(2, dtype=torch.bool)
    logits = module(torch.randn(2, 16_000), torch.randn(2, 3, 4), nothing, nothing, torch.full((2,), 0.5))
    logits.sum().backward()
    trained = [
        parameter
        for group in train._optimizer(recipe(audio_init="scratch"), module).param_groups
        for parameter in group["params"]
    ]
    assert all(parameter.grad is not None for parameter in trained)
    wanted = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    assert {id(parameter) for parameter in trained} == wanted
