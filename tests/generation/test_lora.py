"""LoRA: what moves, what must not, whose loaders take the file, and what synthesis makes of it."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from fakes import N_TRAIN, SMALL_LABELS, FakeCodec, make_generator, make_store, small_recipe
from safetensors.torch import load_file

from ajbench.core import recipe
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.generation import checkpoint, lora, synthesize, textual_inversion, unet
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.pipeline.recipe_stages import Pipeline, Places
from ajbench.reporting import model_card

torch.set_num_threads(1)
CODEC = FakeCodec()
PROMPT = "The sound of Dog"
ALONE = {"tokens": False, "lora_rank": 3}
BOTH = {"lora_rank": 3}
FAST = {"lora_lr": 0.02, "lr": 0.05, "checkpoint_every": 100}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("real") / "store")


@pytest.fixture(scope="module")
def generator(real, tmp_path_factory):
    return make_generator(tmp_path_factory.mktemp("generator") / "g", real)


def run(generator, real, out, seed=2, **invert):
    return textual_inversion.invert(
        small_recipe(invert=invert), generator, real, out, fingerprint="l1", seed=seed, codec=CODEC
    )


@pytest.fixture(scope="module")
def adapted(generator, real, tmp_path_factory):
    """LoRA alone, trained far enough to be heard."""
    return run(generator, real, tmp_path_factory.mktemp("adapted") / "l", **ALONE, **FAST, train_steps=20)


def opened(generator, *tokens):
    return AudioJourneyPipeline.from_pretrained(generator, *tokens, codec=CODEC)


def weights(path):
    return load_file(path / lora.FILE)


def denoised(network, text):
    """What a network makes of a few noisy grids, given prompts."""
    g = torch.Generator().manual_seed(4)
    noisy, t = torch.randn(3, 128, 2, 21, generator=g), torch.tensor([10, 400, 900])
    with torch.no_grad():
        return unet.denoise(network, noisy, t, text.encode([PROMPT, "", "The sound of Rain"])[0], None)


@pytest.mark.parametrize("how", [ALONE, BOTH, {}])
def test_only_adapters_and_tokens_move(generator, real, tmp_path, monkeypatch, how):
    made, plain = [], AudioJourneyPipeline.from_pretrained
    monkeypatch.setattr(
        AudioJourneyPipeline, "from_pretrained", lambda *a, **k: made.append(plain(*a, **k)) or made[0]
    )
    out = run(generator, real, tmp_path / "t", train_steps=2, **how)
    monkeypatch.undo()
    fresh, used = opened(generator), made[0]
    for one, other in ((fresh.unet, used.unet), (fresh.text.model, used.text.model)):
        before = one.state_dict()
        after = {name.replace(".base_layer", ""): value for name, value in other.state_dict().items()}
        assert all(torch.equal(before[name], after.pop(name)) for name in before)
        assert all(".lora_" in name for name in after)
    start = run(generator, real, tmp_path / "start", train_steps=0, **how)
    info, vectors = checkpoint.read_tokens(out)
    assert info.lora_rank == how.get("lora_rank") and (out / lora.FILE).exists() == ("lora_rank" in how)
    assert (out / checkpoint.EMBEDS).exists() == ("tokens" not in how) and set(info.xxh3) == {
        path.name for path in out.glob("*.safetensors")
    }
    assert len(info.tokens) == len(vectors) == (0 if "tokens" in how else 3)
    assert all((vectors[name] != first).any() for name, first in checkpoint.read_tokens(start)[1].items())
    if "lora_rank" in how:
        first, last = weights(start), weights(out)
        names = {f".{target}." for target in lora.TARGETS}
        assert {name for name in names if any(name in key for key in last)} == names
        attentions = [n for n, m in fresh.unet.named_modules() if type(m).__name__ == "Attention"]
        assert len(last) == len(attentions) * len(names) * 2
        assert all(min(tensor.shape) == 3 and tensor.dtype == torch.float32 for tensor in last.values())
        assert all((first[name] != last[name]).any() for name in last)


def test_untrained_it_is_the_generator_itself(generator, real, tmp_path):
    out = run(generator, real, tmp_path / "t", train_steps=0, **ALONE)
    assert all((("lora_B" in name) == (not value.any())) for name, value in weights(out).items())
    before, after = opened(generator), opened(generator, out)
    assert np.array_equal(before(PROMPT, steps=3), after(PROMPT, steps=3))


def test_the_first_weights_depend_on_the_seed_alone(generator, real, tmp_path):
    torch.manual_seed(1)
    first = weights(run(generator, real, tmp_path / "a", train_steps=0, **ALONE))
    torch.manual_seed(7)
    again = weights(run(generator, real, tmp_path / "b", train_steps=0, **BOTH))
    other = weights(run(generator, real, tmp_path / "c", train_steps=0, seed=3, **ALONE))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all((first[name] != other[name]).any() for name in first if "lora_A" in name)


def test_nobody_elses_randomness_is_used(generator, adapted):
    network = UNet2DConditionModel.from_pretrained(generator / "unet")
    before = torch.get_rng_state()
    lora.merge(network, adapted)
    lora.add(network, 2, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("how", [ALONE, BOTH])
def test_it_lowers_the_loss_that_it_is_trained_on(generator, real, tmp_path, adapted, how):
    losses, paths = [], [run(generator, real, tmp_path / "0", **how, train_steps=0), adapted]
    if how == BOTH:  # with tokens that stay what they are, so that it is not they
        paths[1] = run(generator, real, tmp_path / "20", **how, **FAST | {"lr": 1e-9}, train_steps=20)
    for path in paths:
        made = opened(generator, path)
        g = torch.Generator().manual_seed(1)
        grid = made.whitening.grid(CODEC.latents(real.codes(real.split_indices("train"))))
        noise, t = torch.randn(grid.shape, generator=g), torch.arange(N_TRAIN) * 80
        names = [[made.tokens.get(name, name) for name in real[i].labels] for i in range(N_TRAIN)]
        states, _ = made.text.encode([f"The sound of {', '.join(row)}" for row in names])
        noisy = unet.noise_schedule().add_noise(grid, noise, t)
        with torch.no_grad():
            losses.append((unet.denoise(made.unet, noisy, t, states, None) - noise).square().mean().item())
    assert losses[1] < 0.95 * losses[0]


def test_merged_and_by_diffusers_own_loaders_it_is_the_same(generator, adapted):
    made = opened(generator, adapted)
    assert not [name for name, _ in made.unet.named_parameters() if "lora" in name or "base" in name]
    assert not any(parameter.requires_grad for parameter in made.unet.parameters())
    merged = denoised(made.unet, made.text)
    beside = UNet2DConditionModel.from_pretrained(generator / "unet").eval()
    plain = denoised(beside, made.text)
    beside.load_lora_adapter(adapted, prefix="unet", use_safetensors=True)
    found = denoised(beside, made.text)
    whole = StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=UNet2DConditionModel.from_pretrained(generator / "unet").eval(),
        scheduler=unet.noise_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    whole.load_lora_weights(adapted)
    assert (merged - plain).abs().max() > 1e-2
    assert (merged - found).abs().max() <= 1e-5
    assert torch.equal(denoised(whole.unet, made.text), found)


def test_what_was_trained_is_what_is_loaded(generator, real, tmp_path, monkeypatch):
    made, plain = [], AudioJourneyPipeline.from_pretrained
    monkeypatch.setattr(
        AudioJourneyPipeline, "from_pretrained", lambda *a, **k: made.append(plain(*a, **k)) or made[0]
    )
    out = run(generator, real, tmp_path / "t", **ALONE | {"lora_rank": 5}, **FAST, train_steps=4)
    monkeypatch.undo()
    loaded = opened(generator, out)
    difference = denoised(made[0].unet.eval(), loaded.text) - denoised(loaded.unet, loaded.text)
    assert difference.abs().max() <= 1e-5


@pytest.mark.parametrize("how", [ALONE, BOTH])
def test_stopped_in_the_middle_it_ends_with_the_same_bits(generator, real, tmp_path, monkeypatch, how):
    how = how | {"train_steps": 5, "log_every": 3}
    run(generator, real, tmp_path / "straight", **how)
    calls, plain = [], textual_inversion.Inversion.forward

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("cut")
        return plain(*arguments)

    monkeypatch.setattr(textual_inversion.Inversion, "forward", failing)
    with pytest.raises(RuntimeError, match="cut"):
        run(generator, real, tmp_path / "cut", **how)
    assert (tmp_path / "cut" / "checkpoints" / "step-00000002").exists()
    monkeypatch.setattr(textual_inversion.Inversion, "forward", plain)
    run(generator, real, tmp_path / "cut", **how)
    names = {path.name for path in (tmp_path / "straight").iterdir()} - {"checkpoints", "metrics.csv"}
    assert {lora.FILE, checkpoint.TOKENS, checkpoint.CURVE} <= names
    for name in names:
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_each_of_both_has_its_own_learning_rate(generator, real, tmp_path):
    # Adam's first step is as long as its learning rate, wherever there is a gradient.
    how = BOTH | {"lr": 0.004, "lora_lr": 0.0005}
    out = run(generator, real, tmp_path / "one", train_steps=1, **how)
    start = run(generator, real, tmp_path / "none", train_steps=0, **how)
    tokens = [
        (vector - first).abs().max().item()
        for vector, first in zip(
            *(checkpoint.read_tokens(path)[1].values() for path in (out, start)), strict=True
        )
    ]
    adapters = [value.abs().max().item() for name, value in weights(out).items() if "lora_B" in name]
    assert tokens == pytest.approx([0.004] * 3, rel=0.02)
    assert adapters == pytest.approx([0.0005] * len(adapters), rel=0.02)


def test_alone_it_is_trained_on_plain_names_of_the_chosen_classes(generator, real, tmp_path, monkeypatch):
    prompts, plain = [], textual_inversion.sound_of
    monkeypatch.setattr(
        textual_inversion, "sound_of", lambda names: prompts.append(plain(names)) or prompts[-1]
    )
    out = run(generator, real, tmp_path / "t", train_steps=1, classes=["Clock tick"], **ALONE)
    heard = [real[i] for i in range(N_TRAIN) if "Clock tick" in real[i].labels]
    assert prompts == [f"The sound of {', '.join(clip.labels)}" for clip in heard]
    assert 0 < len(heard) < N_TRAIN
    assert checkpoint.read_tokens(out)[0].train_ids == tuple(clip.clip_id for clip in heard)


def test_synthesis_takes_it_with_plain_names(generator, real, adapted, tmp_path):
    made = small_recipe(synth={"n": 4, "prompt": "names", "strength": 1.0, "sampler_steps": 2})
    how = {"fingerprint": "s", "codec": CODEC}
    plain = synthesize.synthesize(made, real, generator, None, tmp_path / "plain", **how)
    clips = synthesize.synthesize(made, real, generator, adapted, tmp_path / "adapted", **how)
    assert clips.clip_ids == plain.clip_ids and (clips.codes([0, 1]) != plain.codes([0, 1])).any((1, 2)).all()
    tokens = small_recipe(synth={"n": 4, "prompt": "tokens"})
    with pytest.raises(MissingError, match=r"synth\.prompt"):
        synthesize.synthesize(tokens, real, generator, adapted, tmp_path / "no", **how)


def test_an_exported_generator_carries_it(generator, real, adapted, tmp_path):
    out = model_card.export(recipe.load("mini"), generator, adapted, tmp_path / "out")
    told = (out / model_card.CARD).read_text()
    assert "for LoRA of rank 3" in told and "Class tokens: none" in told
    assert np.array_equal(opened(out)(PROMPT, steps=2), opened(generator, adapted)(PROMPT, steps=2))
    # Adapted anew, the exported one begins without it.
    again = run(out, real, tmp_path / "again", train_steps=0, **BOTH)
    names = opened(generator), opened(out, again)
    assert np.array_equal(names[0](PROMPT, steps=2), names[1](PROMPT, steps=2))
    # Its clips are heard in what an exported generator makes, so they count for the leak rule.
    info = checkpoint.read_tokens(out)[0].model_copy(update={"train_ids": ("clip13",)})
    checkpoint.write_info(out / checkpoint.TOKENS, info, [out / lora.FILE])
    with pytest.raises(IntegrityError, match="evaluation clips"):
        synthesize.inputs(small_recipe(synth={"prompt": "names"}).synth, real, out, None)


def test_damage_and_files_of_before(generator, real, adapted, tmp_path):
    out = run(generator, real, tmp_path / "t", train_steps=0)
    tree = json.loads((out / checkpoint.TOKENS).read_text())
    del tree["lora_rank"]
    (out / checkpoint.TOKENS).write_text(json.dumps(tree))
    assert checkpoint.read_tokens(out)[0].lora_rank is None and len(opened(generator, out).tokens) == len(
        SMALL_LABELS
    )
    damaged = run(generator, real, tmp_path / "d", train_steps=0, **ALONE)
    (damaged / lora.FILE).write_bytes((adapted / lora.FILE).read_bytes())
    with pytest.raises(IntegrityError, match=rf"{lora.FILE}: missing or damaged"):
        opened(generator, damaged)


def test_synthesis_depends_on_it_whatever_the_prompts_are():
    def stages(*overrides, prompt):
        made = Pipeline(recipe.load("mini", [*overrides, f"synth.prompt={prompt}"]), Places())
        return {need.name for need in made.synth().needs}

    assert "invert" in stages(prompt="tokens") and "invert" not in stages(prompt="names")
    for prompt in ("tokens", "names", "none"):
        assert "invert" in stages("invert.lora_rank=4", prompt=prompt)
    alone = ("invert.lora_rank=4", "invert.tokens=false")
    assert "invert" in stages(*alone, prompt="names")
    with pytest.raises(UsageError, match=r"^synth\.prompt=tokens: .*; set synth\.prompt=names, or none$"):
        stages(*alone, prompt="tokens")


def test_neither_tokens_nor_lora_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r"invert\.tokens=false .* set invert\.lora_rank") as error:
        recipe.load("mini", ["invert.tokens=false"])
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"invert\.lora_rank.*greater than or equal to 1"):
        recipe.load("mini", ["invert.lora_rank=0"])
