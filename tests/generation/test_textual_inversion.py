"""Textual inversion: which weights are trained and which are not, and the files it writes."""

import types

import pandas as pd
import pytest
import torch
from accelerate import PartialState
from fakes import (
    N_TRAIN,
    SMALL_LABELS,
    SMALL_UNET,
    TEXT_ENCODER_DIMS,
    FakeCodec,
    free_port,
    join_launch,
    make_generator,
    make_store,
    results_of,
    small_recipe,
)
from safetensors.torch import load_file

from ajbench.core.errors import IntegrityError, UsageError
from ajbench.data import real_clips
from ajbench.data.store import ClipStore
from ajbench.generation import checkpoint, lora, textual_inversion, unet
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.plan import ListedClips, plan
from ajbench.generation.text_encoder import MiniLM

from .conftest import invert, loss_of

CODEC = FakeCodec()
TOKENS = ("<aj-dog>", "<aj-rain>", "<aj-clock-tick>")


@pytest.fixture(scope="module")
def generators(generator, text_encoders, real, tmp_path_factory):
    """A generator for every type of text encoder."""
    home, made = tmp_path_factory.mktemp("kinds"), {"minilm": generator}
    for kind, dim in TEXT_ENCODER_DIMS.items():
        text = str(text_encoders[kind])
        made[kind] = make_generator(home / kind, real, text_encoder=text, width=dim)
    return made


@pytest.fixture(scope="module")
def untrained(generator, real, tmp_path_factory):
    """Initial tokens with one vector each."""
    return invert(generator, real, tmp_path_factory.mktemp("untrained") / "t", train_steps=0)


def vectors(path):
    return load_file(path / checkpoint.EMBEDS)


@pytest.mark.parametrize(
    ("kind", "k"), [("minilm", 1), ("minilm", 3), ("t5-large", 2), ("flan-t5", 2), ("clip", 2), ("clap", 2)]
)
def test_only_the_class_tokens_are_trained(generators, real, tmp_path, kind, k):
    generator = generators[kind]
    with results_of(AudioJourneyPipeline, "from_pretrained") as made:
        out = invert(generator, real, tmp_path / "t", train_steps=1, vectors=k)
    fresh, used = AudioJourneyPipeline.from_pretrained(generator, codec=CODEC), made[0]
    for one, other in ((fresh.unet, used.unet), (fresh.text.model, used.text.model)):
        before, after = one.state_dict(), other.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    start = vectors(invert(generator, real, tmp_path / "start", train_steps=0, vectors=k))
    found = vectors(out)
    assert tuple(sorted(found)) == tuple(sorted(start)) == tuple(sorted(TOKENS))
    assert all(v.shape == (k, fresh.text.dim) and v.dtype == torch.float32 for v in found.values())
    assert all((found[token] != start[token]).any(1).all() for token in TOKENS)


def test_tokens_start_as_the_mean_of_their_names_or_of_a_word(untrained, generator, real, tmp_path):
    text = MiniLM(12)
    for label, token in zip(SMALL_LABELS, TOKENS, strict=True):
        assert torch.equal(vectors(untrained)[token][0], text.initial(label))
    out = invert(generator, real, tmp_path / "t", train_steps=0, vectors=2, init="sound")
    assert all(torch.equal(v, text.initial("sound").expand(2, -1)) for v in vectors(out).values())
    assert checkpoint.read_tokens(out)[0].init == "sound"


def test_tokens_lower_the_loss_they_are_trained_on(untrained, generator, real, tmp_path):
    out = invert(generator, real, tmp_path / "t", train_steps=20, lr=0.05, checkpoint_every=100)
    before, after = (
        loss_of(AudioJourneyPipeline.from_pretrained(generator, path, codec=CODEC), real)
        for path in (untrained, out)
    )
    assert after < before


def test_the_file_records_generator_and_clips(untrained, real):
    info, _ = checkpoint.read_tokens(untrained)
    assert info.tokens == dict(zip(SMALL_LABELS, TOKENS, strict=True))
    assert (info.generator, info.fingerprint) == ("gen0", "t1")
    assert info.train_ids == info.train_recordings == tuple(sorted(real.clip_ids[:N_TRAIN]))


def test_a_generator_trained_on_evaluation_clips_is_refused(generator, tmp_path):
    fold = make_store(tmp_path / "fold", train=6, evaluated=9)  # the same clips, split differently
    with pytest.raises(IntegrityError, match="generator"):
        invert(generator, fold, tmp_path / "t", train_steps=0)


def test_tokens_can_be_learned_for_some_classes_only(generator, real, tmp_path):
    with results_of(textual_inversion, "sound_of") as prompts:
        out = invert(generator, real, tmp_path / "t", train_steps=1, classes=["Clock tick", "Dog"])
    info, found = checkpoint.read_tokens(out)
    assert info.tokens == {"Dog": "<aj-dog>", "Clock tick": "<aj-clock-tick>"}
    assert found.keys() == {*info.tokens.values()}
    used = [real[i] for i in range(N_TRAIN) if {"Dog", "Clock tick"}.intersection(real[i].labels)]
    assert 0 < len(used) < N_TRAIN and info.train_ids == tuple(clip.clip_id for clip in used)
    assert len(prompts) == len(used) and "The sound of <aj-dog>, Rain" in prompts
    with pytest.raises(UsageError, match=r"invert\.classes.*Dogg"):
        invert(generator, real, tmp_path / "no", classes=["Dogg"])


def test_plans_name_a_token_once_and_the_encoder_uses_all_its_vectors(inverted, generator, real):
    made = AudioJourneyPipeline.from_pretrained(generator, inverted, codec=CODEC)
    assert made.text.vectors == dict.fromkeys(TOKENS, 2)
    section = small_recipe(synth={"n": 6}).synth
    planned = plan(section, ListedClips.of_store(real), made.tokens).column("prompt").to_pylist()
    assert "The sound of <aj-rain>" in planned and not any("_1" in prompt for prompt in planned)
    ids, _ = made.text.tokenize(["The sound of <aj-rain>"])
    assert (ids >= made.text.vocabulary).sum() == 2
    before = made("The sound of <Rain>", steps=2)
    with torch.no_grad():
        made.text.rows[-1] += 1  # the last vector of the token loaded last, that of rain
    made.text._cache.clear()
    assert (made("The sound of <Rain>", steps=2) != before).any()


def test_prompts_that_vectors_make_too_long_are_counted(generator, real, tmp_path):
    # [CLS] the sound of, k vectors, [SEP]: 12 tokens have room for seven vectors, not for two classes.
    out = invert(generator, real, tmp_path / "t", train_steps=0, vectors=7)
    several = {tuple(real[i].labels) for i in range(N_TRAIN) if len(real[i].labels) > 1}
    assert checkpoint.read_tokens(out)[0].prompts_cut == len(several) > 0


@pytest.mark.parametrize(("pool", "few"), [("train", False), ("real", True), ("another/store", True)])
def test_tokens_are_fitted_on_the_pool_or_the_real_clips(generator, real, tmp_path, pool, few):
    recipe = small_recipe(generator={"pool": pool}, mix={"real": "shots=3"}, invert={"train_steps": 1})
    chosen = real_clips.chosen(recipe.mix, real) if few else real.split_indices("train")
    textual_inversion.invert(recipe, generator, real, tmp_path / "t", fingerprint="t1", codec=CODEC)
    info, _ = checkpoint.read_tokens(tmp_path / "t")
    assert info.train_ids == tuple(sorted(real.clip_ids[i] for i in chosen))


def launched(rank, processes, port, folder):
    join_launch(rank, processes, port)
    torch.set_num_threads(1)
    PartialState(cpu=True)  # as a stage with several processes does
    unet.PRESETS["tiny"] = SMALL_UNET
    invert(folder / "g", ClipStore.open(folder / "real"), folder / f"out-{processes}", **SHARED)


# More than one block of noise, and parts that cross its edge.
SHARED = {"batch_size": 20, "train_steps": 3, "lora_rank": 2, "lora_lr": 1e-4, "lr": 1e-4, "log_every": 2}


@pytest.mark.slow
def test_two_processes_learn_the_tokens_and_the_lora_of_one(tmp_path, small_unet):
    real = make_store(tmp_path / "real")
    generator = make_generator(tmp_path / "g", real)
    torch.multiprocessing.spawn(launched, (2, free_port(), tmp_path), nprocs=2)
    one, two = invert(generator, real, tmp_path / "out-1", **SHARED), tmp_path / "out-2"
    for file in (checkpoint.EMBEDS, lora.FILE):
        expected, found = load_file(one / file), load_file(two / file)
        assert expected.keys() == found.keys()
        for name, values in expected.items():
            torch.testing.assert_close(found[name], values, atol=1e-6, rtol=0)
    curves = [pd.read_csv(out / checkpoint.CURVE) for out in (one, two)]
    pd.testing.assert_frame_equal(*curves, check_exact=False, rtol=1e-5)


def test_the_processes_must_divide_the_batch(generator, real, tmp_path, monkeypatch):
    monkeypatch.setattr(textual_inversion, "PartialState", lambda: types.SimpleNamespace(num_processes=3))
    with pytest.raises(UsageError, match=r"invert\.batch_size=4: not divisible by 3 processes"):
        invert(generator, real, tmp_path / "t")
