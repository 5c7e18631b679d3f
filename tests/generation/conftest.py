"""A real store, generators, class tokens and a training that tests of the generation package only read."""

import csv

import pytest
import torch
from fakes import (
    N_TRAIN,
    SMALL_UNET,
    TEXT_ENCODER_DIMS,
    FakeCodec,
    make_generator,
    make_store,
    make_tokens,
    save_text_encoder,
    small_recipe,
)

from ajbench.generation import synthesize, textual_inversion, train, unet

torch.set_num_threads(1)


@pytest.fixture
def small_unet(monkeypatch):
    """Make preset `tiny` small enough to be trained in a second."""
    monkeypatch.setitem(unet.PRESETS, "tiny", SMALL_UNET)


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """A real store without captions."""
    return make_store(tmp_path_factory.mktemp("generation") / "real")


@pytest.fixture(scope="session")
def captioned(tmp_path_factory):
    """The same store with captions and three clips of a val split."""
    return make_store(tmp_path_factory.mktemp("generation") / "captioned", captions=True, val=3)


@pytest.fixture(scope="session")
def text_encoders(tmp_path_factory):
    """name → folder of a small text encoder; minilm has the name alone."""
    home = tmp_path_factory.mktemp("generation")
    saved = {kind: save_text_encoder(kind, home / kind) for kind in TEXT_ENCODER_DIMS}
    return {"minilm": "minilm"} | saved


@pytest.fixture(scope="session")
def generator(real, tmp_path_factory):
    """A generator with random weights, of `real`."""
    return make_generator(tmp_path_factory.mktemp("generation") / "generator", real)


@pytest.fixture(scope="session")
def tokens(tmp_path_factory):
    """Random class tokens of `generator`."""
    return make_tokens(tmp_path_factory.mktemp("generation") / "tokens")


def fit(real, out, mix=None, **generator):
    """Train a generator on `real` into `out`; keywords are settings of the section `generator`."""
    about = {"fingerprint": "f1", "seed": 3, "codec": FakeCodec()}
    recipe = small_recipe(generator=generator, mix=mix or {})
    return train.train_generator(recipe, real, out, **about)


@pytest.fixture(scope="session")
def trained(captioned, tmp_path_factory):
    """A generator trained for six steps on `captioned`, with validation every second step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(unet.PRESETS, "tiny", SMALL_UNET)
        return fit(captioned, tmp_path_factory.mktemp("generation") / "trained", validate_every=2)


def invert(generator, real, out, seed=2, **section):
    """Learn class tokens, LoRA or both into `out`; keywords are settings of the section `invert`."""
    about = {"fingerprint": "t1", "seed": seed, "codec": FakeCodec()}
    return textual_inversion.invert(small_recipe(invert=section), generator, real, out, **about)


def loss_of(made, real):
    """Return the loss of a pipeline on the train clips of a store, at fixed noise and timesteps."""
    g, train_clips = torch.Generator().manual_seed(1), real.split_indices("train")
    grid = made.whitening.grid(made.codec.latents(real.codes(train_clips)))
    noise, t = torch.randn(grid.shape, generator=g), torch.arange(N_TRAIN) * 80
    names = [[made.tokens.get(name, name) for name in real[i].labels] for i in range(N_TRAIN)]
    ids, mask = made.text.tokenize([f"The sound of {', '.join(row)}" for row in names])
    noisy = unet.noise_schedule().add_noise(grid, noise, t)
    batch = {"noisy": noisy, "target": noise, "t": t, "ids": ids, "mask": mask}
    with torch.no_grad():
        return textual_inversion.Inversion(made, 3)(batch).mean().item()


@pytest.fixture(scope="session")
def inverted(generator, real, tmp_path_factory):
    """Class tokens with two vectors each, after seven steps."""
    out = tmp_path_factory.mktemp("generation") / "inverted"
    return invert(generator, real, out, vectors=2, train_steps=7, log_every=3)


@pytest.fixture(scope="session")
def adapted(generator, real, tmp_path_factory):
    """LoRA without tokens, trained long enough to change the output clearly."""
    out = tmp_path_factory.mktemp("generation") / "adapted"
    options = {"tokens": False, "lora_rank": 3, "lora_lr": 0.02, "checkpoint_every": 100}
    return invert(generator, real, out, train_steps=20, **options)


N_SYNTHETIC = 14


@pytest.fixture(scope="session")
def generate(real, generator, tokens):
    """generate(out, store=real, tokens=tokens, codec=FakeCodec(), ABOUT, **synth) -> synthetic store.

    ABOUT are arguments of `synthesize`: fingerprint, seed, threads, allow_inexact.
    """
    class_tokens = tokens

    def run(out, store=real, tokens=class_tokens, codec=None, **synth):
        names = synth.keys() & {"fingerprint", "seed", "threads", "allow_inexact"}
        about = {"fingerprint": "f1"} | {name: synth.pop(name) for name in names}
        recipe = small_recipe(synth={"n": N_SYNTHETIC, "sampler_steps": 3} | synth)
        tokens = tokens if recipe.synth.prompt == "tokens" else None
        return synthesize.synthesize(
            recipe, store, generator, tokens, out, codec=codec or FakeCodec(), **about
        )

    return run


@pytest.fixture(scope="session")
def made(generate, tmp_path_factory):
    """A synthetic store of 14 clips in three shards."""
    return generate(tmp_path_factory.mktemp("generation") / "made")


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
