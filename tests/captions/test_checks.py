import csv

import pytest
from fakes import caption_table_of

from ajbench.captions import backends, caption_table, checks, prompts
from ajbench.captions.caption_job import Job
from ajbench.captions.caption_source import Clips, of_table
from ajbench.captions.writers import LanguageModel, Template
from ajbench.core.errors import MissingError, UsageError
from ajbench.data.manifest import Row
from ajbench.reporting import caption_page


@pytest.mark.parametrize(
    ("text", "labels", "invented", "refined"),
    [
        # The failures that the paper shows: details from an example, for a single label.
        ("A frog is croaking by a stream.", ["Frog"], ["Stream"], ["Croak"]),
        ("A person is sprinting while a dog is barking and howling.", ["Run"], ["Dog", "Bark", "Howl"], []),
        ("A dog growling and making animal sounds.", ["Dog", "Growling", "Animal"], [], []),
        ("An animal and a dog.", ["Bark"], [], []),  # above the label
        ("A bell rings on the phone.", ["Telephone bell ringing"], [], []),  # the label's own words
        ("An ice cream truck.", ["Ice cream truck, ice cream van"], [], []),
        ("Glasses clink as buses honk.", ["Speech"], ["Chink, clink", "Bus", "Honk"], []),
        ("A dog whines while an engine starts", ["dog"], ["Engine starting"], []),  # of another corpus
        ("A quiet afternoon.", ["Dog"], [], []),
        ("A man talking to a dog.", ["Male speech, man speaking", "Dog"], [], []),
        ("A siren is heard when a person is talking.", ["Siren"], ["Speech"], []),
    ],
)
def test_sounds_that_no_label_implies_are_found(text, labels, invented, refined):
    assert checks.sounds(text, labels) == (invented, refined)


def test_what_the_picture_shows_is_not_invented():
    assert checks.sounds("A guitar player talks.", ["Speech"])[0] == ["Guitar"]
    assert checks.sounds("A guitar player talks.", ["Speech"], ["a man with a guitar"])[0] == []


@pytest.mark.parametrize(
    ("text", "labels", "echoes"),
    [
        ("A frog is near a coughing person in a pond.", ["Frog"], ["near a coughing person"]),
        ("An audio scene emphasizing a frog.", ["Frog"], ["an audio scene emphasizing"]),
        ("Speech in a small room.", ["Speech", "Inside, small room"], []),
        ("A stream can be heard.", ["Stream"], []),
        ("A frog and a stream.", ["Frog"], []),
    ],
)
def test_words_of_the_examples_are_found(text, labels, echoes):
    assert checks.echoed(checks.words_of(text), labels) == echoes


def test_every_example_echoes_itself():
    for name in checks.EXAMPLES:
        for _, answer in prompts.load(name).examples:
            assert checks.echoed(checks.words_of(answer), [])


def test_a_table_is_summed_up(tmp_path):
    texts = {
        "a": "A dog, a dog!",
        "b": "A frog by a stream near a coughing person",
        "c": "A dog, a dog!",
        "d": "one",
    }
    report = checks.check(caption_table_of(tmp_path / "t", texts))["audio"]
    summary = report.summary()
    assert (summary["captions"], summary["min_words"], summary["max_words"]) == (4, 1, 9)
    assert summary["mean_words"] == (4 + 9 + 4 + 1) / 4 and summary["vocabulary"] == 9
    assert summary["duplicates"] == 0.25 and report.repeated == {"A dog, a dog!": 2}
    assert summary["invented"] == 0.75 and summary["echoes"] == 0.25
    assert report.top_words()[0] == ("dog", 4)
    assert [one.clip_id for one in report.worst["invented"]] == ["b", "a", "c"]  # most classes first
    assert report.worst["echo"][0].about == ["near a coughing person"]


def test_only_the_worst_captions_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "WORST", 2)
    texts = {f"c{n}": " and ".join(["dog", "rain", "siren", "guitar"][:n]) for n in range(1, 5)}
    report = checks.check(caption_table_of(tmp_path / "t", texts))["audio"]
    assert [one.clip_id for one in report.worst["invented"]] == ["c4", "c3"]


def test_a_table_without_captions_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no captions"):
        checks.check(caption_table_of(tmp_path / "t", {}))


def test_visual_captions_are_not_searched_for_sounds(tmp_path):
    folder = caption_table_of(tmp_path / "t", {"a": "a dog on a lawn"}, "visual")
    assert checks.check(folder)["visual"].summary()["invented"] == 0


def test_published_lengths_are_the_papers(golden_dir):
    with (golden_dir / "caption_lengths.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    assert [tuple(map(str, row)) for row in checks.PUBLISHED] == [tuple(row) for row in rows]


def test_lengths_of_audiocaps_are_near_the_published_ones(audioset_dir):
    with (audioset_dir / "audiocaps_test.csv").open() as file:
        lengths = [len(checks.words_of(row["caption"])) for row in csv.DictReader(file)]
    assert abs(sum(lengths) / len(lengths) - checks.PUBLISHED[0][2]) < 0.3


def test_template_captions_of_audioset_invent_nothing(tmp_path, audioset_dir):
    clips = Clips(of_table(audioset_dir / "balanced_train_segments.csv"), "balanced")
    Job(("audio",), Template(), None, {}).run(clips, tmp_path / "t")
    report = checks.check(tmp_path / "t")["audio"]
    assert report.captions == caption_table.info(tmp_path / "t")["counts"]["clips"]
    assert report.invented == report.refined == report.echoes == 0


@pytest.mark.slow
def test_the_filter_removes_what_a_small_model_adds_to_single_labels(tmp_path):
    pytest.importorskip("xllamacpp")
    try:
        model = backends.load("llamacpp")
    except MissingError as error:
        pytest.skip(str(error))
    names = (
        "Frog",
        "Run",
        "Toothbrush",
        "Siren",
        "Cash register",
        "Whip",
        "Bagpipes",
        "Tick",
        "Fire",
        "Snoring",
    )
    rows = [Row(name, "", labels=(name,)) for name in names]
    found = {}
    for kept in (False, True):
        job = Job(("audio",), LanguageModel(model), None, {"name": "llamacpp"}, single_class=kept)
        job.run(Clips(lambda: rows, "rows"), tmp_path / str(kept))
        found[kept] = checks.check(tmp_path / str(kept))["audio"]
    assert found[False].invented >= 1 and found[True].invented == 0
    flagged = [one.clip_id for one in found[False].worst["invented"]]
    page, _ = caption_page.write(tmp_path / "False", {"audio": found[False]}, tmp_path)
    assert all(f"<td>{name}</td>" in page.read_text() for name in flagged)
