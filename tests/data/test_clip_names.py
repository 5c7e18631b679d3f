"""Clips by their ids or the names of their files."""

from ajbench.data.clip_names import ClipNames

NAMES = ClipNames(
    [("7", "audio/dog 1.wav"), ("a/cat.v2", None), ("b/one", "b/one.flac"), ("c/one", "c/one.flac")]
)


def test_a_clip_has_its_id_and_the_forms_of_its_file():
    for written in ("7", "audio/dog 1.wav", "audio/dog 1", "dog 1.wav", "dog 1"):
        assert NAMES.find(written) == "7"
    assert NAMES.find("b/one.wav") == "b/one" and NAMES.find("elsewhere/cat.v2.wav") == "a/cat.v2"


def test_what_names_several_clips_or_none_names_none():
    assert [NAMES.find(written) for written in ("one", "one.flac", "dog", "", None)] == [None] * 5


def test_an_id_counts_more_than_the_name_of_another_clips_file():
    assert ClipNames([("1", "2.wav"), ("2", "1.wav")]).find("2") == "2"
