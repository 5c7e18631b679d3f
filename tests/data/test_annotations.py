import re

import pytest
from fakes import make_store, write_envelope

from ajbench.core.errors import MissingError, UsageError
from ajbench.data import annotations
from ajbench.data.clip_set import open_set

READERS = {
    "--pairs": (lambda gen, ref, path: annotations.read_pairs(gen, ref, path), "gen,ref"),
    "--labels": (lambda gen, ref, path: annotations.read_requests(gen, str(path)), "clip,labels"),
    "--captions": (lambda gen, ref, path: annotations.read_captions(gen, path), "clip,caption"),
}


@pytest.fixture
def sets(kinds):
    return open_set(kinds / "gen"), open_set(kinds / "ref")


def test_labels_come_from_a_table_or_from_folders(sets, tmp_path):
    gen = sets[0]
    assert annotations.read_requests(gen, "parent").labels["dog/clip-1"] == ["dog"]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["clip,labels", *(f"{name},wind; {name[:3]}" for name in gen.names)]))
    found = annotations.read_requests(gen, str(table))
    assert found.labels["dog/clip-1"] == ["wind", "dog"]
    assert found.classes == sorted({"wind", *(name[:3] for name in gen.names)})


def test_a_clip_may_have_several_captions(sets, kinds):
    found = annotations.read_captions(sets[0], kinds / "captions.csv")
    assert found["dog/clip-1"] == ["a dog in the distance", "barking"] and len(found) == len(sets[0])


def test_pairs_come_from_a_table(own_kinds):
    for side in ("gen", "ref"):
        (own_kinds / side / "dog" / "clip-1.wav").rename(own_kinds / side / "NA.wav")
    (own_kinds / "pairs.csv").write_text("gen,ref\nNA,NA\ndog/clip-7,dog/clip-13\n")
    sets = open_set(own_kinds / "gen"), open_set(own_kinds / "ref")
    found = annotations.read_pairs(*sets, own_kinds / "pairs.csv")
    assert found == {"NA": "NA", "dog/clip-7": "dog/clip-13"}


@pytest.mark.parametrize("header", ["Gen,REF", " gen , ref ", "GEN;Ref", "gen\tref", "note,ref,gen"])
@pytest.mark.parametrize("form", ["{}", "{}.wav", "./{}.WAV", "{}\\"])
def test_pairs_as_people_write_them(sets, tmp_path, header, form):
    mark = next((one for one in ";\t" if one in header), ",")
    names = [
        name.replace("/", "\\") if form == "{}\\" else form.format(name)
        for name in ("dog/clip-7", "dog/clip-13")
    ]
    cells = ["x", *reversed(names)] if "note" in header else names
    (tmp_path / "pairs.csv").write_text(f"{header}\n{mark.join(cells)}\n")
    assert annotations.read_pairs(*sets, tmp_path / "pairs.csv") == {"dog/clip-7": "dog/clip-13"}


@pytest.mark.parametrize("option", READERS)
def test_what_is_not_a_table_is_refused_in_one_line(sets, tmp_path, option):
    read, columns = READERS[option]
    path = tmp_path / "table.csv"
    contents = ["", "\n", columns, f"{columns}\ndog/clip-1,a\ndog/clip-7,b,c,d\n", "name,text\nx,y\n"]
    contents = [
        text.encode()
        for text in (*contents, f"{columns}\ndog/clip-1\n", f"{columns.title()},{columns}\na,b,c,d\n")
    ]
    for content in (*contents, bytes(range(256)) * 9, b"\x00" * 99, b"\x1f\x8b\x08\x00" * 5):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=f"^{option} .*table.csv") as error:
            read(*sets, path)
        assert "\n" not in str(error.value)
    path.unlink()
    path.mkdir()
    for error, other in ((MissingError, path / "table.csv"), (UsageError, path)):
        with pytest.raises(error, match=f"^{option} .*table.csv"):
            read(*sets, other)


@pytest.mark.parametrize(
    ("option", "text", "named"),
    [
        ("--pairs", "gen,ref\ndog/clip-1,dog/clip-1\ndog/clip-7,dog/clip-99\n", "dog/clip-99"),
        (
            "--pairs",
            "gen,ref\ndog/clip-1,dog/clip-1\nbell/clip-0,bell/clip-0\ndog/clip-1,bell/clip-6\n",
            "dog/clip-1",
        ),
        ("--labels", "clip,labels\ndog/clip-1,dog\ndog/clip-7,\n", "23 of 24 clips (bell/clip-0"),
        ("--captions", "clip,caption\ndog/clip-1,a dog\ndog/clip-7,\n", "23 of 24 clips (bell/clip-0"),
    ],
)
def test_tables_must_name_the_clips(sets, tmp_path, option, text, named):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UsageError, match=f"^{option} .*{re.escape(named)}"):
        READERS[option][0](*sets, tmp_path / "table.csv")


def test_folders_name_labels_only_of_files_in_them(own_kinds, tmp_path):
    write_envelope(own_kinds / "gen" / "top.wav", 1)
    with pytest.raises(UsageError, match=r"--labels parent: 'top'"):
        annotations.read_requests(open_set(own_kinds / "gen"), "parent")


def test_a_store_s_labels_are_not_those_of_folders(tmp_path):
    with pytest.raises(UsageError, match="--labels parent"):
        annotations.read_requests(open_set(make_store(tmp_path / "store").path), "parent")
