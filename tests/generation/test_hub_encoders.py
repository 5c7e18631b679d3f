"""T5, CLIP and CLAP behind one interface, against transformers' own forward and diffusers' own loader."""

import json
import pickle
import shutil

import pytest
import torch
from diffusers.loaders import TextualInversionLoaderMixin
from fakes import (
    SMALL_UNET,
    TEXT_ENCODER_DIMS,
    FakeCodec,
    Unsafe,
    make_store,
    save_text_encoder,
    set_config,
    small_recipe,
)
from safetensors.torch import load_file, save_file

from ajbench.core import registry, weights
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.generation import checkpoint as folder
from ajbench.generation import hub_encoders, train, unet
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.prompts import expand
from ajbench.pipeline import preflight
from ajbench.pipeline.inputs import text_encoder_identity

PROMPTS = ["The sound of dog, rain", "", "a clock nearby", "rain"]


@pytest.fixture
def folders(text_encoders):
    return {kind: text_encoders[kind] for kind in TEXT_ENCODER_DIMS}


@pytest.fixture(autouse=True)
def published(monkeypatch, tmp_path):
    """The hub's encoders are small ones, and the cache is empty."""
    monkeypatch.setattr(hub_encoders, "WIDTHS", dict(TEXT_ENCODER_DIMS))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AJBENCH_WEIGHTS", raising=False)


@pytest.fixture(params=TEXT_ENCODER_DIMS)
def kind(request):
    return request.param


@pytest.fixture
def encoder(kind, folders):
    return hub_encoders.load(str(folders[kind]), 12)


def reference(kind, folder):
    """The text part of the whole model, loaded the way transformers' documentation has it."""
    from transformers import ClapModel, CLIPModel, T5ForConditionalGeneration

    whole = {"clip": CLIPModel, "clap": ClapModel}.get(kind, T5ForConditionalGeneration)
    model = whole.from_pretrained(folder).eval()
    return model.text_model if kind in ("clip", "clap") else model.encoder


def test_states_are_those_of_the_whole_models_text_part(kind, encoder, folders):
    ids, mask = encoder.tokenize(PROMPTS)
    with torch.no_grad():
        expected = reference(kind, folders[kind])(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    assert expected.shape == (4, 12, TEXT_ENCODER_DIMS[kind]) and encoder.dim == TEXT_ENCODER_DIMS[kind]
    torch.testing.assert_close(encoder.states(ids, mask), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(encoder.encode(PROMPTS)[0], expected, rtol=0, atol=1e-6)
    assert expected[0].std(0).min() > 0.01  # the places differ, so the comparison says something


def test_without_a_mask_tokens_attend_to_padding(kind, encoder, folders):
    ids, _ = encoder.tokenize(PROMPTS)
    unmasked = hub_encoders.load(str(folders[kind]), 12, mask_padding=False)
    with torch.no_grad():
        expected = reference(kind, folders[kind])(input_ids=ids).last_hidden_state
    torch.testing.assert_close(unmasked.encode(PROMPTS)[0], expected, rtol=0, atol=1e-6)
    # CLIP's attention is causal and its padding comes last: words never see it.
    differ = (expected[0, :2] - encoder.encode(PROMPTS[:1])[0][0, :2]).abs().max() > 1e-4
    assert differ == (kind != "clip")


@pytest.mark.parametrize(
    ("name", "empty", "pad"),
    [
        ("t5-large", ["</s>"], "<pad>"),
        ("flan-t5", ["</s>"], "<pad>"),
        ("clip", ["<|startoftext|>", "<|endoftext|>"], "<|endoftext|>"),
        ("clap", ["<s>", "</s>"], "<pad>"),
    ],
)
def test_empty_and_truncated_prompts_end_as_in_the_models_training(name, empty, pad, folders):
    encoder = hub_encoders.load(str(folders[name]), 6)
    (nothing, cut), mask = encoder.tokenize(["", "dog rain clock tick cat dog rain clock tick cat"])
    words = encoder.tokenizer.convert_ids_to_tokens
    assert words(nothing.tolist()) == empty + [pad] * (6 - len(empty))
    assert mask[0].tolist() == [True] * len(empty) + [False] * (6 - len(empty))
    assert words(cut.tolist())[-1] == empty[-1] and mask[1].all()


def test_diffusers_loads_the_learned_tokens(folders, tmp_path):
    from transformers import CLIPTextModel, CLIPTokenizerFast

    class Loader(TextualInversionLoaderMixin):
        hf_device_map, components = None, {}

    encoder = hub_encoders.load(str(folders["clip"]), 16)
    g = torch.Generator().manual_seed(3)
    sizes = {"<aj-dog>": 3, "<aj-rain>": 1}
    encoder.add_tokens({token: torch.randn(k, 24, generator=g) for token, k in sizes.items()})
    save_file(encoder.learned(), tmp_path / "learned_embeds.safetensors")
    learned = load_file(tmp_path / "learned_embeds.safetensors")
    tokenizer = CLIPTokenizerFast.from_pretrained(folders["clip"])
    model, loader = CLIPTextModel.from_pretrained(folders["clip"]).eval(), Loader()
    given = [{token: vectors} for token, vectors in learned.items()]
    loader.load_textual_inversion(given, tokenizer=tokenizer, text_encoder=model)
    table = model.get_input_embeddings().weight
    for row, name in zip(encoder.rows, encoder.tokens, strict=True):
        assert torch.equal(table[tokenizer.convert_tokens_to_ids(name)], row)
    prompt = "The sound of <aj-dog>, <aj-rain>"
    spelt = loader.maybe_convert_prompt(prompt, tokenizer)
    assert spelt == expand(prompt, encoder.vectors) and "<aj-dog>_2" in spelt
    given = tokenizer(spelt, padding="max_length", max_length=16, return_tensors="pt")
    with torch.no_grad():
        expected = model(**given).last_hidden_state
        own = encoder.encode([prompt])[0]
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "limit"), [("clip", 77), ("clap", 512)])
def test_more_tokens_than_positions_are_refused(name, limit, folders):
    encoder = hub_encoders.load(str(folders[name]), limit)
    assert encoder.encode(["dog " * 600])[0].shape[1] == limit
    with pytest.raises(UsageError, match=f"max_tokens={limit + 1}"):
        hub_encoders.load(str(folders[name]), limit + 1)


def test_t5_has_no_limit_but_needs_at_least_one_word(folders):
    assert hub_encoders.load(str(folders["t5-large"]), 600).encode(["dog " * 700])[1].all()
    with pytest.raises(UsageError, match=r"generator\.max_tokens=1"):
        hub_encoders.load(str(folders["t5-large"]), 1)


def test_named_encoders_are_found_in_the_weights_folder_or_the_hubs_cache(
    kind, encoder, folders, monkeypatch, tmp_path
):
    with pytest.raises(MissingError) as missing:
        hub_encoders.load(kind, 12)
    row = weights.files_of(kind)[0]
    words = (row.url, str(tmp_path / "cache"), "AJBENCH_WEIGHTS", "text_encoder=minilm")
    assert all(word in str(missing.value) for word in words) and "\n" not in str(missing.value)
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(folders[kind].parent))
    named = hub_encoders.load(kind, 12)
    assert named.name == kind and torch.equal(named.encode(PROMPTS)[0], encoder.encode(PROMPTS)[0])
    assert named.weights_hash() == encoder.weights_hash()
    monkeypatch.delenv("AJBENCH_WEIGHTS")
    last = row.also or row.url.removeprefix("https://huggingface.co/").partition("/resolve")[0]
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repository, file: str(folders[kind] / file) if repository == last else None,
    )
    assert hub_encoders.load(kind, 12).weights_hash() == named.weights_hash()
    monkeypatch.setitem(hub_encoders.WIDTHS, kind, 999)
    with pytest.raises(IntegrityError, match="999"):
        hub_encoders.load(kind, 12)


def test_different_weights_have_different_hashes(folders):
    hashes = {hub_encoders.load(str(folder), 12).weights_hash() for folder in folders.values()}
    assert len(hashes) == len(TEXT_ENCODER_DIMS)


def test_loading_prints_nothing_and_does_not_use_global_randomness(kind, folders, capfd):
    state = torch.random.get_rng_state()
    hub_encoders.load(str(folders[kind]), 12)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")


def test_half_precision_weights_are_read_as_float32(tmp_path):
    from transformers import T5ForConditionalGeneration

    folder = save_text_encoder("t5-large", tmp_path / "t5")
    T5ForConditionalGeneration.from_pretrained(folder).half().save_pretrained(folder)
    assert {weight.dtype for weight in load_file(folder / "model.safetensors").values()} == {torch.float16}
    encoder = hub_encoders.load(str(folder), 12)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_pickles_of_tensors_are_read_and_others_are_not_run(folders, tmp_path):
    folder = shutil.copytree(folders["t5-large"], tmp_path / "old")
    file, weights = folder / "pytorch_model.bin", load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, file)  # as weights were saved before safetensors
    old, new = (hub_encoders.load(str(place), 12) for place in (folder, folders["t5-large"]))
    assert old.weights_hash() == new.weights_hash()
    for write in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))):
        write({"shared.weight": Unsafe(tmp_path / "harm")}, file)
        with pytest.raises(IntegrityError, match="old"):
            hub_encoders.load(str(folder), 12)
        assert not (tmp_path / "harm").exists()


def remove_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if "text_model" in name and "fc1.weight" in name)]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def grow_tokenizer(folder):
    """Give the tokenizer more words than the model has rows."""
    tree = json.loads((folder / "tokenizer.json").read_text())
    last = tree["added_tokens"][-1]
    first = 1 + max(token["id"] for token in tree["added_tokens"])
    tree["added_tokens"] += [last | {"id": first + i, "content": f"<more{i}>"} for i in range(199)]
    (folder / "tokenizer.json").write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (MissingError, "config.json", lambda folder: (folder / "config.json").unlink()),
        (MissingError, "model.safetensors", lambda folder: (folder / "model.safetensors").unlink()),
        (MissingError, "no tokenizer", lambda folder: (folder / "tokenizer.json").unlink()),
        (IntegrityError, "fc1.weight", remove_weight),
        (IntegrityError, "unreadable", cut_weights),
        (UsageError, "kind 'bert'", lambda folder: set_config(folder, model_type="bert")),
        (IntegrityError, "tokenizer", grow_tokenizer),
    ],
)
def test_damaged_and_foreign_folders_are_refused_in_one_line(folders, tmp_path, error, match, change):
    folder = shutil.copytree(folders["clip"], tmp_path / "copy")
    change(folder)
    with pytest.raises(error, match=match) as raised:
        hub_encoders.load(str(folder), 12)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)


def test_preflight_checks_the_encoder_before_any_work(folders, monkeypatch):
    folder = str(folders["flan-t5"])
    for name in ("minilm", "t5-large", folder):
        registry.check_names(small_recipe(generator={"text_encoder": name}))
    with pytest.raises(UsageError, match=r"text_encoder.*t5-large"):
        registry.check_names(small_recipe(generator={"text_encoder": "t5-larg"}))
    preflight.check_text_encoder("minilm")
    preflight.check_text_encoder(folder)
    for name in ("t5-large", "./nowhere"):
        with pytest.raises(MissingError, match=r"text[_ ]encoder"):
            preflight.check_text_encoder(name)
    assert text_encoder_identity("t5-large") == ()


def split_words(folder):
    """Let a tokenizer that has the same words split all of them."""
    tree = json.loads((folder / "tokenizer.json").read_text())
    tree["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(tree))


def swap_words(folder):
    """Exchange two words of a tokenizer."""
    tree = json.loads((folder / "tokenizer.json").read_text())
    words = tree["model"]["vocab"]
    words["dog</w>"], words["rain</w>"] = words["rain</w>"], words["dog</w>"]
    (folder / "tokenizer.json").write_text(json.dumps(tree))


def set_activation(folder):
    text = json.loads((folder / "config.json").read_text())["text_config"]
    set_config(folder, text_config=text | {"hidden_act": "relu"})


OTHERS = {
    "parts": split_words,
    "words": swap_words,
    "settings": set_activation,
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_the_same_weights_with_another_tokenizer_or_settings_are_another_encoder(folders, tmp_path, change):
    first = hub_encoders.load(str(folders["clip"]), 12)
    copy = shutil.copytree(folders["clip"], tmp_path / "copy")
    assert text_encoder_identity(str(copy)) == text_encoder_identity(str(folders["clip"]))
    assert hub_encoders.load(str(copy), 12).setup_hash() == first.setup_hash()
    change(copy)
    assert text_encoder_identity(str(copy)) != text_encoder_identity(str(folders["clip"]))
    other = hub_encoders.load(str(copy), 12)
    assert other.weights_hash() == first.weights_hash()
    assert other.setup_hash() != first.setup_hash()


def test_the_setup_of_an_encoder_is_not_that_of_its_class_tokens(encoder):
    before = encoder.setup_hash()
    encoder.add_tokens({"<aj-dog>": torch.zeros(encoder.dim)})
    encoder.encode(PROMPTS)
    assert encoder.setup_hash() == before


def test_a_generator_works_only_with_the_encoder_it_was_trained_with(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(unet.PRESETS, "tiny", SMALL_UNET)
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    shutil.copytree(folders["clip"], tmp_path / "clip")
    real = make_store(tmp_path / "store")
    recipe = small_recipe(generator={"text_encoder": "clip", "encoder_mask": False, "train_steps": 2})
    out = train.train_generator(recipe, real, tmp_path / "g", fingerprint="f", codec=FakeCodec())
    info = folder.read_info(out)
    assert (info.text_encoder, info.text_hash) == ("clip", hub_encoders.load("clip", 12).weights_hash())
    made = AudioJourneyPipeline.from_pretrained(out, codec=FakeCodec())
    assert not info.encoder_mask and not made.text.mask_padding
    assert made.unet.encoder_hid_proj.in_features == TEXT_ENCODER_DIMS["clip"]
    assert made("The sound of dog", steps=2).shape == (info.clip_samples,)
    swap_words(tmp_path / "clip")
    with pytest.raises(IntegrityError, match=r"g: trained with text encoder clip.* another tokenizer"):
        AudioJourneyPipeline.from_pretrained(out, codec=FakeCodec())
    weights = load_file(tmp_path / "clip" / "model.safetensors")
    weights["text_model.final_layer_norm.bias"] += 1
    save_file(weights, tmp_path / "clip" / "model.safetensors", {"format": "pt"})
    with pytest.raises(IntegrityError, match=f"clip.*{info.text_hash}"):
        AudioJourneyPipeline.from_pretrained(out, codec=FakeCodec())
