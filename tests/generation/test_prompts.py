"""Prompts and class tokens."""

import pytest

from ajbench.core.errors import UsageError
from ajbench.generation.prompts import (
    chosen_classes,
    class_tokens,
    expand,
    sound_of,
    spoken,
    truncated,
    with_tokens,
)


def test_prompts_have_the_form_of_appendix_e():
    assert sound_of(["dog", "rain"]) == "The sound of dog, rain"
    assert sound_of([]) == ""
    assert spoken("crying_baby") == "crying baby"


def test_class_tokens_of_similar_labels_differ():
    labels = ["Dog", "dog!", "Civil siren", "crying_baby", "犬", "!!", "??"]
    tokens = class_tokens(labels)
    assert list(tokens) == labels
    assert len(set(tokens.values())) == len(labels)
    assert all(token.startswith("<aj-") and token.endswith(">") for token in tokens.values())
    assert tokens["Civil siren"] == "<aj-civil-siren>"


def test_tokens_with_several_vectors_are_expanded_once():
    vectors = {"<aj-dog>": 3, "<aj-rain>": 1, "<aj-dog-house>": 2}
    prompt = "The sound of <aj-dog>, <aj-rain>, <aj-dog-house> and <aj-dog>"
    dog, house = "<aj-dog> <aj-dog>_1 <aj-dog>_2", "<aj-dog-house> <aj-dog-house>_1"
    assert expand(prompt, vectors) == f"The sound of {dog}, <aj-rain>, {house} and {dog}"
    assert expand(expand(prompt, vectors), vectors) == expand(prompt, vectors)
    assert expand("<aj-dog>_1 alone", vectors) == "<aj-dog>_1 alone"
    assert expand("a dog", vectors) == "a dog"


def test_labels_in_angle_brackets_become_class_tokens():
    tokens = {"Dog": "<aj-dog>", "crying_baby": "<aj-crying-baby>"}
    for prompt in ("<Dog>, <crying_baby>", "<aj-dog>, <crying baby>"):
        assert with_tokens(prompt, tokens) == "<aj-dog>, <aj-crying-baby>"
    assert with_tokens("3 < 5 dogs", tokens) == "3 < 5 dogs"
    with pytest.raises(UsageError, match=r"^prompt: <Dgo>: the class tokens are <Dog>, <crying_baby>;"):
        with_tokens("a <Dgo>", tokens)
    with pytest.raises(UsageError, match=r"^synth\.negative: <Dog>: there are no class tokens"):
        with_tokens("<Dog>", {}, "synth.negative")


def test_chosen_classes_are_in_label_order_and_unknown_ones_are_refused():
    labels = ["dog", "rain", "clock"]
    assert chosen_classes(None, labels) == labels
    assert chosen_classes(["clock", "dog", "dog"], labels) == ["dog", "clock"]
    with pytest.raises(UsageError, match=r"invert\.classes.*rian.*rain"):
        chosen_classes(["rian"], labels)
    with pytest.raises(UsageError, match=r"invert\.classes"):
        chosen_classes([], labels)


def test_the_message_about_truncated_prompts_has_the_right_number():
    one = truncated(1, 147, 24)
    assert one.startswith("1 of 147 prompts was ") and "max_tokens=24" in one
    assert truncated(2, 147, 24).startswith("2 of 147 prompts were ")


@pytest.mark.parametrize("labels", [["C", "C 2", "C++"], ["!", "1", "?", "-1"], ["a", "a 1", "A", "a-1"]])
def test_every_class_has_a_token_of_its_own(labels):
    assert len({*class_tokens(labels).values()}) == len(labels)
