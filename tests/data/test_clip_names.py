"""Clips by their ids or the names of their files."""

import pytest

from ajbench.data.clip_names import ClipNames

NAMES = ClipNames(
    [("7", "audio/dog 1.wav"), ("a/cat.v2", None), ("b/one", "b/one.flac"), ("c/one", "c/one.flac"),
     ("long@2.5", "long.wav"), ("rain.take1", None), ("dog/1", "/home/dog/1.wav")]
)  # fmt: skip


@pytest.mark.parametrize(
    ("written", "clip"),
    [
        *((name, "7") for name in ("7", "audio/dog 1.wav", "audio/dog 1", "dog 1.wav", "dog 1", "x/7.wav")),
        *(("b/one.wav", "b/one"), ("data/b/one.FLAC", "b/one"), ("cat.v2.wav", "a/cat.v2")),
        *(("/home/dog/1.wav", "dog/1"), ("/elsewhere/dog/1.wav", "dog/1"), ("rain.take1.wav", "rain.take1")),
    ],
)
def test_a_clip_has_its_id_and_the_forms_of_its_file(written, clip):
    assert NAMES.find(written) == clip


@pytest.mark.parametrize(
    "written", ["one", "one.flac", "dog", "", None, "long@2", "long@2.25", "rain.take2", "cat/1.wav", "/"]
)
def test_what_names_several_clips_or_none_names_none(written):
    assert NAMES.find(written) is None


def test_an_id_counts_more_than_the_name_of_another_clips_file():
    assert ClipNames([("1", "2.wav"), ("2", "1.wav")]).find("2") == "2"
