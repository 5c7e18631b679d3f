"""LoRA: which weights are trained, which loaders take the file, and its use in synthesis."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from fakes import N_TRAIN, FakeCodec, mini_pipeline, results_of, small_recipe, stopped_at
from safetensors.torch import load_file, save_file

from ajbench.core import recipe
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.generation import checkpoint, lora, synthesize, textual_inversion, unet
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.reporting import model_card

from .conftest import invert, loss_of

CODEC = FakeCodec()
PROMPT = "The sound of Dog"
ALONE = {"tokens": False, "lora_rank": 3}
BOTH = {"lora_rank": 3}
FAST = {"lora_lr": 0.02, "lr": 0.05, "checkpoint_every": 100}


@pytest.fixture(scope="module")
def untrained(generator, real, tmp_path_factory):
    """Initial folders of LoRA alone, of both, and of tokens alone."""
    home = tmp_path_factory.mktemp("untrained")
    kinds = {"alone": ALONE, "both": BOTH, "tokens": {}}
    return {name: invert(generator, real, home / name, train_steps=0, **how) for name, how in kinds.items()}


def opened(generator, *tokens):
    return AudioJourneyPipeline.from_pretrained(generator, *tokens, codec=CODEC)


def weights(path):
    return load_file(path / lora.FILE)


def denoised(network, text):
    """Return the prediction of a U-Net for a few noisy grids and prompts."""
    g = torch.Generator().manual_seed(4)
    noisy, t = torch.randn(3, 128, 2, 21, generator=g), torch.tensor([10, 400, 900])
    with torch.no_grad():
        return unet.denoise(network, noisy, t, text.encode([PROMPT, "", "The sound of Rain"])[0], None)


@pytest.mark.parametrize(("kind", "how"), [("alone", ALONE), ("both", BOTH), ("tokens", {})])
def test_only_adapters_and_tokens_are_trained(untrained, generator, real, tmp_path, kind, how):
    with results_of(AudioJourneyPipeline, "from_pretrained") as made:
        out = invert(generator, real, tmp_path / "t", train_steps=2, **how)
    fresh, used = opened(generator), made[0]
    for one, other in ((fresh.unet, used.unet), (fresh.text.model, used.text.model)):
        before = one.state_dict()
        after = {name.replace(".base_layer", ""): value for name, value in other.state_dict().items()}
        assert all(torch.equal(before[name], after.pop(name)) for name in before)
        assert all(".lora_" in name for name in after)
    info, vectors = checkpoint.read_tokens(out)
    assert info.lora_rank == how.get("lora_rank") and (out / lora.FILE).exists() == ("lora_rank" in how)
    assert (out / checkpoint.EMBEDS).exists() == ("tokens" not in how)
    assert set(info.xxh3) == {path.name for path in out.glob("*.safetensors")}
    assert len(info.tokens) == len(vectors) == (0 if "tokens" in how else 3)
    start = checkpoint.read_tokens(untrained[kind])[1]
    assert all((vectors[name] != first).any() for name, first in start.items())
    if "lora_rank" in how:
        first, last = weights(untrained[kind]), weights(out)
        targets = {f".{target}." for target in lora.TARGETS}
        assert {name for name in targets if any(name in key for key in last)} == targets
        attentions = [n for n, m in fresh.unet.named_modules() if type(m).__name__ == "Attention"]
        assert len(last) == len(attentions) * len(targets) * 2
        assert all(min(tensor.shape) == 3 and tensor.dtype == torch.float32 for tensor in last.values())
        assert all((first[name] != last[name]).any() for name in last)


def test_untrained_lora_does_not_change_the_generator(untrained, generator):
    assert all((("lora_B" in name) == (not v.any())) for name, v in weights(untrained["alone"]).items())
    before, after = opened(generator), opened(generator, untrained["alone"])
    assert np.array_equal(before(PROMPT, steps=3), after(PROMPT, steps=3))


def test_the_initial_weights_depend_on_the_seed_alone(untrained, generator, real, tmp_path):
    torch.manual_seed(7)
    first, again = weights(untrained["alone"]), weights(untrained["both"])
    other = weights(invert(generator, real, tmp_path / "c", train_steps=0, seed=3, **ALONE))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all((first[name] != other[name]).any() for name in first if "lora_A" in name)


def test_global_randomness_is_not_used(generator, adapted):
    network = UNet2DConditionModel.from_pretrained(generator / "unet")
    before = torch.get_rng_state()
    lora.merge(network, adapted)
    lora.add(network, 2, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rows", [0, 10**6])
def test_ranks_that_a_stranger_made_up_are_refused_before_layers_are_made(generator, adapted, tmp_path, rows):
    network = UNet2DConditionModel.from_pretrained(generator / "unet")
    tensors = weights(adapted)
    b = next(name for name in tensors if "lora_B" in name)
    save_file(tensors | {b: torch.zeros(rows, 10**9 if rows == 0 else 1)}, tmp_path / lora.FILE)
    with pytest.raises(
        IntegrityError, match=rf"not LoRA of this U-Net \(.*lora_B.weight has shape \({rows}, "
    ):
        lora.merge(network, tmp_path)


def test_the_rank_is_that_of_the_tensors_not_of_the_metadata(generator, adapted, tmp_path):
    network = UNet2DConditionModel.from_pretrained(generator / "unet")
    about = {"r": 10**9, "lora_alpha": 1, "target_modules": [*lora.TARGETS]}
    tuned = {f"unet.{key}": value for key, value in about.items()}
    save_file(weights(adapted), tmp_path / lora.FILE, {"lora_adapter_metadata": json.dumps(tuned)})
    lora.merge(network, tmp_path)
    assert torch.equal(network.conv_in.weight, opened(generator, adapted).unet.conv_in.weight)


@pytest.mark.parametrize("kind", ["alone", "both"])
def test_it_lowers_the_loss_that_it_is_trained_on(untrained, generator, real, tmp_path, adapted, kind):
    if kind == "both":  # the learning rate of the tokens is so low that only LoRA can have an effect
        adapted = invert(generator, real, tmp_path / "t", **BOTH, **FAST | {"lr": 1e-9}, train_steps=10)
    before, after = (loss_of(opened(generator, path), real) for path in (untrained[kind], adapted))
    assert after < 0.95 * before


def test_merged_weights_and_diffusers_own_loaders_agree(generator, adapted):
    made = opened(generator, adapted)
    assert not [name for name, _ in made.unet.named_parameters() if "lora" in name or "base" in name]
    assert not any(parameter.requires_grad for parameter in made.unet.parameters())
    merged = denoised(made.unet, made.text)
    adapter = UNet2DConditionModel.from_pretrained(generator / "unet").eval()
    plain = denoised(adapter, made.text)
    adapter.load_lora_adapter(adapted, prefix="unet", use_safetensors=True)
    found = denoised(adapter, made.text)
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    network = UNet2DConditionModel.from_pretrained(generator / "unet").eval()
    parts |= {"unet": network, "scheduler": unet.noise_schedule()}
    whole = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    whole.load_lora_weights(adapted)
    assert (merged - plain).abs().max() > 1e-2
    assert (merged - found).abs().max() <= 1e-5
    assert torch.equal(denoised(whole.unet, made.text), found)


def test_the_trained_network_is_the_one_that_is_loaded(generator, real, tmp_path):
    with results_of(AudioJourneyPipeline, "from_pretrained") as made:
        out = invert(generator, real, tmp_path / "t", **ALONE | {"lora_rank": 5}, **FAST, train_steps=4)
    loaded = opened(generator, out)
    difference = denoised(made[0].unet.eval(), loaded.text) - denoised(loaded.unet, loaded.text)
    assert difference.abs().max() <= 1e-5


@pytest.mark.parametrize("how", [ALONE, BOTH])
def test_an_interrupted_training_writes_the_same_bytes(generator, real, tmp_path, how):
    how = how | {"train_steps": 5, "log_every": 3}
    straight = invert(generator, real, tmp_path / "straight", **how)
    with stopped_at(textual_inversion.Inversion, "forward", 4):
        invert(generator, real, tmp_path / "cut", **how)
    assert (tmp_path / "cut" / "checkpoints" / "step-00000002").exists()
    with stopped_at(textual_inversion, "remove_checkpoints", 1):
        invert(generator, real, tmp_path / "cut", **how)
    resumed = invert(generator, real, tmp_path / "cut", **how)
    assert not (resumed / "checkpoints").exists()
    names = {path.name for path in straight.iterdir()} - {"metrics.csv"}
    assert {lora.FILE, checkpoint.TOKENS, checkpoint.CURVE} <= names
    assert all((straight / name).read_bytes() == (resumed / name).read_bytes() for name in names)


def test_tokens_and_lora_have_their_own_learning_rates(untrained, generator, real, tmp_path):
    # The size of Adam's first step is the learning rate, wherever there is a gradient.
    out = invert(generator, real, tmp_path / "one", train_steps=1, **BOTH, lr=0.004, lora_lr=0.0005)
    pairs = zip(*(checkpoint.read_tokens(path)[1].values() for path in (out, untrained["both"])), strict=True)
    tokens = [(vector - first).abs().max().item() for vector, first in pairs]
    adapters = [value.abs().max().item() for name, value in weights(out).items() if "lora_B" in name]
    assert tokens == pytest.approx([0.004] * 3, rel=0.02)
    assert adapters == pytest.approx([0.0005] * len(adapters), rel=0.02)


def test_without_tokens_the_prompts_have_plain_names_of_the_chosen_classes(generator, real, tmp_path):
    with results_of(textual_inversion, "sound_of") as prompts:
        out = invert(generator, real, tmp_path / "t", train_steps=0, classes=["Clock tick"], **ALONE)
    used = [real[i] for i in range(N_TRAIN) if "Clock tick" in real[i].labels]
    assert prompts == [f"The sound of {', '.join(clip.labels)}" for clip in used]
    assert 0 < len(used) < N_TRAIN
    assert checkpoint.read_tokens(out)[0].train_ids == tuple(clip.clip_id for clip in used)


def test_synthesis_uses_it_with_plain_names(generator, real, adapted, tmp_path):
    made = small_recipe(synth={"n": 4, "prompt": "names", "strength": 1.0, "sampler_steps": 2})
    about = {"fingerprint": "s", "codec": CODEC}
    plain = synthesize.synthesize(made, real, generator, None, tmp_path / "plain", **about)
    clips = synthesize.synthesize(made, real, generator, adapted, tmp_path / "adapted", **about)
    assert clips.clip_ids == plain.clip_ids and (clips.codes([0, 1]) != plain.codes([0, 1])).any((1, 2)).all()
    tokens = small_recipe(synth={"n": 4, "prompt": "tokens"})
    with pytest.raises(MissingError, match=r"synth\.prompt"):
        synthesize.synthesize(tokens, real, generator, adapted, tmp_path / "no", **about)


def test_an_exported_generator_includes_it(generator, real, adapted, tmp_path):
    out = model_card.export(recipe.load("mini"), generator, adapted, tmp_path / "out")
    assert "rank 3" in (out / model_card.CARD).read_text()
    assert np.array_equal(opened(out)(PROMPT, steps=2), opened(generator, adapted)(PROMPT, steps=2))
    # A new training of the exported generator starts without it.
    again = invert(out, real, tmp_path / "again", train_steps=0, **BOTH)
    assert np.array_equal(opened(generator)(PROMPT, steps=2), opened(out, again)(PROMPT, steps=2))
    # Its training clips count for the leak rule, as they affect what an exported generator makes.
    info = checkpoint.read_tokens(out)[0].model_copy(
        update=dict.fromkeys(("train_ids", "train_recordings"), ("clip13",))
    )
    checkpoint.write_info(out / checkpoint.TOKENS, info, [out / lora.FILE])
    with pytest.raises(IntegrityError, match="clip13"):
        synthesize.inputs(small_recipe(synth={"prompt": "names"}).synth, real, out, None)


def test_synthesis_depends_on_it_for_every_kind_of_prompt():
    def stages(*overrides, prompt):
        made = mini_pipeline(*overrides, f"synth.prompt={prompt}")
        return {need.name for need in made.synth().needs}

    assert "invert" in stages(prompt="tokens") and "invert" not in stages(prompt="names")
    for prompt in ("tokens", "names", "none"):
        assert "invert" in stages("invert.lora_rank=4", prompt=prompt)
    alone = ("invert.lora_rank=4", "invert.tokens=false")
    assert "invert" in stages(*alone, prompt="names")
    with pytest.raises(UsageError, match=r"synth\.prompt=tokens.*invert\.tokens=false"):
        stages(*alone, prompt="tokens")
    steered = "synth.negative=<dog>"
    assert "invert" in stages(steered, prompt="tokens")
    for overrides in ((), alone):
        with pytest.raises(UsageError, match=r"synth\.negative: <dog>"):
            stages(steered, *overrides, prompt="names")


def test_in_bf16_adapters_are_merged_before_the_weights_are_rounded(generator, real, tmp_path):
    out = invert(generator, real, tmp_path / "t", **ALONE, **FAST, train_steps=2)
    exact = opened(generator, out)
    half = AudioJourneyPipeline.from_pretrained(generator, out, CODEC, precision="bf16")
    for one, other in zip(exact.unet.parameters(), half.unet.parameters(), strict=True):
        assert other.dtype == torch.bfloat16 and torch.equal(one.bfloat16(), other)
    how = [PROMPT], None, [3], 1.0, 2.0, 4, "dpmsolver++"
    grids = half.grids(*how)
    assert grids.dtype == torch.float32
    assert (grids - exact.grids(*how)).std() < 0.1 * grids.std()
    automatic = AudioJourneyPipeline.from_pretrained(generator, out, CODEC, precision="auto")
    assert automatic.unet.dtype == torch.float32  # on a CPU
