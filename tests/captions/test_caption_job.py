import subprocess
import sys
import time

import pytest
from fakes import FakeLanguageModel, caption_rows

from ajbench.captions import caption_job, caption_table
from ajbench.captions.caption_job import Job
from ajbench.captions.caption_source import Clips, of_table
from ajbench.captions.visual import Given
from ajbench.captions.writers import LanguageModel, Template
from ajbench.core.errors import IntegrityError, MissingError, UsageError


def job(writer=None, kinds=("audio",), **how):
    captioner = None if kinds == ("audio",) else Given()
    return Job(kinds, writer or Template(), captioner, {"name": "test"}, **how)


def run(rows, folder, own=None, **how):
    (own or job(**how)).run(Clips(lambda: rows, "rows"), folder)
    return caption_table.read(folder).to_pylist()


def asked(answer=None, **how):
    model = FakeLanguageModel(answer)
    return model, job(LanguageModel(model), **how)


@pytest.mark.parametrize("filtered", [True, False])
def test_the_single_class_filter_keeps_the_model_from_embellishing(tmp_path, filtered):
    # As in the paper's example, the model adds a swamp to a frog.
    model, own = asked(lambda _: "a frog in a swamp", single_class=filtered)
    rows = run(caption_rows(6), tmp_path / "t", own)
    single = [row for row in rows if len(row["labels"]) == 1]
    assert len(single) == 2 and len(model.prompts) == (4 if filtered else 6)
    expected = ("The sound of Dog", "rule", None) if filtered else ("a frog in a swamp", "fake", "fake-1")
    assert {(row["text"], row["backend"], row["model"]) for row in single} == {expected}
    assert all((row["prompt_hash"] is None) == (filtered and row in single) for row in rows)


def test_all_kinds_stand_clip_by_clip_with_their_sources(tmp_path):
    rows = caption_rows(3, visual_caption=" a man on a horse ")
    _, own = asked(lambda prompt: f"made of {prompt.splitlines()[-2]}", kinds=caption_table.KINDS)
    found = run(rows, tmp_path / "t", own)
    assert [(row["clip_id"], row["kind"]) for row in found] == [
        (row.clip_id, kind) for row in rows for kind in caption_table.KINDS
    ]
    by = {(row["clip_id"], row["kind"]): row for row in found}
    assert by["c0000", "visual"]["text"] == "a man on a horse"
    assert by["c0000", "visual"]["backend"] == "given" and by["c0000", "visual"]["frames"] is None
    # Table A5: the audio label of a single class, else the audio caption, is the main concept.
    assert by["c0000", "merge"]["sources"] == ["a man on a horse", "Dog"]
    assert by["c0001", "merge"]["sources"] == ["a man on a horse", "made of Prompt: Dog, Rain."]
    assert by["c0001", "merge"]["text"] == "made of made of Prompt: Dog, Rain."


def test_clips_without_a_visual_caption_keep_their_audio_caption_in_a_merge(tmp_path):
    rows = [*caption_rows(2), *caption_rows(3, visual_caption="a dog")[2:]]
    found = run(rows, tmp_path / "t", kinds=("merge",))
    assert [row["fallback"] for row in found] == [caption_job.NO_VISUAL] * 2 + [None]
    assert found[0]["text"] == "The sound of Dog"
    assert len(run(rows, tmp_path / "v", kinds=("visual",))) == 1
    with pytest.raises(UsageError, match="visual_caption"):
        run(caption_rows(2), tmp_path / "none", kinds=("visual",))


def test_too_many_unusable_answers_leave_the_chunk_out(tmp_path):
    answers = iter(["fine", "", "", "fine"])
    _, own = asked(lambda _: next(answers), chunk=6, max_fallback=0.2)
    rows = caption_rows(12)
    with pytest.raises(MissingError, match="empty answer: 2"):
        run(rows, tmp_path / "t", own)
    assert [path.name for path in (tmp_path / "t").glob("part-*")] == []
    answers = iter(["fine", "", *["fine"] * 6])
    found = run(rows, tmp_path / "t", own)  # run again
    assert [row["fallback"] for row in found].count("empty answer") == 1
    assert caption_table.info(tmp_path / "t")["counts"]["fallbacks"] == {"empty answer": 1}


def test_a_server_that_answers_nothing_is_noticed_before_the_whole_chunk_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_job, "BATCH", 10)
    model, own = asked(lambda _: "", chunk=100)
    with pytest.raises(MissingError, match="--max-fallback"):
        run(caption_rows(100), tmp_path / "t", own)
    assert len(model.prompts) < 20


def test_settings_and_clips_are_part_of_the_fingerprint(tmp_path):
    rows = caption_rows(6)
    run(rows, tmp_path / "t")
    for other in (job(single_class=False), job(chunk=2), asked()[1]):
        with pytest.raises(IntegrityError, match="--force"):
            run(rows, tmp_path / "t", other)
    with pytest.raises(IntegrityError, match="--force"):
        run(caption_rows(5), tmp_path / "t")
    run(rows, tmp_path / "t", job(max_fallback=0.9))


def test_audioset_balanced_set_takes_less_than_20_s(tmp_path, audioset_dir):
    began = time.process_time()
    clips = Clips(of_table(audioset_dir / "balanced_train_segments.csv"), "balanced")
    about, _ = job().run(clips, tmp_path / "t")
    assert time.process_time() - began < 20
    assert about["counts"]["rows"] == {"audio": 22160} and about["counts"]["single_class"] == 5498


MANY = """
import resource, sys
from pathlib import Path
from ajbench.captions.caption_job import Job
from ajbench.captions.caption_source import Clips
from ajbench.captions.writers import Template
from ajbench.data.manifest import Row

def rows():
    for i in range(int(sys.argv[1])):
        yield Row(f"clip number {i}", "", labels=("Dog", "Rain"))

Job(("audio",), Template(), None, {}).run(Clips(rows, "many"), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kb(n, folder):
    line = [sys.executable, "-c", MANY, str(n), str(folder)]
    return int(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(
    ("clips", "mb"), [(60_000, 30), pytest.param(2_000_000, 120, marks=pytest.mark.slow)]
)
def test_memory_hardly_grows_with_the_number_of_clips(tmp_path, clips, mb):
    growth = peak_kb(clips, tmp_path / "many") - peak_kb(12_000, tmp_path / "few")
    assert growth < mb * 1024, growth
