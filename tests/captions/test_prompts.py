import pytest
from conftest import SHARED

from ajbench.captions import prompts
from ajbench.core.errors import UsageError

EXAMPLES = {"labels": 10, "frames": 3, "merge": 5, "entailment_text": 0, "entailment_single": 5}
EXAMPLES |= {"entailment_multi": 8}


@pytest.mark.parametrize(("name", "n"), EXAMPLES.items())
def test_examples_are_those_of_the_paper(name, n):
    prompt = prompts.load(name)
    assert len(prompt.examples) == n
    paper = SHARED / "paper" / "audio-journey.txt"
    if not paper.exists():
        pytest.skip("needs the text of the paper")
    text = " ".join(paper.read_text(encoding="utf-8").replace("\\n", "\n").split())
    assert " ".join(prompt.instruction.split()) in text
    for parts, answer in prompt.examples:
        # The text of A6 drops the article of its first example.
        assert " ".join([*parts, answer]).removeprefix("a man in a cowboy hat is throwing") in text


@pytest.mark.parametrize(("shots", "n"), [(0, 0), (1, 1), (None, 10)])
def test_a_prompt_has_the_asked_number_of_examples_and_ends_with_the_input(shots, n):
    prompt = prompts.load("labels").shots(shots)
    text = prompt.text("Dog, Rain.")
    assert text.startswith(prompt.instruction) and text.endswith("Prompt: Dog, Rain.\nResponse:")
    assert text.count("Response:") == n + 1
    assert ("burping while an alarm" in text) == (n > 0)


def test_parts_of_an_input_are_lines_in_order():
    text = prompts.load("merge").text("a man", "Whip crack")
    assert text.endswith("\na man\nWhip crack\nResponse:")


def test_the_hash_depends_on_prompt_and_examples_only():
    hashes = {prompts.load(name).shots(n).hash for name in ("labels", "merge") for n in (0, 1, None)}
    assert len(hashes) == 6 and all(len(one) == 16 for one in hashes)
    assert prompts.load("labels").shots(10).hash == prompts.load("labels").hash


def test_an_unknown_prompt_is_refused():
    with pytest.raises(UsageError, match="label"):
        prompts.load("label")
