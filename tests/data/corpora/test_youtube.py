"""File names of downloaders, and which files are whole videos."""

import re
import string
from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajbench.core.errors import MissingError, UsageError
from ajbench.data.corpora import youtube

ids = st.text(string.ascii_letters + string.digits + "-_", min_size=11, max_size=11)
times = st.integers(0, 99_999) | st.decimals(0, 9_999, places=3)
prefixes = st.sampled_from(["", "Y", "id_"])


@given(ids, prefixes, times, times, st.sampled_from(["_", "-"]), st.sets(ids, max_size=3))
def test_all_patterns_give_the_id_and_the_start(name, prefix, start, end, between, others):
    known = {name, *others}
    assert youtube.parse_name(f"{prefix}{name}", {name}) == (name, None)
    for stem in (f"{prefix}{name}_{start}", f"{prefix}{name}_{start}{between}{end}"):
        assert youtube.parse_name(stem, {name}) == (name, float(start))
        assert youtube.parse_name(stem, known)[0] in known
    assert youtube.parse_name(f"{name}_{int(start):06d}", {name}) == (name, float(int(start)))


@given(st.text(string.ascii_letters + string.digits + "-_. ", max_size=40), st.sets(ids, max_size=3))
def test_only_known_ids_in_names_of_a_known_pattern_are_found(stem, known):
    if found := youtube.parse_name(stem, known):
        assert found[0] in known
        assert re.fullmatch(r"(_\d+(\.\d+)?([_-]\d+(\.\d+)?)?)?", stem.partition(found[0])[2])


def test_known_ids_decide_how_an_ambiguous_name_is_read():
    assert youtube.parse_name("id_abcdefgh_12", {"abcdefgh_12"}) == ("abcdefgh_12", None)
    assert youtube.parse_name("id_abcdefgh_12", {"id_abcdefgh"}) == ("id_abcdefgh", 12.0)
    assert youtube.parse_name("Yabcdefghij", {"Yabcdefghij"}) == ("Yabcdefghij", None)
    assert youtube.parse_name("YYabcdefghij", {"Yabcdefghij"}) == ("Yabcdefghij", None)
    assert youtube.parse_name("-_-_-_-_-_-_30", {"-_-_-_-_-_-"}) == ("-_-_-_-_-_-", 30.0)
    for stem in ("abcdefghijk_out", "abcdefghijk.n0", "abcdefghijkl", "abcdefghijk_", "xabcdefghijk", ""):
        assert youtube.parse_name(stem, {"abcdefghijk"}) is None


@given(ids, prefixes, times, times, st.sampled_from(["_", "-"]), st.sampled_from(["", ".wav", ".mp4"]))
def test_the_id_is_found_in_all_patterns_without_knowing_it(name, prefix, start, end, between, suffix):
    # These two letters would make the pattern ambiguous: `id_` or `Y` and the rest of an id may be an id too.
    name = name.replace("i", "j").replace("Y", "Z")
    for times in ("", f"_{start}", f"_{int(start):06d}", f"_{start}{between}{end}"):
        assert youtube.video_id(f"folder/{prefix}{name}{times}{suffix}") == name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("-abcdefgh_3", "-abcdefgh_3"), ("-abcdefgh_3.wav", "-abcdefgh_3"),
        ("-abcdefgh_3_30.000.flac", "-abcdefgh_3"), ("abcdefgh_30_30", "abcdefgh_30"),
        ("abcdefgh_30_30_40.wav", "abcdefgh_30"), ("Yabcdefghij", "Yabcdefghij"),
        ("Yabcdefghij_30.wav", "Yabcdefghij"), ("YYabcdefghij_30.000", "Yabcdefghij"),
        ("id_abcdefgh", "id_abcdefgh"), ("id_abcdefgh_12", "abcdefgh_12"),
        ("abcdefghij", None), ("abcdefghijkl", None), ("abcdefghijk_", None), ("abcdefghijk-30", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_id_in_a_name(name, found):
    assert youtube.video_id(name) == found


@pytest.mark.parametrize(
    ("written", "start_s", "fits"),
    [
        (None, 30.0, True), (30.0, 30.0, True), (30_000.0, 30.0, True), (0.0, 0.0, True), (30.0, 30.5, True),
        (30_500.0, 30.5, True), (20.0, 30.0, False), (500.0, 0.0, False), (30_500.0, 30.0, False),
    ],
)  # fmt: skip
def test_a_start_is_in_seconds_or_milliseconds(written, start_s, fits):
    assert youtube.File(written, "a.wav").may_start_at(start_s) is fits


def test_folders_are_listed_once_and_links_are_followed(touch, tmp_path):
    touch("a/b/x.wav", "a/.hidden.wav", "a/.git/x.wav", "a/x.txt", "a/y", "B/X.WAV", "B/x.json")
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    (tmp_path / "gone.flac").symlink_to(tmp_path / "nothing")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.m4a").touch()
    (tmp_path / "link").symlink_to(elsewhere)
    listed = Counter(path.removeprefix(f"{tmp_path}/") for path, _ in youtube._media(str(tmp_path)))
    assert listed == Counter(["a/b/x.wav", "B/X.WAV", "gone.flac", "link/far.m4a"])
    with pytest.raises(MissingError, match="nowhere"):
        list(youtube._media(str(tmp_path / "nowhere")))


def test_tables_are_found_in_the_folder_or_directly_below_it(touch, tmp_path):
    touch("csv/a.csv", "metadata/b.csv", "b.csv", "deep/er/c.csv")
    assert youtube.find_tables(tmp_path, ("a.csv", "b.csv"), ("c.csv",)) == {
        "a.csv": tmp_path / "csv/a.csv",
        "b.csv": tmp_path / "b.csv",
    }
    with pytest.raises(MissingError, match=r"c\.csv.*https://here"):
        youtube.find_tables(tmp_path, ("c.csv",), source="https://here")
    touch("metadata/a.csv")
    with pytest.raises(UsageError, match=r"csv/a\.csv.*metadata/a\.csv"):
        youtube.find_tables(tmp_path, ("a.csv",))


@pytest.mark.parametrize(
    ("read", "text"),
    [(youtube.check_id, text) for text in ("", "abc", "abcdefghijkl", "abcdefghij ", "abcdefghijé")]
    + [(youtube.parse_seconds, text) for text in ("", "soon", "-1", "nan", "inf", "1e400")],
)
def test_malformed_ids_and_times_are_refused(read, text):
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        read(text)


def test_real_ids_are_found_in_all_patterns(audioset_dir):
    lines = (audioset_dir / "eval_segments.csv").read_text().splitlines()
    real = [line.split(",")[:2] for line in lines if not line.startswith("#")]
    known = {name for name, _ in real}
    for name, written in real:
        start = float(written)
        times = ("", f"_{written}", f"_{start:.3f}", f"_{int(start)}-9", f"_{round(1000 * start)}_9")
        for prefix, suffix in product(("", "Y", "id_"), times):
            found, written_start = youtube.parse_name(f"{prefix}{name}{suffix}", known)
            assert found == name and youtube.File(written_start, "").may_start_at(start)
