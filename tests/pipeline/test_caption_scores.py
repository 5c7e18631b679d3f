"""Table A2 on a small corpus of captions, and on AudioCaps' own test list."""

import csv
import json

import pytest
from fakes import FakeLanguageModel, caption_table_of, openai_process

from ajbench.captions import backends, caption_metrics
from ajbench.core import recipe as recipes
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data.corpora import audioset
from ajbench.pipeline import caption_scores
from ajbench.pipeline.places import Places
from ajbench.pipeline.recipe_stages import Pipeline

CLIPS = 8
TEMPLATE = "evaluate.captioners={template: {}}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setattr(caption_metrics, "_meteor", lambda *_: caption_metrics.NO_JAVA)


@pytest.fixture
def make(tmp_path):
    """make(*overrides, labels=True) -> the pipeline of Table A2 for a made AudioCaps of 8 clips."""

    def pipeline(*overrides, labels=True):
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        ids = [f"video{n:06d}" for n in range(CLIPS)]
        lines = [
            [f"{5 * n + k}", clip, 30, f"A dog barks {'and howls ' * k}near person {n}"]
            for n, clip in enumerate(ids)
            for k in range(5)
        ]
        with (data / "test.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["audiocap_id", "youtube_id", "start_time", "caption"], *lines])
        if labels:
            names = audioset.label_set()
            mids = [names.mids[names.names.index(name)] for name in ("Bark", "Howl", "Speech")]
            rows = [f'{clip}, 30, 40, "{",".join(mids[: 2 + n % 2])}"' for n, clip in enumerate(ids)]
            (data / audioset.UNBALANCED).write_text("# list\n" * 3 + "\n".join(rows) + "\n")
        recipe = recipes.load("tables/a2", overrides)
        return Pipeline(recipe, Places(data, tmp_path / "work", tmp_path / "results"))

    return pipeline


def test_the_table_has_people_templates_and_the_published_lines(make):
    done = caption_scores.run(make(TEMPLATE))
    people, template = done["lines"]
    assert people["captions"] == caption_scores.HUMAN and template["captions"] == "template"
    assert people["n"] == template["n"] == CLIPS
    assert people["bleu_1"] > template["bleu_1"] > 0 and people["meteor"] is None
    assert template["rouge_l_low"] < template["rouge_l"] < template["rouge_l_high"]
    table, *texts = (path.read_text() for path in done["files"])
    lines = list(csv.DictReader(table.splitlines()))
    published = {line["captions"]: line for line in lines if line["source"] == "published"}
    assert float(published["Few-Shot"]["meteor"]) == 0.168 and published["Audio-Visual Merge"]["note"]
    assert all(caption_metrics.NO_JAVA in text for text in texts)


def test_a_model_has_a_line_per_number_of_examples_and_a_merge_where_there_is_something_to_merge(make):
    with openai_process() as (_, url, log):
        writer = f"evaluate.captioners={{mine: {{backend: openai, model: m, url: '{url}'}}}}"
        done = caption_scores.run(make(writer))
        assert [line["captions"] for line in done["lines"][1:]] == [
            f"{shots}, mine" for shots in caption_scores.SHOTS
        ]
        assert any("fusion.captions" in note for note in done["notes"])
        seen = log()["seen"]
        again = caption_scores.run(make(writer))
        assert log()["seen"] == seen and again["lines"] == done["lines"]
    assert sum(seen.values()) == 3 * CLIPS


@pytest.fixture
def seen(tmp_path):
    """A captions table with visual captions of seven of the eight clips."""
    texts = {f"video{n:06d}_30": f"a dog near person {n}" for n in range(CLIPS - 1)}
    return caption_table_of(tmp_path / "seen", texts, "visual")


def test_merges_have_lines_beside_zero_one_and_few_shot_captions(make, seen, monkeypatch):
    model = FakeLanguageModel(
        lambda prompt: prompt.splitlines()[-3] if "Summarize" in prompt else "a dog barks"
    )
    monkeypatch.setattr(backends, "load", lambda *_, **__: model)
    writers = "evaluate.captioners={template: {}, mine: {backend: openai}}"
    pipeline = make(writers, f"fusion.captions={seen}")
    named = [
        "template", "audio-visual merge, template",
        *(f"{shots}, mine" for shots in caption_scores.SHOTS), "audio-visual merge, mine",
    ]  # fmt: skip
    assert caption_scores.plan(pipeline)["sets"] == named
    done = caption_scores.run(pipeline)
    lines = {line["captions"]: line for line in done["lines"]}
    assert [*lines] == [caption_scores.HUMAN, *named]
    # The model repeats the visual caption; the clip without one keeps its audio caption.
    merged, plain = lines["audio-visual merge, mine"], lines["few-shot, mine"]
    assert merged["n"] == plain["n"] == CLIPS
    assert plain["vocabulary_size"] == len({"a", "dog", "barks"})
    assert merged["vocabulary_size"] == len({"a", "dog", "barks", "near", "person", *range(CLIPS - 1)})
    merges = [note for note in done["notes"] if "no visual caption: 1" in note]
    assert len(merges) == 2 and all("audio-visual merge" in note for note in merges)


def test_other_visual_captions_are_merged_anew(make, seen, tmp_path):
    keys = TEMPLATE, f"fusion.captions={seen}"
    first = caption_scores.run(make(*keys))["lines"][2]
    other = caption_table_of(tmp_path / "other", {"video000001_30": "a brass band in a park"}, "visual")
    second = caption_scores.run(make(TEMPLATE, f"fusion.captions={other}"))["lines"][2]
    assert first["vocabulary_size"] != second["vocabulary_size"]
    assert caption_scores.run(make(*keys))["lines"][2] == first


def test_visual_captions_of_other_clips_are_refused(make, tmp_path):
    other = caption_table_of(tmp_path / "other", {"video000001": "a dog"}, "visual")
    with pytest.raises(IntegrityError, match=r"other clips.*video000000_30"):
        caption_scores.plan(make(TEMPLATE, f"fusion.captions={other}"))


def test_fallbacks_are_counted_in_a_note(make, monkeypatch):
    silent = FakeLanguageModel(lambda _: "")
    monkeypatch.setattr(backends, "load", lambda *_, **__: silent)
    done = caption_scores.run(make("evaluate.captioners={mine: {backend: openai}}"))
    assert sum("fall-backs" in note and str(CLIPS) in note for note in done["notes"]) == len(
        caption_scores.SHOTS
    )


def test_without_labels_only_people_are_compared_and_it_is_said(make):
    pipeline = make(TEMPLATE, labels=False)
    assert caption_scores.plan(pipeline)["sets"] == []
    done = caption_scores.run(pipeline)
    assert [line["captions"] for line in done["lines"]] == [caption_scores.HUMAN]
    assert any(audioset.UNBALANCED in note for note in done["notes"])


def test_mini_has_one_caption_per_clip_so_no_line_of_people(tmp_path):
    recipe = recipes.load("tables/a2", [TEMPLATE], base="mini")
    done = caption_scores.run(Pipeline(recipe, Places(None, tmp_path / "work", tmp_path / "results")))
    assert [line["captions"] for line in done["lines"]] == ["template"]


@pytest.mark.parametrize(
    ("captioners", "error", "named"),
    [
        ("{mine: {backend: gpt}}", UsageError, "gpt"),
        ("{template: {threads: 2}}", UsageError, "threads"),
        ("{mine: {backend: openai, model: m}}", MissingError, "--url"),
    ],
)
def test_wrong_writers_are_named(make, monkeypatch, captioners, error, named):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(error, match=named):
        caption_scores.run(make(f"evaluate.captioners={captioners}"))


def test_people_on_audiocaps_score_as_in_the_reference_values(
    audioset_dir, golden_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(caption_metrics, "_similarity", lambda clips, *_: [0.0] * len(clips))
    recipe = recipes.load("tables/a2", [TEMPLATE])
    done = caption_scores.run(Pipeline(recipe, Places(audioset_dir, tmp_path / "work", tmp_path / "results")))
    with (golden_dir / "caption_metrics_human.csv").open(encoding="utf-8", newline="") as file:
        golden = list(csv.DictReader(file))[1]
    (people,) = done["lines"]
    assert people["n"] == 975
    for name in ("bleu_1", "bleu_4", "rouge_l", "cider"):
        assert people[name] == pytest.approx(float(golden[name]), abs=1e-3)
    json.dumps(people)
