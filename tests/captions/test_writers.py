import pytest
from fakes import FakeLanguageModel

from ajbench.captions import prompts
from ajbench.captions.backends import Answer
from ajbench.captions.writers import LanguageModel, Template, Text


def sentence(*labels, clip="a", seed=0):
    return Template(seed).describe([clip], [labels])[0].text


def test_template_sentences_are_a_function_of_clip_labels_and_seed():
    labels = ["Dog", "Rain"]
    found = [[sentence(*labels, clip=f"c{i}", seed=seed) for i in range(40)] for seed in (0, 1)]
    assert found[0] == [sentence(*labels, clip=f"c{i}") for i in range(40)]
    assert found[0] != found[1] and len(set(found[0])) >= 3
    assert all("dog and rain" in text.lower() and text[0].isupper() and text[-1] == "." for text in found[0])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["Dog", "Cat", "Rain"], "dog, cat and rain"),
        (["Male speech, man speaking", "Whimper (dog)"], "male speech and whimper"),
        (["Dog", "Inside, small room"], "dog in a small room"),
        (["Inside, public space"], "in a public space"),
        (["crying_baby", "DTMF"], "crying baby and dtmf"),
    ],
)
def test_template_names_every_label_once(labels, words):
    assert words in sentence(*labels).lower()


def test_template_summary_is_the_most_typical_caption():
    frames = ["a dog on a lawn", "a red car", "a dog runs on a lawn"]
    assert Template().summarize(["a"], [frames])[0].text in (frames[0], frames[2])
    assert Template().summarize(["a"], [["one"]])[0] == Text("one", "template")


def test_template_merge_starts_with_the_audio():
    merged = Template().merge(["a"], ["A man on a horse."], ["The sound of Whip"])[0].text
    assert merged.startswith("The sound of Whip") and "a man on a horse" in merged


def test_a_model_is_asked_with_the_prompts_of_the_paper():
    fake = FakeLanguageModel()
    writer = LanguageModel(fake, shots=1, seed=7)
    described = writer.describe(["a", "b"], [["Dog", "crying_baby"], ["Rain", "Wind"]])
    writer.summarize(["a"], [["x1", "x2", "x3"]])
    writer.merge(["a"], ["a man"], ["Whip"])
    asked = [prompts.load(name).shots(1) for name in ("labels", "frames", "merge")]
    assert fake.prompts == [
        asked[0].text("Dog, crying baby."),
        asked[0].text("Rain, Wind."),
        asked[1].text("x1", "x2", "x3"),
        asked[2].text("a man", "Whip"),
    ]
    assert fake.options[0]["seed"] == 7 and "\n" in fake.options[0]["stop"]
    assert described[1] == Text(
        "I hear Prompt: Rain, Wind.", "fake", "fake-1", "0123456789abcdef", asked[0].hash
    )


@pytest.mark.parametrize(
    ("answer", "text", "reason"),
    [
        (' "A dog  barks."\nNext', "A dog barks.", None),
        ("", "The sound of Dog, Rain", "empty answer"),
        ('""', "The sound of Dog, Rain", "empty answer"),
        (Answer(None, "HTTP 429"), "The sound of Dog, Rain", "HTTP 429"),
    ],
)
def test_an_unusable_answer_becomes_a_fall_back_with_its_reason(answer, text, reason):
    found = LanguageModel(FakeLanguageModel(lambda _: answer)).describe(["a"], [["Dog", "Rain"]])[0]
    assert (found.text, found.fallback) == (text, reason)


def test_fall_backs_of_summary_and_merge_are_the_captions_they_are_made_of():
    writer = LanguageModel(FakeLanguageModel(lambda _: ""))
    assert writer.summarize(["a"], [["a dog", "a dog", "a car"]])[0].text == "a dog"
    assert writer.merge(["a"], ["a man"], ["Whip"])[0].text == "Whip"
